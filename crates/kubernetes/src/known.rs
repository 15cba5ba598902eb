//! What was told of one kind: so that a new list after an outage comes out as what changed, and nothing in between.

use std::collections::{HashMap, HashSet};

use penstock_translate::Key;

/// The objects of a kind by key, each with its resource version.
#[derive(Debug, Default)]
pub(crate) struct Known {
    versions: HashMap<Key, String>,
    /// While a list is read: the keys it had so far.
    listing: Option<HashSet<Key>>,
    /// Whether a list was ever read to its end.
    listed: bool,
}

impl Known {
    /// A list begins.
    pub(crate) fn begin(&mut self) {
        self.listing = Some(HashSet::new());
    }

    /// Whether a list is being read, so that what is known is not whole.
    pub(crate) fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    pub(crate) fn was_listed(&self) -> bool {
        self.listed
    }

    /// An object was listed or changed; true if it differs from what was known.
    pub(crate) fn put(&mut self, key: &Key, version: &str) -> bool {
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        if self.versions.get(key).is_some_and(|known| known == version) {
            return false;
        }
        self.versions.insert(key.clone(), version.to_owned());
        true
    }

    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        self.versions.remove(key).is_some()
    }

    /// The list is whole: gives what is gone.
    pub(crate) fn end(&mut self) -> Vec<Key> {
        self.listed = true;
        let Some(listing) = self.listing.take() else { return Vec::new() };
        let gone: Vec<Key> = self.versions.keys().filter(|key| !listing.contains(key)).cloned().collect();
        for key in &gone {
            self.versions.remove(key);
        }
        gone
    }

    /// There is no such kind: as good as an empty list.
    pub(crate) fn absent(&mut self) -> Vec<Key> {
        self.listing = None;
        self.listed = true;
        self.versions.drain().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_list_tells_only_what_changed() {
        let mut known = Known::default();
        let key = |name| Key::new("n", name);
        known.begin();
        assert!(known.put(&key("a"), "1") && known.put(&key("b"), "2") && known.put(&key("c"), "3"));
        assert!(known.is_listing() && !known.was_listed());
        assert_eq!(known.end(), []);
        assert!(known.was_listed());
        known.begin();
        assert!(!known.put(&key("a"), "1"), "the same");
        assert!(known.put(&key("b"), "9"), "another version");
        assert_eq!(known.end(), [key("c")]);
    }

    #[test]
    fn a_kind_that_is_not_installed_is_an_empty_list() {
        let mut known = Known::default();
        known.begin();
        known.put(&Key::new("n", "a"), "1");
        known.end();
        assert_eq!(known.absent(), [Key::new("n", "a")]);
        assert!(known.was_listed());
    }
}
