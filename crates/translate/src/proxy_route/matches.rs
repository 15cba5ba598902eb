//! Conditions on requests: path, method, headers, query.

use penstock_api::{PathType, RouteMatch, ValueCondition, ValueType};
use penstock_model::{Match, PathForm, PathMatch, ValueMatch, ValueMatchKind, pattern};

use super::rule::{MAX_PATH, RuleReader};
use crate::{annotations::quoted, names};

/// As the schema has them.
const MAX_CONDITIONS: usize = 16;
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 1024;
const MAX_METHOD: usize = 32;

/// Every request.
pub(super) fn anything() -> Match {
    Match { path: PathMatch::Prefix("/".into()), form: PathForm::Normalised, method: None, headers: Vec::new(), query: Vec::new() }
}

/// All requests that a condition might hold for which is not understood.
pub(super) fn at_least(wanted: &RouteMatch) -> Match {
    let mut read = anything();
    if let Some(path) = wanted.path.as_ref().filter(|path| path.value.starts_with('/') && path.value.len() <= MAX_PATH) {
        read.path = match path.type_ {
            PathType::Exact => PathMatch::Exact(path.value.as_str().into()),
            PathType::Prefix => PathMatch::Prefix(path.value.as_str().into()),
            PathType::Regex => {
                let start = regex::escape(pattern::literal_start(&path.value));
                PathMatch::Regex { pattern: format!("{start}.*").into(), ignore_case: false }
            }
        };
    }
    read
}

pub(super) fn read(reader: &mut RuleReader<'_, '_>, number: usize, wanted: &RouteMatch) -> Match {
    let field = format!("matches[{number}]");
    let mut read = anything();
    if let Some(path) = &wanted.path {
        let field = format!("{field}.path.value");
        let value = path.value.as_str();
        if value.len() > MAX_PATH {
            reader.bad(&field, format!("it has {} bytes, more than {MAX_PATH}", value.len()));
        } else if path.type_ == PathType::Regex {
            if let Err(error) = pattern::compile_path(value, false) {
                reader.bad(&field, format!("{}: {error}", quoted(value)));
            }
        } else if !value.starts_with('/') {
            reader.bad(&field, format!("{} does not begin with /", quoted(value)));
        } else if value.contains(['?', '#']) {
            reader.bad(&field, format!("{} holds ? or #, which no path does", quoted(value)));
        }
        read.path = match path.type_ {
            PathType::Exact => PathMatch::Exact(value.into()),
            PathType::Prefix => PathMatch::Prefix(value.into()),
            PathType::Regex => PathMatch::Regex { pattern: value.into(), ignore_case: false },
        };
    }
    if let Some(method) = &wanted.method {
        let upper = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') && !method.starts_with('-');
        if method.is_empty() || method.len() > MAX_METHOD || !upper {
            reader.bad(&format!("{field}.method"), format!("{} is not a method in capitals", quoted(method)));
        }
        read.method = Some(method.as_str().into());
    }
    for (list, conditions, headers) in [("headers", &wanted.headers, true), ("query", &wanted.query, false)] {
        let field = format!("{field}.{list}");
        if !reader.count(&field, conditions.len(), MAX_CONDITIONS) {
            continue;
        }
        let values =
            conditions.iter().enumerate().map(|(place, condition)| value(reader, &format!("{field}[{place}]"), condition, headers));
        let values = values.collect();
        if headers {
            read.headers = values;
        } else {
            read.query = values;
        }
    }
    read
}

fn value(reader: &mut RuleReader<'_, '_>, field: &str, condition: &ValueCondition, header: bool) -> ValueMatch {
    let ValueCondition { type_, name, value } = condition;
    let lower = names::header_name(name);
    if header && lower.is_none() {
        reader.bad(&format!("{field}.name"), format!("{} is not a name of a header", quoted(name)));
    } else if name.is_empty() || name.len() > MAX_NAME {
        reader.bad(&format!("{field}.name"), format!("{} is empty, or longer than {MAX_NAME} bytes", quoted(name)));
    }
    if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
        reader.bad(&format!("{field}.value"), format!("it is longer than {MAX_VALUE} bytes"));
    }
    let kind = match (type_, value) {
        (ValueType::Present, None) => ValueMatchKind::Present,
        (ValueType::Exact, Some(value)) => ValueMatchKind::Exact(value.as_str().into()),
        (ValueType::Regex, Some(value)) => {
            if let Err(error) = pattern::compile_value(value) {
                reader.bad(&format!("{field}.value"), format!("{}: {error}", quoted(value)));
            }
            ValueMatchKind::Regex(value.as_str().into())
        }
        (ValueType::Present, Some(_)) | (ValueType::Exact | ValueType::Regex, None) => {
            reader.bad(&format!("{field}.value"), "a value is needed for Exact and Regex, and not for Present");
            ValueMatchKind::Present
        }
    };
    let name = if header { lower.unwrap_or_default() } else { name.as_str().into() };
    ValueMatch { name, kind }
}
