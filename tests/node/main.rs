//! S9: the chart on a real node, with an image of the binary: install, scale a backend, upgrade, uninstall.
//!
//! Needs root and some Debian packages, which `node.rs` names. A binary of its own, since it builds an image first and loads the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../system/cluster.rs"]
mod cluster;
mod image;
mod node;
#[path = "../system/support.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cluster::helm,
    node::{Node, processes_with},
    support::{WebSocket, any_certificate, https_request, request},
};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/penstock");
/// What the cloud gives the Service: an address for documentation (RFC 5737), led to the node by a route.
const LOAD_BALANCER: &str = "203.0.113.80";
const TUNNELS: usize = 200;
/// Of those that are open while the backend is scaled, how many are opened at a time.
const SCALED_TUNNELS: usize = 60;
/// For so long a pod of the backend lives on after it has left its Service.
const PRE_STOP: Duration = Duration::from_secs(5);
/// Pods start and end, images unpack, a drain takes its whole grace: minutes on a busy machine.
const LONG: Duration = Duration::from_secs(240);

const BACKEND: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 7
      containers:
      - name: demo
        image: localhost/demo:1
        args: ['0.0.0.0:8000']
        ports: [{name: web, containerPort: 8000}]
        readinessProbe: {httpGet: {port: web, path: /}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 5}}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: web, port: 80, targetPort: web}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: penstock
  rules: [{host: shop.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: web}}}}]}}]
---
apiVersion: penstock.dev/v1alpha1
kind: ProxyRoute
metadata: {name: live}
spec: {hosts: [live.test], rules: [{backends: [{service: {name: shop, port: web}}]}]}
";

fn patiently<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not within {LONG:?}: {what}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

/// The static binaries for images, built with the quicker profile.
fn binaries() -> PathBuf {
    let target = String::from_utf8(Command::new("rustc").arg("-vV").output().unwrap().stdout).unwrap();
    let target = target.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/image");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "quick",
            "--package",
            "penstock",
            "--package",
            "penstock-demo",
            "--bins",
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "the images' binaries could not be built");
    folder.join(target).join("quick")
}

fn images(folder: &Path) -> Vec<PathBuf> {
    let binaries = binaries();
    let binary = |name: &str| fs::read(binaries.join(name)).unwrap();
    let roots = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    let penstock = vec![("usr/local/bin/penstock", binary("penstock")), ("etc/ssl/certs/ca-certificates.crt", roots)];
    let demo = vec![("demo", binary("penstock-demo"))];
    let all = [
        ("localhost/penstock:test", &penstock, vec!["/usr/local/bin/penstock"]),
        ("localhost/demo:1", &demo, vec!["/demo"]),
        // A sandbox's own process only has to stay; the demo does, on a loopback port.
        ("localhost/pause:1", &demo, vec!["/demo", "127.0.0.1:61999"]),
    ];
    all.iter()
        .map(|(name, files, entrypoint)| {
            let out = folder.join(format!("{}.tar", name.replace(['/', ':'], "-")));
            image::write(&out, name, files, entrypoint);
            out
        })
        .collect()
}

struct Scene {
    node: Node,
}

