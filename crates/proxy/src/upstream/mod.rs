//! The way to the backends: which there are ([`Registry`]), how an endpoint is connected, and the connections that are kept.

mod connect;
mod pool;
mod registry;
mod trouble;

pub(crate) use connect::{ConnectError, Connector};
pub(crate) use pool::{Connection, Place, Pool, Sender, StreamCount};
pub use registry::{Backend, Registry};
