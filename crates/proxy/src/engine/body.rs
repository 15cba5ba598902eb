//! Bodies on their way through: nothing is gathered, each piece goes on as it comes, and trailers with it. Limits are kept while they pass.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Version, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{sync::Notify, time::Sleep};

use super::{record::Record, serve::Client, streams::Taking};
use crate::{
    clock,
    control::Busy,
    metrics::{LimitHit, Metrics},
    upstream::{Connection, Pool},
};

/// What is read of a body that nobody wants any more: a client that sends on after the answer for longer than this is not reading it.
const MOST_LEFTOVER: usize = 1 << 20;
const LEFTOVER_TIME: Duration = Duration::from_secs(2);

/// What is kept of a request's body until its response begins, to be sent again where that is safe: forms and API calls, not uploads.
const REPLAY: usize = 64 * 1024;

/// Why a body ended before its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    Http(hyper::Error),
    /// The route's limit.
    TooLarge,
    /// No byte came for too long.
    Idle,
    /// The client took none for too long.
    NotTaken,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::TooLarge => f.write_str("the body is larger than the limit"),
            Self::Idle => f.write_str("no byte of the body came for too long"),
            Self::NotTaken => f.write_str("the client took nothing for too long"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http(error) => Some(error),
            Self::TooLarge | Self::Idle | Self::NotTaken => None,
        }
    }
}

/// Runs while nothing comes; starts anew with each piece.
#[derive(Debug, Default)]
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Whether the time is over.
    fn is_over(&mut self, cx: &mut Context<'_>, limit: Duration) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        sleep.as_mut().poll(cx).is_ready()
    }

    fn renew(&mut self) {
        self.0 = None;
    }
}

/// What is known of a request's body while it goes to the upstream.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    received: Cell<u64>,
    polled: Cell<bool>,
    ended: Cell<bool>,
    too_large: Cell<bool>,
    too_slow: Cell<bool>,
    failed: Cell<bool>,
    /// When a piece went by last.
    progress: Cell<u64>,
    response: Cell<Answered>,
    replay: RefCell<Replay>,
    /// Who waits for a piece, and is to wait with another limit once the response is over.
    waiter: RefCell<Option<Waker>>,
}

/// What went by, for another try.
#[derive(Debug)]
enum Replay {
    Kept(Vec<Bytes>),
    /// It is too much, it has trailers, or the response began.
    Gone,
}

impl Default for Replay {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

impl Replay {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Self::Kept(pieces) = self else { return };
        let kept: usize = pieces.iter().map(Bytes::len).sum();
        match frame.data_ref() {
            Some(data) if kept + data.len() <= REPLAY => pieces.push(data.clone()),
            Some(_) | None => *self = Self::Gone,
        }
    }
}

/// How far the response is while the request's body goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answered {
    #[default]
    No,
    /// Both go on, for as long as the response's own limits let it: a client may have good reason to be silent.
    Begun,
    /// The upload goes on alone.
    Over,
}

impl Upload {
    pub(super) fn response_begins(&self) {
        self.response.set(Answered::Begun);
        self.replay.replace(Replay::Gone);
    }

    pub(super) fn response_is_over(&self) {
        self.response.set(Answered::Over);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Bytes that came from the client.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// The body was looked at: what was sent of it cannot be sent again.
    pub(super) fn was_polled(&self) -> bool {
        self.polled.get()
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.get()
    }

    pub(super) fn is_too_slow(&self) -> bool {
        self.too_slow.get()
    }

    /// The whole body, if it went by and was kept.
    fn whole(&self) -> Option<Vec<Bytes>> {
        match &*self.replay.borrow() {
            Replay::Kept(pieces) if self.ended.get() => Some(pieces.clone()),
            Replay::Kept(_) | Replay::Gone => None,
        }
    }

    /// The client's connection failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress.get()
    }
}

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// None: there is no body, or it is sent again.
    incoming: Option<Incoming>,
    again: VecDeque<Bytes>,
    upload: Rc<Upload>,
    limit: Option<u64>,
    idle: Option<Duration>,
    patience: Patience,
    /// The client sends nothing before it is told to (RFC 9110 §10.1.1).
    waits_for_continue: bool,
    /// None: there is no body, or its stream ends for itself.
    origin: Option<Origin>,
}

