//! No tunnel is ever cut by a change of configuration, and nobody sees an error while one goes live.
//!
//! 2 010 WebSockets (plain, TLS, HTTP/2), 20 event streams, 20 gRPC streams, 20 slow uploads and downloads exchange numbered messages
//! while 1 000 changes go by, also of their own routes, endpoints and certificates, and while the API server is killed and
//! restarted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use std::io::{BufRead, BufReader, Read, Write};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::{
    cluster::{Cluster, ClusterOptions, object_path, objects},
    manifests::{CLASSES, ingress, service, tls_secret},
    relay::Relay,
    streams::{self, Account, StreamBackend},
    support::{Backend, Penstock, connect, eventually, https_request, served_certificate},
};

/// WebSockets of each kind that talk all the time.
const LIVELY: usize = 100;
/// And of each kind that say something now and then.
const QUIET: usize = 570;
const NOW_AND_THEN: Duration = Duration::from_secs(3);
const BATCHES: usize = 100;
const BATCH: usize = 10;
/// Batches that edit, delete and re-create the streams' own routes, remove their endpoints and rotate their certificates.
const OWN: usize = 40;
/// The batch after which the API server is killed: the second one in a row that touches no own route.
const OUTAGE: usize = 52;
/// What memory may hold in the end beyond its start: allocators keep some of what a burst needed.
const MEMORY: u64 = 24 << 20;
/// And beyond what it held half way, when all kinds of changes had come by: what grows with changes would grow on.
const LAP: u64 = 8 << 20;
/// Services with endpoints, each with an Ingress and a ProxyRoute to it, that come while the API server is out of reach.
const MISSED: usize = 5;
const OWN_HOSTS: [&str; 6] = ["plain.test", "tls.test", "h2.test", "events.test", "slow.test", "grpc.test"];

/// The route of a host's streams, whose responses say which version answered.
fn own_route(host: &str, version: usize) -> String {
    let name = host.trim_end_matches(".test");
    let (service, protocol) = if name == "grpc" { ("grpc", "grpc") } else { ("stream", "http") };
    format!(
        "
apiVersion: penstock.dev/v1alpha1
kind: ProxyRoute
metadata: {{name: {name}}}
spec:
  hosts: [{host}]
  tls: {{secretName: {name}-tls}}
  rules:
  - matches: [{{path: {{type: Exact, value: /version}}}}]
    respond: {{code: 200, body: \"version {version}\"}}
  - matches: [{{path: {{type: Exact, value: /forwarded}}}}]
    backends: [{{service: {{name: steady, port: 80}}}}]
  - backends: [{{service: {{name: {service}, port: 80}}, protocol: {protocol}}}]
"
    )
}

fn stream_service(name: &str, address: std::net::SocketAddr, empty: bool) -> String {
    let endpoints = if empty { vec![] } else { vec![address.ip().to_string()] };
    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
    crate::manifests::slice(name, &endpoints, address.port())
}

/// What requests of a route that is edited may be answered meanwhile.
#[derive(Default)]
struct Allowed(Mutex<BTreeSet<String>>);

impl Allowed {
    fn set<const N: usize>(&self, answers: [String; N]) {
        *self.0.lock().unwrap() = answers.into();
    }
}

/// What is asked of a host whose route is edited, and how an answer to it reads as one of those that are allowed.
fn as_allowed(path: &str, answer: &str, allowed: &BTreeSet<String>) -> bool {
    match (path, answer) {
        // Whatever the version, it is forwarded.
        ("/forwarded", "steady") => allowed.iter().any(|answer| answer.starts_with("version ")),
        _ => allowed.contains(answer),
    }
}

/// Asks until told to stop; gives how many answers came.
fn probe(host: &str, path: &str, allowed: &Allowed, stop: &AtomicBool, pause: Duration, mut ask: impl FnMut() -> String) -> u64 {
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        let before = allowed.0.lock().unwrap().clone();
        let answer = ask();
        let after = allowed.0.lock().unwrap().clone();
        assert!(
            as_allowed(path, &answer, &before) || as_allowed(path, &answer, &after),
            "{host}{path}: {answer:?} is neither of {before:?} nor {after:?}"
        );
        answered += 1;
        thread::park_timeout(pause);
    }
    answered
}

/// The body of a 200, else the status.
fn answer((status, body): (u16, String)) -> String {
    if status == 200 { body } else { status.to_string() }
}

/// Asks over connections that each carry some requests.
fn kept_alive(penstock: std::net::SocketAddr, host: &'static str, path: &'static str) -> impl FnMut() -> String {
    let mut stream: Option<BufReader<std::net::TcpStream>> = None;
    let mut asked = 0;
    move || {
        let connection = stream.get_or_insert_with(|| BufReader::new(connect(penstock)));
        write!(connection.get_mut(), "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{host}: {line:?}"));
        let mut length = 0;
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(given) = line.strip_prefix("content-length: ") {
                length = given.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).unwrap();
        asked += 1;
        if asked % 50 == 0 {
            stream = None;
        }
        answer((status, String::from_utf8(body).unwrap()))
    }
}

