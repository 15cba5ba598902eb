//! No tunnel is ever cut by a change of configuration, and nobody sees an error while one goes live.
//!
//! 300 WebSockets (plain, TLS, HTTP/2), 20 event streams, 20 gRPC streams, 20 slow uploads and downloads exchange numbered messages
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

use tokio::sync::watch;

use crate::{
    cluster::{Cluster, ClusterOptions, object_path, objects},
    manifests::{CLASSES, controller, ingress, service, tls_secret},
    streams::{self, Account, StreamBackend},
    support::{Backend, Penstock, connect, eventually, served_certificate},
};

const BATCHES: usize = 100;
const BATCH: usize = 10;
/// Batches that edit, delete and re-create the streams' own routes, remove their endpoints and rotate their certificates.
const OWN: usize = 40;
/// The batch after which the API server is killed: the second one in a row that touches no own route.
const OUTAGE: usize = 52;
/// What memory may hold in the end beyond its start: allocators keep some of what a burst needed.
const MEMORY: u64 = 24 << 20;
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

/// Asks over one connection after another until told to stop; gives how many answers came.
fn probe(penstock: std::net::SocketAddr, host: &str, path: &str, allowed: &Allowed, stop: &AtomicBool) -> u64 {
    let mut answered = 0;
    let mut stream: Option<BufReader<std::net::TcpStream>> = None;
    while !stop.load(Ordering::SeqCst) {
        let before = allowed.0.lock().unwrap().clone();
        let connection = stream.get_or_insert_with(|| BufReader::new(connect(penstock)));
        write!(connection.get_mut(), "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or("no answer").to_owned();
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
        let answer = if status == "200" { String::from_utf8(body).unwrap() } else { status };
        let after = allowed.0.lock().unwrap().clone();
        assert!(
            before.contains(&answer) || after.contains(&answer),
            "{host}{path}: {answer:?} is neither of {before:?} nor {after:?}"
        );
        answered += 1;
        if answered % 50 == 0 {
            stream = None;
        }
        thread::park_timeout(Duration::from_millis(4));
    }
    answered
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
    let mut cluster = Cluster::start(ClusterOptions::default());
    cluster.apply(CLASSES);
    let penstock = controller(&cluster, &["--election-ttl", "3s"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (finish, finishing) = watch::channel(false);
    let backend = runtime.block_on(StreamBackend::start(finishing.clone()));
    let steady = Backend::start_outside("steady");
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
        for number in 0..100 {
            let finish = finishing.clone();
            streams.push((
                "plain WebSocket",
                tokio::spawn(async move { streams::web_socket(streams::plain(http).await.unwrap(), "plain.test", finish).await }),
            ));
            let finish = finishing.clone();
            streams.push((
                "TLS WebSocket",
                tokio::spawn(async move {
                    streams::web_socket(streams::tls(https, "tls.test", "http/1.1").await.unwrap(), "tls.test", finish).await
                }),
            ));
            if number % 10 == 0 {
                let connection = streams::http2(https, "h2.test").await;
                for _ in 0..10 {
                    streams.push((
                        "h2 WebSocket",
                        tokio::spawn(streams::web_socket_h2(connection.clone(), "h2.test", finishing.clone())),
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
        (backend.opened.load(Ordering::SeqCst) == 360).then_some(())
    });
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let steadily = Arc::new(Allowed::default());
    steadily.set(["steady".to_owned()]);
    let mut probes: Vec<thread::JoinHandle<()>> = Vec::new();
    let mut start_probe = |host: &'static str, path: &'static str, allowed: Arc<Allowed>| {
        let (stop, asked) = (stop.clone(), asked.clone());
        probes.push(thread::spawn(move || {
            let answered = probe(http, host, path, &allowed, &stop);
            asked.fetch_add(answered, Ordering::SeqCst);
        }));
    };
    for _ in 0..4 {
        start_probe("steady.test", "/", steadily.clone());
    }
    for (host, allowed) in OWN_HOSTS.into_iter().zip(&allowed) {
        start_probe(host, "/version", allowed.clone());
    }
    let start = memory(&penstock);

    let mut changes = 0;
    let mut own = 0;
    // The batch that last applied each.
    let mut others = BTreeMap::new();
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
                1 => steps.push(Step::Apply(crate::manifests::slice("churn", &["10.1.2.3", "10.1.2.4"][..=(batch % 2)], 8000 + number as u16))),
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
            let tables = penstock.log().matches("routes changed").count();
            cluster.kill_api_server();
            eventually("the loss is noticed", || {
                (penstock.metric("penstock_kubernetes_watches_interrupted", "") > 0.0).then_some(())
            });
            assert_eq!(penstock.ask_admin("/readyz").0, 200, "readiness stays");
            cluster.start_api_server();
            eventually("the watches go on", || {
                (penstock.metric("penstock_kubernetes_watches_interrupted", "") == 0.0).then_some(())
            });
            assert_eq!(penstock.log().matches("routes changed").count(), tables, "an intermediate table was published");
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
        "{changes} changes in {took:?}: {count} streams exchanged {messages} messages, {} cut; {} requests beside them; memory {} MiB before, {} MiB after",
        cut.len(),
        asked.load(Ordering::SeqCst),
        start >> 20,
        end >> 20
    );
    assert!(cut.is_empty(), "{} of {count} streams were cut:\n{}", cut.len(), cut.join("\n"));
    assert!(changes >= 1000 && messages > 10_000, "too little happened to show anything");
    assert!(end < start + MEMORY, "memory grew from {start} to {end}");
}