/// The HTTP/1.1 connection that a body comes by.
#[derive(Debug)]
struct Origin {
    /// It is not idle, and late with no head, while its body comes.
    busy: Busy,
    /// Who reads what is left of it.
    leftovers: Rc<Leftovers>,
    metrics: Arc<Metrics>,
}

impl RequestBody {
    /// The body of a client's request.
    pub(super) fn of_client(client: &Client, head: &Parts, incoming: Incoming) -> Self {
        let incoming = Some(incoming).filter(|incoming| !incoming.is_end_stream());
        let upload = Rc::new(Upload::default());
        upload.progress.set(clock::now());
        // Streams of HTTP/2 end one by one, may be silent for long with good reason, and need nobody to read them out.
        let http1 = head.version != Version::HTTP_2;
        let origin = (http1 && incoming.is_some()).then(|| Origin {
            busy: client.control.begin(),
            leftovers: client.worker.leftovers.clone(),
            metrics: client.worker.shared.metrics.clone(),
        });
        Self {
            incoming,
            again: VecDeque::new(),
            upload,
            limit: None,
            idle: http1.then_some(client.worker.shared.options.limits.body_time),
            patience: Patience::default(),
            waits_for_continue: head.headers.contains_key(header::EXPECT),
            origin,
        }
    }

    pub(super) fn empty() -> Self {
        Self::of_pieces(Rc::default(), VecDeque::new())
    }

    /// The body that went by in vain, if it can be sent again.
    pub(super) fn replayed(upload: &Rc<Upload>) -> Option<Self> {
        Some(Self::of_pieces(upload.clone(), upload.whole()?.into()))
    }

    fn of_pieces(upload: Rc<Upload>, again: VecDeque<Bytes>) -> Self {
        Self {
            incoming: None,
            again,
            upload,
            limit: None,
            idle: None,
            patience: Patience::default(),
            waits_for_continue: false,
            origin: None,
        }
    }

    pub(super) fn limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    pub(super) fn upload(&self) -> &Rc<Upload> {
        &self.upload
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let ended = self.upload.ended.get() || self.upload.failed.get();
        // Whoever waits for our 100 sends nothing, and to read would be to say 100.
        let silent = self.waits_for_continue && !self.upload.polled.get();
        if let (Some(incoming), Some(origin), false) = (self.incoming.take(), self.origin.take(), ended || silent) {
            origin.leftovers.add(incoming, origin.busy);
        }
    }
}

/// Bodies of HTTP/1.1 requests that were answered before their end. They are read out for a moment: a connection that is closed with bytes unread
/// is reset by the kernel, and the client may lose the answer.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    waiting: RefCell<Vec<(Incoming, Busy)>>,
    came: Notify,
}

impl Leftovers {
    fn add(&self, incoming: Incoming, busy: Busy) {
        self.waiting.borrow_mut().push((incoming, busy));
        self.came.notify_one();
    }

