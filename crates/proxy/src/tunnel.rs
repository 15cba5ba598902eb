//! Tunnels: two joined byte streams after an upgrade.
//!
//! One poll moves what there is, both ways, through a buffer that belongs to the thread: while idle a tunnel owns none. What a blocked writer does
//! not take is kept aside, and until it is gone nothing is read for it. The end of one side passes through as the end of the other's writing;
//! the tunnel ends when both have ended, when nothing went through for its idle limit, or in the drain.
//!
//! A tunnel holds no part of a table: two streams, counters, and what the log wants. The frames of a WebSocket are followed from the first byte
//! (headers only), so that the drain can put a Close between two of them.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock,
    engine::Record,
    io::{ClientStream, Duplex, UpstreamStream},
    metrics::TunnelEnd,
    skew::SKEW,
    task::Task,
    websocket::{self, FrameTracker, SERVICE_RESTART},
    worker::Worker,
};

/// The thread's buffer. Most of the cost of bulk is in calls, and in waking whom they are for: the fewer the better.
const SCRATCH: usize = 256 * 1024;
/// What a direction reads of it to begin with, and in the end if its writer is slow: so much may have to be kept aside. One TLS record.
const LEAST_REACH: usize = 16 * 1024;
/// Bytes that one tunnel moves before others have their turn.
const FAIR_SHARE: usize = 256 * 1024;
/// How long a side of a WebSocket may stay open without a byte after the other has ended: it has said its Close, or never will (RFC 6455 §7.1.1).
/// Other protocols may end one side and wait for the answer, for as long as their tunnel may be idle.
const HALF_CLOSED: Duration = Duration::from_mins(1);
/// How long a client has to answer our Close.
const CLOSE_ANSWER: Duration = Duration::from_secs(1);

/// One side of a tunnel.
#[derive(Debug)]
pub(crate) enum Side {
    Client(ClientStream),
    Upstream(UpstreamStream),
    /// A stream of an HTTP/2 connection.
    Stream(Box<dyn Duplex>),
}

