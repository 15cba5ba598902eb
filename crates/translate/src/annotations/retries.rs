//! When a request is sent to another endpoint.

use std::time::Duration;

use penstock_api::RetryCondition;
use penstock_model::{RetryOn, units::MAX_DURATION};

use super::{Annotation, Bad, BadValue, Item, Scope, Spelling, own, quoted, values};
use crate::bounds;

/// What stands for "as often as you like": more would keep a client waiting, and a backend that fails from getting well.
pub(crate) const MOST_TRIES: u32 = 10;

/// After what a request is sent again, and whether that holds for POST and PATCH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextUpstream {
    pub(crate) on: RetryOn,
    pub(crate) non_idempotent: bool,
}

pub(crate) static NEXT_UPSTREAM: Item<NextUpstream> = Item {
    about: Annotation {
        name: "proxy-next-upstream",
        aliases: &[],
        spelling: Spelling::Both,
        value: "`error`, `timeout`, `invalid_header`, `http_500`, `http_502`, `http_503`, `http_504`, `http_403`, `http_404`, `http_429`, \
                `non_idempotent`, separated by blanks; or `off`",
        default_native: "`error`",
        default_ingress_nginx: "`error`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "After what a request is sent to another endpoint. What was sent already is sent again only if its method is idempotent (POST and \
              PATCH with `non_idempotent`) and its body is of at most 64 KiB. A connection that was closed while it was idle is no failure: it is replaced \
              in any case.",
        difference: "the default is `error timeout`; a request that the backend may have begun is sent again here only where `timeout` is asked \
                     for by name. Larger bodies are kept there, and sent again.",
    },
    parse: |text| {
        let mut asked = NextUpstream::default();
        let mut off = text.trim().is_empty();
        for word in text.split_ascii_whitespace() {
            match word {
                "off" => off = true,
                "error" => (asked.on.connect_failure, asked.on.reset) = (true, true),
                "timeout" => (asked.on.connect_failure, asked.on.timeout) = (true, true),
                "invalid_header" => asked.on.unreadable = true,
                "non_idempotent" => asked.non_idempotent = true,
                "http_403" => asked.on.statuses.push(403),
                "http_404" => asked.on.statuses.push(404),
                "http_429" => asked.on.statuses.push(429),
                "http_500" => asked.on.statuses.push(500),
                "http_502" => asked.on.statuses.push(502),
                "http_503" => asked.on.statuses.push(503),
                "http_504" => asked.on.statuses.push(504),
                _ => {
                    return Err(Bad::Form(
                        "a list of error, timeout, invalid_header, http_500, …, non_idempotent, or off".to_owned(),
                    ));
                }
            }
        }
        if off {
            return Ok(NextUpstream::default());
        }
        asked.on.statuses.sort_unstable();
        asked.on.statuses.dedup();
        Ok(asked)
    },
};

/// None: no limit.
pub(crate) static NEXT_UPSTREAM_TIMEOUT: Item<Option<Duration>> = Item {
    about: Annotation {
        name: "proxy-next-upstream-timeout",
        aliases: &[],
        spelling: Spelling::Both,
        value: "whole seconds; `0`: no limit",
        default_native: "`0`",
        default_ingress_nginx: "`0`",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "How long after its first try a request may be sent again.",
        difference: "a negative number stops every change for everybody; here it is refused.",
    },
    parse: |text| {
        let seconds = values::number(text)?;
        let seconds = u64::try_from(seconds).map_err(|_| Bad::Sense("a number of seconds, 0 or more".to_owned()))?;
        Ok((seconds > 0).then(|| Duration::from_secs(seconds).min(MAX_DURATION)))
    },
};

pub(crate) static NEXT_UPSTREAM_TRIES: Item<u32> = Item {
    about: Annotation {
        name: "proxy-next-upstream-tries",
        aliases: &[],
        spelling: Spelling::Both,
        value: "a whole number; `0`: no limit of its own",
        default_native: "3 where nothing can be connected, else 2",
        default_ingress_nginx: "3",
        scope: Scope::Paths,
        bad_value: BadValue::Default,
        doc: "How often a request is tried at most, the first time included; never more than 10 times.",
        difference: "there is no limit with `0`, and a negative number stops every change for everybody; here it is refused.",
    },
    parse: |text| {
        let tries = values::number(text)?;
        match u32::try_from(tries) {
            Ok(0) => Ok(MOST_TRIES),
            Ok(tries) => Ok(tries.min(MOST_TRIES)),
            Err(_) if tries > 0 => Ok(MOST_TRIES),
            Err(_) => Err(Bad::Sense("a number, 0 or more".to_owned())),
        }
    },
};

