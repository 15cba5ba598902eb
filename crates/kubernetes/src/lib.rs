//! The Kubernetes side with I/O: watches that tell of changes, and the Secrets that a translation wants.
//!
//! What objects mean is `penstock-translate`'s; who serves them is not known here.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod client;
mod known;
mod source;
mod watches;

pub use client::{ConnectError, connect};
pub use source::{Source, SourceOptions};
