//! A worker: one thread with a runtime of its own, its listeners, its connections, its pool and its tunnels. Nothing of it is shared with
//! another, who may get a connection before anything was read of it ([`Spread`]); what all workers read stands in [`Shared`].

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    task::LocalSet,
    time::Instant,
};

use crate::{
    access_log::AccessLog,
    client_address::TrustedProxies,
    clock,
    control::{Command, Control, SweepLimits},
    engine,
    handshakes::Handshakes,
    head::PublicPorts,
    io::Open,
    metrics::{LimitHit, Listener, Metrics},
    options::Options,
    spread::{Handed, Incoming, Spread},
    table::Routes,
    task::{self, Task},
    tls::ServerTls,
    tunnel::Tunnels,
    turns,
    upstream::{Connector, Pool},
};

/// After an error of the system's on accept, until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many connections are taken in a row before others have their turn.
const ACCEPT_BURST: usize = 64;
/// Of the grace period, the part in which tunnels are ended; the rest is for those that stand inside a frame.
const SPREAD: f64 = 0.75;
/// Between the ends of two tunnels at most: few tunnels need no long farewell.
const WIDEST_SPACING: Duration = Duration::from_secs(1);
/// When idle connections are closed at the latest, however long the grace period. Until then each gets its farewell with its next response.
const IDLE_FAREWELL: Duration = Duration::from_secs(5);

/// What all workers read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) table: ArcSwap<Routes>,
    pub(crate) tls: ServerTls,
    pub(crate) trusted: TrustedProxies,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: AccessLog,
    pub(crate) connector: Connector,
    pub(crate) ports: OnceLock<PublicPorts>,
    /// Client connections open in the process.
    pub(crate) connections: AtomicUsize,
    pub(crate) most_connections: usize,
    /// How they spread over the workers.
    pub(crate) spread: Spread,
    /// Listeners of workers that gave up their reserve and have none again: there is no descriptor left.
    pub(crate) without_reserve: AtomicUsize,
}

impl Shared {
    pub(crate) fn ports(&self) -> PublicPorts {
        self.ports.get().copied().unwrap_or(PublicPorts { http: 80, https: 443 })
    }
}

/// One worker, as its tasks see it.
#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) connections: Connections,
    /// Client connections that have not come to HTTP yet, and so are in no list.
    arriving: Cell<usize>,
    pub(crate) tunnels: Tunnels,
    pub(crate) handshakes: Handshakes,
    /// Responses say that their connection is closed.
    pub(crate) draining: Cell<bool>,
}

/// The client connections of a worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    all: Rc<RefCell<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Rc<Control>>>,
    free: Vec<usize>,
}

/// A connection is in the list while this lives.
#[derive(Debug)]
pub(crate) struct Entry {
    all: Rc<RefCell<Slots>>,
    place: usize,
}

impl Connections {
    pub(crate) fn enter(&self, control: &Rc<Control>) -> Entry {
        let mut all = self.all.borrow_mut();
        let place = match all.free.pop() {
            Some(place) => place,
            None => {
                all.slots.push(None);
                all.slots.len() - 1
            }
        };
        if let Some(slot) = all.slots.get_mut(place) {
            *slot = Some(control.clone());
        }
        Entry { all: self.all.clone(), place }
    }

    fn each(&self, mut then: impl FnMut(&Control)) {
        self.all.borrow().slots.iter().flatten().for_each(|control| then(control));
    }

    fn len(&self) -> usize {
        let all = self.all.borrow();
        all.slots.len() - all.free.len()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut all = self.all.borrow_mut();
        if let Some(slot) = all.slots.get_mut(self.place) {
            *slot = None;
        }
        all.free.push(self.place);
    }
}

/// A connection is on its way to HTTP while this lives.
pub(crate) struct Arriving(Rc<Worker>);

impl Arriving {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.arriving.set(worker.arriving.get() + 1);
        Self(worker.clone())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.set(self.0.arriving.get().saturating_sub(1));
    }
}

/// What a worker is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop accepting, and end all connections within the time.
    Drain { grace: Duration },
    /// End now.
    Stop,
}

