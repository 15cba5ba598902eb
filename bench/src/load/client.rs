//! What every kind of client is to the loops: something that is connected, and does one exchange after another.

use std::io;

use super::{http1::Ask, tls::Connector};

/// Whom a client talks to, and what about.
#[derive(Clone)]
pub struct Target {
    pub connector: Connector,
    pub ask: Ask,
    /// Ask for the hosts of so many routes in turn, instead of the usual one.
    pub hosts: Option<u32>,
    /// Handshakes: with a ticket of the last visit.
    pub resume: bool,
    /// HTTP/2: gRPC calls instead of plain requests.
    pub grpc: bool,
}

/// A client with one exchange under way at a time.
pub trait Client: Sized + Send + 'static {
    fn connect(target: &Target, number: usize) -> impl Future<Output = io::Result<Self>> + Send;
    /// One exchange; gives the number of operations it stands for.
    fn exchange(&mut self) -> impl Future<Output = io::Result<u64>> + Send;
}
