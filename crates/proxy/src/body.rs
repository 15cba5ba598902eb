//! Bodies on their way through: streamed, never gathered, each watched for what a peer may leave undone.
//!
//! [`RequestBody`] tells the waiting forwarder what it is waiting for (the client's bytes, or the upstream taking them), counts against the
//! body limit, and remembers whether anything was taken from it. [`ResponseBody`] ends a stream that an upstream left silent for too
//! long, and hands its connection back when it is through.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the peer ended the stream early: {0}")]
    Peer(#[from] hyper::Error),
    #[error("the body is larger than the route allows")]
    TooLarge,
    #[error("nothing came from the upstream for {0:?}")]
    Silent(Duration),
}

/// What a request body is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The client has to send more.
    Client,
    /// The upstream has to take what is there.
    Upstream,
    /// All of it was handed on.
    Nothing,
}

/// What the forwarder sees of a request body that the connection's own task drives.
#[derive(Debug)]
pub(crate) struct Progress {
    waiting: Cell<Waiting>,
    since: Cell<Instant>,
    /// Whether anything was ever asked of the body: from then on it cannot be sent again.
    touched: Cell<bool>,
    too_large: Cell<bool>,
}

impl Progress {
    fn set(&self, waiting: Waiting) {
        self.waiting.set(waiting);
        self.since.set(Instant::now());
    }

    pub(crate) fn waiting(&self) -> (Waiting, Instant) {
        (self.waiting.get(), self.since.get())
    }

    pub(crate) fn touched(&self) -> bool {
        self.touched.get()
    }

    pub(crate) fn too_large(&self) -> bool {
        self.too_large.get()
    }
}

/// The body of a request on its way to an upstream.
pub(crate) struct RequestBody {
    inner: Option<Incoming>,
    /// Bytes that may still come. None: any number.
    left: Option<u64>,
    progress: Rc<Progress>,
}

impl RequestBody {
    pub(crate) fn new(inner: Option<Incoming>, limit: Option<u64>) -> (Self, Rc<Progress>) {
        let inner = inner.filter(|inner| !inner.is_end_stream());
        let waiting = if inner.is_some() { Waiting::Client } else { Waiting::Nothing };
        let progress = Rc::new(Progress {
            waiting: Cell::new(waiting),
            since: Cell::new(Instant::now()),
            touched: Cell::new(false),
            too_large: Cell::new(false),
        });
        (Self { inner, left: limit, progress: progress.clone() }, progress)
    }
}

impl RequestBody {
    /// The body back, as far as nothing was taken from it.
    pub(crate) fn into_inner(self) -> Option<Incoming> {
        self.inner
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        this.progress.touched.set(true);
        match Pin::new(inner).poll_frame(cx) {
            Poll::Pending => {
                this.progress.set(Waiting::Client);
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.progress.set(Waiting::Nothing);
                this.inner = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(left), Some(data)) = (&mut this.left, frame.data_ref()) {
                    let Some(rest) = left.checked_sub(data.len() as u64) else {
                        this.progress.too_large.set(true);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    };
                    *left = rest;
                }
                let done = this.inner.as_ref().is_none_or(Body::is_end_stream);
                this.progress.set(if done { Waiting::Nothing } else { Waiting::Upstream });
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Called once when a response body is through: `true` if it came to its proper end.
type OnEnd = Box<dyn FnOnce(bool)>;

/// The body of a response on its way to a client.
pub(crate) struct ResponseBody {
    kind: Kind,
    /// Called with the number of bytes when the body is through or given up.
    note: Option<Box<dyn FnOnce(u64)>>,
    sent: u64,
}

enum Kind {
    Full(Option<Bytes>),
    Streamed(Streamed),
}

/// A body that comes from an upstream.
pub(crate) struct Streamed {
    inner: Incoming,
    /// The longest silence of the upstream.
    idle: Option<Duration>,
    /// Armed only while the upstream is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
    on_end: Option<OnEnd>,
}

impl ResponseBody {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    pub(crate) fn empty() -> Self {
        Self::of(Kind::Full(None))
    }

    pub(crate) fn streamed(inner: Incoming, idle: Option<Duration>, on_end: OnEnd) -> Self {
        let mut streamed = Streamed { inner, idle, sleep: None, on_end: Some(on_end) };
        if streamed.inner.is_end_stream() {
            streamed.end(true);
        }
        Self::of(Kind::Streamed(streamed))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, note: None, sent: 0 }
    }

    /// Has the end of the body noted.
    pub(crate) fn noted(&mut self, note: impl FnOnce(u64) + 'static) {
        self.note = Some(Box::new(note));
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(note) = self.note.take() {
            note(self.sent);
        }
    }
}

impl Streamed {
    fn end(&mut self, whole: bool) {
        if let Some(on_end) = self.on_end.take() {
            on_end(whole);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.sleep = None;
                if self.inner.is_end_stream() {
                    self.end(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(false);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.end(true);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(idle) = self.idle else { return Poll::Pending };
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                ready!(sleep.as_mut().poll(cx));
                self.end(false);
                Poll::Ready(Some(Err(BodyError::Silent(idle))))
            }
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Streamed(streamed) => streamed.poll(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Streamed(streamed) => streamed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Streamed(streamed) => streamed.inner.size_hint(),
        }
    }
}
