//! Hosts by name, in a map of which the next table shares all that did not change.
//!
//! Names are spread over shards by their hash, and each shard is a map behind an `Arc`: a copy of the whole costs one count per shard, and
//! a change copies the one shard it falls into.

use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

// The names in the map are those of hosts that somebody was let set up, not whatever a client asks for: chance is enough against collisions.
use foldhash::fast::RandomState;

use crate::host_table::HostTable;

/// At 50 000 hosts a change copies some 200 entries; a small table costs no more than this many counts to copy.
const SHARDS: usize = 256;

type Shard<R> = HashMap<Arc<str>, Arc<HostTable<R>>, RandomState>;

pub(crate) struct HostMap<R> {
    /// None for a map in which there was never anything.
    shards: Option<Box<[Arc<Shard<R>>]>>,
    /// Chooses the shard.
    hasher: RandomState,
}

impl<R> HostMap<R> {
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.is_none()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<HostTable<R>>> {
        self.shards.as_ref()?.get(self.place(name))?.get(name)
    }

    pub(crate) fn insert(&mut self, name: &Arc<str>, host: Arc<HostTable<R>>) {
        let place = self.place(name);
        let shards = self.shards.get_or_insert_with(|| vec![Arc::default(); SHARDS].into());
        if let Some(shard) = shards.get_mut(place) {
            Arc::make_mut(shard).insert(Arc::clone(name), host);
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let place = self.place(name);
        if let Some(shard) = self.shards.as_mut().and_then(|shards| shards.get_mut(place)) {
            Arc::make_mut(shard).remove(name);
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<HostTable<R>>> {
        self.shards.iter().flatten().flat_map(|shard| shard.values())
    }

    fn place(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize % SHARDS
    }
}

impl<R> Default for HostMap<R> {
    fn default() -> Self {
        Self { shards: None, hasher: RandomState::default() }
    }
}

impl<R> Clone for HostMap<R> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), hasher: self.hasher.clone() }
    }
}