impl Side {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Client(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Upstream(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Client(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Upstream(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Client(stream) => Pin::new(stream).poll_flush(cx),
            Self::Upstream(stream) => Pin::new(stream).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Upstream(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Its tunnel failed: whoever is there is to know that something may be missing.
    fn fail(&mut self) {
        match self {
            Self::Client(stream) => stream.reset_on_close(),
            Self::Upstream(stream) => stream.reset_on_close(),
            Self::Stream(stream) => stream.fail(),
        }
    }
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Counted(TunnelEnd),
    /// A connection failed between the answer and the tunnel.
    HandOver,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HandOver => "tunnel never opened: a connection failed",
            Self::Counted(end) => match end {
                TunnelEnd::Client => "tunnel closed by the client",
                TunnelEnd::Upstream => "tunnel closed by the upstream",
                TunnelEnd::ClientError => "tunnel ended: the client's connection failed",
                TunnelEnd::UpstreamError => "tunnel ended: the upstream's connection failed",
                TunnelEnd::Idle => "tunnel ended: idle",
                TunnelEnd::HalfClosed => "tunnel ended: one side stayed open after the other closed",
                TunnelEnd::DrainedWithClose => "tunnel ended at shutdown, with a Close frame",
                TunnelEnd::Drained => "tunnel ended at shutdown",
                TunnelEnd::Internal => "tunnel ended by an error of the proxy",
            },
        })
    }
}

/// What the worker knows of a tunnel, and tells it.
#[derive(Debug)]
struct Control {
    last_activity: Cell<u64>,
    idle: Option<u64>,
    websocket: bool,
    half_closed: Cell<bool>,
    word: Cell<Word>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    None,
    /// Say Close and end.
    Close,
    /// End now.
    End(TunnelEnd),
}

impl Control {
    fn limit(&self) -> Option<u64> {
        let half_closed = (self.websocket && self.half_closed.get()).then_some(clock::millis(HALF_CLOSED));
        match (self.idle, half_closed) {
            (Some(idle), Some(half_closed)) => Some(idle.min(half_closed)),
            (idle, half_closed) => idle.or(half_closed),
        }
    }

    fn tell(&self, word: Word) {
        self.word.set(word);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// All tunnels of a worker.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    all: RefCell<HashMap<u64, Rc<Control>>>,
    next: Cell<u64>,
    /// No tunnel can be over its limit before.
    not_before: Cell<u64>,
}

impl Tunnels {
    pub(crate) fn len(&self) -> usize {
        self.all.borrow().len()
    }

    fn enter(&self, control: &Rc<Control>) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        self.look_from(control);
        self.all.borrow_mut().insert(id, control.clone());
        id
    }

    /// Makes sure that the sweep looks when this one may be over its limit.
    fn look_from(&self, control: &Control) {
        if let Some(limit) = control.limit() {
            self.not_before.set(self.not_before.get().min(control.last_activity.get().saturating_add(limit)));
        }
    }

    fn leave(&self, id: u64) {
        self.all.borrow_mut().remove(&id);
    }

    /// Ends those that are over their limit. Costs nothing before the first can be.
    pub(crate) fn sweep(&self, now: u64) {
        if now < self.not_before.get() {
            return;
        }
        let mut first = u64::MAX;
        for control in self.all.borrow().values() {
            let Some(limit) = control.limit() else { continue };
            let due = control.last_activity.get().saturating_add(limit);
            if now < due {
                first = first.min(due);
            } else if control.word.get() == Word::None {
                let end = if control.half_closed.get() { TunnelEnd::HalfClosed } else { TunnelEnd::Idle };
                control.tell(Word::End(end));
            }
        }
        self.not_before.set(first);
    }

    /// Those that are open now, to be ended one by one.
    pub(crate) fn list(&self) -> Vec<u64> {
        self.all.borrow().keys().copied().collect()
    }

    /// Lets a tunnel say Close between two frames and end. It is of no effect if it ended.
    pub(crate) fn close(&self, id: u64) {
        let control = self.all.borrow().get(&id).cloned();
        if let Some(control) = control
            && control.word.get() == Word::None
        {
            control.tell(Word::Close);
        }
    }

    /// Ends all that are left.
    pub(crate) fn end_all(&self) {
        for control in self.all.borrow().values() {
            control.tell(Word::End(TunnelEnd::Drained));
        }
    }
}

/// One direction.
#[derive(Debug)]
struct Direction {
    /// How much is read before it is written: more, as long as that much comes and is taken.
    reach: usize,
    /// What the writer did not take yet.
    spill: Bytes,
    frames: FrameTracker,
    bytes: u64,
    /// The reader ended.
    ended: bool,
    /// Its end was passed on.
    shut: bool,
    /// Something was written that may sit in a buffer below.
    unflushed: bool,
    /// A byte was read or written since it was looked at.
    active: bool,
    /// A Close of ours was the last.
    sealed: bool,
}

/// Which side failed.
enum Broken {
    Reader,
    Writer,
}

struct Tunnel {
    client: Side,
    upstream: Side,
    to_upstream: Direction,
    to_client: Direction,
    websocket: bool,
    control: Rc<Control>,
    /// Who ended first.
    first_end: Option<TunnelEnd>,
    /// When our Close was sent to the client.
    closed_at: Option<Pin<Box<tokio::time::Sleep>>>,
}

// Thousands of them idle: what each takes besides its sockets is to stay small.
const _: () = assert!(size_of::<Tunnel>() <= 768);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SKEW + SCRATCH].into_boxed_slice());
}

/// Joins the two until one of them, the idle limit or the drain ends it.
pub(crate) async fn run(
    worker: Rc<Worker>,
    client: (Side, Bytes),
    upstream: (Side, Bytes),
    websocket: bool,
    idle: Option<Duration>,
    record: Box<Record>,
) {
    let control = Rc::new(Control {
        last_activity: Cell::new(clock::now()),
        idle: idle.map(clock::millis),
        websocket,
        half_closed: Cell::new(false),
        word: Cell::new(Word::None),
        waker: RefCell::new(None),
    });
    let opened = Opened::new(&worker, &control);
    let ((client, from_client), (upstream, from_upstream)) = (client, upstream);
    let mut tunnel = Tunnel {
        client,
        upstream,
        to_upstream: Direction::beginning_with(from_client, websocket),
        to_client: Direction::beginning_with(from_upstream, websocket),
        websocket,
        control,
        first_end: None,
        closed_at: None,
    };
    let end = std::future::poll_fn(|cx| tunnel.poll(cx, &worker)).await;
    if matches!(end, TunnelEnd::ClientError | TunnelEnd::UpstreamError) {
        tunnel.client.fail();
        tunnel.upstream.fail();
    }
    opened.ended(end);
    record.tunnel_ended(tunnel.to_upstream.bytes, tunnel.to_client.bytes, &End::Counted(end));
    tracing::debug!(end = %End::Counted(end), "tunnel ended");
}

/// Counts a tunnel as open; its end as well, also if that is a panic.
struct Opened {
    worker: Rc<Worker>,
    id: u64,
    end: TunnelEnd,
    _task: Task,
}

