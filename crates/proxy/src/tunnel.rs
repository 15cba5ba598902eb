//! Tunnels: two byte streams joined after 101 (or 200 to an extended CONNECT).
//!
//! Promises:
//! * A tunnel holds no part of a table. It ends when a peer ends it, when it was silent for its idle limit, or in the drain.
//! * While idle it owns no buffer: it reads into a scratch buffer of its thread, and keeps only what the other side would not take.
//! * Half-close and back-pressure pass through: nothing is read for a writer that is blocked.
//! * In the drain a WebSocket whose streams stand between frames gets Close 1012 both ways, and nothing after it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{
    metrics::TunnelEnd,
    stream::Stream,
    websocket::{FrameTracker, SERVICE_RESTART, close_frame, new_mask},
};

/// What one read may bring. Bulk transfers gain little from more; the buffer is the thread's, so it costs nothing per tunnel.
const SCRATCH: usize = 32 * 1024;
/// What one tunnel may move before the others of its thread get their turn.
const FAIR_SHARE: usize = 256 * 1024;
/// How often idle limits are looked at. Limits are minutes to hours.
const TICK: Duration = Duration::from_millis(500);
/// How long peers may take to answer a Close frame by closing.
const CLOSE_ANSWER: Duration = Duration::from_secs(2);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// One end of a tunnel.
#[derive(Debug)]
pub(crate) enum End {
    Stream(Stream),
    /// A stream of an HTTP/2 connection.
    H2(TokioIo<Upgraded>),
}

