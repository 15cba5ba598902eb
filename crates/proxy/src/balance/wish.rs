//! What a request asks of the balancing: the key that it is hashed by, and the endpoint that it kept.

use std::borrow::Cow;

use penstock_model::{AffinityMode, Balancing, Hash, HashPart, Method};

use super::{StableHash, cookie};
use crate::head::RequestHead;

/// What stands in a request about where it shall go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// None: it is not hashed, or has nothing to be hashed by.
    pub(super) key: Option<u64>,
    pub(super) kept: Option<Kept>,
    /// The backend that made its cookie.
    pub(super) tag: Option<Box<str>>,
    /// The key that is put into its cookie, if it came without.
    pub(super) fresh: Option<Box<str>>,
}

/// What a cookie says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The name of an endpoint.
    Name(Box<str>),
    /// A key, which leads to one of the endpoints that there are.
    Key(u64),
}

impl Wish {
    pub(crate) fn of(balancing: &Balancing, request: &RequestHead<'_>) -> Self {
        let mut wish = Self::default();
        if let Method::Hash(hash) = &balancing.method {
            wish.key = key(hash, request);
        }
        let Some(affinity) = &balancing.affinity else { return wish };
        let sent = cookie::sent(request.headers, &affinity.cookie.name);
        let (value, tag) = match sent.split_once('|') {
            Some((value, tag)) => (value, Some(tag)),
            None => (&*sent, None),
        };
        wish.tag = tag.map(Into::into);
        wish.kept = match affinity.mode {
            AffinityMode::Persistent => (!value.is_empty()).then(|| Kept::Name(value.into())),
            AffinityMode::Balanced if value.is_empty() => {
                let fresh = format!("{:016x}{:016x}", super::random(), super::random());
                let key = Kept::Key(key_of(&fresh));
                wish.fresh = Some(fresh.into());
                Some(key)
            }
            AffinityMode::Balanced => Some(Kept::Key(key_of(value))),
        };
        wish
    }

    /// The backend that made the request's cookie, as that calls itself.
    pub(crate) fn backend(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

/// What the value of a cookie is hashed to.
pub(super) fn key_of(value: &str) -> u64 {
    let mut hash = StableHash::new();
    hash.write(value.as_bytes());
    hash.finish()
}

fn key(hash: &Hash, request: &RequestHead<'_>) -> Option<u64> {
    let mut key = StableHash::new();
    let mut has_any = false;
    for part in &hash.key {
        let bytes: Cow<'_, [u8]> = match part {
            HashPart::Text(text) => {
                key.write(text.as_bytes());
                continue;
            }
            HashPart::ClientAddress => Cow::Owned(match request.client.address {
                std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
            }),
            HashPart::Header(name) => {
                for line in request.headers.all_raw(name.as_bytes()) {
                    has_any |= !line.is_empty();
                    key.write(line);
                }
                continue;
            }
            HashPart::Cookie(name) => Cow::Owned(cookie::sent(request.headers, name).into_bytes()),
            HashPart::Query(name) => Cow::Borrowed(argument(request.query.unwrap_or_default(), name).as_bytes()),
            HashPart::Target => Cow::Owned(request.raw_target().into_bytes()),
            HashPart::Host => Cow::Owned(request.public_name().unwrap_or_default().to_ascii_lowercase().into_bytes()),
        };
        has_any |= !bytes.is_empty();
        key.write(&bytes);
    }
    has_any.then(|| key.finish())
}

/// The first value of a parameter, as sent.
fn argument<'q>(query: &'q str, name: &str) -> &'q str {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(sent, _)| sent.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use penstock_model::BackendLimits;

    use super::*;
    use crate::head::sample::Sample;

    fn hashed(parts: Vec<HashPart>, sample: &Sample) -> Option<u64> {
        let balancing = Balancing {
            method: Method::Hash(Hash { key: parts, load_factor: None }),
            affinity: None,
            slow_start: None,
            ejection: None,
            limits: BackendLimits::default(),
        };
        sample.with(|request| Wish::of(&balancing, request).key)
    }

    #[test]
    fn each_part_tells_requests_apart_by_its_own_value_alone() {
        let one = || Sample {
            target: "/a?user=1&x=1",
            headers: vec![("x-user", "1"), ("cookie", "a=0; sid=1")],
            authority: "One.example:8080",
            ..Sample::default()
        };
        let with = |target, headers, authority, last| {
            let mut sample = Sample { authority, target, headers, ..Sample::default() };
            sample.client.address = [192, 0, 2, last].into();
            sample
        };
        let like = || vec![("x-user", "1"), ("cookie", "sid=1; b=2")];
        let same = with("/b?x=2&user=1", like(), "one.example", 7);
        let cases = [
            (
                HashPart::Header("x-user".into()),
                with("/a?user=1&x=1", vec![("x-user", "2"), ("cookie", "sid=1")], "one.example", 7),
            ),
            (HashPart::Cookie("sid".into()), with("/a?user=1&x=1", vec![("x-user", "1"), ("cookie", "sid=2")], "one.example", 7)),
            (HashPart::Query("user".into()), with("/a?user=2&x=1", like(), "one.example", 7)),
            (HashPart::Host, with("/a?user=1&x=1", like(), "two.example", 7)),
            (HashPart::ClientAddress, with("/a?user=1&x=1", like(), "one.example", 8)),
        ];
        for (part, other) in cases {
            let key = hashed(vec![part.clone()], &one());
            assert!(key.is_some(), "{part:?}");
            assert_eq!(key, hashed(vec![part.clone()], &same), "{part:?}");
            assert_ne!(key, hashed(vec![part.clone()], &other), "{part:?}");
        }
        assert_ne!(hashed(vec![HashPart::Target], &one()), hashed(vec![HashPart::Target], &same));
    }

    #[test]
    fn a_request_without_anything_to_hash_has_no_key() {
        let bare = Sample::default();
        for part in [HashPart::Header("x-user".into()), HashPart::Cookie("sid".into()), HashPart::Query("user".into())] {
            assert_eq!(hashed(vec![HashPart::Text("text".into()), part], &bare), None);
        }
    }

    #[test]
    fn text_and_parts_are_hashed_in_their_order() {
        let sample = Sample { headers: vec![("x-user", "u")], ..Sample::default() };
        let (text, user) = (HashPart::Text("t".into()), HashPart::Header("x-user".into()));
        assert_ne!(hashed(vec![text.clone(), user.clone()], &sample), hashed(vec![user, text], &sample));
    }
}
