//! HTTP to endpoints, as the pool keeps it without knowing what it is: connections of HTTP/1.1, and shared senders of HTTP/2.

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::client::SendRequest;

use super::{
    http1::Http1,
    http2_budget::Peer,
    http2_frames::{Counted, limit_of},
};
use crate::{io::UpstreamStream, metrics::Metrics, task::Task};

/// Streams that we reset, as clients leave, and what the endpoint sent before it knew may still come for. h2 remembers each for a second.
const RESETS_REMEMBERED: usize = 1024;
/// What may come for those that are forgotten, in the life of a connection: at the next all its requests fail. An endpoint that takes none of
/// the resets which answer it has us keep some 500 bytes for each.
const MOST_LATE: usize = 1 << 16;
/// What an endpoint may send on a stream of HTTP/2 before its client took it: keeps a stream of 100 Mbit/s busy over 40 ms.
const STREAM_WINDOW: u32 = 512 * 1024;
/// What h2 lets small DATA frames weigh that clients did not take, as a multiple of the connection's window: 256 less their length each. At its
/// default, a half, two clients that do not read a stream of tiny messages would end the connection for all. So many take some 60 bytes each
/// besides their own, or as much as the window.
const SMALL_FRAMES: usize = 4;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Of each stream, what may wait to be sent. What is put fits the endpoint's window, so this bounds what its socket is behind.
const SEND_BUFFER: usize = 256 * 1024;
/// The largest head of a response, as over HTTP/1.1.
const LARGEST_HEAD: u32 = 128 * 1024;

/// HTTP could not be begun on a connection.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct BeginError(h2::Error);

/// An HTTP/1.1 connection, as the pool sees it.
#[derive(Debug)]
pub(crate) struct Http1Upstream(pub(super) Box<Http1<UpstreamStream>>);

impl Http1Upstream {
    pub(crate) fn new(stream: UpstreamStream) -> Self {
        Self(Box::new(Http1::to_upstream(stream)))
    }

    /// Nobody has a request for it any more.
    pub(crate) fn close(mut self) {
        self.0.stream().say_end();
    }

    /// Whether nothing came, and it did not end, while nobody used it.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.0.stream().is_quiet()
    }
}

/// Sends over an HTTP/2 connection, which its clones share.
#[derive(Clone)]
pub(crate) struct Http2Sender {
    pub(super) sender: SendRequest<Bytes>,
    /// The connection ended.
    over: Rc<Cell<bool>>,
    /// How often something came over it.
    heard: Rc<Cell<u64>>,
}

impl fmt::Debug for Http2Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Sender").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Http2Sender {
    /// For so many streams at once. The window of the connection is that of all of them together, or a client that does not read would stall
    /// the others, whose requests share it: 50 MiB for 100, which takes as many clients that do not read.
    ///
    /// `control_frames`: as of clients.
    pub(crate) async fn begin(
        mut stream: UpstreamStream,
        streams: u32,
        control_frames: u32,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BeginError> {
        let heard = stream.carries_http2();
        let window = STREAM_WINDOW.saturating_mul(streams).min(LARGEST_WINDOW);
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .data_frame_budget(SMALL_FRAMES.saturating_mul(window as usize))
            .max_header_list_size(LARGEST_HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(RESETS_REMEMBERED)
            .max_local_error_reset_streams(Some(MOST_LATE));
        let flooded = Rc::new(Cell::new(None));
        let counted = Counted::new(stream, Peer::Endpoint, control_frames, flooded.clone());
        let (sender, connection) = builder.handshake(counted).await.map_err(BeginError)?;
        let over = Rc::new(Cell::new(false));
        let ended = Ended { over: over.clone(), task: Task::new(metrics.clone()) };
        tokio::task::spawn_local(async move {
            let ended = ended;
            let mut connection = pin!(connection);
            let limit = poll_fn(|cx| match connection.as_mut().poll(cx) {
                // It waits for what answers the flood to be taken, and would read no more.
                Poll::Pending if flooded.get().is_some() => Poll::Ready(flooded.get()),
                // Its error is told to the requests that it carries; without one it is of no interest.
                polled => polled.map(|ended| flooded.get().or(limit_of(&ended.err()?))),
            })
            .await;
            if let Some(limit) = limit {
                ended.task.metrics().limits.inc(limit);
                tracing::debug!(?limit, "an endpoint flooded its connection");
            }
        });
        Ok(Self { sender, over, heard })
    }

    /// How many streams the endpoint takes at once (RFC 9113 §5.1.2): what goes over that waits for others to end. None at all is for a while
    /// only; one can wait for that.
    pub(crate) fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams().max(1)
    }

    /// How often something came from the endpoint, whatever it was.
    pub(crate) fn heard(&self) -> &Rc<Cell<u64>> {
        &self.heard
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        // An endpoint that said GOAWAY finishes what it has, and takes nothing more.
        self.over.get() || matches!(self.sender.clone().poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }
}

/// Notes the end of a connection, also if it is a panic.
struct Ended {
    over: Rc<Cell<bool>>,
    task: Task,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.over.set(true);
    }
}
