//! Header fields: a view of them for the rest of the house, compiled edits, and the fields that belong to one hop alone (RFC 9110 §7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};
use penstock_model::HeaderEdits;

use crate::{head::Headers, policy::forwarding::Edit};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Header fields of hyper's as others see them.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a HeaderMap);

impl Headers for Fields<'_> {
    fn values<'s>(&'s self, name: &'s str) -> impl DoubleEndedIterator<Item = &'s [u8]> {
        self.0.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// Compiled [`HeaderEdits`]: names and values that HTTP does not allow are left out (translation refuses them by name).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderPlan {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
}

impl HeaderPlan {
    pub(crate) fn compile(edits: &HeaderEdits) -> Self {
        let field = |(name, value): &(Box<str>, Box<str>)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        };
        Self {
            remove: edits.remove.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect(),
            set: edits.set.iter().filter_map(field).collect(),
            add: edits.add.iter().filter_map(field).collect(),
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> Vec<String> {
        let removed = self.remove.iter().map(|name| format!("remove {name}"));
        let field = |verb, (name, value): &(HeaderName, HeaderValue)| {
            format!("{verb} {name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        let set = self.set.iter().map(|pair| field("set", pair));
        removed.chain(set).chain(self.add.iter().map(|pair| field("add", pair))).collect()
    }
}

/// Writes what a policy wants written. A value that HTTP does not allow removes the field.
pub(super) fn write(headers: &mut HeaderMap, edits: Vec<Edit>) {
    for (name, value) in edits {
        let name = HeaderName::from_static(name);
        match value.and_then(|value| HeaderValue::try_from(value).ok()) {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}

/// The comma-separated items of a field, over all its lines.
pub(super) fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

pub(super) fn has_item(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Removes the fields that concern the connection they came by: those known, and those that `Connection` names.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        let (_, lines) = connection.remove_entry_mult();
        let lines: Vec<HeaderValue> = lines.collect();
        let named = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        for name in named.filter_map(|name| HeaderName::from_bytes(name).ok()) {
            // Whoever names these would have us send another message than came.
            if !matches!(name, header::HOST | header::CONTENT_LENGTH | header::CONTENT_TYPE) {
                headers.remove(name);
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS] {
        headers.remove(name);
    }
    for name in [header::TE, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

/// Joins the crumbs that HTTP/2 may cut a Cookie field into (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Drops fields that a CGI or WSGI program reads as one that we write: it sees `_` and `-` alike (RFC 3875 §4.1.18).
pub(super) fn drop_twins(headers: &mut HeaderMap, edits: &[Edit]) {
    let twin = |name: &HeaderName| {
        let name = name.as_str();
        name.contains('_') && edits.iter().any(|(ours, _)| ours.len() == name.len() && name.replace('_', "-") == *ours)
    };
    let twins: Vec<HeaderName> = headers.keys().filter(|name| twin(name)).cloned().collect();
    for name in twins {
        headers.remove(name);
    }
}

/// Drops fields with an underscore in their name, which many backends read as a hyphen (nginx's `ignore_invalid_headers`).
pub(super) fn drop_underscores(headers: &mut HeaderMap) {
    let odd: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in odd {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn fields_of_one_hop_and_those_that_connection_names_go() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("connection", "host, content-length"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("host", "a"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-kept"]);
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn edits_run_in_the_order_remove_set_add() {
        let edits = HeaderEdits {
            remove: vec!["a".into(), "b".into()],
            set: vec![("b".into(), "1".into()), ("c".into(), "2".into())],
            add: vec![("c".into(), "3".into()), ("bad name".into(), "x".into()), ("d".into(), "x\r\ny".into())],
        };
        let plan = HeaderPlan::compile(&edits);
        let mut headers = map(&[("a", "0"), ("b", "0"), ("c", "0"), ("c", "0")]);
        plan.apply(&mut headers);
        assert_eq!(headers, map(&[("b", "1"), ("c", "2"), ("c", "3")]));
        assert_eq!(plan.describe(), ["remove a", "remove b", "set b: 1", "set c: 2", "add c: 3"]);
    }

    #[test]
    fn fields_that_could_be_taken_for_ours_are_dropped() {
        let mut headers =
            map(&[("x_forwarded_for", "6.6.6.6"), ("x-forwarded_for", "6.6.6.6"), ("x_other", "1"), ("x-real-ip", "1")]);
        drop_twins(&mut headers, &[("x-forwarded-for", Some(String::new())), ("x-real-ip", None)]);
        assert_eq!(headers, map(&[("x_other", "1"), ("x-real-ip", "1")]));
    }

    #[test]
    fn fields_with_underscores_are_dropped() {
        let mut headers = map(&[("x_real_ip", "6.6.6.6"), ("x-real-ip", "1.1.1.1")]);
        drop_underscores(&mut headers);
        assert_eq!(headers, map(&[("x-real-ip", "1.1.1.1")]));
    }
}
