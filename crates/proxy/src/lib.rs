//! The data plane: listeners, TLS, HTTP/1.1, HTTP/2, tunnels, upstream pools, balancing, policies.
//!
//! It serves a [`Model`](penstock_model::Model) that is handed to [`DataPlane::publish`], and knows nothing of Kubernetes. One thread per worker, each with
//! its own runtime, listeners, pool and counters; what they share is one table, swapped as a whole, and the registry of backends, which
//! outlives tables. A request, once matched, holds its route and never the table; a tunnel holds neither.
//!
//! Where things stand: `route` is a compiled route and the order of its stages, `policy` the stages themselves, `engine` HTTP on
//! both sides, `balance` which endpoint a request goes to, `upstream` the way there, `tunnel` what follows an upgrade, `worker` the thread that all of it runs on.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod access_log;
mod balance;
mod client_address;
mod clock;
mod control;
mod data_plane;
mod engine;
mod error_page;
mod explain;
mod handshakes;
mod head;
mod io;
mod metrics;
mod options;
mod policy;
mod proxy_protocol;
mod resolve;
mod route;
mod self_signed;
mod skew;
mod socket;
mod spread;
mod table;
mod task;
mod tls;
mod tunnel;
mod turns;
mod upstream;
mod websocket;
mod worker;

pub use access_log::AccessLogFormat;
pub use data_plane::{DataPlane, Published};
pub use explain::Request;
pub use metrics::{CONTENT_TYPE, Listener, Metrics, TunnelEnd};
pub use options::{Bound, DrainOptions, DrainReport, Limits, Options, StartError};
pub use resolve::ExternalAddresses;
pub use route::{CompiledRoute, compile};
pub use self_signed::CHECK_EVERY as CHECK_CERTIFICATES_EVERY;
pub use socket::{BindError, bind};
pub use tls::CertificateProblem;
pub use turns::{StandBack, lengthen as lengthen_turns};
pub use upstream::{Backend, Registry};