impl Scene {
    fn helm(&self, arguments: &[&str]) -> String {
        let output = Command::new(helm())
            .args(arguments)
            .env("KUBECONFIG", self.node.cluster.kubeconfig())
            .env("HELM_CACHE_HOME", self.node.cluster.path("helm"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "helm {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn list(&self, kind: &str, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["get", kind, "-o", "json"];
        all.extend(arguments);
        let list: Value = serde_json::from_str(&self.node.cluster.kubectl(&all)).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// The pods of the controller that are not on their way out, and those that are.
    fn pods(&self) -> (Vec<Value>, Vec<Value>) {
        let all = self.list("pods", &["-n", "penstock"]);
        all.into_iter().partition(|pod| pod["metadata"]["deletionTimestamp"].is_null())
    }

    fn ready_backends(&self) -> usize {
        let slices = self.list("endpointslices", &["-l", "kubernetes.io/service-name=shop"]);
        let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
    }

    fn backend_pods(&self) -> usize {
        self.list("pods", &["-l", "app=shop"]).len()
    }

    fn scale(&self, count: usize) {
        self.node.cluster.kubectl(&["scale", "deployment", "shop", &format!("--replicas={count}")]);
        patiently("the backend is scaled", || (self.ready_backends() == count && self.backend_pods() == count).then_some(()));
    }
}

fn ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
}

/// Requests under way all the time; none may fail.
struct Load {
    stop: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    answered: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    /// Of eight clients, half ask the one route and half the other, half over TLS, and half with a connection for each request, while the
    /// others keep theirs as long as they may.
    fn start(http: SocketAddr, https: SocketAddr) -> Self {
        let (stop, failures, answered) = (Arc::default(), Arc::default(), Arc::default());
        let clients = (0..8)
            .map(|number: usize| {
                let (stop, failures, answered): (Arc<AtomicBool>, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) =
                    (Arc::clone(&stop), Arc::clone(&failures), Arc::clone(&answered));
                thread::spawn(move || {
                    let host = if number.is_multiple_of(2) { "shop.test" } else { "live.test" };
                    let (keep, tls) = ((number / 2).is_multiple_of(2), number >= 4);
                    let mut kept = None;
                    while !stop.load(Ordering::SeqCst) {
                        match ask(if tls { https } else { http }, host, tls, keep, &mut kept) {
                            Ok(()) => answered.fetch_add(1, Ordering::SeqCst),
                            Err(error) => {
                                let transport = if tls { "https" } else { "http" };
                                failures.lock().unwrap().push(format!("client {number} of {transport}://{host}: {error}"));
                                0
                            }
                        };
                        thread::park_timeout(Duration::from_millis(10));
                    }
                })
            })
            .collect();
        Self { stop, failures, answered, clients }
    }

    /// Panics if a request failed up to now.
    fn check(&self, step: &str) {
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{step}: {} of {} failed: {:#?}",
            failures.len(),
            self.answered.load(Ordering::SeqCst),
            &failures[..failures.len().min(10)]
        );
        println!("{step}: {} requests answered", self.answered.load(Ordering::SeqCst));
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

fn open(address: SocketAddr, host: &str, tls: bool) -> Result<Box<dyn Connection>, String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(20)).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|error| error.to_string())?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let config = Arc::new(any_certificate(&["http/1.1"]));
    let session = rustls::ClientConnection::new(config, host.to_owned().try_into().unwrap()).unwrap();
    Ok(Box::new(rustls::StreamOwned::new(session, stream)))
}

/// A GET; the connection is kept in `kept` if it may be.
fn ask(address: SocketAddr, host: &str, tls: bool, keep: bool, kept: &mut Option<Box<dyn Connection>>) -> Result<(), String> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => open(address, host, tls)?,
    };
    let connection = if keep { "keep-alive" } else { "close" };
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n")
        .map_err(|error| format!("write: {error}"))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).map_err(|error| format!("read: {error}"))? {
            0 => return Err(format!("the end after {:?}", String::from_utf8_lossy(&head))),
            _ => head.push(byte[0]),
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).ok_or("no length")?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(|error| format!("body: {error}"))?;
    if keep && !head.contains("\r\nconnection: close\r\n") {
        *kept = Some(stream);
    }
    Ok(())
}

/// WebSockets that read until they are closed; each tells its close code, and when.
struct Tunnels {
    count: usize,
    closed: Arc<Mutex<Vec<(u16, Instant)>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Tunnels {
    fn open(address: SocketAddr, count: usize) -> Self {
        let closed: Arc<Mutex<Vec<(u16, Instant)>>> = Arc::default();
        let readers = (0..count)
            .map(|number| {
                let closed = closed.clone();
                let mut socket = WebSocket::open(address, if number % 2 == 0 { "shop.test" } else { "live.test" });
                thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn(move || {
                        let code = last_words(&mut socket.0);
                        closed.lock().unwrap().push((code, Instant::now()));
                        // Close back, then the end of the stream.
                        let _ = socket.0.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]);
                    })
                    .unwrap()
            })
            .collect();
        Self { count, closed, readers }
    }

    fn closed(&self) -> usize {
        self.closed.lock().unwrap().len()
    }

    /// Once all are closed: how many with which code.
    fn end(self) -> BTreeMap<u16, usize> {
        for reader in self.readers {
            reader.join().unwrap();
        }
        let mut codes = BTreeMap::new();
        for (code, _) in self.closed.lock().unwrap().iter() {
            *codes.entry(*code).or_insert(0) += 1;
        }
        codes
    }
}

