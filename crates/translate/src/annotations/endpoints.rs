//! What is asked of the endpoints of a backend: a gentle start, being passed over after failures, and how much is sent to all of them.

use std::time::Duration;

use super::{Annotation, Item, own, values};
use crate::bounds;

const TIME: &str = "a duration like `30s` or `1h30m`";

/// None: an endpoint gets its share at once.
pub(crate) static SLOW_START: Item<Option<Duration>> = Item {
    about: Annotation {
        default_ingress_nginx: "`0s`",
        ..own(
            "load-balancing-slow-start",
            TIME,
            "`10s`",
            "How long an endpoint that is new gets less than its share; `0s`: it gets its share at once.",
        )
    },
    parse: |text| values::duration(text, bounds::duration).map(bounds::limit),
};

pub(crate) static EJECTION_FAILURES: Item<u32> = Item {
    about: own(
        "load-balancing-ejection-consecutive-failures",
        "a whole number from 0 to 100",
        "`3`",
        "After how many failures in a row an endpoint is passed over: no response, or 502, 503 or 504. One that cannot be connected is at once. `0`: no \
         endpoint is passed over.",
    ),
    parse: |text| values::bounded(text, bounds::failures),
};

pub(crate) static EJECTION_TIME: Item<Duration> = Item {
    about: own(
        "load-balancing-ejection-time",
        TIME,
        "`2s`",
        "How long an endpoint that fails is passed over the first time; each time after that it is twice as long, until it answers.",
    ),
    parse: |text| values::duration(text, bounds::duration),
};

pub(crate) static EJECTION_MAX_TIME: Item<Duration> = Item {
    about: own("load-balancing-ejection-max-time", TIME, "`30s`", "How long an endpoint that fails is passed over at most."),
    parse: |text| values::duration(text, bounds::duration),
};

pub(crate) static PANIC_THRESHOLD: Item<u8> = Item {
    about: own(
        "load-balancing-ejection-panic-threshold",
        "percent, from 0 to 100",
        "`50`",
        "If more than so many percent of the endpoints are to be passed over, none is.",
    ),
    parse: |text| values::bounded(text, bounds::percent),
};

pub(crate) static LIMIT_REQUESTS: Item<u32> = Item {
    about: own(
        "load-balancing-limits-requests",
        "a whole number from 1 to 1000000",
        "no limit",
        "How many requests the paths of the Ingress send to one backend at once, tunnels included, over all endpoints; others are answered 503. Those of \
         other objects that set a limit for the same backend count as well. It holds for each replica of the proxy.",
    ),
    parse: |text| values::bounded(text, bounds::requests),
};

pub(crate) static LIMIT_PENDING: Item<u32> = Item {
    about: own(
        "load-balancing-limits-pending",
        "a whole number from 0 to 1000000",
        "`0`",
        "How many more requests than `load-balancing-limits-requests` wait until one of those is over, for as long as connecting may take.",
    ),
    parse: |text| values::bounded(text, bounds::pending),
};

#[cfg(test)]
mod tests {
    use super::{super::Bad, *};

    #[test]
    fn numbers_have_the_bounds_of_their_fields_whatever_their_length() {
        for (text, read) in [
            ("0", Ok(0)),
            ("100", Ok(100)),
            ("101", Err("from 0 to 100")),
            ("-1", Err("from 0 to 100")),
            ("99999999999999999999", Err("from 0 to 100")),
            ("-99999999999999999999", Err("from 0 to 100")),
            ("3.5", Err("a whole number")),
            (" 3", Err("a whole number")),
            ("x", Err("a whole number")),
        ] {
            let found = (EJECTION_FAILURES.parse)(text).map_err(|bad| match bad {
                Bad::Form(expected) | Bad::Sense(expected) => expected,
            });
            assert_eq!(found, read.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn no_time_at_all_is_no_slow_start() {
        assert_eq!((SLOW_START.parse)("1m30s").ok(), Some(Some(Duration::from_secs(90))));
        assert_eq!((SLOW_START.parse)("0s").ok(), Some(None));
        assert!((SLOW_START.parse)("30").is_err());
    }
}
