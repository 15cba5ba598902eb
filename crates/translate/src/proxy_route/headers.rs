//! Edits of headers. What frames a message or concerns one connection alone is the proxy's and cannot be edited.

use penstock_api::HeaderEditing;
use penstock_model::HeaderEdits;

use super::rule::RuleReader;
use crate::{annotations::quoted, names};

/// As the schema has them.
const MAX_EDITS: usize = 64;
const MAX_VALUE: usize = 4096;

/// RFC 9110 §7.6.1 (for one connection), RFC 9112 §6 (framing). Edited by hand they would let two parsers read a message differently.
const MANAGED: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

pub(super) fn read(reader: &mut RuleReader<'_, '_>, field: &str, edits: Option<&HeaderEditing>, of_request: bool) -> HeaderEdits {
    let mut read = HeaderEdits::default();
    let Some(HeaderEditing { set, add, remove }) = edits else { return read };
    for (kind, values, target) in [("set", set, &mut read.set), ("add", add, &mut read.add)] {
        let field = format!("{field}.{kind}");
        if !reader.count(&field, values.len(), MAX_EDITS) {
            continue;
        }
        for (name, value) in values {
            let field = format!("{field}[{name}]");
            if !names::is_header_value(value) || value.len() > MAX_VALUE {
                reader.bad(&field, format!("{} is not a value of a header", quoted(value)));
            }
            if let Some(name) = header(reader, &field, name, of_request) {
                target.push((name, value.as_str().into()));
            }
        }
    }
    let field = format!("{field}.remove");
    if reader.count(&field, remove.len(), MAX_EDITS) {
        for (place, name) in remove.iter().enumerate() {
            read.remove.extend(header(reader, &format!("{field}[{place}]"), name, of_request));
        }
    }
    read
}

fn header(reader: &mut RuleReader<'_, '_>, field: &str, name: &str, of_request: bool) -> Option<Box<str>> {
    let Some(lower) = names::header_name(name) else {
        reader.bad(field, format!("{} is not a name of a header", quoted(name)));
        return None;
    };
    if MANAGED.contains(&&*lower) {
        reader.bad(field, format!("{lower} is managed by the proxy and cannot be edited"));
        return None;
    }
    if of_request && &*lower == "host" {
        reader.bad(field, "the Host header is changed by rewrite.host");
        return None;
    }
    Some(lower)
}
