//! One thread of the data plane: its own runtime, listeners, pools and tunnels. Threads share one immutable snapshot, and take no lock on
//! the way of a request.

use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use penstock_routing::Table;
use tokio::{sync::watch, time::Instant};

use crate::{
    access_log::AccessLog,
    client_address::TrustedProxies,
    metrics::{Listener as Kind, Metrics},
    options::{DrainOptions, Limits},
    pool::Pool,
    resolve::{ExternalAddresses, Resolver},
    route::CompiledRoute,
    server, tls,
    tunnel::Tunnels,
};

/// What requests are served from; replaced whole.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) table: Table<CompiledRoute>,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) limits: Limits,
    pub(crate) proxy_protocol: bool,
    pub(crate) trusted: TrustedProxies,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: AccessLog,
    pub(crate) tls: tls::ServerTls,
    pub(crate) resolver: Resolver,
    pub(crate) external: ExternalAddresses,
    /// The addresses that we listen on ourselves.
    pub(crate) own: Vec<SocketAddr>,
    /// Zero: as the socket has it.
    pub(crate) public_http: AtomicU16,
    pub(crate) public_https: AtomicU16,
    pub(crate) drain: DrainOptions,
    /// Connections and tunnels that are left, over all threads.
    pub(crate) connections: AtomicUsize,
    pub(crate) tunnels: AtomicUsize,
}

/// Where the data plane stands on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Nothing new is accepted; answers say `Connection: close`.
    Draining,
    /// Idle connections are closed.
    ClosingIdle,
    /// What is left is cut.
    End,
}

/// What the tasks of one thread share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) tunnels: Rc<Tunnels>,
    pub(crate) draining: Cell<bool>,
}

/// How often a thread looks whether all is done while it drains.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a thread of the data plane until the phase is over and nothing is left.
pub(crate) fn run(
    shared: Arc<Shared>,
    listeners: Vec<(TcpListener, Kind)>,
    mut phase: watch::Receiver<Phase>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Rc::new(Worker { shared, pool: Rc::default(), tunnels: Rc::default(), draining: Cell::new(false) });
        let (tunnels, pool) = (worker.tunnels.clone(), worker.pool.clone());
        tokio::task::spawn_local(async move { tunnels.keep().await });
        tokio::task::spawn_local(async move { pool.keep().await });
        for (listener, kind) in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::task::spawn_local(server::accept(worker.clone(), listener, kind, phase.clone()));
        }
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
        worker.draining.set(true);
        worker.drain(&mut phase).await;
        Ok(())
    })
}

impl Worker {
    /// Ends this thread's tunnels spread over the grace period, then waits for what is left or for the end.
    async fn drain(&self, phase: &mut watch::Receiver<Phase>) {
        let started = Instant::now();
        // The last part of the grace is for peers to answer their Close frames.
        let spread = self.shared.drain.grace.mul_f32(0.7);
        let total = self.tunnels.untold().max(1);
        let mut told = 0;
        loop {
            let share = if spread.is_zero() { 1.0 } else { (started.elapsed().as_secs_f32() / spread.as_secs_f32()).min(1.0) };
            let due = (total as f32 * share).ceil() as usize;
            while told < due && self.tunnels.drain_one() {
                told += 1;
            }
            if share >= 1.0 {
                while self.tunnels.drain_one() {}
            }
            tokio::select! {
                _ = phase.wait_for(|phase| *phase >= Phase::End) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    pub(crate) fn public_http_port(&self) -> Option<u16> {
        Some(self.shared.public_http.load(Ordering::Relaxed)).filter(|port| *port != 0)
    }

    pub(crate) fn public_https_port(&self) -> Option<u16> {
        Some(self.shared.public_https.load(Ordering::Relaxed)).filter(|port| *port != 0)
    }
}
