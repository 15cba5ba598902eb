//! The byte streams on both sides: TCP, or TLS over it, with what a connection needs to know of its bytes.
//!
//! A stream tells its connection's [`Control`] when a request begins to come, counts what came, and fails a write that made no progress for
//! too long. Time limits on writes are lifted when a stream becomes a tunnel: they belong to requests.

use std::{
    cell::Cell,
    fmt, io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use crate::{
    clock,
    control::Control,
    metrics::{LimitHit, Listener, Metrics},
    socket,
    worker::Shared,
};

/// Any byte stream of both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + fmt::Debug {
    /// The other side failed: its end is not to look like one in good order.
    fn fail(&mut self);
}

/// TCP with or without TLS.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    ToClient(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    ToUpstream(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::ToClient(tls) => tls.get_ref().0,
            Self::ToUpstream(tls) => tls.get_ref().0,
        }
    }

    /// Says that the connection ends, as TLS wants it said before (RFC 9112 §9.8), if it can be said now.
    fn say_end(&mut self) {
        if !matches!(self, Self::Tcp(_)) {
            let _ = Pin::new(self).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Whoever reads is told that bytes are missing, and does not take the end of the connection for one in good order: SO_LINGER of 0 (RFC 9293 §3.10.4,
    /// socket(7)). What was written and is not sent yet is lost.
    fn reset_on_close(&self) {
        // What fails here is a connection that ended already.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::ToClient(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::ToUpstream(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::ToClient(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::ToUpstream(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::ToClient(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::ToUpstream(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::ToClient(stream) => stream.is_write_vectored(),
            Self::ToUpstream(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::ToClient(stream) => Pin::new(stream).poll_flush(cx),
            Self::ToUpstream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ToClient(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ToUpstream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Fails writes that make no progress for too long.
#[derive(Debug, Default)]
struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    fn watch<T>(&mut self, cx: &mut Context<'_>, limit: Option<Duration>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let (Poll::Pending, Some(limit)) = (&written, limit) else {
            self.0 = None;
            return written;
        };
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A client connection is counted as open for as long as this lives: also as a tunnel.
#[derive(Debug)]
pub(crate) struct Open {
    shared: Arc<Shared>,
    pub(crate) listener: Listener,
    /// Whose it is. Of this size since each idle connection has one.
    worker: u32,
}

impl Open {
    /// None: there are as many as there may be.
    pub(crate) fn new(shared: &Arc<Shared>, listener: Listener, worker: usize) -> Option<Self> {
        if shared.connections.fetch_add(1, Relaxed) >= shared.most_connections {
            shared.connections.fetch_sub(1, Relaxed);
            return None;
        }
        shared.metrics.connections_open.inc(listener);
        shared.spread.count(worker, true);
        Some(Self { shared: shared.clone(), listener, worker: worker as u32 })
    }

    /// It is another worker's from now on. Gives whose it was.
    pub(crate) fn move_to(&mut self, worker: usize) -> usize {
        let before = std::mem::replace(&mut self.worker, worker as u32) as usize;
        self.shared.spread.count(before, false);
        self.shared.spread.count(worker, true);
        before
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.metrics.connections_open.dec(self.listener);
        self.shared.connections.fetch_sub(1, Relaxed);
        self.shared.spread.count(self.worker as usize, false);
    }
}

/// The stream of a client.
#[derive(Debug)]
pub(crate) struct ClientStream {
    transport: Transport,
    control: Rc<Control>,
    stall: Stall,
    open: Open,
    /// It carries requests: writes have their limit.
    limited: bool,
}

impl ClientStream {
    pub(crate) fn new(transport: Transport, control: Rc<Control>, open: Open) -> Self {
        // What fails here is a connection that ended, which shows at its first use.
        let _ = socket::allow_stalls(transport.tcp(), open.shared.options.limits.write_time);
        Self { transport, control, stall: Stall::default(), open, limited: true }
    }

    /// From here on it carries a tunnel.
    pub(crate) fn lift_limits(&mut self) {
        self.limited = false;
        self.stall = Stall::default();
        let _ = socket::prepare_tunnel(self.transport.tcp());
    }

    /// It is closed in good order, between two messages.
    pub(crate) fn say_end(&mut self) {
        self.transport.say_end();
    }

    /// Whether its peer reset it, or is lost. The kernel says so to the runtime unasked, and nothing has to be read for it.
    pub(crate) fn has_failed(&self) -> bool {
        let ready = pin!(self.transport.tcp().ready(Interest::ERROR)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_error())
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.control.bytes_taken(clock::now());
        }
        let pending = written.is_pending();
        let limit = self.limited.then_some(self.open.shared.options.limits.write_time);
        let watched = self.stall.watch(cx, limit, written);
        if pending && watched.is_ready() {
            self.control.stall();
            self.open.shared.metrics.limits.inc(LimitHit::WriteTime);
        }
        watched
    }

    /// It ends within something.
    pub(crate) fn reset_on_close(&self) {
        self.transport.reset_on_close();
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.transport).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.control.bytes_came(clock::now());
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write(cx, buf);
        this.watch(cx, written)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write_vectored(cx, bufs);
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.transport).poll_flush(cx);
        match flushed {
            Poll::Ready(_) => flushed,
            Poll::Pending => this.watch(cx, flushed),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

/// The peer closed its socket: reading is certain to end as well.
fn is_of_a_closed_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// What becomes of what is written to an endpoint that closed its socket. What it said before waits to be read, and is worth more than the failure
/// of a write: an endpoint may answer before it has the whole request, and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToClosed {
    /// It waits. Who writes reads all the while, and learns of the end there.
    Waits,
    /// It goes nowhere. HTTP/2 stops reading when it has something to say that must go first (its GOAWAY, the rest at the end), and would wait for
    /// ever.
    Vanishes,
    /// The write fails: a tunnel has nothing to wait for.
    Fails,
}

/// The stream to an endpoint.
#[derive(Debug)]
pub(crate) struct UpstreamStream {
    transport: Transport,
    /// How long a write may make no progress.
    write_limit: Option<Duration>,
    /// The longest of those that the socket was told of: a kept connection has one for each of its requests.
    allowed: Duration,
    stall: Stall,
    to_closed: ToClosed,
    /// What is written vanishes.
    deaf: bool,
    /// Over HTTP/2: how often something came.
    heard: Option<Rc<Cell<u64>>>,
    metrics: Arc<Metrics>,
}

impl UpstreamStream {
    pub(crate) fn new(transport: Transport, metrics: &Arc<Metrics>) -> Self {
        metrics.upstream_connections_open.inc();
        let to_closed = ToClosed::Waits;
        Self {
            transport,
            write_limit: None,
            allowed: Duration::ZERO,
            stall: Stall::default(),
            to_closed,
            deaf: false,
            heard: None,
            metrics: metrics.clone(),
        }
    }

    /// How long a write may make no progress from now on.
    pub(crate) fn limit_writes(&mut self, limit: Option<Duration>) {
        self.write_limit = limit;
        self.stall = Stall::default();
        if let Some(limit) = limit.filter(|limit| *limit > self.allowed) {
            self.allowed = limit;
            let _ = socket::allow_stalls(self.transport.tcp(), limit);
        }
    }

    /// It is closed in good order, between two messages.
    pub(crate) fn say_end(&mut self) {
        self.transport.say_end();
    }

    /// Whether nothing came, and it did not end, while nobody used it. It is of no use else.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.transport {
            // No system call as long as the kernel did not say that there is something.
            Transport::Tcp(stream) => matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock),
            transport => {
                let mut buffer = ReadBuf::new(&mut byte);
                Pin::new(transport).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer).is_pending()
            }
        }
    }

    /// From here on it carries HTTP/2. Gives where it is counted how often something came.
    pub(crate) fn carries_http2(&mut self) -> Rc<Cell<u64>> {
        self.to_closed = ToClosed::Vanishes;
        self.heard.get_or_insert_default().clone()
    }

    /// From here on it carries a tunnel.
    pub(crate) fn lift_limits(&mut self) {
        self.limit_writes(None);
        self.to_closed = ToClosed::Fails;
        let _ = socket::prepare_tunnel(self.transport.tcp());
    }

    /// Gives what became of a write; `whole` is what it is if all of it vanishes.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>, whole: T) -> Poll<io::Result<T>> {
        if matches!(&written, Poll::Ready(Err(error)) if is_of_a_closed_peer(error)) {
            match self.to_closed {
                ToClosed::Fails => {}
                ToClosed::Waits => {
                    self.stall = Stall::default();
                    return Poll::Pending;
                }
                ToClosed::Vanishes => self.deaf = true,
            }
        }
        if self.deaf {
            self.stall = Stall::default();
            return Poll::Ready(Ok(whole));
        }
        self.stall.watch(cx, self.write_limit, written)
    }

    /// It ends within something.
    pub(crate) fn reset_on_close(&self) {
        self.transport.reset_on_close();
    }
}

impl Drop for UpstreamStream {
    fn drop(&mut self) {
        self.metrics.upstream_connections_open.dec();
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.transport).poll_read(cx, buf);
        let ended = match &read {
            Poll::Ready(Ok(())) => buf.filled().len() == before && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if let Some(heard) = &this.heard
            && buf.filled().len() > before
        {
            heard.set(heard.get().wrapping_add(1));
        }
        // Its streams are over with it: nothing that is still to be said is for anybody.
        this.deaf |= ended && this.to_closed == ToClosed::Vanishes;
        read
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = if this.deaf { Poll::Pending } else { Pin::new(&mut this.transport).poll_write(cx, buf) };
        this.watch(cx, written, buf.len())
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = if this.deaf { Poll::Pending } else { Pin::new(&mut this.transport).poll_write_vectored(cx, bufs) };
        this.watch(cx, written, bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = if this.deaf { Poll::Pending } else { Pin::new(&mut this.transport).poll_flush(cx) };
        match flushed {
            Poll::Ready(Ok(())) => flushed,
            flushed => this.watch(cx, flushed, ()),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Over TLS it would write.
        if this.deaf { Poll::Ready(Ok(())) } else { Pin::new(&mut this.transport).poll_shutdown(cx) }
    }
}