/// Reads frames (the backend tells the time every second) up to a Close; 0 stands for a cut.
fn last_words(stream: &mut TcpStream) -> u16 {
    loop {
        let mut head = [0; 2];
        if stream.read_exact(&mut head).is_err() {
            return 0;
        }
        let mut payload = vec![0; usize::from(head[1] & 0x7f)];
        assert!(payload.len() < 126, "the backend's messages are short");
        if stream.read_exact(&mut payload).is_err() {
            return 0;
        }
        if head[0] & 0x0f == 8 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[test]
fn the_chart_lives_on_a_real_node() {
    let folder = tempfile::tempdir().unwrap();
    let images = images(folder.path());
    let scene = Scene { node: Node::start(&images) };
    let cluster = &scene.node.cluster;

    assert!(scene.helm(&["lint", "--strict", CHART]).contains("0 chart(s) failed"));
    let image = ["--set", "image.repository=localhost/penstock,image.tag=test"];
    scene.helm(&["install", "penstock", CHART, "--namespace", "penstock", "--create-namespace", image[0], image[1]]);
    scene.node.route(LOAD_BALANCER);
    let status = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{LOAD_BALANCER}"}}]}}}}}}"#);
    cluster.kubectl(&["patch", "service", "penstock", "-n", "penstock", "--subresource=status", "--type=merge", "-p", &status]);
    patiently("the controller is ready", || scene.pods().0.iter().any(ready).then_some(()));
    for pod in scene.pods().0 {
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    }
    let processes = processes_with(&["/usr/local/bin/penstock", "controller"]);
    assert!(!processes.is_empty());
    for process in processes {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let user = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert_eq!(user.split_whitespace().nth(1), Some("65532"), "{user}");
    }

    let backend = folder.path().join("backend.yaml");
    fs::write(&backend, BACKEND).unwrap();
    cluster.kubectl(&["apply", "-f", backend.to_str().unwrap()]);
    let address: SocketAddr = format!("{LOAD_BALANCER}:80").parse().unwrap();
    let https: SocketAddr = format!("{LOAD_BALANCER}:443").parse().unwrap();
    patiently("the backend is ready", || (scene.ready_backends() == 2).then_some(()));
    for host in ["shop.test", "live.test"] {
        let get = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        patiently("the route answers through the Service", || (request(address, &get).0 == 200).then_some(()));
        assert_eq!(https_request(https, host, "/").0, 200, "{host} over HTTPS");
    }
    patiently("the Ingress has the Service's address", || {
        let ingress = &scene.list("ingresses", &[])[0];
        (ingress["status"]["loadBalancer"]["ingress"][0]["ip"] == LOAD_BALANCER).then_some(())
    });

    let load = Load::start(address, https);
    let mut scaled = vec![Tunnels::open(address, SCALED_TUNNELS)];
    scene.scale(6);
    load.check("scaled to 6");
    assert_eq!(scaled[0].closed(), 0, "tunnels ended when pods came");
    // These are at all six.
    scaled.push(Tunnels::open(address, SCALED_TUNNELS));
    let scaling = Instant::now();
    scene.scale(1);
    load.check("scaled to 1");
    let ended: Vec<_> = scaled.iter().flat_map(|tunnels| tunnels.closed.lock().unwrap().clone()).collect();
    println!("{} of {} tunnels ended with their pods", ended.len(), 2 * SCALED_TUNNELS);
    // A pod leaves its Service at once and lives for a while; its tunnels are with it to its end.
    for (code, at) in &ended {
        assert!(at.saturating_duration_since(scaling) >= PRE_STOP, "a tunnel ended before its pod did");
        assert_eq!(*code, 0, "a tunnel was closed by somebody else than its pod");
    }
    assert!(ended.len() < 2 * SCALED_TUNNELS, "no tunnel is left, though a pod is");

    let tunnels = Tunnels::open(address, TUNNELS);
    let old = scene.pods().0[0]["metadata"]["name"].clone();
    scene.helm(&["upgrade", "penstock", CHART, "--namespace", "penstock", "--reuse-values", "--set", "log.level=debug"]);
    // The new pod first, and then the old one's drain.
    let began = patiently("the old pod is told to end", || {
        let (staying, leaving) = scene.pods();
        if leaving.is_empty() {
            assert_eq!(tunnels.closed(), 0, "tunnels ended before the drain");
            let left: usize = scaled.iter().map(Tunnels::closed).sum();
            assert_eq!(left, ended.len(), "tunnels of the pod that stayed ended before the drain");
            return None;
        }
        assert!(
            staying.iter().any(|pod| pod["metadata"]["name"] != old && ready(pod)),
            "the old pod went before the new one was ready"
        );
        Some(Instant::now())
    });
    patiently("the old pod is gone", || {
        let (staying, leaving) = scene.pods();
        (leaving.is_empty() && staying.iter().all(ready)).then_some(())
    });
    load.check("upgraded");
    assert_eq!(tunnels.closed(), tunnels.count, "tunnels of the old pod outlived it");
    let closed = tunnels.closed.lock().unwrap().clone();
    let after: Vec<_> = closed.iter().map(|(_, at)| at.saturating_duration_since(began)).collect();
    let codes = tunnels.end();
    println!(
        "tunnels closed with {codes:?}, {:?} to {:?} after the old pod was told",
        after.iter().min().unwrap(),
        after.iter().max().unwrap()
    );
    assert_eq!(codes, BTreeMap::from([(1012, TUNNELS)]));
    let mut codes = BTreeMap::from([(0, 0), (1012, 0)]);
    for tunnels in scaled {
        assert_eq!(tunnels.closed(), tunnels.count, "tunnels of the old pod outlived it");
        for (code, count) in tunnels.end() {
            *codes.entry(code).or_default() += count;
        }
    }
    assert_eq!(codes, BTreeMap::from([(0, ended.len()), (1012, 2 * SCALED_TUNNELS - ended.len())]));
    load.end();

    scene.helm(&["uninstall", "penstock", "--namespace", "penstock", "--wait"]);
    let left = left_of_the_release(&scene);
    assert_eq!(left, ["customresourcedefinition.apiextensions.k8s.io/proxyroutes.penstock.dev"]);
    assert_eq!(scene.list("proxyroutes", &[]).len(), 1);
    patiently("the last pod ends", || processes_with(&["/usr/local/bin/penstock", "controller"]).is_empty().then_some(()));
}

/// Every object of any kind that helm made, or the controller in the release's namespace.
fn left_of_the_release(scene: &Scene) -> Vec<String> {
    let cluster = &scene.node.cluster;
    let names = |namespaced: &str, arguments: &[&str]| -> Vec<String> {
        let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name", &format!("--namespaced={namespaced}")]);
        let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("componentstatuses")).collect();
        let kinds = kinds.join(",");
        let mut all = vec!["get", &kinds, "-o", "name"];
        all.extend(arguments);
        cluster.kubectl(&all).lines().map(ToOwned::to_owned).collect()
    };
    let mut left = names("false", &["-l", "app.kubernetes.io/managed-by=Helm"]);
    left.extend(names("true", &["-A", "-l", "app.kubernetes.io/managed-by=Helm"]));
    // What every namespace has, and what ends by itself: Events, and the pods that are ending.
    let own = ["event", "serviceaccount/default", "configmap/kube-root-ca.crt", "pod/"];
    left.extend(names("true", &["-n", "penstock"]).into_iter().filter(|name| !own.iter().any(|own| name.starts_with(own))));
    left.sort();
    left.dedup();
    left
}
