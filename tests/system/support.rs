//! The binary as a process of its own, small backends, and clients by hand.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[path = "../../crates/proxy/tests/support/any_certificate.rs"]
mod any_certificate;

use any_certificate::Seen;

/// How long anything may take that should be quick: generous, since machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `check` gives something, looking often.
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, check)
}

pub fn eventually_within<T>(patience: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// A port that is free, outside the range from which the system gives ports to others.
pub fn free_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    if *next == 0 {
        *next = 20_000 + (std::process::id() % 110) as u16 * 100;
    }
    loop {
        *next = if *next > 32_000 { 20_000 } else { *next + 1 };
        if TcpListener::bind(("127.0.0.1", *next)).is_ok() {
            return *next;
        }
    }
}

/// A network namespace with these addresses on its loopback device; gone when dropped.
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn with(purpose: &str, addresses: &[&str]) -> Self {
        let name = format!("penstock-{purpose}-{}", std::process::id());
        let ip = |arguments: &[&str]| {
            let done = Command::new("ip").args(arguments).output().expect("`ip` runs; Debian has it in iproute2");
            assert!(
                done.status.success(),
                "ip {}: {}; network namespaces need root",
                arguments.join(" "),
                String::from_utf8_lossy(&done.stderr).trim()
            );
        };
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        for address in addresses {
            ip(&["-n", &namespace.name, "address", "add", address, "dev", "lo"]);
        }
        namespace
    }

    /// A program that will run in it, with the file systems of this process.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Gathers the lines of a stream as they come.
fn collect(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let gathered = Arc::new(Mutex::new(String::new()));
    let lines = gathered.clone();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut gathered = lines.lock().unwrap();
            gathered.push_str(&line);
            gathered.push('\n');
        }
    });
    gathered
}

/// A running `penstock`; killed when dropped.
pub struct Penstock {
    child: Child,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<String>>,
    output: Arc<Mutex<String>>,
    _state: tempfile::TempDir,
}

/// Keeps settings of whoever runs the tests from the command.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PENSTOCK_")) {
        command.env_remove(name);
    }
}

impl Penstock {
    /// Starts it with these arguments and waits until it serves.
    pub fn start(arguments: &[&str]) -> Self {
        let mut penstock = Self::spawn(arguments, &[]);
        penstock.wait_until_serving();
        penstock
    }

    /// Starts it; it may be a while until it serves.
    pub fn spawn(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
        without_settings(&mut command);
        command.args(arguments).envs(environment.iter().copied());
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self::run(command, "127.0.0.1:0", "127.0.0.1:0", admin)
    }

    /// Starts it with so many descriptors at most, and waits until it serves.
    pub fn start_with_descriptors(most: usize, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        without_settings(&mut command);
        // Takes the shell's place, so that signals reach it.
        let limited = format!("ulimit -n {most} && exec \"$@\"");
        command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_penstock")]).args(arguments);
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut penstock = Self::run(command, "127.0.0.1:0", "127.0.0.1:0", admin);
        penstock.wait_until_serving();
        penstock
    }

    /// Starts it in a network namespace, at these addresses there, and waits until it serves.
    pub fn start_in(namespace: &Netns, http: &str, https: &str, arguments: &[&str]) -> Self {
        let mut command = namespace.command(env!("CARGO_BIN_EXE_penstock"));
        without_settings(&mut command);
        command.args(arguments);
        let mut penstock = Self::run(command, http, https, ([127, 0, 0, 1], 9090).into());
        penstock.wait_until_serving();
        penstock
    }

    fn run(mut command: Command, http: &str, https: &str, admin: SocketAddr) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut child = command
            .args(["--http", http, "--https", https, "--admin", &admin.to_string()])
            .arg("--state-dir")
            .arg(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = collect(child.stderr.take().unwrap());
        let output = collect(child.stdout.take().unwrap());
        Self { child, http: ([127, 0, 0, 1], 0).into(), https: ([127, 0, 0, 1], 0).into(), admin, log, output, _state: state }
    }