/// Resident memory in bytes.
fn memory(penstock: &Penstock) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", penstock.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// One change: an object to apply, or to delete.
enum Step {
    Apply(String),
    Delete(&'static str, String),
}

fn commit(cluster: &Cluster, steps: Vec<Step>) -> usize {
    let client = cluster.client();
    let count = steps.len();
    cluster.runtime().block_on(async {
        let writes = steps.into_iter().map(|step| {
            let client = client.clone();
            async move {
                match step {
                    Step::Apply(yaml) => {
                        for object in objects(&yaml) {
                            Cluster::apply_with(&client, &object).await.unwrap();
                        }
                    }
                    Step::Delete(kind, name) => {
                        let path = object_path(kind, "default", &name);
                        Cluster::ask(&client, "DELETE", &path, "application/json", Vec::new()).await.unwrap();
                    }
                }
            }
        });
        for write in writes.map(tokio::spawn).collect::<Vec<_>>() {
            write.await.unwrap();
        }
    });
    count
}

fn marker(batch: usize) -> Step {
    Step::Apply(format!(
        "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: marker}}\nspec: {{hosts: [marker.test], rules: [{{respond: {{code: 200, body: \"batch {batch}\"}}}}]}}\n"
    ))
}

#[test]
fn a_thousand_changes_and_an_outage_cut_nothing_and_lose_nothing() {
    // Clients and backends are both here: two descriptors a tunnel.
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    setrlimit(Resource::Nofile, descriptors).unwrap();
    let mut cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    let relay = Relay::to(&cluster);
    let kubeconfig = relay.kubeconfig(&cluster);
    let arguments = ["--publish-status-address", "192.0.2.7", "--election-ttl", "3s"];
    let penstock = Penstock::start(&[&["controller", "--kubeconfig", kubeconfig.to_str().unwrap()], &arguments[..]].concat());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (finish, finishing) = watch::channel(false);
    let backend = runtime.block_on(StreamBackend::start(finishing.clone()));
    let (steady, more) = (Backend::start_outside("steady"), Backend::start_outside("steady"));
    cluster.apply(&service("steady", &steady));
    cluster.apply(&ingress("steady", "steady.test", "/", "steady"));
    for (name, address) in [("stream", backend.http), ("grpc", backend.grpc)] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n"
        ));
        cluster.apply(&stream_service(name, address, false));
    }
    let allowed: Vec<Arc<Allowed>> = OWN_HOSTS.iter().map(|_| Arc::default()).collect();
    for (host, allowed) in OWN_HOSTS.iter().zip(&allowed) {
        let name = host.trim_end_matches(".test");
        cluster.apply(&tls_secret(&format!("{name}-tls"), host).0);
        cluster.apply(&own_route(host, 0));
        allowed.set(["version 0".to_owned()]);
        eventually("the streams' routes are live", || (penstock.get(host, "/version").1 == "version 0").then_some(()));
    }
    eventually("the steady route is live", || (penstock.get("steady.test", "/").1 == "steady").then_some(()));
    eventually("endpoints are known", || (penstock.get("plain.test", "/").1 == "stream").then_some(()));

    // Open everything.
    let (http, https) = (penstock.http, penstock.https);
    let mut streams: Vec<(&str, tokio::task::JoinHandle<Account>)> = Vec::new();
    runtime.block_on(async {
        for number in 0..LIVELY + QUIET {
            // A few talk all the time; most say something now and then, as people's do.
            let pace = if number < LIVELY { streams::PACE } else { NOW_AND_THEN };
            let finish = finishing.clone();
            streams.push((
                "plain WebSocket",
                tokio::spawn(
                    async move { streams::web_socket(streams::plain(http).await.unwrap(), "plain.test", pace, finish).await },
                ),
            ));
            let finish = finishing.clone();
            streams.push((
                "TLS WebSocket",
                tokio::spawn(async move {
                    let stream = streams::tls(https, "tls.test", "http/1.1").await.unwrap();
                    streams::web_socket(stream, "tls.test", pace, finish).await
                }),
            ));
            if number % 10 == 0 {
                let connection = streams::http2(https, "h2.test").await;
                for _ in 0..10 {
                    streams.push((
                        "h2 WebSocket",
                        tokio::spawn(streams::web_socket_h2(connection.clone(), "h2.test", pace, finishing.clone())),
                    ));
                }
            }
        }
        let calls = streams::http2(https, "grpc.test").await;
        for _ in 0..20 {
            let finish = finishing.clone();
            streams.push(("gRPC stream", tokio::spawn(streams::grpc(calls.clone(), "grpc.test", finish))));
            streams.push((
                "event stream",
                tokio::spawn(async move {
                    streams::events(streams::tls(https, "events.test", "http/1.1").await.unwrap(), "events.test", "/events").await
                }),
            ));
            let finish = finishing.clone();
            streams.push((
                "upload",
                tokio::spawn(async move { streams::upload(streams::plain(http).await.unwrap(), "slow.test", finish).await }),
            ));
            streams.push((
                "download",
                tokio::spawn(async move { streams::events(streams::plain(http).await.unwrap(), "slow.test", "/down").await }),
            ));
        }
    });
    eventually("all streams are open", || {
        if let Some(index) = streams.iter().position(|(_, stream)| stream.is_finished()) {
            let (kind, stream) = streams.swap_remove(index);
            panic!("{kind}: {:?}", runtime.block_on(stream));
        }
        (backend.opened.load(Ordering::SeqCst) == 3 * (LIVELY + QUIET) + 60).then_some(())
    });
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let steadily = Arc::new(Allowed::default());
    steadily.set(["steady".to_owned()]);
    let mut probes: Vec<thread::JoinHandle<()>> = Vec::new();
    let mut start_probe =
        |host: &'static str, path: &'static str, allowed: &Arc<Allowed>, pause: u64, mut ask: Box<dyn FnMut() -> String + Send>| {
            let (stop, asked, allowed) = (stop.clone(), asked.clone(), allowed.clone());
            probes.push(thread::spawn(move || {
                let answered = probe(host, path, &allowed, &stop, Duration::from_millis(pause), &mut ask);
                asked.fetch_add(answered, Ordering::SeqCst);
            }));
        };
    for _ in 0..4 {
        start_probe("steady.test", "/", &steadily, 4, Box::new(kept_alive(http, "steady.test", "/")));
    }
    for (host, allowed) in OWN_HOSTS.into_iter().zip(&allowed) {
        start_probe(host, "/version", allowed, 4, Box::new(kept_alive(http, host, "/version")));
        start_probe(host, "/forwarded", allowed, 20, Box::new(kept_alive(http, host, "/forwarded")));
        // Each with a handshake of its own.
        start_probe(host, "/version", allowed, 100, Box::new(move || answer(https_request(https, host, "/version"))));
        let handle = runtime.handle().clone();
        let ask = move || {
            answer(handle.block_on(streams::get_h2(https, host, "/version")).unwrap_or_else(|error| panic!("{host}: {error}")))
        };
        start_probe(host, "/version", allowed, 100, Box::new(ask));
    }
    let start = memory(&penstock);

    let mut changes = 0;
    let mut own = 0;
    // The batch that last applied each.
    let mut others = BTreeMap::new();
    let (mut grown, mut touched) = (false, 0);
    let mut half_way = 0;
    let started = Instant::now();
    for batch in 1..=BATCHES {
        let mut steps = vec![marker(batch)];
        if batch * OWN / BATCHES > (batch - 1) * OWN / BATCHES {
            // The streams' own routes.
            own += 1;
            match own % 4 {
                1 => {
                    for (host, allowed) in OWN_HOSTS.into_iter().zip(&allowed) {
                        let before = allowed.0.lock().unwrap().first().cloned().unwrap();
                        allowed.set([before, format!("version {batch}")]);
                        steps.push(Step::Apply(own_route(host, batch)));
                    }
                    steps.push(Step::Apply(stream_service("stream", backend.http, true)));
                    steps.push(Step::Apply(stream_service("grpc", backend.grpc, true)));
                }
                2 => {
                    for (host, allowed) in OWN_HOSTS.into_iter().zip(&allowed) {
                        let before = allowed.0.lock().unwrap().first().cloned().unwrap();
                        allowed.set([before, "404".to_owned()]);
                        steps.push(Step::Delete("ProxyRoute", host.trim_end_matches(".test").to_owned()));
                    }
                }
                3 => {
                    for (host, allowed) in OWN_HOSTS.into_iter().zip(&allowed) {
                        let before = allowed.0.lock().unwrap().first().cloned().unwrap();
                        allowed.set([before, format!("version {batch}")]);
                        steps.push(Step::Apply(own_route(host, batch)));
                    }
                    steps.push(Step::Apply(stream_service("stream", backend.http, false)));
                    steps.push(Step::Apply(stream_service("grpc", backend.grpc, false)));
                }
                _ => {
                    for host in OWN_HOSTS {
                        steps.push(Step::Apply(tls_secret(&format!("{}-tls", host.trim_end_matches(".test")), host).0));
                    }
                }
            }
        }
        // Everybody else.
        for number in steps.len()..BATCH {
            let name = format!("other-{}", (batch * 7 + number) % 40);
            match (batch + number) % 5 {
                0 if others.contains_key(&name) => {
                    others.remove(&name);
                    steps.push(Step::Delete("Ingress", name));
                }
                // Endpoints of the route that is asked all the time.
                1 if touched == batch => {
                    let addresses = &["10.1.2.3", "10.1.2.4"][..=(batch % 2)];
                    steps.push(Step::Apply(crate::manifests::slice("churn", addresses, 8000 + number as u16)));
                }
                1 if grown => {
                    (grown, touched) = (false, batch);
                    steps.push(Step::Delete("EndpointSlice", "steady-2".to_owned()));
                }
                1 => {
                    (grown, touched) = (true, batch);
                    let address = more.address;
                    let slice = crate::manifests::slice("steady", &[&address.ip().to_string()], address.port());
                    steps.push(Step::Apply(slice.replace("name: steady-1", "name: steady-2")));
                }
                2 => steps.push(Step::Apply(format!(
                    "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: class-{number}, annotations: {{round: \"{batch}\"}}}}\nspec: {{controller: penstock.dev/ingress-controller}}\n"
                ))),
                _ => {
                    steps.push(Step::Apply(ingress(&name, &format!("{name}.test"), &format!("/{batch}"), "steady")));
                    others.insert(name, batch);
                }
            }
        }
        assert_eq!(steps.len(), BATCH);
        changes += commit(&cluster, steps);
        let live = format!("batch {batch}");
        eventually("the batch is live", || (penstock.get("marker.test", "/").1 == live).then_some(()));
        for (host, allowed) in OWN_HOSTS.iter().zip(&allowed) {
            // The last of what is allowed is the newest, unless nothing changed.
            let next = allowed.0.lock().unwrap().clone();
            if next.len() > 1 {
                let newest = if next.contains(&format!("version {batch}")) { format!("version {batch}") } else { "404".to_owned() };
                eventually("the edit is live", || {
                    let (status, body) = penstock.get(host, "/version");
                    (if status == 200 { body } else { status.to_string() } == newest).then_some(())
                });
                allowed.set([newest]);
            }
        }
        if batch == OUTAGE {
            for number in 0..40 {
                let name = format!("other-{number}");
                let (path, expected) = others.get(&name).map_or((0, 404), |applied| (*applied, 200));
                eventually("all of the batch is live", || {
                    (penstock.get(&format!("{name}.test"), &format!("/{path}")).0 == expected).then_some(())
                });
            }
            let tables = || penstock.log().matches("routes changed").count();
            let lists = || penstock.metric("penstock_kubernetes_lists_total", "");
            let (tables_before, lists_before) = (tables(), lists());
            relay.close();
            cluster.kill_api_server();
            eventually("the loss is noticed", || {
                (penstock.metric("penstock_kubernetes_watches_interrupted", "") > 0.0).then_some(())
            });
            assert_eq!(penstock.ask_admin("/readyz").0, 200, "readiness stays");
            cluster.start_api_server();
            for number in 0..MISSED {
                let name = format!("missed-{number}");
                cluster.apply(&service(&name, &steady));
                cluster.apply(&ingress(&name, &format!("{name}.test"), "/", &name));
                cluster.apply(&format!(
                    "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.route.test], rules: [{{backends: [{{service: {{name: {name}, port: 80}}}}]}}]}}\n"
                ));
            }
            changes += 4 * MISSED;
            relay.open();
            // Nothing, or all of it.
            let hosts: Vec<String> =
                (0..MISSED).flat_map(|number| [format!("missed-{number}.test"), format!("missed-{number}.route.test")]).collect();
            let mut live = BTreeSet::new();
            eventually("what was missed is live", || {
                for host in &hosts {
                    let answer = answer(penstock.get(host, "/"));
                    let sound = answer == "steady" || answer == "404" && live.is_empty();
                    assert!(sound, "{host}: {answer} after {live:?}: an intermediate table");
                    if answer == "steady" {
                        live.insert(host);
                    }
                }
                (live.len() == hosts.len()).then_some(())
            });
            eventually("the watches go on", || {
                (penstock.metric("penstock_kubernetes_watches_interrupted", "") == 0.0).then_some(())
            });
            let relisted = lists() - lists_before;
            println!("{} tables and {relisted} lists after the outage", tables() - tables_before);
            assert!(relisted > 0.0, "no list was read again, so nothing is shown");
            assert_eq!(tables() - tables_before, 1, "an intermediate table was published");
        }
        if batch == BATCHES / 2 {
            half_way = memory(&penstock);
        }
    }
    let took = started.elapsed();

    // New requests of the streams' hosts are served by what was applied last; certificates too.
    eventually("the end state", || (penstock.get("plain.test", "/").1 == "stream").then_some(()));
    let (secret, certificate) = tls_secret("tls-tls", "tls.test");
    cluster.apply(&secret);
    eventually("the last certificate", || (served_certificate(penstock.https, "tls.test") == certificate).then_some(()));
    stop.store(true, Ordering::SeqCst);
    for probe in probes {
        probe.join().unwrap();
    }
    let end = memory(&penstock);
    finish.send_replace(true);
    let mut messages = 0;
    let mut cut = Vec::new();
    let count = streams.len();
    for (kind, stream) in streams {
        match runtime.block_on(stream).unwrap() {
            Ok(exchanged) => messages += exchanged,
            Err(error) => cut.push(format!("{kind}: {error}")),
        }
    }
    println!(
        "{changes} changes in {took:?}: {count} streams exchanged {messages} messages, {} cut; {} requests beside them; memory {} MiB before, {} MiB half way, {} MiB after",
        cut.len(),
        asked.load(Ordering::SeqCst),
        start >> 20,
        half_way >> 20,
        end >> 20
    );
    assert!(cut.is_empty(), "{} of {count} streams were cut:\n{}", cut.len(), cut.join("\n"));
    assert!(changes >= 1000 && messages > 10_000, "too little happened to show anything");
    assert!(end < half_way + LAP, "memory grew from {half_way} to {end} while the same changes went by again");
    assert!(end < start + MEMORY, "memory grew from {start} to {end}");
}
