//! The longest prefix of a path by whole segments, in time that depends on neither the number of prefixes nor their order.
//!
//! Prefixes are sorted so that a slash comes before any other byte: then what lies below a prefix follows it without a gap. The last prefix
//! not after a path is the path's longest prefix or lies below it, and each prefix knows the next shorter one that holds it. So a
//! look-up is one binary search and a walk up, at most as long as the prefixes are deep. Hashing each cut of the path would let a
//! client choose how often a long path is hashed.

use std::cmp::Ordering;

/// Prefixes, each without its trailing slash, and the caller's number for it.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    nodes: Box<[Node]>,
}

#[derive(Debug)]
struct Node {
    text: Box<[u8]>,
    value: u32,
    /// The place of the longest other prefix that holds this one.
    parent: Option<u32>,
}

impl Prefixes {
    /// The texts must differ.
    pub(crate) fn new<'p>(prefixes: impl IntoIterator<Item = (&'p [u8], u32)>) -> Self {
        let mut nodes: Vec<Node> =
            prefixes.into_iter().map(|(text, value)| Node { text: text.into(), value, parent: None }).collect();
        nodes.sort_unstable_by(|a, b| by_segments(&a.text, &b.text));
        let mut open: Vec<u32> = Vec::new();
        for place in 0..nodes.len() {
            let (before, rest) = nodes.split_at_mut(place);
            let Some(node) = rest.first_mut() else { break };
            while open.pop_if(|outer| !before.get(*outer as usize).is_some_and(|outer| holds(&outer.text, &node.text))).is_some() {}
            node.parent = open.last().copied();
            open.push(place as u32);
        }
        Self { nodes: nodes.into() }
    }

    /// The prefixes that hold a path, the longest first.
    pub(crate) fn of<'s, 'q>(&'s self, path: &'q [u8]) -> impl Iterator<Item = u32> + use<'s, 'q> {
        let after = self.nodes.partition_point(|node| by_segments(&node.text, path) != Ordering::Greater);
        let mut next = after.checked_sub(1).map(|place| place as u32);
        std::iter::from_fn(move || {
            loop {
                let node = self.nodes.get(next? as usize)?;
                next = node.parent;
                if holds(&node.text, path) {
                    return Some(node.value);
                }
            }
        })
    }
}

/// The text of a prefix in the form in which [`holds`] wants it.
pub(crate) fn without_slash(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

/// Whether a path lies at or below a prefix without its trailing slash.
pub(crate) fn holds(prefix: &[u8], path: &[u8]) -> bool {
    matches!(path.strip_prefix(prefix), Some([] | [b'/', ..]))
}

/// Byte order, but for the slash, which comes before all.
fn by_segments(a: &[u8], b: &[u8]) -> Ordering {
    let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rank = |text: &[u8]| match text.get(shared) {
        None => 0,
        Some(b'/') => 1,
        Some(byte) => u16::from(*byte) + 2,
    };
    rank(a).cmp(&rank(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hold_whole_segments_the_longest_first() {
        let texts = ["", "/a", "/a-b", "/a/b", "/a/b/c", "/a.b", "/b/c", "/a//b", "/ab"];
        let prefixes = Prefixes::new(texts.iter().enumerate().map(|(place, text)| (text.as_bytes(), place as u32)));
        for (path, found) in [
            ("/", &[""][..]),
            ("/a", &["/a", ""]),
            ("/a/", &["/a", ""]),
            ("/a/b/c/d", &["/a/b/c", "/a/b", "/a", ""]),
            ("/a/bc", &["/a", ""]),
            ("/a-b/x", &["/a-b", ""]),
            ("/a!", &[""]),
            ("/b", &[""]),
            ("/b/c/", &["/b/c", ""]),
            ("/a//b", &["/a//b", "/a", ""]),
            ("/zzz", &[""]),
            ("/a/b/\u{7f}", &["/a/b", "/a", ""]),
        ] {
            let places: Vec<&str> = prefixes.of(path.as_bytes()).map(|place| texts[place as usize]).collect();
            assert_eq!(places, found, "{path}");
        }
    }

    #[test]
    fn no_prefixes_hold_nothing() {
        assert_eq!(Prefixes::default().of(b"/").count(), 0);
        assert_eq!(Prefixes::new([(&b"/b"[..], 0)]).of(b"/a").count(), 0);
    }
}