    /// Waits until it serves, and learns its ports.
    pub fn wait_until_serving(&mut self) {
        let serving = eventually("penstock serves", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("penstock ended with {status}:\n{}", self.log());
            }
            self.log().lines().find(|line| line.contains(" serving ")).map(ToOwned::to_owned)
        });
        let address = |name: &str| {
            let start = serving.split(&format!(" {name}=\"")).nth(1).unwrap();
            start.split('"').next().unwrap().parse().unwrap()
        };
        self.http = address("http");
        self.https = address("https");
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, as `TERM` or `STOP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What the admin port answers.
    pub fn ask_admin(&self, path: &str) -> (u16, String) {
        request(self.admin, &format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"))
    }

    /// The sum of a metric's series whose labels hold `with`.
    pub fn metric(&self, name: &str, with: &str) -> f64 {
        let text = self.ask_admin("/metrics").1;
        let series = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        series.filter(|line| line.contains(with)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first line of its log that holds this, which comes a little later than what it tells of can be seen elsewhere.
    pub fn told(&self, what: &str) -> String {
        eventually(&format!("the log tells: {what}"), || self.log().lines().find(|line| line.contains(what)).map(ToOwned::to_owned))
    }

    /// What it wrote to its standard output: the access log.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits for its end; gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("penstock ends", || self.child.try_wait().unwrap()).code()
    }

    /// Status and body of a GET.
    pub fn get(&self, host: &str, path: &str) -> (u16, String) {
        request(self.http, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }
}

impl Drop for Penstock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- penstock's log\n{}", self.log());
        }
    }
}

/// Sends bytes, reads to the end of the connection.
pub fn whole_answer(address: SocketAddr, text: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes, reads to the end of the connection; status and what came after the head.
pub fn request(address: SocketAddr, text: &str) -> (u16, String) {
    status_and_body(&whole_answer(address, text))
}

/// A GET over TLS, whatever the certificate.
pub fn https_request(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let mut connection =
        rustls::ClientConnection::new(Arc::new(any_certificate(&[])), host.to_owned().try_into().unwrap()).unwrap();
    let mut stream = connect(address);
    let mut stream = rustls::Stream::new(&mut connection, &mut stream);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    status_and_body(&String::from_utf8_lossy(&answer))
}

/// A client's settings that accept every certificate.
pub fn any_certificate(protocols: &[&str]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(Seen::default()));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

fn status_and_body(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (status, body.to_owned())
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads a head, byte by byte, so that nothing after it is taken.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An address of this machine other than loopback. Traffic to it stays on the machine.
pub fn own_address() -> Ipv4Addr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent: this only asks the system from where it would be (RFC 5737 keeps the address for documentation).
    let asked = socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr());
    match asked {
        Ok(SocketAddr::V4(address)) if !address.ip().is_loopback() => *address.ip(),
        other => panic!("this machine has no IPv4 address but loopback, which EndpointSlices must not name: {other:?}"),
    }
}

/// A backend that answers its name to every request, and echoes after an upgrade.
pub struct Backend {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
}

impl Backend {
    pub fn start(name: &str) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, name, false)
    }

    /// At an address that an EndpointSlice may name: the API server refuses loopback.
    pub fn start_outside(name: &str) -> Self {
        Self::start_on(own_address(), name, false)
    }

    /// Answers its name, and the head of the request as it got it.
    pub fn echo(name: &str) -> Self {
        Self::start_on(own_address(), name, true)
    }

    fn start_on(address: Ipv4Addr, name: &str, echo: bool) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (name, count) = (name.to_owned(), requests.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (name, count) = (name.clone(), count.clone());
                thread::spawn(move || serve(stream, &name, echo, &count));
            }
        });
        Self { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut stream: TcpStream, name: &str, echo: bool, count: &AtomicUsize) {
    loop {
        let head = read_head(&mut stream);
        if head.is_empty() {
            return;
        }
        count.fetch_add(1, Ordering::SeqCst);
        if head.to_lowercase().contains("\r\nupgrade: websocket\r\n") {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            let mut chunk = [0; 4096];
            while let Ok(read) = stream.read(&mut chunk) {
                if read == 0 || stream.write_all(&chunk[..read]).is_err() {
                    return;
                }
            }
            return;
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        if head.contains("/slow") {
            // The point of the scene: an answer that is under way when the drain begins.
            thread::park_timeout(Duration::from_millis(500));
        }
        let body = if echo { format!("{name}\n{head}") } else { name.to_owned() };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A WebSocket by hand.
pub struct WebSocket(pub TcpStream);

impl WebSocket {
    pub fn open(address: SocketAddr, host: &str) -> Self {
        let mut stream = connect(address);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self(stream)
    }

    /// Sends a masked text frame and expects it back.
    pub fn echo(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).unwrap();
        let mut back = vec![0; frame.len()];
        self.0.read_exact(&mut back).unwrap_or_else(|error| panic!("{text}: the WebSocket was cut: {error}"));
        assert_eq!(back, frame);
    }

    /// Expects a Close frame; gives its code.
    pub fn closed(&mut self) -> u16 {
        let mut frame = [0; 4];
        self.0.read_exact(&mut frame).unwrap();
        assert_eq!(frame[0], 0x88, "{frame:?}");
        u16::from_be_bytes([frame[2], frame[3]])
    }
}

/// A ProxyRoute of one host to one URL.
pub fn proxy_route(name: &str, host: &str, url: &str) -> String {
    format!(
        "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{host}]\n  rules:\n  - backends: [{{url: \"{url}\"}}]\n"
    )
}

/// Writes a file as editors do: aside, then renamed over.
pub fn write(path: &Path, text: &str) {
    let aside: PathBuf = path.with_extension("aside");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// The certificate that a handshake for a name gets.
pub fn served_certificate(address: SocketAddr, name: &str) -> Vec<u8> {
    let mut config = any_certificate(&[]);
    let seen = Arc::new(Seen::default());
    config.dangerous().set_certificate_verifier(seen.clone());
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut stream = connect(address);
    let mut stream = rustls::Stream::new(&mut connection, &mut stream);
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: none\r\nConnection: close\r\n\r\n");
    let _ = stream.read(&mut [0]);
    seen.0.lock().unwrap().clone()
}
