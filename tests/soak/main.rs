//! All kinds of traffic at once, for minutes, while routes, endpoints and certificates change, backends die and come back, and clients
//! vanish: nobody sees an error that a peer did not cause, and when all clients are gone nothing is left of them, no descriptor, no memory,
//! no open count.
//!
//! What is there at the start is measured after a first round of the same traffic, shorter: what is made once and kept (pools of buffers, what the
//! allocator holds) is there then. A binary of its own that runs alone, as it loads the machine. `make test` runs it for two minutes, after all
//! others; `make soak MINUTES=10` for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../system/cluster.rs"]
mod cluster;
#[path = "../system/manifests.rs"]
mod manifests;
#[path = "../system/streams.rs"]
mod streams;
#[path = "../system/support.rs"]
mod support;
mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::DefaultBodyLimit, routing};
use tokio::{
    runtime::Runtime,
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    manifests::tls_secret,
    streams::{Account, Finish, StreamBackend},
    support::{PATIENCE, Penstock, eventually, served_certificate, write},
    traffic::{Ask, VANISHING},
};

/// How long the traffic goes on, unless SOAK_MINUTES says it.
const MINUTES: f64 = 1.0;
/// The part of that which the first round takes, and its bounds.
const FIRST: f64 = 0.25;
const FIRST_AT_LEAST: Duration = Duration::from_secs(15);
const FIRST_AT_MOST: Duration = Duration::from_secs(60);
/// Between two changes of the configuration.
const CHANGE: Duration = Duration::from_millis(150);
/// How long the backend that dies lives, and how long it is away.
const ALIVE: Duration = Duration::from_secs(3);
const AWAY: Duration = Duration::from_millis(700);
/// A stream that does not last the round lasts this long.
const SHORT: Duration = Duration::from_secs(3);
/// Between two operations of a client, and of one that vanishes.
const PACE: Duration = Duration::from_millis(50);
const VANISHING_PACE: Duration = Duration::from_millis(300);
/// What the process may hold in the end beyond its start: the allocator's pages are not the same twice, even where no more of them is in use. Eleven
/// runs of up to two and a half minutes ended with 6 MiB less to 7 MiB more.
const PAGES: u64 = 12 << 20;
/// How exact the count of the heap is: each of some sixteen threads tells of 4 KiB at a time. Edits alone, or connections alone, were seen to leave
/// nothing, within 30 KiB; 2 bytes of each connection are 60 KiB in two minutes.
const UNTOLD: u64 = 64 << 10;
/// The counts of what is open, which must be zero when nobody is there.
const OPEN: [&str; 5] = [
    "penstock_connections_open",
    "penstock_tunnels_open",
    "penstock_requests_in_flight",
    "penstock_upstream_connections_open",
    "penstock_tasks",
];

