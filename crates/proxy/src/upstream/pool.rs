//! The connections of one worker to endpoints: by backend and endpoint, no lock, nothing shared between threads.
//!
//! HTTP/1.1 connections are plain values: lent to one request each, they come back when its response is over; the one used last is used first, so
//! that those not needed age out. Before one is lent again it has to be quiet: bytes that came unasked, and an end, close it. HTTP/2 connections are
//! shared, and driven by a task of their own.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use penstock_model::Protocol;
use tokio::{sync::watch, time::Instant};

use super::{
    connect::{ConnectError, Connector},
    registry::Backend,
};
use crate::{
    clock,
    engine::{Http1Upstream, Http2Sender},
};

/// Streams of one HTTP/2 connection at once before another connection is made: what servers allow as a rule (RFC 9113 §6.5.2 advises at
/// least 100).
const STREAMS_PER_CONNECTION: u32 = 100;

type Key = (u64, SocketAddr);

/// One worker's connections.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoints: RefCell<HashMap<Key, Rc<EndpointPool>, foldhash::fast::RandomState>>,
    most_idle: usize,
    idle_time: u64,
}

#[derive(Debug, Default)]
struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared>>,
    /// How it goes with an HTTP/2 connection that is being made: one at a time.
    making: RefCell<Option<watch::Receiver<Option<Made>>>>,
}

/// What became of an attempt to connect.
type Made = Result<(), Arc<ConnectError>>;

/// An attempt to make an HTTP/2 connection, for which others wait while this lives.
struct Making<'p> {
    place: &'p EndpointPool,
    outcome: watch::Sender<Option<Made>>,
}

impl<'p> Making<'p> {
    fn begin(place: &'p EndpointPool) -> Self {
        let (outcome, waiting) = watch::channel(None);
        *place.making.borrow_mut() = Some(waiting);
        Self { place, outcome }
    }

    fn ended(self, made: Made) {
        self.outcome.send_replace(Some(made));
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        *self.place.making.borrow_mut() = None;
    }
}

#[derive(Debug)]
struct Idle {
    connection: Http1Upstream,
    since: u64,
}

#[derive(Debug)]
struct Shared {
    sender: Http2Sender,
    streams: Rc<Cell<u32>>,
    last_used: Rc<Cell<u64>>,
    /// It gets no more streams.
    retired: Rc<Cell<bool>>,
}

/// A connection for one request.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    /// It carried a request before: its endpoint may have closed it in the meantime.
    pub(crate) reused: bool,
    /// Where it belongs.
    pub(crate) place: Place,
}

/// Where connections to an endpoint are kept.
#[derive(Debug)]
pub(crate) struct Place(Rc<EndpointPool>);

pub(crate) enum Sender {
    Http1(Http1Upstream),
    Http2 { sender: Http2Sender, stream: StreamCount },
}

/// A stream of a shared connection, counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct StreamCount {
    streams: Rc<Cell<u32>>,
    last_used: Rc<Cell<u64>>,
    retired: Rc<Cell<bool>>,
    /// How often something had come over the connection when this began, and how often by now.
    heard: (u64, Rc<Cell<u64>>),
}

impl StreamCount {
    /// Its response did not come in time. If nothing else came over the connection either, that may be dead, which the kernel notices minutes
    /// later: streams that it has may live on, the next ones get another. A PING would tell sooner, but gRPC takes those for abuse.
    pub(crate) fn is_late(&self) {
        if self.heard.0 == self.heard.1.get() {
            self.retired.set(true);
        }
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.last_used.set(clock::now());
    }
}

impl Pool {
    pub(crate) fn new(most_idle: usize, idle_time: Duration) -> Self {
        Self { endpoints: RefCell::default(), most_idle, idle_time: clock::millis(idle_time) }
    }

    fn place(&self, backend: &Backend, endpoint: SocketAddr) -> Rc<EndpointPool> {
        self.endpoints.borrow_mut().entry((backend.id(), endpoint)).or_default().clone()
    }

    /// A connection to an endpoint that is kept.
    pub(crate) fn kept(&self, backend: &Backend, endpoint: SocketAddr) -> Option<Connection> {
        let place = self.place(backend, endpoint);
        let sender = match backend.protocol() {
            Protocol::Http1 => Sender::Http1(place.take_idle(self.idle_time)?),
            Protocol::Http2 | Protocol::Grpc => place.take_shared()?,
        };
        Some(Connection { sender, reused: true, place: Place(place) })
    }

    /// A new connection to an endpoint, or a shared one that others made meanwhile, unless a fresh one is wanted. `limit` is the time to
    /// connect.
    pub(crate) async fn connect(
        &self,
        connector: &Connector,
        backend: &Backend,
        endpoint: SocketAddr,
        limit: Duration,
        fresh: bool,
    ) -> Result<Connection, ConnectError> {
        let place = self.place(backend, endpoint);
        let (sender, reused) = match backend.protocol() {
            Protocol::Http1 => {
                let stream = connector.connect(backend, endpoint, limit).await?;
                (Sender::Http1(Http1Upstream::new(stream)), false)
            }
            Protocol::Http2 | Protocol::Grpc => Self::http2(connector, backend, endpoint, limit, fresh, &place).await?,
        };
        Ok(Connection { sender, reused, place: Place(place) })
    }

