//! What the Kubernetes side counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Counters and gauges; clones share them.
#[derive(Clone, Debug, Default)]
pub struct KubernetesMetrics {
    pub(crate) watches_interrupted: Gauge,
    pub(crate) watches_refused: Gauge,
    pub(crate) lists: Counter<u64, AtomicU64>,
    pub(crate) leader: Gauge,
    pub(crate) status_writes: Counter<u64, AtomicU64>,
    pub(crate) events: Counter<u64, AtomicU64>,
    pub(crate) write_failures: Counter<u64, AtomicU64>,
}

impl KubernetesMetrics {
    /// Enters them into a registry for exposition.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("penstock_kubernetes");
        registry.register(
            "watches_interrupted",
            "Watches that the API server does not serve now; what was known serves on",
            self.watches_interrupted.clone(),
        );
        registry.register(
            "watches_refused",
            "Watches that the API server refuses to us (403); the rest is served without them",
            self.watches_refused.clone(),
        );
        registry.register(
            "lists",
            "Lists that were read to their end: one a watch at the start, and again after outages",
            self.lists.clone(),
        );
        registry.register("leader", "1 if this process writes status and Events", self.leader.clone());
        registry.register("status_writes", "Writes of an object's status", self.status_writes.clone());
        registry.register("events", "Events written about problems of objects", self.events.clone());
        registry.register(
            "write_failures",
            "Writes of status and Events that failed; they are tried again",
            self.write_failures.clone(),
        );
    }
}