#[derive(Clone, Copy, Debug)]
enum Transport {
    Plain,
    Tls,
    Http2,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Some requests on one connection.
    Requests(Transport, Ask),
    /// One request on a connection of its own.
    Once(Transport, Ask),
    WebSocket(Transport),
    /// Server-sent events, or a slow download.
    Events(Transport, &'static str),
    Upload(Transport),
    Unary,
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasting {
    /// Until the end of the round.
    Round,
    /// A while, and then again.
    Short,
}

use Kind::{Events, Grpc, Once, Requests, Unary, Upload, WebSocket};
use Lasting::{Round, Short};
use Transport::{Http2, Plain, Tls};

/// The clients that behave: what they do, at which host, how many, for how long.
///
/// * `plain.test`, `stream.test` and `grpc.test` have routes that are edited, with backends that live.
/// * `gone.test` has a route that comes and goes, so that only what was opened at first can be there.
/// * `dies.test` and `dies-grpc.test` have a backend that is killed and comes back.
const CLIENTS: [(Kind, &str, usize, Lasting); 33] = [
    (Requests(Plain, Ask::Small), "plain.test", 4, Short),
    (Requests(Tls, Ask::Small), "plain.test", 4, Short),
    (Requests(Http2, Ask::Small), "plain.test", 4, Short),
    (Once(Plain, Ask::Small), "plain.test", 6, Short),
    (Once(Tls, Ask::Small), "plain.test", 4, Short),
    (Once(Plain, Ask::LargeDown), "plain.test", 1, Short),
    (Once(Tls, Ask::LargeDown), "plain.test", 1, Short),
    (Once(Plain, Ask::LargeUp), "plain.test", 1, Short),
    (Once(Tls, Ask::LargeUp), "plain.test", 1, Short),
    (Requests(Http2, Ask::LargeDown), "plain.test", 1, Short),
    (Requests(Http2, Ask::LargeUp), "plain.test", 1, Short),
    (WebSocket(Plain), "stream.test", 10, Round),
    (WebSocket(Tls), "stream.test", 10, Round),
    (WebSocket(Http2), "stream.test", 10, Round),
    (WebSocket(Plain), "stream.test", 4, Short),
    (WebSocket(Tls), "stream.test", 4, Short),
    (WebSocket(Http2), "stream.test", 4, Short),
    (Events(Plain, "/events"), "stream.test", 4, Round),
    (Events(Tls, "/down"), "stream.test", 4, Round),
    (Upload(Plain), "stream.test", 2, Short),
    (Upload(Tls), "stream.test", 2, Round),
    (Unary, "grpc.test", 3, Short),
    (Grpc, "grpc.test", 5, Round),
    (Grpc, "grpc.test", 3, Short),
    (WebSocket(Plain), "gone.test", 5, Round),
    (WebSocket(Tls), "gone.test", 5, Round),
    (WebSocket(Http2), "gone.test", 5, Round),
    (Events(Tls, "/events"), "gone.test", 2, Round),
    (Requests(Plain, Ask::Small), "dies.test", 2, Short),
    (WebSocket(Tls), "dies.test", 4, Round),
    (WebSocket(Http2), "dies.test", 4, Round),
    (Upload(Plain), "dies.test", 2, Short),
    (Grpc, "dies-grpc.test", 3, Round),
];

/// Of those at `gone.test`, all of which their backend counts.
fn at_gone() -> usize {
    CLIENTS.iter().filter(|(_, host, ..)| *host == "gone.test").map(|(_, _, count, _)| count).sum()
}

#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// Messages and answers.
    exchanged: u64,
    /// What failed because its backend was killed.
    excused: u64,
}

/// What the clients of a round share.
struct Scene {
    http: SocketAddr,
    https: SocketAddr,
    /// Odd: the backend that dies is away, or was not yet seen to be back. One more each time it goes and each time it is back.
    epoch: AtomicU64,
    finish: Finish,
    done: Mutex<BTreeMap<String, Done>>,
    failures: Mutex<Vec<String>>,
}

impl Scene {
    async fn perform(&self, kind: Kind, host: &str, finish: Finish) -> Account {
        let error = |error: std::io::Error| format!("a connection to the proxy: {error}");
        let plain = async || streams::plain(self.http).await.map_err(error);
        let tls = async || streams::tls(self.https, host, "http/1.1").await.map_err(error);
        let http2 = async || streams::http2(self.https, host).await;
        match kind {
            Requests(Plain, ask) => traffic::kept_alive(plain().await?, host, ask).await,
            Requests(Tls, ask) => traffic::kept_alive(tls().await?, host, ask).await,
            Requests(Http2, ask) | Once(Http2, ask) => traffic::over_http2(http2().await, host, ask).await,
            Once(Plain, ask) => traffic::once(plain().await?, host, ask).await,
            Once(Tls, ask) => traffic::once(tls().await?, host, ask).await,
            WebSocket(Plain) => streams::web_socket(plain().await?, host, streams::PACE, finish).await,
            WebSocket(Tls) => streams::web_socket(tls().await?, host, streams::PACE, finish).await,
            WebSocket(Http2) => streams::web_socket_h2(http2().await, host, streams::PACE, finish).await,
            Events(Plain, path) => streams::events(plain().await?, host, path).await,
            Events(_, path) => streams::events(tls().await?, host, path).await,
            Upload(Plain) => streams::upload(plain().await?, host, finish).await,
            Upload(_) => streams::upload(tls().await?, host, finish).await,
            Unary => traffic::unary(http2().await, host).await,
            Grpc => streams::grpc(http2().await, host, finish).await,
        }
    }

    fn over(&self) -> bool {
        *self.finish.borrow()
    }

    /// Does the same again and again until the round is over, and keeps account.
    async fn client(self: Arc<Self>, kind: Kind, host: &'static str, lasting: Lasting) {
        let dies = host.starts_with("dies");
        let what = format!("{kind:?} at {host}, {lasting:?}");
        while !self.over() {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let account = match lasting {
                Round => self.perform(kind, host, self.finish.clone()).await,
                Short => for_a_while(&self.finish, |finish| self.perform(kind, host, finish)).await,
            };
            let untouched = epoch.is_multiple_of(2) && self.epoch.load(Ordering::SeqCst) == epoch;
            match account {
                Ok(exchanged) => self.done.lock().unwrap().entry(what.clone()).or_default().exchanged += exchanged,
                Err(error) if dies && !untouched && !is_another_status(&error) => {
                    self.done.lock().unwrap().entry(what.clone()).or_default().excused += 1;
                }
                Err(error) => self.failures.lock().unwrap().push(format!("{what}: {error}")),
            }
            sleep(PACE).await;
        }
    }