pub(crate) static RETRY_ATTEMPTS: Item<u32> = Item {
    about: Annotation {
        default_ingress_nginx: "3",
        ..own(
            "retries-attempts",
            "a whole number from 1 to 10",
            "3 where nothing can be connected, else 2",
            "How often a request is tried at most, the first time included. It counts instead of `proxy-next-upstream-tries`.",
        )
    },
    parse: |text| values::bounded(text, bounds::attempts),
};

pub(crate) static RETRY_TIMEOUT: Item<Duration> = Item {
    about: own(
        "retries-per-try-timeout",
        "a duration like `2s`",
        "as long as the request",
        "How long each try may take up to the head of the response, with connecting but without what the client takes to send its body.",
    ),
    parse: |text| values::duration(text, bounds::per_try),
};

pub(crate) static RETRY_WHEN: Item<RetryOn> = Item {
    about: own(
        "retries-when",
        "`connect-failure`, `reset`, `timeout`, `429`, `500`, `502`, `503`, `504`, separated by commas",
        "`connect-failure, reset`",
        "After what a request is sent again, to another endpoint if there is one: nothing could be connected; the connection broke before a response; \
         there was none in time; the response has this status. What was sent already is sent again only if its method is idempotent and its body is of \
         at most 64 KiB. It counts instead of `proxy-next-upstream`, `non_idempotent` included.",
    ),
    parse: |text| {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let conditions: Vec<RetryCondition> = words.iter().map(|word| condition(word)).collect();
        let (on, bad) = bounds::when(&conditions);
        match bad.first().and_then(|place| words.get(*place)) {
            Some(word) => Err(Bad::Form(format!("a list of {} ({} is none)", bounds::CONDITIONS, quoted(word)))),
            None if words.len() > bounds::MAX_CONDITIONS => Err(Bad::Form(format!("a list of at most {}", bounds::MAX_CONDITIONS))),
            None => Ok(on),
        }
    },
};

/// As YAML tells numbers and text apart in the field of a ProxyRoute.
fn condition(word: &str) -> RetryCondition {
    word.parse().map_or_else(|_| RetryCondition::Event(word.to_owned()), RetryCondition::Status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_our_own_are_a_list_of_at_most_eight() {
        let read = |text: &str| (RETRY_WHEN.parse)(text).ok();
        let on = RetryOn { connect_failure: true, reset: false, timeout: true, unreadable: false, statuses: vec![429, 503] };
        assert_eq!(read("503,timeout ,connect-failure, 429,503"), Some(on));
        assert_eq!(read("reset,reset,reset,reset,reset,reset,reset,reset").map(|on| on.reset), Some(true));
        for bad in ["reset,reset,reset,reset,reset,reset,reset,reset,reset", "reset,", "reset timeout", "error", "501", "http_503"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        match (RETRY_WHEN.parse)("reset, 418, 419") {
            Err(Bad::Form(expected)) => assert!(expected.ends_with("503 or 504 (\"418\" is none)"), "{expected}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn conditions_are_read_as_nginx_reads_them() {
        let read = |text: &str| (NEXT_UPSTREAM.parse)(text).ok();
        let on = RetryOn { connect_failure: true, reset: true, timeout: true, unreadable: false, statuses: vec![502, 503] };
        assert_eq!(read("error timeout http_503  http_502"), Some(NextUpstream { on, non_idempotent: false }));
        assert_eq!(read("off"), Some(NextUpstream::default()));
        assert_eq!(read("error off"), Some(NextUpstream::default()), "off goes before all");
        assert!(read("non_idempotent http_429").unwrap().non_idempotent);
        for bad in ["bogus", "error bogus", "http_501"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn tries_without_limit_have_one_of_ours() {
        for (text, tries) in [("0", Some(10)), ("1", Some(1)), ("3", Some(3)), ("99999999999", Some(10)), ("-1", None), ("x", None)]
        {
            assert_eq!((NEXT_UPSTREAM_TRIES.parse)(text).ok(), tries, "{text}");
        }
    }
}
