//! The Kubernetes side with I/O: watches that tell of changes, and the Secrets that a translation wants.
//!
//! What objects mean is `penstock-translate`'s; who serves them is not known here.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backoff;
mod client;
mod clock;
mod events;
mod freshness;
mod known;
mod lease;
mod metrics;
mod observed;
mod pending;
mod queue;
mod secrets;
mod served;
mod source;
mod standing;
mod status;
mod trim;
mod watches;
mod writer;

pub use kube::Client;

pub use client::{ConnectError, connect};
pub use lease::{Leadership, LeaseOptions, TtlError, check_ttl, release as release_lease, run as stand_for_election};
pub use metrics::KubernetesMetrics;
pub use secrets::SecretsMode;
pub use served::{ServedReceiver, ServedSender, served};
pub use source::{Source, SourceOptions};
pub use status::StatusAddress;
pub use writer::{StatusOptions, StatusWriter};

/// The field manager of all that we write.
pub const FIELD_MANAGER: &str = "penstock";