    async fn vanishing(self: Arc<Self>, how: traffic::Vanishing) {
        while !self.over() {
            match how.perform(self.http, self.https).await {
                Ok(()) => self.done.lock().unwrap().entry(format!("{how:?}")).or_default().exchanged += 1,
                Err(error) => self.failures.lock().unwrap().push(format!("{how:?}: {error}")),
            }
            sleep(VANISHING_PACE).await;
        }
    }
}

/// A backend that is away is told of by 502, 503 and 504.
fn is_another_status(error: &str) -> bool {
    error.split(' ').next().and_then(|word| word.parse::<u16>().ok()).is_some_and(|status| !(502..=504).contains(&status))
}

/// Lets a stream end after a while, or with the round.
async fn for_a_while<F: Future<Output = Account>>(round: &Finish, stream: impl FnOnce(Finish) -> F) -> Account {
    let (end, ending) = watch::channel(false);
    let mut round = round.clone();
    let timer = async {
        let _ = timeout(SHORT, round.wait_for(|over| *over)).await;
        end.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        account = stream(ending) => account,
        () = timer => unreachable!(),
    }
}

/// The backend that dies and comes back, at the same addresses.
struct Mortal {
    runtime: Option<Runtime>,
    addresses: StreamBackend,
    finish: Finish,
}

impl Mortal {
    fn start(finish: Finish) -> Self {
        let runtime = runtime();
        let addresses = runtime.block_on(StreamBackend::start(finish.clone()));
        Self { runtime: Some(runtime), addresses, finish }
    }

    /// Its listeners and connections are closed when this returns.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(PATIENCE);
    }

