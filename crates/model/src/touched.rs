//! What may be different from the model before: whoever knows it need not compare the rest.

use std::collections::{BTreeMap, BTreeSet};

use crate::{BackendKey, HostPattern, Model, ServicePort};

/// Parts of a model, and of the endpoints beside it, that may differ from those before. All that is not named here is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub hosts: BTreeSet<HostPattern>,
    pub backends: BTreeSet<BackendKey>,
    pub default_certificate: bool,
    /// Service ports whose endpoints may be others.
    pub endpoints: BTreeSet<ServicePort>,
}

impl Touched {
    /// What differs between two models, for who was not told. Nothing is said of endpoints.
    pub fn between(before: &Model, now: &Model) -> Self {
        Self {
            hosts: difference(&before.hosts, &now.hosts),
            backends: difference(&before.backends, &now.backends),
            default_certificate: before.default_certificate != now.default_certificate,
            endpoints: BTreeSet::new(),
        }
    }

    /// As if both steps had been one.
    pub fn extend(&mut self, next: &Self) {
        self.hosts.extend(next.hosts.iter().cloned());
        self.backends.extend(next.backends.iter().cloned());
        self.default_certificate |= next.default_certificate;
        self.endpoints.extend(next.endpoints.iter().cloned());
    }
}

fn difference<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>) -> BTreeSet<K> {
    let gone = before.keys().filter(|key| !now.contains_key(key));
    let new = now.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(new).cloned().collect()
}
