//! HTTP to endpoints: the handshakes, and the senders that the pool keeps without knowing whose they are.

use std::sync::Arc;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;

use super::{LocalExecutor, RequestBody};
use crate::{
    io::{UpstreamState, UpstreamStream},
    metrics::Metrics,
};

/// What an endpoint may send on a stream of HTTP/2 before its client took it: keeps a stream of 100 Mbit/s busy over 40 ms.
const STREAM_WINDOW: u32 = 512 * 1024;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Of an HTTP/1.1 connection, what is read at once, and so the largest piece of a body: a client on HTTP/2 has the time of its write limit for
/// each, which gives slow ones their chance. A response's head has to fit too.
const BUFFER: usize = 128 * 1024;

/// HTTP could not be begun on a connection.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct BeginError(hyper::Error);

/// Sends over an HTTP/1.1 connection, one request at a time.
#[derive(Debug)]
pub(crate) struct Http1Sender {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) state: Arc<UpstreamState>,
}

/// Sends over an HTTP/2 connection, which its clones share.
#[derive(Clone, Debug)]
pub(crate) struct Http2Sender(pub(super) http2::SendRequest<RequestBody>);

impl Http1Sender {
    pub(crate) async fn begin(stream: UpstreamStream) -> Result<Self, BeginError> {
        let state = stream.state().clone();
        let made = http1::Builder::new().max_buf_size(BUFFER).handshake::<_, RequestBody>(TokioIo::new(stream)).await;
        let (sender, driver) = made.map_err(BeginError)?;
        tokio::task::spawn_local(async move {
            // Its error is told to the request that it carries; without one it is of no interest.
            let _ = driver.with_upgrades().await;
        });
        Ok(Self { sender, state })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the message before is over on both ways.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Between two requests nothing is written that could be late.
    pub(crate) fn rest(&self) {
        self.state.limit_writes(None);
    }
}

impl Http2Sender {
    /// For so many streams at once. The window of the connection is that of all of them together, or a client that does not read would stall
    /// the others, whose requests share it: 50 MiB for 100, which takes as many clients that do not read.
    pub(crate) async fn begin(stream: UpstreamStream, streams: u32, metrics: &Arc<Metrics>) -> Result<Self, BeginError> {
        let mut builder = http2::Builder::new(LocalExecutor::new(metrics));
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(streams).min(LARGEST_WINDOW));
        let (sender, driver) = builder.handshake::<_, RequestBody>(TokioIo::new(stream)).await.map_err(BeginError)?;
        tokio::task::spawn_local(async move {
            let _ = driver.await;
        });
        Ok(Self(sender))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
