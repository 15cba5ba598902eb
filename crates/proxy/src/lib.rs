//! The data plane: listeners, TLS, HTTP/1.1 and HTTP/2, tunnels, upstream pools and policies, served from a table that is swapped whole.
//!
//! The control side holds a [`DataPlane`]. It knows models ([`penstock_model`]) and no Kubernetes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod access_log;
mod body;
mod client_address;
mod count;
mod describe;
mod error;
mod error_page;
mod executor;
mod finish;
mod forward;
mod forwarding;
mod handler;
mod metrics;
mod options;
mod plane;
mod pool;
mod proxy_protocol;
mod registry;
mod resolve;
mod route;
mod self_signed;
mod server;
mod socket;
mod stream;
mod tls;
mod tunnel;
mod upgrade;
mod websocket;
mod worker;

pub use access_log::AccessLogFormat;
pub use describe::Request;
pub use metrics::{CONTENT_TYPE, Listener, Metrics};
pub use options::{DrainOptions, Limits, Options};
pub use plane::{Bound, DataPlane, DrainReport, Published, StartError};
pub use registry::{BackendState, Registry};
pub use resolve::ExternalAddresses;
pub use route::{CompiledAction, CompiledForward, CompiledRoute, compile};
pub use self_signed::CHECK_EVERY as CHECK_CERTIFICATES_EVERY;
pub use socket::{BindError, bind};
