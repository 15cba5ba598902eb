//! Durations (`1h30m`) and sizes (`10Mi`) as users write them.

use std::{fmt::Write, time::Duration};

/// The longest duration that can be set. Longer ones are a slip of the pen, and timers count milliseconds in 64 bits.
pub const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads `1h30m`, `250ms`, `90s`, `0s` (Go's form, as Gateway API uses it: units `h`, `m`, `s`, `ms`; no sign, no fractions).
///
/// `None` if it is not one, or exceeds [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let unit = match unit {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = after;
    }
    (total <= MAX_DURATION).then_some(total)
}

/// Writes a duration in the form that [`parse_duration`] reads.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let larger: u128 = match unit {
            "h" => u128::MAX,
            "m" => 3_600_000,
            "s" => 60_000,
            _ => 1_000,
        };
        let count = (millis % larger) / size;
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    text
}

/// Reads a number of bytes: `1024`, `64Ki`, `10Mi`, `1Gi` (powers of 1 024) or `64k`, `10M`, `1G` (powers of 1 000), as Kubernetes
/// writes quantities.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let unit = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// For `#[serde(serialize_with)]`: a duration as users write it.
pub(crate) mod serialize {
    use std::time::Duration;

    use serde::{Serialize, Serializer};

    pub(crate) fn duration<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        super::format_duration(*value).serialize(serializer)
    }

    // serde hands the field as a reference to the option.
    #[allow(clippy::ref_option)]
    pub(crate) fn optional_duration<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(super::format_duration).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_alike() {
        for (text, millis) in
            [("0s", 0), ("1h30m", 5_400_000), ("250ms", 250), ("90s", 90_000), ("1h", 3_600_000), ("1m1s1ms", 61_001)]
        {
            let duration = parse_duration(text).unwrap_or_else(|| panic!("{text} was refused"));
            assert_eq!(duration.as_millis(), millis, "{text}");
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "-1s", "1.5s", "1d", "1 s", "99999999h", "5s ", "1h30"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_follow_kubernetes_quantities() {
        for (text, bytes) in [("0", Some(0)), ("10Mi", Some(10 << 20)), ("1k", Some(1000)), ("1Gi", Some(1 << 30))] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for text in ["", "Mi", "-1", "1.5Mi", "10m", "99999999999Gi"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