impl End {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::H2(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::H2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
            Self::H2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::H2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What a thread's tunnels share: who lives, who has been silent, who has to go.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    live: RefCell<HashMap<u64, Rc<Shared>>>,
    next: Cell<u64>,
}

/// What the thread's keeper and the tunnel both see.
#[derive(Debug)]
struct Shared {
    last: Cell<Instant>,
    idle: Option<Duration>,
    order: Cell<Option<TunnelEnd>>,
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    fn end(&self, reason: TunnelEnd) {
        if self.order.get().is_none() {
            self.order.set(Some(reason));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

impl Tunnels {
    /// Ends the tunnels that were silent for too long, for ever.
    pub(crate) async fn keep(&self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            for shared in self.live.borrow().values() {
                if shared.idle.is_some_and(|idle| now.duration_since(shared.last.get()) >= idle) {
                    shared.end(TunnelEnd::Idle);
                }
            }
        }
    }

    /// Tells one tunnel to close in good order; false if there is none left that was not told.
    pub(crate) fn drain_one(&self) -> bool {
        let live = self.live.borrow();
        let Some(shared) = live.values().find(|shared| shared.order.get().is_none()) else { return false };
        shared.end(TunnelEnd::DrainedWithClose);
        true
    }

    pub(crate) fn untold(&self) -> usize {
        self.live.borrow().values().filter(|shared| shared.order.get().is_none()).count()
    }
}

/// Two ends joined, with what was already read from each.
pub(crate) struct Tunnel {
    client: End,
    upstream: End,
    up: Direction,
    down: Direction,
    shared: Rc<Shared>,
    closing: Closing,
    /// Who closed first.
    first: Option<TunnelEnd>,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// Close frames are on their way.
    Said,
}

struct Direction {
    /// What the writer would not take yet. Empty and without capacity while idle.
    spill: Vec<u8>,
    taken: usize,
    state: Flow,
    unflushed: bool,
    frames: Option<FrameTracker>,
    /// Nothing more is forwarded: a Close frame of ours was the last.
    muted: bool,
    moved: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// The reader is through; the writer has to be told.
    Ended,
    Closed,
}

impl Direction {
    fn new(leftover: &[u8], websocket: bool) -> Self {
        let mut frames = websocket.then(FrameTracker::default);
        if let Some(frames) = &mut frames {
            frames.feed(leftover);
        }
        Self {
            spill: leftover.to_vec(),
            taken: 0,
            state: Flow::Open,
            unflushed: false,
            frames,
            muted: false,
            moved: leftover.len() as u64,
        }
    }

    fn between_frames(&self) -> bool {
        self.frames.as_ref().is_some_and(FrameTracker::at_boundary) && self.spill.is_empty()
    }

    /// Moves what can be moved. Ready: this direction is through.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut End, to: &mut End, shared: &Shared) -> Poll<Result<(), Fault>> {
        let mut budget = FAIR_SHARE;
        loop {
            if self.taken < self.spill.len() {
                let rest = self.spill.get(self.taken..).unwrap_or_default();
                let written = ready!(to.poll_write(cx, rest)).map_err(Fault::writer)?;
                if written == 0 {
                    return Poll::Ready(Err(Fault::Writer));
                }
                self.unflushed = true;
                self.taken += written;
                if self.taken == self.spill.len() {
                    self.spill = Vec::new();
                    self.taken = 0;
                }
                continue;
            }
            match self.state {
                Flow::Closed => return Poll::Ready(Ok(())),
                Flow::Ended => {
                    ready!(to.poll_shutdown(cx)).map_err(Fault::writer)?;
                    self.state = Flow::Closed;
                    continue;
                }
                Flow::Open => {}
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let moved = match self.transfer(cx, from, to) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => {
                    if self.unflushed
                        && let Poll::Ready(result) = to.poll_flush(cx)
                    {
                        result.map_err(Fault::writer)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            };
            if moved == 0 {
                self.state = Flow::Ended;
            } else {
                self.moved += moved as u64;
                budget = budget.saturating_sub(moved);
                shared.last.set(Instant::now());
            }
        }
    }

    /// One read into the thread's scratch, and one write of it; what is left is spilt.
    fn transfer(&mut self, cx: &mut Context<'_>, from: &mut End, to: &mut End) -> Poll<Result<usize, Fault>> {
        BUFFER.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(from.poll_read(cx, &mut buffer)).map_err(Fault::reader)?;
            let bytes = buffer.filled();
            if bytes.is_empty() || self.muted {
                return Poll::Ready(Ok(bytes.len()));
            }
            if let Some(frames) = &mut self.frames {
                frames.feed(bytes);
            }
            let written = match to.poll_write(cx, bytes) {
                Poll::Ready(result) => result.map_err(Fault::writer)?,
                Poll::Pending => 0,
            };
            self.unflushed |= written > 0;
            if let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
                self.spill.extend_from_slice(rest);
            }
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Appends our own last frame.
    fn close_with(&mut self, mask: Option<[u8; 4]>) {
        self.spill.extend_from_slice(close_frame(SERVICE_RESTART, mask).as_bytes());
        self.muted = true;
    }
}

/// Whose connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Reader,
    Writer,
}

impl Fault {
    // As callbacks, these take the error that they forget: which side it was is all that is counted.
    #[allow(clippy::needless_pass_by_value)]
    fn reader(_: io::Error) -> Self {
        Self::Reader
    }

    #[allow(clippy::needless_pass_by_value)]
    fn writer(_: io::Error) -> Self {
        Self::Writer
    }
}

/// What became of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) reason: TunnelEnd,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Tunnel {
    /// Joins two ends. `websocket`: the streams are frames (RFC 6455) from their first byte.
    pub(crate) fn new(client: (End, &[u8]), upstream: (End, &[u8]), websocket: bool, idle: Option<Duration>) -> Self {
        let shared = Shared { last: Cell::new(Instant::now()), idle, order: Cell::new(None), waker: RefCell::new(None) };
        Self {
            up: Direction::new(client.1, websocket),
            down: Direction::new(upstream.1, websocket),
            client: client.0,
            upstream: upstream.0,
            shared: Rc::new(shared),
            closing: Closing::No,
            first: None,
            deadline: None,
        }
    }

    /// Runs to its end.
    pub(crate) async fn run(mut self, tunnels: &Tunnels) -> Finished {
        let id = tunnels.next.get();
        tunnels.next.set(id + 1);
        tunnels.live.borrow_mut().insert(id, self.shared.clone());
        let reason = std::future::poll_fn(|cx| self.poll(cx)).await;
        tunnels.live.borrow_mut().remove(&id);
        Finished { reason, up: self.up.moved, down: self.down.moved }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        let mut waker = self.shared.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        loop {
            let up = match self.up.poll(cx, &mut self.client, &mut self.upstream, &self.shared) {
                Poll::Ready(Err(Fault::Reader)) => return Poll::Ready(self.reason(TunnelEnd::ClientError)),
                Poll::Ready(Err(Fault::Writer)) => return Poll::Ready(self.reason(TunnelEnd::UpstreamError)),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            let down = match self.down.poll(cx, &mut self.upstream, &mut self.client, &self.shared) {
                Poll::Ready(Err(Fault::Reader)) => return Poll::Ready(self.reason(TunnelEnd::UpstreamError)),
                Poll::Ready(Err(Fault::Writer)) => return Poll::Ready(self.reason(TunnelEnd::ClientError)),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            if self.first.is_none() {
                self.first = match (self.up.state, self.down.state) {
                    (Flow::Open, Flow::Open) => None,
                    (Flow::Open, _) => Some(TunnelEnd::Upstream),
                    _ => Some(TunnelEnd::Client),
                };
            }
            if up && down {
                return Poll::Ready(self.reason(self.first.unwrap_or(TunnelEnd::Client)));
            }
            match self.shared.order.get() {
                Some(TunnelEnd::DrainedWithClose) => {}
                Some(reason) => return Poll::Ready(reason),
                None => return Poll::Pending,
            }
            if self.closing == Closing::No && self.say_close() {
                continue;
            }
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_ANSWER)));
            ready!(deadline.as_mut().poll(cx));
            let reason = if self.closing == Closing::Said { TunnelEnd::DrainedWithClose } else { TunnelEnd::Drained };
            return Poll::Ready(reason);
        }
    }

    /// Says Close both ways if both stand between frames.
    fn say_close(&mut self) -> bool {
        if !(self.up.between_frames() && self.down.between_frames()) {
            return false;
        }
        self.up.close_with(Some(new_mask()));
        self.down.close_with(None);
        self.closing = Closing::Said;
        self.deadline = None;
        true
    }

    fn reason(&self, otherwise: TunnelEnd) -> TunnelEnd {
        match (self.closing, self.shared.order.get()) {
            (Closing::Said, _) => TunnelEnd::DrainedWithClose,
            (Closing::No, Some(TunnelEnd::DrainedWithClose)) => TunnelEnd::Drained,
            _ => otherwise,
        }
    }
}
