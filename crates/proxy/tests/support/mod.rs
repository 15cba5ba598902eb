//! A data plane in process, scripted backends, and clients by hand.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use penstock_model::{
    Action, AddressRules, Backend, BackendKey, BackendLimits, Balancing, CertificateSource, Forward, Forwarding, HeaderEdits, Host,
    HostPattern, HostRewrite, Match, Method, Model, ObjectRef, Origin, PathForm, PathMatch, PathRewrite, Policies, Protocol,
    Retries, RetryOn, Route, Timeouts, WebSocketPolicy, WeightedBackend,
};
use penstock_proxy::{AccessLogFormat, DataPlane, DrainOptions, ExternalAddresses, Limits, Options};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub mod any_certificate;
pub mod heap;
pub mod http2;

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Only who fails waits for so long: a full machine may stand still for seconds, and some limits here are five of them.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn route(path: &str, backend: SocketAddr) -> Route {
    route_to(path, &backend.ip().to_string(), backend.port())
}

pub fn route_to(path: &str, host: &str, port: u16) -> Route {
    let key = BackendKey { origin: Origin::Address { host: host.into(), port }, protocol: Protocol::Http1, tls: None };
    Route {
        object: ObjectRef::new("ProxyRoute", "default", "r"),
        rule: path.into(),
        matches: Match {
            path: PathMatch::Prefix(path.into()),
            form: PathForm::Normalised,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
        .into(),
        action: Action::Forward(Forward {
            backends: vec![WeightedBackend { backend: key, weight: 1 }],
            path: PathRewrite::Normalised,
            host: HostRewrite::AsReceived,
        })
        .into(),
        policies: Policies {
            https_redirect: None,
            addresses: AddressRules::default(),
            max_body_size: None,
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                request: None,
                read: Some(Duration::from_mins(1)),
                send: Some(Duration::from_mins(1)),
            },
            websocket: WebSocketPolicy { enabled: true, idle_timeout: None },
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            forwarding: Forwarding::Native,
            balancing: Balancing {
                method: Method::LeastLoaded,
                affinity: None,
                slow_start: None,
                ejection: None,
                limits: BackendLimits::default(),
            },
            retries: Retries {
                attempts: None,
                per_try: None,
                within: None,
                on: RetryOn { connect_failure: true, reset: true, timeout: false, unreadable: false, statuses: Vec::new() },
                non_idempotent: false,
            },
        }
        .into(),
    }
}

pub fn model(routes: Vec<Route>) -> Arc<Model> {
    let mut backends = BTreeMap::new();
    for route in &routes {
        if let Action::Forward(forward) = &*route.action {
            for weighted in &forward.backends {
                backends.insert(weighted.backend.clone(), Arc::new(Backend { key: weighted.backend.clone() }));
            }
        }
    }
    let host =
        Host { pattern: HostPattern::Any, tls: None, certificate_only: false, routes: routes.into_iter().map(Arc::new).collect() };
    Arc::new(Model {
        hosts: [(HostPattern::Any, Arc::new(host))].into(),
        backends,
        default_certificate: CertificateSource::SelfSigned,
    })
}

pub struct Proxy {
    pub plane: Arc<DataPlane>,
    pub http: SocketAddr,
    pub https: SocketAddr,
}

pub fn start(model: &Arc<Model>) -> Proxy {
    start_with(model, Duration::from_secs(2))
}

pub fn start_with(model: &Arc<Model>, grace: Duration) -> Proxy {
    let options =
        Options { https: Some("127.0.0.1:0".to_owned()), drain: DrainOptions { delay: Duration::ZERO, grace }, ..options() };
    start_as(options, model)
}

/// With these limits, and one worker, so that connections to backends are shared for sure.
pub fn start_within(limits: Limits, model: &Arc<Model>) -> Proxy {
    let options = Options { https: Some("127.0.0.1:0".to_owned()), workers: NonZeroUsize::MIN, limits, ..options() };
    start_as(options, model)
}

pub fn start_as(options: Options, model: &Arc<Model>) -> Proxy {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let plane = DataPlane::start(options).unwrap();
    plane.publish(model, &BTreeMap::new());
    let bound = plane.listen().unwrap();
    let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Proxy { plane: Arc::new(plane), http: bound.http.unwrap_or(none), https: bound.https.unwrap_or(none) }
}

pub fn options() -> Options {
    Options {
        http: Some("127.0.0.1:0".to_owned()),
        https: None,
        workers: NonZeroUsize::new(2).unwrap(),
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
        public_http_port: None,
        public_https_port: None,
        access_log: AccessLogFormat::Off,
        limits: Limits::default(),
        state_dir: None,
        external: ExternalAddresses::standalone(),
        drain: DrainOptions { delay: Duration::ZERO, grace: Duration::from_secs(2) },
    }
}