impl Opened {
    fn new(worker: &Rc<Worker>, control: &Rc<Control>) -> Self {
        let metrics = &worker.shared.metrics;
        metrics.tunnels_open.inc();
        metrics.tunnels_opened.inc();
        Self {
            id: worker.tunnels.enter(control),
            worker: worker.clone(),
            end: TunnelEnd::Internal,
            _task: Task::new(metrics.clone()),
        }
    }

    fn ended(mut self, end: TunnelEnd) {
        self.end = end;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let metrics = &self.worker.shared.metrics;
        metrics.tunnels_open.dec();
        metrics.tunnels_ended.inc(self.end);
        self.worker.tunnels.leave(self.id);
    }
}

impl Direction {
    /// Bytes that came with the head go first.
    fn beginning_with(first: Bytes, websocket: bool) -> Self {
        let mut direction = Self {
            reach: LEAST_REACH,
            spill: Bytes::new(),
            frames: FrameTracker::default(),
            bytes: first.len() as u64,
            ended: false,
            shut: false,
            unflushed: false,
            active: false,
            sealed: false,
        };
        if websocket {
            direction.frames.feed(&first);
        }
        direction.spill = first;
        direction
    }

    fn is_over(&self) -> bool {
        self.shut
    }

    /// Writes what is left over. Ready: nothing is left, and nothing sits below.
    fn poll_drained(&mut self, cx: &mut Context<'_>, writer: &mut Side) -> Poll<io::Result<()>> {
        while !self.spill.is_empty() {
            match writer.poll_write(cx, &self.spill) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    let _ = self.spill.split_to(written.min(self.spill.len()));
                    self.unflushed = true;
                    self.active = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Nothing is to keep memory alive.
        self.spill = Bytes::new();
        if self.unflushed {
            std::task::ready!(writer.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Moves what there is, up to `share` bytes. Ready: the direction is over. `close`: put a Close here as soon as it stands between frames.
    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Side,
        writer: &mut Side,
        websocket: bool,
        close: Option<&[u8]>,
        moved: &mut usize,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self.poll_drained(cx, writer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Writer)),
                Poll::Pending => return Poll::Pending,
            }
            if self.ended {
                if !self.shut {
                    // Whoever cannot be told is gone already.
                    let _ = std::task::ready!(writer.poll_shutdown(cx));
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(close) = close.filter(|_| !self.sealed && self.frames.at_boundary()) {
                self.sealed = true;
                self.spill = Bytes::copy_from_slice(close);
                continue;
            }
            if *moved >= FAIR_SHARE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = *moved;
            let read = BUFFER.with_borrow_mut(|buffer| {
                let mut buf = ReadBuf::new(buffer.get_mut(SKEW..SKEW + self.reach).unwrap_or_default());
                let read = self.poll_fill(cx, reader, &mut buf, websocket);
                let data = buf.filled();
                *moved += data.len();
                self.active |= !data.is_empty();
                // What came before its end or its failure goes on first.
                if !data.is_empty() && self.pass(cx, writer, data, websocket, close).is_err() {
                    return Poll::Ready(Err(Broken::Writer));
                }
                if !self.spill.is_empty() {
                    self.reach = (self.reach / 2).max(LEAST_REACH);
                } else if data.len() == self.reach {
                    self.reach = (self.reach * 2).min(SCRATCH);
                }
                read.map_err(|_| Broken::Reader)
            });
            match read {
                Poll::Ready(Ok(())) => {}
                // What was written has to go out first.
                Poll::Pending if *moved > before => {}
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
            }
        }
    }

    /// Reads what there is. Pending: no more for now. Ready: the buffer is full, or the reader ended.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Side,
        buf: &mut ReadBuf<'_>,
        websocket: bool,
    ) -> Poll<io::Result<()>> {
        while buf.remaining() > 0 {
            let before = buf.filled().len();
            match std::task::ready!(reader.poll_read(cx, buf)) {
                // The end of a connection of which TLS did not say so. Many programs that speak WebSocket end so, and frames show what is missing.
                Err(error) if websocket && error.kind() == io::ErrorKind::UnexpectedEof => {}
                read => read?,
            }
            if buf.filled().len() == before {
                self.ended = true;
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes data, and keeps what is not taken.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut Side,
        mut data: &[u8],
        websocket: bool,
        close: Option<&[u8]>,
    ) -> io::Result<()> {
        if websocket && (self.sealed || close.is_none()) {
            self.frames.feed(data);
        }
        if self.sealed {
            // Nothing goes after a Close; what comes is only looked at for the peer's own.
            return Ok(());
        }
        if let Some(close) = close
            && let Some(rest) = self.up_to_boundary(&mut data)
        {
            self.sealed = true;
            self.bytes += data.len() as u64;
            self.spill = [data, close].concat().into();
            self.frames.feed(rest);
            return Ok(());
        }
        self.bytes += data.len() as u64;
        while !data.is_empty() {
            match writer.poll_write(cx, data) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.unflushed = true;
                    data = data.get(written..).unwrap_or_default();
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.spill = Bytes::copy_from_slice(data);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Follows the data to the first place where a Close may be put, cuts it there, and gives what follows. None: there is no such place.
    fn up_to_boundary<'d>(&mut self, data: &mut &'d [u8]) -> Option<&'d [u8]> {
        for (place, byte) in data.iter().enumerate() {
            self.frames.feed(std::slice::from_ref(byte));
            if self.frames.at_boundary() {
                let (before, rest) = data.split_at_checked(place + 1)?;
                *data = before;
                return Some(rest);
            }
        }
        None
    }
}

impl Tunnel {
    fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<TunnelEnd> {
        {
            let mut waker = self.control.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let closing = match self.control.word.get() {
            Word::End(TunnelEnd::Drained) if self.to_client.sealed => return Poll::Ready(TunnelEnd::DrainedWithClose),
            Word::End(end) => return Poll::Ready(end),
            // There is no polite end but in a WebSocket.
            Word::Close if !self.websocket => return Poll::Ready(TunnelEnd::Drained),
            Word::Close => true,
            Word::None => false,
        };
        let (mut up, mut down) = (0, 0);
        let to_client = websocket::close_frame(SERVICE_RESTART, None);
        let to_upstream = closing.then(|| websocket::close_frame(SERVICE_RESTART, Some(websocket::new_mask())));
        let upward = self.to_upstream.poll_pump(
            cx,
            &mut self.client,
            &mut self.upstream,
            self.websocket,
            to_upstream.as_ref().map(websocket::CloseFrame::as_bytes),
            &mut up,
        );
        let downward = self.to_client.poll_pump(
            cx,
            &mut self.upstream,
            &mut self.client,
            self.websocket,
            closing.then_some(to_client.as_bytes()),
            &mut down,
        );
        if std::mem::take(&mut self.to_upstream.active) | std::mem::take(&mut self.to_client.active) {
            self.control.last_activity.set(clock::now());
        }
        if let Poll::Ready(Err(broken)) = upward {
            return Poll::Ready(self.broken(match broken {
                Broken::Reader => TunnelEnd::ClientError,
                Broken::Writer => TunnelEnd::UpstreamError,
            }));
        }
        if let Poll::Ready(Err(broken)) = downward {
            return Poll::Ready(self.broken(match broken {
                Broken::Reader => TunnelEnd::UpstreamError,
                Broken::Writer => TunnelEnd::ClientError,
            }));
        }
        let (client_ended, upstream_ended) = (self.to_upstream.ended, self.to_client.ended);
        if self.first_end.is_none() && (client_ended || upstream_ended) {
            self.first_end = Some(if client_ended { TunnelEnd::Client } else { TunnelEnd::Upstream });
            self.control.half_closed.set(true);
            worker.tunnels.look_from(&self.control);
        }
        if self.to_client.sealed {
            // What the client says now is its own Close, or nothing.
            let answered = client_ended || self.to_upstream.frames.close_seen();
            let sleep = self.closed_at.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_ANSWER)));
            let over = sleep.as_mut().poll(cx).is_ready();
            if self.to_client.spill.is_empty() && !self.to_client.unflushed && (answered || over) {
                return Poll::Ready(TunnelEnd::DrainedWithClose);
            }
        }
        if self.to_upstream.is_over() && self.to_client.is_over() {
            return Poll::Ready(self.first_end.unwrap_or(TunnelEnd::Client));
        }
        Poll::Pending
    }

    /// After a Close, of ours or its own, the other's connection may fail as it likes.
    fn broken(&self, end: TunnelEnd) -> TunnelEnd {
        let end = match end {
            TunnelEnd::ClientError if self.to_upstream.frames.close_seen() => TunnelEnd::Client,
            TunnelEnd::UpstreamError if self.to_client.frames.close_seen() => TunnelEnd::Upstream,
            end => end,
        };
        if self.to_client.sealed { TunnelEnd::DrainedWithClose } else { self.first_end.unwrap_or(end) }
    }
}

#[cfg(test)]
mod tests;