/// Runs a worker on this thread until it is told to end. Gives the number of connections that were still open.
pub(crate) fn run(
    shared: Arc<Shared>,
    number: usize,
    listeners: Vec<(Listener, TcpListener)>,
    handed: Incoming,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<usize> {
    if let Err(error) = turns::shorten() {
        tracing::debug!(%error, "the system gives no short turns");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    clock::tick();
    let limits = &shared.options.limits;
    let worker = Rc::new(Worker {
        number,
        pool: Rc::new(Pool::new(limits.upstream_idle, limits.upstream_idle_time)),
        connections: Connections::default(),
        arriving: Cell::default(),
        tunnels: Tunnels::default(),
        handshakes: Handshakes::new(limits.handshakes, shared.metrics.clone()),
        draining: Cell::new(false),
        shared,
    });
    let left = local.block_on(&runtime, async {
        let (closing, closed) = watch::channel(false);
        let mut accepting = Vec::new();
        for (listener, socket) in listeners {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            accepting.push(tokio::task::spawn_local(accept(worker.clone(), socket, listener, closed.clone())));
        }
        accepting.push(tokio::task::spawn_local(take(worker.clone(), handed, closed)));
        let ticking = tokio::task::spawn_local(tick(worker.clone()));
        let order = orders.recv().await.unwrap_or(Order::Stop);
        if let Order::Drain { grace } = order {
            closing.send_replace(true);
            for accepting in accepting {
                let _ = accepting.await;
            }
            tokio::select! {
                () = drain(&worker, grace) => {}
                () = stopped(&mut orders) => {}
            }
        }
        ticking.abort();
        Ok::<_, io::Error>(worker.connections.len() + worker.tunnels.len())
    })?;
    Ok(left)
}

async fn stopped(orders: &mut mpsc::UnboundedReceiver<Order>) {
    while !matches!(orders.recv().await, Some(Order::Stop) | None) {}
}

/// Drives the clock and what hangs on it.
async fn tick(worker: Rc<Worker>) {
    let limits = &worker.shared.options.limits;
    let limits = SweepLimits {
        head: clock::millis(limits.head_time),
        idle: clock::millis(limits.idle_time),
        write: clock::millis(limits.write_time),
    };
    let mut ticks = tokio::time::interval(clock::TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round = 0_u32;
    let mut told = 0;
    loop {
        ticks.tick().await;
        let now = clock::tick();
        let tasks = task::alive();
        if tasks != told {
            worker.shared.metrics.tasks.inc_by(tasks - told);
            told = tasks;
        }
        worker.tunnels.sweep(now);
        worker.handshakes.sweep(now);
        round = round.wrapping_add(1);
        // Connections are many, and their limits are seconds.
        if round.is_multiple_of(4) {
            worker.connections.each(|control| {
                if control.sweep(now, limits) == Some(Command::Finish) {
                    worker.shared.metrics.limits.inc(LimitHit::IdleTime);
                }
            });
            worker.pool.sweep(now);
            engine::trim();
        }
    }
}

/// Accepts until told to close; then takes what the kernel has accepted for us already, and closes.
async fn accept(worker: Rc<Worker>, socket: tokio::net::TcpListener, listener: Listener, mut closed: watch::Receiver<bool>) {
    let mut reserve = Reserve::new(&worker.shared);
    let mut burst = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => break,
            accepted = socket.accept() => accepted,
            () = tokio::time::sleep(ACCEPT_PAUSE), if reserve.is_wanted() => {
                reserve.regain();
                continue;
            }
        };
        reserve.regain();
        match accepted {
            // It has the descriptor that a listener gave up in order to shed those that wait there.
            Ok((stream, _)) if worker.shared.without_reserve.load(SeqCst) > 0 => {
                drop(stream);
                worker.shared.metrics.connections_shed.inc(listener);
                worker.shared.metrics.limits.inc(LimitHit::Connections);
                reserve.regain();
            }
            Ok((stream, peer)) => begin(&worker, stream, peer, listener, true),
            Err(error) => {
                if !is_of_one_connection(&error) {
                    shed(&worker, &socket, listener, &mut reserve, &error).await;
                }
            }
        }
        burst += 1;
        if burst >= ACCEPT_BURST {
            burst = 0;
            tokio::task::yield_now().await;
        }
    }
    drop(reserve);
    worker.draining.set(true);
    let Ok(socket) = socket.into_std() else { return };
    // A connection that waits to be accepted is reset when its listener closes.
    while let Ok((stream, peer)) = socket.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = tokio::net::TcpStream::from_std(stream)
        {
            begin(&worker, stream, peer, listener, false);
        }
    }
}

/// Takes what other workers hand over, until told to close; what was handed over by then is served.
async fn take(worker: Rc<Worker>, mut handed: Incoming, mut closed: watch::Receiver<bool>) {
    loop {
        let next = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => break,
            next = handed.recv() => next,
        };
        let Some(next) = next else { return };
        take_one(&worker, next);
    }
    // Who hands over from here on is told that it is for him to serve.
    handed.close();
    while let Some(next) = handed.recv().await {
        take_one(&worker, next);
    }
}

fn take_one(worker: &Rc<Worker>, Handed { stream, peer, open }: Handed) {
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => serve(worker, stream, peer, open),
        Err(error) => tracing::warn!(%error, "a connection cannot be used"),
    }
}