pub fn started(options: Options, model: &Arc<Model>) -> (Arc<DataPlane>, SocketAddr) {
    let proxy = start_as(options, model);
    (proxy.plane, proxy.http)
}

/// Answers each request with this text.
pub async fn saying(text: &'static str) -> SocketAddr {
    backend(move |mut stream| async move {
        let mut rest = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(read) if read > 0 => rest.extend_from_slice(&chunk[..read]),
                _ => return,
            }
            while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
                rest.drain(..end + 4);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

pub async fn status(proxy: &Proxy, request: &str) -> u16 {
    let (head, _) = get(proxy, request).await;
    head[9..12].parse().unwrap()
}

/// Waits for what comes true by itself.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

/// Waits until nobody is let in any more. When one of several listeners closes, a connection that it was about to get is reset, while others
/// still accept: only without any it is refused.
pub async fn until_nobody_is_let_in(address: SocketAddr) {
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    until("still accepts", || std::net::TcpStream::connect(address).is_err_and(refused)).await;
}

/// Whether a counter stands so.
pub fn counted(proxy: &Proxy, line: &str) -> bool {
    proxy.plane.metrics().encode().lines().any(|known| known == line)
}

/// How often a limit was met.
pub fn met(proxy: &Proxy, limit: &str) -> u64 {
    let text = proxy.plane.metrics().encode();
    let start = format!("penstock_limits_hit_total{{limit=\"{limit}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).expect("no such limit").parse().unwrap()
}

/// A backend whose every connection is given to `serve`.
pub async fn backend<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads up to the end of a head; gives it and what came after.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).unwrap(), rest);
        }
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await.expect("no head came").unwrap();
        assert!(read > 0, "closed within a head: {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&chunk[..read]);
    }
}

pub async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    while bytes.len() < length {
        let mut chunk = vec![0; length - bytes.len()];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await.expect("bytes are missing").unwrap();
        assert!(read > 0, "closed early: {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&chunk[..read]);
    }
    bytes
}

/// Answers every request with its own head as the body.
pub async fn echo_heads(mut stream: TcpStream) {
    let mut rest = Vec::new();
    loop {
        let mut bytes = std::mem::take(&mut rest);
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
                _ => return,
            }
        };
        rest = bytes.split_off(end);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Switches protocols and echoes.
pub async fn echo_upgraded(mut stream: TcpStream) {
    let (head, early) = read_head(&mut stream).await;
    let key =
        head.lines().find_map(|line| line.to_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned()));
    assert_eq!(key.as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    // The first frame goes with the head, as some servers do.
    stream.write_all(&[answer.as_bytes(), b"\x81\x05hello", &early].concat()).await.unwrap();
    let mut chunk = [0; 4096];
    while let Ok(read) = stream.read(&mut chunk).await {
        if read == 0 || stream.write_all(&chunk[..read]).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub async fn open_websocket(proxy: &Proxy) -> TcpStream {
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    open_websocket_on(&mut client).await;
    client
}

pub async fn open_websocket_on(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (head, early) = read_head(client).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(read_exactly(client, early, 7).await, b"\x81\x05hello");
}

/// The 101 that answers this key.
pub fn switch_for(key: &str) -> String {
    use base64::Engine;
    use sha1::Digest;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = base64::engine::general_purpose::STANDARD.encode(sha1::Sha1::digest(text.as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Answers any key rightly. Gives what came with the head.
pub async fn accept_websocket(stream: &mut TcpStream) -> Vec<u8> {
    let (head, early) = read_head(stream).await;
    let key =
        head.lines().find_map(|line| line.to_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned()));
    stream.write_all(switch_for(&key.unwrap()).as_bytes()).await.unwrap();
    early
}

/// Answers any key rightly and echoes.
pub async fn accept_any_websocket(mut stream: TcpStream) {
    let early = accept_websocket(&mut stream).await;
    stream.write_all(&early).await.unwrap();
    let mut chunk = [0; 4096];
    while let Ok(read) = stream.read(&mut chunk).await {
        if read == 0 || stream.write_all(&chunk[..read]).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

pub async fn echo(client: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) {
    // Masked with zeros: the tracker sees frames, the echo comes back as it went.
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    client.write_all(&frame).await.unwrap();
    assert_eq!(read_exactly(client, Vec::new(), frame.len()).await, frame);
}

/// The length that a head declares.
pub fn length(head: &str) -> usize {
    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).expect("no length")
}

pub async fn get(proxy: &Proxy, request: &str) -> (String, String) {
    let mut client = TcpStream::connect(proxy.http).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let (head, early) = read_head(&mut client).await;
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(|n| n.parse::<usize>().unwrap()));
    let body = read_exactly(&mut client, early, length.unwrap_or(0)).await;
    (head, String::from_utf8(body).unwrap())
}
