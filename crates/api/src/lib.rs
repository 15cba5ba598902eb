//! `ProxyRoute` and its kin as Rust types: what `kubectl` sees. The CRD YAML in `crds/` is printed from here.
//!
//! Types and their documentation only. What a field means for the data plane is decided in `penstock-translate`; the schema here
//! refuses what can be refused by form alone. Every list, map and string has a maximum: the API server refuses CEL rules
//! whose cost it cannot bound.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

#[allow(unreachable_pub, reason = "as below")]
mod balancing;
mod crd;
#[allow(
    unreachable_pub,
    reason = "the derive puts impl blocks between a type and its re-export, which hides that re-export from the lint"
)]
#[allow(clippy::duplicated_attributes, reason = "print columns of the same type repeat `type_`")]
mod proxy_route;
mod reference;

pub use balancing::*;
pub use crd::{crds, crds_yaml, prune};
pub use proxy_route::*;
pub use reference::reference;

/// The API group of Penstock's own kinds.
pub const GROUP: &str = "penstock.dev";
