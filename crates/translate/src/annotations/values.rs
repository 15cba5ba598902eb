//! How values are written: the forms that several annotations share, as ingress-nginx reads them; and those of fields of a ProxyRoute.

use std::{num::IntErrorKind, time::Duration};

use penstock_model::units::MAX_DURATION;

use super::Bad;
use crate::bounds::Expected;

/// Go's `ParseBool`. Blanks are not trimmed, as in the original.
pub(super) fn boolean(text: &str) -> Result<bool, Bad> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Bad::Form("a boolean (true or false)".to_owned())),
    }
}

/// Whole seconds. Zero and less make no sense for a limit between two bytes; more than a year is a year.
pub(super) fn seconds(text: &str) -> Result<Duration, Bad> {
    let expected = || "a whole number of seconds, at least 1, without unit".to_owned();
    let seconds: i64 = text.parse().map_err(|_| Bad::Form(expected()))?;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| Bad::Sense(expected()))?;
    Ok(Duration::from_secs(seconds).min(MAX_DURATION))
}

/// A whole number.
pub(super) fn number(text: &str) -> Result<i64, Bad> {
    text.parse().map_err(|_| Bad::Form("a whole number".to_owned()))
}

/// A whole number that a field of a ProxyRoute takes as well.
pub(super) fn bounded<T>(text: &str, take: fn(i64) -> Result<T, Expected>) -> Result<T, Bad> {
    let number = match text.parse::<i64>().map_err(|error| *error.kind()) {
        Ok(number) => number,
        Err(IntErrorKind::PosOverflow) => i64::MAX,
        Err(IntErrorKind::NegOverflow) => i64::MIN,
        Err(_) => return Err(Bad::Form("a whole number".to_owned())),
    };
    take(number).map_err(|expected| Bad::Form(expected.to_owned()))
}

/// A duration that a field of a ProxyRoute takes as well.
pub(super) fn duration(text: &str, take: fn(&str) -> Result<Duration, Expected>) -> Result<Duration, Bad> {
    take(text).map_err(|expected| Bad::Form(expected.to_owned()))
}

/// `on` or `off`. Blanks are trimmed, as the original does with all that is text to it (booleans and numbers are not).
pub(super) fn switch(text: &str) -> Result<bool, Bad> {
    match text.trim() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Bad::Form("on or off".to_owned())),
    }
}

/// Text of letters, digits and these others.
pub(super) fn text_of(text: &str, others: &str) -> Result<Box<str>, Bad> {
    let trimmed = text.trim();
    if trimmed.chars().all(|character| character.is_ascii_alphanumeric() || others.contains(character)) && !trimmed.is_empty() {
        Ok(trimmed.into())
    } else {
        Err(Bad::Form(format!("made of letters, digits and {others} alone")))
    }
}