    fn restart(&mut self) {
        let runtime = runtime();
        let (http, grpc) = (self.addresses.http, self.addresses.grpc);
        self.addresses = runtime.block_on(StreamBackend::start_at(http, grpc, self.finish.clone()));
        self.runtime = Some(runtime);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Answers small and large bodies, and counts those that it gets.
async fn plain_backend() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/", routing::get(async || "small"))
        .route("/large", routing::get(async || traffic::large_body()))
        .route("/count", routing::post(async |body: Bytes| body.len().to_string()))
        .layer(DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A route of a host, in the version that an edit gives it.
fn route(host: &str, backends: &[SocketAddr], protocol: &str, version: usize) -> String {
    let backends: Vec<_> = backends.iter().map(|address| format!("{{url: \"http://{address}\", protocol: {protocol}}}")).collect();
    format!(
        "
apiVersion: penstock.dev/v1alpha1
kind: ProxyRoute
metadata: {{name: {}}}
spec:
  hosts: [{host}]
  tls: {{secretName: soak-tls}}
  rules:
  - matches: [{{path: {{type: Exact, value: /version}}}}]
    respond: {{code: 200, body: \"version {version}\"}}
  - backends: [{}]
    responseHeaders: {{set: {{x-version: \"{version}\"}}}}
",
        host.trim_end_matches(".test"),
        backends.join(", ")
    )
}

/// The folder that is served, and what its routes lead to.
struct Config {
    folder: tempfile::TempDir,
    plain: SocketAddr,
    streams: [StreamBackend; 2],
    gone: StreamBackend,
    mortal: [SocketAddr; 2],
}

impl Config {
    fn write(&self, name: &str, text: &str) {
        write(&self.folder.path().join(format!("{name}.yaml")), text);
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(format!("{name}.yaml"))).unwrap();
    }

    fn everything(&self) {
        for step in [0, 2, 3, 6, 7, 8] {
            self.change(step, &mut Vec::new());
        }
        self.write("dies-grpc", &route("dies-grpc.test", &[self.mortal[1]], "grpc", 0));
    }

    /// One change: of the routes that have traffic, of others, of the certificate.
    fn change(&self, number: usize, certificate: &mut Vec<u8>) {
        let [one, two] = &self.streams;
        let other = format!("other-{}", number / 9 % 20);
        match number % 9 {
            0 => {
                // What is open stays at its backend, although the route leads elsewhere now.
                let backends = [vec![one.http], vec![one.http, two.http], vec![two.http]];
                self.write("stream", &route("stream.test", &backends[number / 9 % 3], "http", number));
            }
            1 => self.write("other", &route(&format!("{other}.test"), &[self.plain], "http", number)),
            2 => {
                let (secret, made) = tls_secret("soak-tls", "*.test");
                *certificate = made;
                self.write("certificate", &secret);
            }
            3 => self.write("plain", &route("plain.test", &[self.plain], "http", number)),
            4 => self.remove("gone"),
            5 => self.remove("other"),
            6 => self.write("grpc", &route("grpc.test", &[[one.grpc, two.grpc][number / 9 % 2]], "grpc", number)),
            7 => self.write("gone", &route("gone.test", &[self.gone.http], "http", number)),
            _ => self.write("dies", &route("dies.test", &[self.mortal[0]], "http", number)),
        }
    }
}

struct Soak {
    penstock: Penstock,
    runtime: Runtime,
    finish: watch::Sender<bool>,
    config: Config,
    mortal: Mortal,
}

impl Soak {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (finish, finishing) = watch::channel(false);
        let mortal = Mortal::start(finishing.clone());
        let stream = || runtime.block_on(StreamBackend::start(finishing.clone()));
        let config = Config {
            folder: tempfile::tempdir().unwrap(),
            plain: runtime.block_on(plain_backend()),
            streams: [stream(), stream()],
            gone: stream(),
            mortal: [mortal.addresses.http, mortal.addresses.grpc],
        };
        config.everything();
        let folder = config.folder.path().to_str().unwrap();
        // Kept connections to backends must be gone, too, before anything is measured.
        let penstock = Penstock::start(&["serve", folder, "--workers", "2", "--upstream-keepalive-timeout", "2s"]);
        Self { penstock, runtime, finish, config, mortal }
    }

    /// Traffic for so long; ends with all clients gone.
    fn round(&mut self, length: Duration) {
        self.finish.send_replace(false);
        let scene = Arc::new(Scene {
            http: self.penstock.http,
            https: self.penstock.https,
            epoch: AtomicU64::new(0),
            finish: self.finish.subscribe(),
            done: Mutex::default(),
            failures: Mutex::default(),
        });
        let began = Instant::now();
        let generation = self.penstock.metric("penstock_config_generation", "");
        let accepted = self.penstock.metric("penstock_connections_accepted_total", "");
        let opened = self.config.gone.opened.load(Ordering::SeqCst);
        let mut clients = Vec::new();
        for (kind, host, count, lasting) in CLIENTS {
            clients.extend((0..count).map(|_| self.runtime.spawn(scene.clone().client(kind, host, lasting))));
        }
        clients.extend(VANISHING.map(|how| self.runtime.spawn(scene.clone().vanishing(how))));
        eventually("the streams of the route that goes are open", || {
            (self.config.gone.opened.load(Ordering::SeqCst) - opened == at_gone()).then_some(())
        });

        let stop = AtomicBool::new(false);
        let (penstock, config, mortal, handle) = (&self.penstock, &self.config, &mut self.mortal, self.runtime.handle());
        let (changes, certificate, kills) = thread::scope(|threads| {
            let changing = threads.spawn(|| {
                let (mut number, mut certificate) = (0, Vec::new());
                let started = Instant::now();
                // A whole cycle, so that every route is there at the end.
                while !stop.load(Ordering::SeqCst) || number % 9 != 0 {
                    config.change(number, &mut certificate);
                    number += 1;
                    let due = started + CHANGE * number as u32;
                    thread::park_timeout(due.saturating_duration_since(Instant::now()));
                }
                (number, certificate)
            });
            let killing = threads.spawn(|| {
                let mut kills = 0;
                while !stop.load(Ordering::SeqCst) {
                    thread::park_timeout(ALIVE);
                    scene.epoch.fetch_add(1, Ordering::SeqCst);
                    mortal.kill();
                    thread::park_timeout(AWAY);
                    mortal.restart();
                    eventually("the backend that came back is served", || {
                        let grpc = handle.block_on(streams::get_h2(penstock.https, "dies-grpc.test", "/"));
                        (grpc.is_ok_and(|(status, _)| status == 200) && penstock.get("dies.test", "/").0 == 200).then_some(())
                    });
                    scene.epoch.fetch_add(1, Ordering::SeqCst);
                    kills += 1;
                }
                kills
            });
            while began.elapsed() < length && !changing.is_finished() && !killing.is_finished() {
                thread::park_timeout(Duration::from_millis(100));
            }
            stop.store(true, Ordering::SeqCst);
            let (changes, certificate) = changing.join().unwrap();
            (changes, certificate, killing.join().unwrap())
        });
        eventually("the last certificate is served", || {
            (served_certificate(self.penstock.https, "plain.test") == certificate).then_some(())
        });
        self.finish.send_replace(true);
        let ends = self.runtime.block_on(async {
            let mut ends = Vec::new();
            for client in clients {
                ends.push(timeout(PATIENCE * 2, client).await.expect("a client does not end"));
            }
            ends
        });

        let tables = self.penstock.metric("penstock_config_generation", "") - generation;
        let connections = self.penstock.metric("penstock_connections_accepted_total", "") - accepted;
        let done = scene.done.lock().unwrap().clone();
        let total: u64 = done.values().map(|done| done.exchanged).sum();
        let excused: u64 = done.values().map(|done| done.excused).sum();
        println!(
            "{:.0?}: {total} answers and messages over {connections} connections, {changes} changes in {tables} tables, {kills} kills that {excused} clients saw",
            began.elapsed()
        );
        let failures = scene.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} errors that no peer caused:\n{}",
            failures.len(),
            failures[..failures.len().min(20)].join("\n")
        );
        for end in ends {
            end.expect("a client failed");
        }
        for (kind, host, _, lasting) in CLIENTS {
            let what = format!("{kind:?} at {host}, {lasting:?}");
            let done = done.get(&what).copied().unwrap_or_default();
            // What lasts and has a backend that dies is cut each time.
            let seen = if host.starts_with("dies") && lasting == Round { done.excused } else { done.exchanged + done.excused };
            assert!(seen > 0, "{what}: it never happened");
        }
        for how in VANISHING {
            assert!(done.contains_key(&format!("{how:?}")), "{how:?} never happened");
        }
        assert!(kills > 0 && tables > 10.0, "too little happened to show anything");
    }

    /// Waits until nothing is open; gives how many descriptors there are.
    fn quiet(&self) -> usize {
        for name in OPEN {
            eventually(&format!("{name} is zero when all clients are gone"), || {
                (self.penstock.metric(name, "").abs() < 0.5).then_some(())
            });
        }
        descriptors(self.penstock.id())
    }

    /// Some requests let each thread give back what it freed, and tell of it.
    fn poke(&self) {
        for _ in 0..20 {
            assert_eq!(self.penstock.get("plain.test", "/").0, 200);
        }
    }

    /// Waits until nothing is open; gives what is there then.
    fn left(&self) -> Left {
        self.quiet();
        self.poke();
        let descriptors = self.quiet();
        Left { descriptors, heap: self.penstock.metric("penstock_heap_bytes", "") as u64, pages: pages(self.penstock.id()) }
    }
}

fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// What a process has when nobody is there.
#[derive(Clone, Copy, Debug)]
struct Left {
    descriptors: usize,
    /// Bytes that are allocated and not freed.
    heap: u64,
    /// Bytes of the process's own, those included that its allocator keeps.
    pages: u64,
}

impl Left {
    /// Whether it is what was there at the start, within a twentieth.
    fn is_as(&self, start: &Self) -> bool {
        self.descriptors <= start.descriptors
            && self.heap <= start.heap + start.heap / 20 + UNTOLD
            && self.pages <= start.pages + PAGES.max(start.pages / 20)
    }
}

/// Memory that is its own, in bytes: neither files nor what others share.
fn pages(process: u32) -> u64 {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn nothing_fails_and_nothing_is_left() {
    let minutes = std::env::var("SOAK_MINUTES").map_or(MINUTES, |minutes| minutes.parse().expect("SOAK_MINUTES is a number"));
    let length = Duration::from_secs_f64(minutes * 60.0);
    let mut soak = Soak::start();
    soak.round(length.mul_f64(FIRST).clamp(FIRST_AT_LEAST, FIRST_AT_MOST));
    let start = soak.left();
    soak.round(length);
    let deadline = Instant::now() + PATIENCE;
    let end = loop {
        let end = soak.left();
        if end.is_as(&start) || Instant::now() > deadline {
            break end;
        }
    };
    println!("at the start {start:?}, at the end {end:?}");
    assert!(end.is_as(&start), "{end:?} were left of {start:?}");
    assert!(soak.penstock.metric("penstock_panics_total", "") < 0.5, "a panic");
    assert!(!soak.penstock.log().contains("panicked"), "a panic");
}
