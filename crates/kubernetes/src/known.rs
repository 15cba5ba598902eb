//! What was told of one kind: so that a new list after an outage comes out as what changed, all at its end, and nothing in between.

use std::collections::{HashMap, HashSet};

use penstock_translate::{Key, Object};

/// The objects of a kind by key, each with its resource version.
#[derive(Debug, Default)]
pub(crate) struct Known {
    versions: HashMap<Key, String>,
    listing: Option<Listing>,
}

/// A list that is being read: what it had so far.
#[derive(Debug, Default)]
struct Listing {
    keys: HashSet<Key>,
    /// What differs from what is known.
    changed: Vec<(Key, String, Object)>,
}

/// A list that was read to its end.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// What is new, or differs from what was known.
    pub(crate) changed: Vec<(Key, String, Object)>,
    /// What was known and is not there any more.
    pub(crate) gone: Vec<Key>,
    pub(crate) keys: HashSet<Key>,
}

impl Known {
    /// A list begins. What an earlier one had, that never came to its end, is forgotten.
    pub(crate) fn begin(&mut self) {
        self.listing = Some(Listing::default());
    }

    /// The list that was being read is not read any further.
    pub(crate) fn broken(&mut self) {
        self.listing = None;
    }

    pub(crate) fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// An object was listed or changed. Gives it back if that is news now; what a list has is told at its end.
    pub(crate) fn put(&mut self, key: Key, version: String, object: Object) -> Option<Object> {
        let known = self.versions.get(&key);
        if let Some(listing) = &mut self.listing {
            // An older version than the known one counts here: the cluster may have been restored from a copy.
            if known.is_none_or(|known| *known != version) {
                listing.changed.push((key.clone(), version, object));
            }
            listing.keys.insert(key);
            return None;
        }
        if known.is_some_and(|known| !is_newer(&version, known)) {
            return None;
        }
        self.versions.insert(key, version);
        Some(object)
    }

    /// An object was listed that nobody wants.
    pub(crate) fn pass(&mut self, key: Key) {
        if let Some(listing) = &mut self.listing {
            listing.keys.insert(key);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> bool {
        self.versions.remove(key).is_some()
    }

    /// The list is whole.
    pub(crate) fn end(&mut self) -> Listed {
        let Some(Listing { keys, changed }) = self.listing.take() else { return Listed::default() };
        let gone: Vec<Key> = self.versions.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        for key in &gone {
            self.versions.remove(key);
        }
        for (key, version, _) in &changed {
            self.versions.insert(key.clone(), version.clone());
        }
        Listed { changed, gone, keys }
    }

    /// There is no such kind: as good as an empty list. Gives what is gone.
    pub(crate) fn absent(&mut self) -> Vec<Key> {
        self.listing = None;
        self.versions.drain().map(|(key, _)| key).collect()
    }
}

/// Whether one resource version of an object came after another. They are numbers that grow (as Kubernetes guarantees since 1.35); where they
/// are not, what is told last is newer.
fn is_newer(version: &str, known: &str) -> bool {
    match (version.parse::<u64>(), known.parse::<u64>()) {
        (Ok(version), Ok(known)) => version > known,
        _ => version != known,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Service;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    fn put(known: &mut Known, name: &str, version: &str) -> bool {
        known.put(key(name), version.to_owned(), Object::Service(Arc::new(Service::default()))).is_some()
    }

    /// The keys that changed, and those that are gone.
    fn end(known: &mut Known) -> (Vec<Key>, Vec<Key>) {
        let listed = known.end();
        (listed.changed.into_iter().map(|(key, ..)| key).collect(), listed.gone)
    }

    #[test]
    fn a_second_list_tells_only_what_changed_and_only_at_its_end() {
        let mut known = Known::default();
        known.begin();
        assert!(!put(&mut known, "a", "1") && !put(&mut known, "b", "2") && !put(&mut known, "c", "3"));
        assert_eq!(end(&mut known), (vec![key("a"), key("b"), key("c")], vec![]));
        known.begin();
        assert!(!put(&mut known, "a", "1") && !put(&mut known, "b", "9"));
        assert_eq!(end(&mut known), (vec![key("b")], vec![key("c")]));
        assert!(!put(&mut known, "b", "9"), "the same");
        assert!(put(&mut known, "b", "10"));
    }

    #[test]
    fn a_list_that_breaks_off_changes_nothing() {
        let mut known = Known::default();
        known.begin();
        put(&mut known, "a", "1");
        known.end();
        known.begin();
        known.broken();
        assert!(put(&mut known, "b", "2"), "the watch goes on");
        known.begin();
        put(&mut known, "c", "3");
        known.begin();
        put(&mut known, "a", "1");
        put(&mut known, "b", "2");
        assert_eq!(end(&mut known), (vec![], vec![]), "what the first try had is no part of the second");
    }

    #[test]
    fn an_older_version_never_takes_the_place_of_a_newer_one_but_in_a_list() {
        let mut known = Known::default();
        assert!(put(&mut known, "a", "10"));
        assert!(!put(&mut known, "a", "9"), "as numbers, not as text");
        known.begin();
        put(&mut known, "a", "9");
        assert_eq!(end(&mut known).0, [key("a")], "a cluster restored from a copy");
        assert!(is_newer("x", "y") && !is_newer("x", "x"));
    }

    #[test]
    fn a_kind_that_is_not_installed_is_an_empty_list() {
        let mut known = Known::default();
        known.begin();
        put(&mut known, "a", "1");
        known.end();
        assert_eq!(known.absent(), [key("a")]);
        assert!(known.is_empty());
    }
}
