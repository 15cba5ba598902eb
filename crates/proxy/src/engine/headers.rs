//! Header fields: compiled edits, and what is dropped or joined on the way to a backend.

use penstock_http1::{Fields, Name, is_field_name, is_field_value};
use penstock_model::HeaderEdits;

use crate::policy::forwarding::Edits;

type Bytes = Box<[u8]>;

/// Compiled [`HeaderEdits`]. None, as of most routes: there are none.
#[derive(Debug)]
pub(crate) struct HeaderPlan(Option<Box<Plan>>);

/// Names and values that HTTP does not allow are left out (translation refuses them by name).
#[derive(Debug)]
struct Plan {
    remove: Box<[Bytes]>,
    set: Box<[(Bytes, Bytes)]>,
    add: Box<[(Bytes, Bytes)]>,
}

impl HeaderPlan {
    pub(crate) fn compile(edits: &HeaderEdits) -> Self {
        let field = |(name, value): &(Box<str>, Box<str>)| {
            let allowed = is_field_name(name.as_bytes()) && is_field_value(value.as_bytes());
            allowed.then(|| (name.as_bytes().into(), value.as_bytes().into()))
        };
        let plan = || Plan {
            remove: edits.remove.iter().map(|name| name.as_bytes().into()).filter(|name: &Bytes| is_field_name(name)).collect(),
            set: edits.set.iter().filter_map(field).collect(),
            add: edits.add.iter().filter_map(field).collect(),
        };
        let any = !(edits.remove.is_empty() && edits.set.is_empty() && edits.add.is_empty());
        Self(any.then(|| Box::new(plan())))
    }

    pub(super) fn apply(&self, fields: &mut Fields) {
        let Some(plan) = &self.0 else { return };
        for name in &plan.remove {
            fields.remove_raw(name);
        }
        // Only a head beyond all limits has no room.
        for (name, value) in &plan.set {
            let _ = fields.set_raw(name, value);
        }
        for (name, value) in &plan.add {
            let _ = fields.push_raw(name, value);
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> Vec<String> {
        let Some(plan) = &self.0 else { return Vec::new() };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let removed = plan.remove.iter().map(|name| format!("remove {}", text(name).to_ascii_lowercase()));
        let field = |verb, (name, value): &(Bytes, Bytes)| format!("{verb} {}: {}", text(name).to_ascii_lowercase(), text(value));
        let set = plan.set.iter().map(|pair| field("set", pair));
        removed.chain(set).chain(plan.add.iter().map(|pair| field("add", pair))).collect()
    }
}

/// Joins the crumbs that HTTP/2 may cut a Cookie field into (RFC 9113 §8.2.3).
pub(super) fn join_cookies(fields: &mut Fields) {
    if fields.all(Name::Cookie).nth(1).is_some() {
        let joined = fields.all(Name::Cookie).collect::<Vec<_>>().join(&b"; "[..]);
        // It is no longer than what was there.
        let _ = fields.set(Name::Cookie, &joined);
    }
}

/// Drops fields that a CGI or WSGI program reads as one that we write: it sees `_` and `-` alike (RFC 3875 §4.1.18). Those that frame the
/// body are among them.
pub(super) fn drop_twins(fields: &mut Fields, edits: &Edits) {
    let odd = |name: &[u8]| name.contains(&b'_');
    let ours = |name: &[u8]| edits.concern(name) || matches!(Name::of(name), Name::ContentLength | Name::TransferEncoding);
    if fields.contains(Name::Other) && fields.iter().any(|field| odd(field.raw_name)) {
        fields.retain(|field| {
            let hyphens = || field.raw_name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect::<Vec<_>>();
            !odd(field.raw_name) || !ours(&hyphens())
        });
    }
}

/// Drops fields with an underscore in their name, which many backends read as a hyphen (nginx's `ignore_invalid_headers`).
pub(super) fn drop_underscores(fields: &mut Fields) {
    if fields.contains(Name::Other) {
        fields.retain(|field| !field.raw_name.contains(&b'_'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> Fields {
        let mut list = Fields::new();
        for (name, value) in fields {
            list.push_raw(name.as_bytes(), value.as_bytes()).unwrap();
        }
        list
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut fields = list(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]);
        join_cookies(&mut fields);
        assert_eq!(fields, list(&[("cookie", "a=1; b=2; c=3; d=4")]));
    }

    #[test]
    fn edits_run_in_the_order_remove_set_add() {
        let edits = HeaderEdits {
            remove: vec!["a".into(), "b".into()],
            set: vec![("b".into(), "1".into()), ("c".into(), "2".into())],
            add: vec![("c".into(), "3".into()), ("bad name".into(), "x".into()), ("d".into(), "x\r\ny".into())],
        };
        let plan = HeaderPlan::compile(&edits);
        let mut fields = list(&[("A", "0"), ("b", "0"), ("c", "0"), ("c", "0")]);
        plan.apply(&mut fields);
        assert_eq!(fields, list(&[("c", "2"), ("b", "1"), ("c", "3")]));
        assert_eq!(plan.describe(), ["remove a", "remove b", "set b: 1", "set c: 2", "add c: 3"]);
    }

    #[test]
    fn fields_that_could_be_taken_for_ours_are_dropped() {
        let mut fields = list(&[
            ("X_Forwarded_For", "6.6.6.6"),
            ("x-forwarded_for", "6.6.6.6"),
            ("x_other", "1"),
            ("x-real-ip", "1"),
            ("Transfer_Encoding", "chunked"),
            ("Content_Length", "5"),
        ]);
        let mut edits = Edits::default();
        edits.set.push(Name::XForwardedFor, b"").unwrap();
        edits.removed.push(Name::XRealIp);
        drop_twins(&mut fields, &edits);
        assert_eq!(fields, list(&[("x_other", "1"), ("x-real-ip", "1")]));
    }

    #[test]
    fn fields_with_underscores_are_dropped() {
        let mut fields = list(&[("x_real_ip", "6.6.6.6"), ("x-real-ip", "1.1.1.1")]);
        drop_underscores(&mut fields);
        assert_eq!(fields, list(&[("x-real-ip", "1.1.1.1")]));
    }
}
