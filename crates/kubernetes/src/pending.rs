//! Changes that are still to be told: of each object the last one, so that waiting never costs more than the objects themselves.

use std::collections::BTreeMap;

use penstock_translate::{Change, Id, Key, Kind, Object};

#[derive(Debug, Default)]
pub(crate) struct Pending(BTreeMap<Id, Change>);

impl Pending {
    pub(crate) fn put(&mut self, object: Object) {
        // Nobody can refer to an object without a name, and the API server gives none.
        if let Some(id) = object.id() {
            self.0.insert(id, Change::Put(object));
        }
    }

    pub(crate) fn delete(&mut self, kind: Kind, key: &Key) {
        let id = Id { kind, key: key.clone() };
        self.0.insert(id.clone(), Change::Delete(id));
    }

    /// A Secret is refused to us.
    pub(crate) fn unreadable(&mut self, key: &Key) {
        self.0.insert(Id { kind: Kind::Secret, key: key.clone() }, Change::Unreadable(key.clone()));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}
