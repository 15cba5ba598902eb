//! What can go wrong with a request, and what each means to the client and to the operator: one table.

use std::{io, net::SocketAddr, time::Duration};

use http::StatusCode;

/// Why an upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("{address} could not be reached: {error}")]
    Connect { address: SocketAddr, error: io::Error },
    #[error("{address} did not accept within {limit:?}")]
    ConnectTimeout { address: SocketAddr, limit: Duration },
    #[error("{address} is no such server: {message}")]
    Handshake { address: SocketAddr, message: String },
    #[error("the name {host} could not be resolved: {message}")]
    Resolve { host: String, message: String },
    #[error("{host} may not be connected to: {reason}")]
    Forbidden { host: String, reason: String },
    #[error("the backend has no endpoint that is ready")]
    NoEndpoints,
    #[error("{address} ended the connection: {message}")]
    Broken { address: SocketAddr, message: String },
    #[error("{address} said nothing for {limit:?}")]
    Silent { address: SocketAddr, limit: Duration },
    #[error("{address} took nothing for {limit:?}")]
    Stuck { address: SocketAddr, limit: Duration },
    #[error("the client sent nothing of its body for {0:?}")]
    SlowClient(Duration),
    #[error("the body is larger than the route allows")]
    TooLarge,
    #[error("{address} answered the upgrade wrongly: {message}")]
    Upgrade { address: SocketAddr, message: &'static str },
}

impl UpstreamError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Connect { .. } | Self::Handshake { .. } | Self::Resolve { .. } | Self::Broken { .. } | Self::Upgrade { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout { .. } | Self::Silent { .. } | Self::Stuck { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NoEndpoints => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden { .. } => StatusCode::BAD_GATEWAY,
            Self::SlowClient(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}
