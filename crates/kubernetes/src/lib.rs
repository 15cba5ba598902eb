//! The Kubernetes side with I/O: watches that tell of changes, and the Secrets that a translation wants.
//!
//! What objects mean is `penstock-translate`'s; who serves them is not known here.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod backoff;
mod client;
mod events;
mod known;
mod lease;
mod metrics;
mod observed;
mod secrets;
mod source;
mod standing;
mod status;
mod watches;

pub use kube::Client;

pub use client::{ConnectError, connect};
pub use lease::{Leadership, LeaseOptions, release as release_lease, run as stand_for_election};
pub use metrics::KubernetesMetrics;
pub use secrets::SecretsMode;
pub use source::{Source, SourceOptions};
pub use status::{FIELD_MANAGER, StatusAddress, StatusOptions, StatusWriter};