fn begin(worker: &Rc<Worker>, stream: tokio::net::TcpStream, peer: SocketAddr, listener: Listener, may_hand_over: bool) {
    let shared = &worker.shared;
    shared.metrics.connections_accepted.inc(listener);
    let Some(open) = Open::new(shared, listener, worker.number) else {
        shared.metrics.connections_shed.inc(listener);
        shared.metrics.limits.inc(LimitHit::Connections);
        return;
    };
    match shared.spread.better(worker.number).filter(|_| may_hand_over) {
        Some(other) => match stream.into_std() {
            Ok(stream) => {
                if let Err(back) = shared.spread.hand(other, Handed { stream, peer, open }) {
                    take_one(worker, back);
                }
            }
            Err(error) => tracing::warn!(%error, "a connection cannot be handed over"),
        },
        None => serve(worker, stream, peer, open),
    }
}

fn serve(worker: &Rc<Worker>, stream: tokio::net::TcpStream, peer: SocketAddr, open: Open) {
    let task = Task::new(worker.shared.metrics.clone());
    tokio::task::spawn_local(engine::serve(worker.clone(), Arriving::new(worker), stream, peer, open, task));
}

/// accept(2) hands errors of the connection on (see "Error handling" there).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A descriptor of a listener, with which connections can be taken and closed when there is no other left.
///
/// Given up, it may be taken by another worker's accept, and nobody could shed any more. So it is told to all that it is given up, until it is
/// there again; what they accept meanwhile they close.
struct Reserve {
    shared: Arc<Shared>,
    file: Option<File>,
    given_up: bool,
}

impl Reserve {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), file: File::open("/dev/null").ok(), given_up: false }
    }

    fn is_wanted(&self) -> bool {
        self.given_up
    }

    fn give_up(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Before there is a descriptor to take.
        self.shared.without_reserve.fetch_add(1, SeqCst);
        self.given_up = true;
        drop(file);
    }

    fn regain(&mut self) {
        if self.given_up {
            self.file = File::open("/dev/null").ok();
            self.given_up = self.file.is_none();
            if !self.given_up {
                self.shared.without_reserve.fetch_sub(1, SeqCst);
            }
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if self.given_up {
            self.shared.without_reserve.fetch_sub(1, SeqCst);
        }
    }
}

/// There is no descriptor or memory for a connection: those that wait are closed instead of left to spin on, and counted.
async fn shed(worker: &Worker, socket: &tokio::net::TcpListener, listener: Listener, reserve: &mut Reserve, error: &io::Error) {
    tracing::warn!(%error, "connections cannot be accepted; they are closed");
    worker.shared.metrics.limits.inc(LimitHit::Connections);
    reserve.give_up();
    for _ in 0..ACCEPT_BURST {
        match tokio::time::timeout(Duration::ZERO, socket.accept()).await {
            Ok(Ok(connection)) => {
                drop(connection);
                worker.shared.metrics.connections_shed.inc(listener);
            }
            Ok(Err(_)) | Err(_) => break,
        }
    }
    reserve.regain();
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Ends what is open: HTTP/2 is told at once, HTTP/1.1 with its next response or late, tunnels one by one.
async fn drain(worker: &Rc<Worker>, grace: Duration) {
    let began = Instant::now();
    let end = began + grace;
    worker.draining.set(true);
    worker.connections.each(|control| {
        if control.speaks_http2() {
            control.tell(Command::Finish);
        }
    });
    let farewell = began + grace.mul_f64(SPREAD).min(IDLE_FAREWELL);
    let mut tunnels = worker.tunnels.list();
    let count = u32::try_from(tunnels.len().max(1)).unwrap_or(u32::MAX);
    let spacing = (grace.mul_f64(SPREAD) / count).min(WIDEST_SPACING);
    let mut next_tunnel = began;
    let mut said_farewell = false;
    loop {
        let now = Instant::now();
        while next_tunnel <= now
            && let Some(tunnel) = tunnels.pop()
        {
            worker.tunnels.close(tunnel);
            next_tunnel += spacing;
        }
        if tunnels.is_empty() {
            // Those that were opened meanwhile.
            worker.tunnels.list().into_iter().for_each(|tunnel| worker.tunnels.close(tunnel));
        }
        if now >= farewell && !said_farewell {
            said_farewell = true;
            worker.connections.each(|control| control.tell(Command::Finish));
        }
        // Who was let in and asked nothing yet has as long as a connection that is idle.
        let none_comes = said_farewell || worker.arriving.get() == 0;
        if none_comes && worker.connections.len() == 0 && worker.tunnels.len() == 0 {
            return;
        }
        if now >= end {
            break;
        }
        tokio::time::sleep_until((now + Duration::from_millis(20)).min(end)).await;
    }
    worker.tunnels.end_all();
    // So that each tunnel counts its end.
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}