    /// Runs for as long as the worker does.
    pub(crate) async fn read_out(self: Rc<Self>) {
        loop {
            self.came.notified().await;
            for (mut incoming, busy) in self.waiting.take() {
                tokio::task::spawn_local(async move {
                    let _busy = busy;
                    let mut left = MOST_LEFTOVER;
                    let reading = async {
                        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                            if left == 0 {
                                break;
                            }
                        }
                    };
                    let _ = tokio::time::timeout(LEFTOVER_TIME, reading).await;
                });
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(this.again.pop_front().map(|data| Ok(Frame::data(data))));
        };
        let upload = &this.upload;
        upload.polled.set(true);
        match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.patience.renew();
                upload.progress.set(clock::now());
                if incoming.is_end_stream() {
                    upload.ended.set(true);
                    this.origin = None;
                }
                if let Some(data) = frame.data_ref() {
                    upload.received.set(upload.received.get() + data.len() as u64);
                    if this.limit.is_some_and(|limit| upload.received.get() > limit) {
                        upload.too_large.set(true);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                }
                upload.replay.borrow_mut().keep(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                upload.failed.set(true);
                Poll::Ready(Some(Err(BodyError::Http(error))))
            }
            Poll::Ready(None) => {
                upload.ended.set(true);
                upload.progress.set(clock::now());
                this.origin = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let answered = upload.response.get();
                if answered == Answered::Begun {
                    this.patience.renew();
                    *upload.waiter.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                match this.idle {
                    Some(idle) if this.patience.is_over(cx, idle) => {
                        upload.too_slow.set(true);
                        if let (Answered::Over, Some(origin)) = (answered, &this.origin) {
                            // Nobody is left to be told.
                            origin.metrics.limits.inc(LimitHit::BodyTime);
                        }
                        Poll::Ready(Some(Err(BodyError::Idle)))
                    }
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let again = || self.again.iter().map(|data| data.len() as u64).sum();
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(again()), Body::size_hint)
    }
}

/// A response's body on its way to the client. When it is over, or dropped, the request is counted and logged.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Box<Record>>,
    /// Of a stream of HTTP/2.
    taking: Option<Rc<Taking>>,
}

#[derive(Debug)]
enum Source {
    Empty,
    Own(Option<Bytes>),
    Upstream(Box<UpstreamBody>),
}

/// The body of an upstream's response, with the connection that it comes by.
struct UpstreamBody {
    incoming: Incoming,
    /// Goes back to the pool at the end. Dropped before, it is closed with its connection.
    connection: Option<Connection>,
    pool: Rc<Pool>,
    read_limit: Option<Duration>,
    patience: Patience,
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl ResponseBody {
    pub(super) fn empty(record: Box<Record>) -> Self {
        Self::new(Source::Empty, Some(record))
    }

    fn new(source: Source, record: Option<Box<Record>>) -> Self {
        Self { source, record, taking: Taking::current() }
    }

    /// For the head that opens a tunnel, whose record goes with the tunnel.
    pub(super) fn none() -> Self {
        Self::new(Source::Empty, None)
    }

    pub(super) fn own(content: Bytes, record: Box<Record>) -> Self {
        Self::new(Source::Own(Some(content).filter(|content| !content.is_empty())), Some(record))
    }

    pub(super) fn upstream(
        incoming: Incoming,
        connection: Connection,
        pool: Rc<Pool>,
        read_limit: Option<Duration>,
        record: Box<Record>,
    ) -> Self {
        let mut body = UpstreamBody { incoming, connection: Some(connection), pool, read_limit, patience: Patience::default() };
        if body.incoming.is_end_stream() {
            body.finish();
            return Self::new(Source::Empty, Some(record));
        }
        Self::new(Source::Upstream(Box::new(body)), Some(record))
    }
}

impl UpstreamBody {
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.renew();
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Http(error)))),
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match self.read_limit {
                Some(limit) if self.patience.is_over(cx, limit) => Poll::Ready(Some(Err(BodyError::Idle))),
                _ => Poll::Pending,
            },
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(record), Some(true)) = (&mut self.record, self.taking.as_ref().map(|taking| taking.has_stalled())) {
            record.aborted(&BodyError::NotTaken);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(taking) = &this.taking {
            taking.asks();
        }
        let frame = match &mut this.source {
            Source::Empty => Poll::Ready(None),
            Source::Own(content) => Poll::Ready(content.take().map(|content| Ok(Frame::data(content)))),
            Source::Upstream(body) => body.poll(cx),
        };
        if let Some(record) = &mut this.record {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(Some(Err(error))) => record.aborted(error),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        match (&frame, &this.taking) {
            (Poll::Ready(None | Some(Err(_))), _) => this.record = None,
            (Poll::Ready(Some(Ok(_))), Some(taking)) => taking.gets(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Own(content) => content.is_none(),
            Source::Upstream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Own(content) => SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64)),
            Source::Upstream(body) => body.incoming.size_hint(),
        }
    }
}

/// The I/O error under an error of hyper's, if that is what it is.
pub(super) fn io_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}
