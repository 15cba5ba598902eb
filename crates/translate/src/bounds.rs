//! What balancing and retries take, whether a field of a ProxyRoute or an annotation of an Ingress says it. The schema of the CRD has the same
//! bounds.

use std::time::Duration;

use penstock_api::RetryCondition;
use penstock_model::{Balancing, RetryOn, units};

/// What was expected of a value: the end of "is not".
pub(crate) type Expected = &'static str;

pub(crate) const DURATION: Expected = "a duration like 1h30m, of a year at most";
pub(crate) const CONDITIONS: Expected = "connect-failure, reset, timeout, 429, 500, 502, 503 or 504";
pub(crate) const MAX_CONDITIONS: usize = 8;
/// Statuses that another endpoint may not give: of a fault or of too much load, not of the request.
const STATUSES: [i32; 5] = [429, 500, 502, 503, 504];

pub(crate) fn duration(text: &str) -> Result<Duration, Expected> {
    units::parse_duration(text).ok_or(DURATION)
}

/// Zero is how "no limit" is written.
pub(crate) fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

pub(crate) fn per_try(text: &str) -> Result<Duration, Expected> {
    limit(duration(text)?).ok_or("long enough for a response")
}

pub(crate) fn load_factor(number: i64) -> Result<u32, Expected> {
    within(number, 100, 1000).ok_or("from 100 to 1000")
}

pub(crate) fn failures(number: i64) -> Result<u32, Expected> {
    within(number, 0, 100).ok_or("from 0 to 100")
}

pub(crate) fn percent(number: i64) -> Result<u8, Expected> {
    u8::try_from(number).ok().filter(|percent| *percent <= 100).ok_or("from 0 to 100")
}

pub(crate) fn requests(number: i64) -> Result<u32, Expected> {
    within(number, 1, 1_000_000).ok_or("from 1 to 1000000")
}

pub(crate) fn pending(number: i64) -> Result<u32, Expected> {
    within(number, 0, 1_000_000).ok_or("from 0 to 1000000")
}

pub(crate) fn attempts(number: i64) -> Result<u32, Expected> {
    within(number, 1, 10).ok_or("from 1 to 10")
}

fn within(number: i64, least: u32, most: u32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| (least..=most).contains(number))
}

/// After what a request is sent again, and the places of those that are no conditions.
pub(crate) fn when(conditions: &[RetryCondition]) -> (RetryOn, Vec<usize>) {
    let (mut on, mut bad) = (RetryOn::default(), Vec::new());
    for (place, condition) in conditions.iter().enumerate() {
        match condition {
            RetryCondition::Event(event) if event == "connect-failure" => on.connect_failure = true,
            RetryCondition::Event(event) if event == "reset" => on.reset = true,
            RetryCondition::Event(event) if event == "timeout" => on.timeout = true,
            RetryCondition::Status(status) if STATUSES.contains(status) => on.statuses.extend(u16::try_from(*status)),
            RetryCondition::Status(_) | RetryCondition::Event(_) => bad.push(place),
        }
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    (on, bad)
}

/// What is asked of passing endpoints over, where anything is.
#[derive(Clone, Copy, Default)]
pub(crate) struct EjectionWish {
    pub(crate) failures: Option<u32>,
    pub(crate) time: Option<Duration>,
    pub(crate) longest: Option<Duration>,
    pub(crate) panic_percent: Option<u8>,
}

impl EjectionWish {
    pub(crate) fn apply(self, balancing: &mut Balancing) {
        let Some(rule) = &mut balancing.ejection else { return };
        rule.failures = self.failures.unwrap_or(rule.failures);
        rule.panic_percent = self.panic_percent.unwrap_or(rule.panic_percent);
        rule.time = self.time.unwrap_or(rule.time);
        // Whoever sets the one and not the other means it.
        rule.longest = self.longest.unwrap_or(rule.longest).max(rule.time);
        if self.failures == Some(0) {
            balancing.ejection = None;
        }
    }
}