    async fn http2(
        connector: &Connector,
        backend: &Backend,
        endpoint: SocketAddr,
        limit: Duration,
        fresh: bool,
        place: &EndpointPool,
    ) -> Result<(Sender, bool), ConnectError> {
        let timeout = || ConnectError::Timeout(endpoint, limit);
        let deadline = Instant::now() + limit;
        let mut fresh = fresh;
        loop {
            if !fresh && let Some(sender) = place.take_shared() {
                return Ok((sender, true));
            }
            let making = place.making.borrow().clone();
            let Some(mut making) = making else { break };
            // Who waits has the time of one attempt and its outcome, whatever it is: an endpoint that says nothing is not asked by each in turn.
            let made = tokio::time::timeout_at(deadline, making.wait_for(Option::is_some)).await.map_err(|_| timeout())?;
            let made = made.ok().and_then(|made| made.clone());
            match made {
                Some(Ok(())) => fresh = false,
                Some(Err(error)) => return Err(ConnectError::Shared(error)),
                // Its request was given up meanwhile.
                None => {}
            }
        }
        let making = Making::begin(place);
        match Self::make_http2(connector, backend, endpoint, (limit, deadline), place).await {
            Ok(sender) => {
                making.ended(Ok(()));
                Ok((sender, false))
            }
            Err(error) => {
                let error = Arc::new(error);
                making.ended(Err(error.clone()));
                Err(ConnectError::Shared(error))
            }
        }
    }

    async fn make_http2(
        connector: &Connector,
        backend: &Backend,
        endpoint: SocketAddr,
        (limit, deadline): (Duration, Instant),
        place: &EndpointPool,
    ) -> Result<Sender, ConnectError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let stream = connector.connect(backend, endpoint, left).await?;
        let beginning = Http2Sender::begin(stream, STREAMS_PER_CONNECTION, connector.control_frames, &connector.metrics);
        let made = tokio::time::timeout_at(deadline, beginning).await.map_err(|_| ConnectError::Timeout(endpoint, limit))?;
        let sender = made.map_err(|error| ConnectError::Http(endpoint, error))?;
        let shared = Shared { sender, streams: Rc::default(), last_used: Rc::new(Cell::new(clock::now())), retired: Rc::default() };
        let sender = shared.lend();
        place.shared.borrow_mut().push(shared);
        Ok(sender)
    }

    /// Closes what was idle for too long, and forgets endpoints without connections.
    pub(crate) fn sweep(&self, now: u64) {
        self.endpoints.borrow_mut().retain(|_, place| {
            let of_use = |idle: &mut Idle| now.saturating_sub(idle.since) < self.idle_time && idle.connection.is_quiet();
            for idle in place.idle.borrow_mut().extract_if(.., |idle| !of_use(idle)) {
                idle.connection.close();
            }
            place.shared.borrow_mut().retain(|shared| {
                let idle = shared.streams.get() == 0 && now.saturating_sub(shared.last_used.get()) >= self.idle_time;
                shared.is_of_use() && !idle
            });
            !place.idle.borrow().is_empty() || !place.shared.borrow().is_empty() || Rc::strong_count(place) > 1
        });
    }

    /// Closes all that no request has, for the sake of what lacks a descriptor. Says how many.
    pub(crate) fn free(&self) -> usize {
        let mut freed = 0;
        for place in self.endpoints.borrow().values() {
            for idle in place.idle.take() {
                idle.connection.close();
                freed += 1;
            }
            place.shared.borrow_mut().retain(|shared| {
                let used = shared.streams.get() > 0;
                freed += usize::from(!used);
                used
            });
        }
        freed
    }

    /// Takes back what a request does not need any more: an HTTP/1.1 connection about which nothing is in doubt.
    pub(crate) fn give_back(&self, place: &Place, connection: Http1Upstream) {
        let mut idle = place.0.idle.borrow_mut();
        if idle.len() >= self.most_idle {
            idle.remove(0).connection.close();
        }
        idle.push(Idle { connection, since: clock::now() });
    }
}

impl EndpointPool {
    /// The connection that was used last and is quiet.
    fn take_idle(&self, idle_time: u64) -> Option<Http1Upstream> {
        let mut all = self.idle.borrow_mut();
        let now = clock::now();
        while let Some(Idle { mut connection, since }) = all.pop() {
            if now.saturating_sub(since) < idle_time && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn take_shared(&self) -> Option<Sender> {
        let mut all = self.shared.borrow_mut();
        all.retain(Shared::is_of_use);
        all.iter().find(|shared| shared.has_room()).map(Shared::lend)
    }
}

impl Shared {
    fn is_of_use(&self) -> bool {
        !self.retired.get() && !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        let streams = self.streams.get();
        streams < STREAMS_PER_CONNECTION && (streams as usize) < self.sender.most_streams()
    }

    fn lend(&self) -> Sender {
        self.streams.set(self.streams.get() + 1);
        let heard = self.sender.heard();
        let stream = StreamCount {
            streams: self.streams.clone(),
            last_used: self.last_used.clone(),
            retired: self.retired.clone(),
            heard: (heard.get(), heard.clone()),
        };
        Sender::Http2 { sender: self.sender.clone(), stream }
    }
}
