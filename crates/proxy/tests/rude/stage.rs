//! A proxy with a backend behind it, on which cases are played.

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use penstock_model::Route;
use penstock_proxy::Limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    case::{Case, Step, Then, When},
    support::{
        PATIENCE, Proxy, backend,
        heap::{LIVE, PEAK},
        http2, model, route, start_within, switch_for,
    },
    wire::{Kind, Reader, Seen, shown},
};

/// Any stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What carries a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Tls,
}

/// How the bytes of a case are written, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    AtOnce,
    /// One after another, where there are not too many.
    ByteByByte,
}

/// Longer ones go in this many pieces.
const MOST_WRITES: usize = 2000;

/// Writes them, and lets others read between two.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], how: Written) -> std::io::Result<()> {
    let length = match how {
        Written::AtOnce => bytes.len(),
        Written::ByteByByte => bytes.len().div_ceil(MOST_WRITES),
    };
    for piece in bytes.chunks(length.max(1)) {
        stream.write_all(piece).await?;
        stream.flush().await?;
        if how == Written::ByteByByte {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Each case is measured alone.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What all sides of a case together may take of the heap: the proxy's buffers, and the few copies that those have who play it.
const MOST_TAKEN: i64 = 1 << 20;
/// What a peer sends that does not end by itself. Whatever were kept of it would show.
const MOST_SENT: usize = 64 << 20;

/// The heap from here on.
pub struct Heap(i64);

impl Heap {
    pub fn measure() -> Self {
        let live = LIVE.load(Ordering::SeqCst);
        PEAK.store(live, Ordering::SeqCst);
        Self(live)
    }

    /// How much more was allocated at the most.
    pub fn grown(&self) -> i64 {
        PEAK.load(Ordering::SeqCst) - self.0
    }
}

/// Plays it alone, and holds what it took against the bound: again if that is too much, since others of the process take
/// what they take meanwhile.
pub async fn within_bounds<F: Future<Output = Result<(), String>>>(play: impl Fn() -> F) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let _alone = ALONE.lock().await;
        let heap = Heap::measure();
        play().await?;
        let grown = heap.grown();
        if grown <= MOST_TAKEN {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("it took {grown} bytes"));
        }
    }
}

/// What backends and clients of a stage share.
#[derive(Debug, Default)]
pub struct Shared {
    script: Mutex<(Vec<Step>, Option<When>, Option<Written>)>,
    log: Mutex<Vec<String>>,
    /// Each connection that was made: whether it is open.
    open: Mutex<Vec<bool>>,
    /// The WebSocket key of the last request that had one.
    key: Mutex<String>,
    /// Those that brought something of the case.
    of_case: Mutex<Vec<usize>>,
    playing: AtomicUsize,
    begun: Notify,
    got: Notify,
}

impl Shared {
    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    fn brought(&self, connection: usize) {
        self.of_case.lock().unwrap().push(connection);
    }

    pub fn logged(&self) -> String {
        self.log.lock().unwrap().join("; ")
    }
}

/// A proxy, and the backend behind it.
pub struct Stage {
    pub proxy: Proxy,
    pub over: Cell<Over>,
    pub written: Cell<Written>,
    pub shared: Arc<Shared>,
    words: AtomicUsize,
}

pub async fn stage() -> Stage {
    stage_of(Limits::default(), |address| vec![route("/", address)]).await
}

pub async fn stage_of(limits: Limits, routes: impl FnOnce(SocketAddr) -> Vec<Route>) -> Stage {
    // It is none of another's case.
    let _alone = ALONE.lock().await;
    let shared = Arc::new(Shared::default());
    let kept = shared.clone();
    let address = backend(move |stream| serve(stream, kept.clone())).await;
    Stage {
        proxy: start_within(limits, &model(routes(address))),
        over: Cell::new(Over::Tcp),
        written: Cell::new(Written::AtOnce),
        shared,
        words: AtomicUsize::new(0),
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let connection = {
        let mut open = shared.open.lock().unwrap();
        open.push(true);
        open.len() - 1
    };
    serve_on(stream, connection, &shared).await;
    shared.open.lock().unwrap()[connection] = false;
}

/// The backend: well-behaved to `/word/`, by the script to others.
async fn serve_on(stream: TcpStream, connection: usize, shared: &Shared) {
    // What is said late must not wait for what was said before to be acknowledged (RFC 9293 §3.7.4).
    stream.set_nodelay(true).unwrap();
    let own = stream.local_addr().unwrap().to_string();
    let mut reader = Reader::new(stream);
    loop {
        let early = reader.has_head().await && !reader.buffer.starts_with(b"GET /word/");
        let (script, when, written) = shared.script.lock().unwrap().clone();
        let written = written.unwrap_or(Written::AtOnce);
        let early = early && when == Some(When::Head);
        if early {
            shared.brought(connection);
        }
        if early && !play(&mut reader, &script, written, shared).await {
            // What it had not read is told all the same.
            shared.note(told(reader.message(Kind::Request).await));
            return;
        }
        let message = match reader.message(Kind::Request).await {
            Seen::Whole(message) => message,
            Seen::End | Seen::Reset(None) => return,
            other => {
                shared.brought(connection);
                return shared.note(told(other));
            }
        };
        if let Some(key) = message.field("sec-websocket-key") {
            key.clone_into(&mut shared.key.lock().unwrap());
        }
        let target = message.start.split(' ').nth(1).unwrap_or_default().to_owned();
        let word = target.strip_prefix("/word/");
        if word.is_none() {
            shared.brought(connection);
            shared.note(message.told().replace(&own, "itself"));
        }
        if word.is_some() || (script.is_empty() && !early) {
            let body = word.unwrap_or(&target);
            let body = if message.start.starts_with("HEAD ") { "" } else { body };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", word.unwrap_or(&target).len());
            if reader.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        } else if when == Some(When::Request) && !play(&mut reader, &script, written, shared).await {
            return;
        }
    }
}

pub fn told(seen: Seen) -> String {
    match seen {
        Seen::Whole(message) => message.told(),
        Seen::Cut(Some(message)) => format!("{} cut", message.told()),
        Seen::Cut(None) => "cut in its head".to_owned(),
        Seen::End => "nothing".to_owned(),
        Seen::Reset(Some(message)) => format!("{} reset", message.told()),
        Seen::Reset(None) => "reset".to_owned(),
        Seen::Bad(why) => format!("DOUBTFUL: {why}"),
    }
}

/// Says whether the connection goes on.
async fn play(reader: &mut Reader<TcpStream>, script: &[Step], written: Written, shared: &Shared) -> bool {
    shared.playing.fetch_add(1, Ordering::SeqCst);
    let goes_on = play_steps(reader, script, written, shared).await;
    shared.playing.fetch_sub(1, Ordering::SeqCst);
    goes_on
}

async fn play_steps(reader: &mut Reader<TcpStream>, script: &[Step], written: Written, shared: &Shared) -> bool {
    for step in script {
        match step {
            Step::Say(bytes) => {
                if write(&mut reader.stream, bytes, written).await.is_err() {
                    return false;
                }
            }
            Step::Switch => {
                let answer = switch_for(&shared.key.lock().unwrap());
                if write(&mut reader.stream, answer.as_bytes(), written).await.is_err() {
                    return false;
                }
            }
            Step::Flood(piece) => {
                for _ in 0..MOST_SENT / piece.len() {
                    if reader.stream.write_all(piece).await.is_err() {
                        return false;
                    }
                }
                shared.note(format!("DOUBTFUL: {MOST_SENT} bytes were taken"));
            }
            Step::Begun => shared.begun.notified().await,
            Step::Await => shared.got.notified().await,
            Step::Close => {
                let _ = reader.stream.shutdown().await;
            }
            Step::Reset => {
                let _ = rustix::net::sockopt::set_socket_linger(&reader.stream, Some(Duration::ZERO));
                return false;
            }
            Step::Echo => {
                let mut all = std::mem::take(&mut reader.buffer);
                let _ = reader.stream.write_all(&all).await;
                let mut chunk = [0; 4096];
                while let Ok(read @ 1..) = reader.stream.read(&mut chunk).await {
                    all.extend_from_slice(&chunk[..read]);
                    let _ = reader.stream.write_all(&chunk[..read]).await;
                }
                shared.note(format!("tunnel {}", shown(&all)));
                let _ = reader.stream.shutdown().await;
                return false;
            }
        }
    }
    true
}

/// Whether it says where what must hold comes from.
pub fn is_source(text: &str) -> bool {
    ["RFC ", "CVE-", "RUSTSEC-"].iter().any(|begin| text.starts_with(begin))
}

/// Plays all cases of a table, written at once and byte by byte, and over TLS, and says which of them did not go as they should.
pub async fn run(stage: &Stage, cases: Vec<Case>) {
    let mut failures = Vec::new();
    for case in &cases {
        assert!(is_source(case.source), "{}: {}", case.name, case.source);
    }
    for (over, written) in [(Over::Tcp, Written::AtOnce), (Over::Tcp, Written::ByteByByte), (Over::Tls, Written::AtOnce)] {
        stage.over.set(over);
        stage.written.set(written);
        for case in cases.iter().filter(|case| written == Written::AtOnce || !case.in_one) {
            let played = within_bounds(|| stage.play(case)).await;
            if let Err(why) = played {
                failures.push(format!("{} ({}), {over:?}, {written:?}\n  {why}", case.name, case.source));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// `*` stands for what cannot be said exactly; what begins with `?` for nothing, or something that ends so.
pub fn is_as(got: &str, expected: &str) -> bool {
    if let Some(end) = expected.strip_prefix('?') {
        return got.is_empty() || got.ends_with(end);
    }
    match expected.split_once('*') {
        Some((begin, end)) => got.len() >= begin.len() + end.len() && got.starts_with(begin) && got.ends_with(end),
        None => got == expected,
    }
}

/// How soon a connection to the backend is closed that is not used on.
const CLOSED_BY: Duration = Duration::from_secs(5);
/// What a client sends at last through a tunnel.
const LAST: &[u8] = b"ping";

impl Stage {
    pub fn begin(&self, script: &[Step], when: When) {
        self.shared.log.lock().unwrap().clear();
        self.shared.of_case.lock().unwrap().clear();
        *self.shared.script.lock().unwrap() = (script.to_vec(), Some(when), Some(self.written.get()));
        // What an earlier case left.
        while self.shared.got.notified().now_or_never() || self.shared.begun.notified().now_or_never() {}
    }

    /// The client has something of what the backend says.
    pub fn go_on(&self) {
        self.shared.begun.notify_one();
    }

    /// The client has all that it is to get.
    pub fn answered(&self) {
        self.shared.got.notify_one();
    }

    async fn play(&self, case: &Case) -> Result<(), String> {
        self.begin(&case.says, case.when);
        let mut outcome = self.ask(case).await;
        self.shared.begun.notify_one();
        self.shared.got.notify_one();
        let script_over = async {
            while self.shared.playing.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, script_over).await.is_err() {
            outcome = outcome.and(Err("the script is not over".to_owned()));
        }
        self.others_are_served().await?;
        let connection = outcome?;
        if let Some((mut reader, mut writer)) = connection {
            let word = self.word();
            ask_for(&mut writer, &word, "").await;
            match reader.message(Kind::Response { bodiless: false }).await {
                Seen::Whole(message) if message.body() == word.as_bytes() && reader.buffer.is_empty() => {}
                other => return Err(format!("the kept connection gave {}", told(other))),
            }
        }
        self.passed(&case.passes).await?;
        self.upstream_is_kept(case.keeps()).await
    }

    /// Whether the connections to the backend that the case went over are used on, as they must be: all of them closed, or the last one kept.
    pub async fn upstream_is_kept(&self, expected: bool) -> Result<(), String> {
        let connections = self.shared.of_case.lock().unwrap().clone();
        let Some(last) = connections.last() else { return Ok(()) };
        let open = |connection: &usize| self.shared.open.lock().unwrap()[*connection];
        if expected {
            return if open(last) { Ok(()) } else { Err("the connection to the backend was closed".to_owned()) };
        }
        let deadline = tokio::time::Instant::now() + CLOSED_BY;
        while connections.iter().any(open) {
            if tokio::time::Instant::now() > deadline {
                return Err("the connection to the backend stays open".to_owned());
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits until the backend has got that.
    pub async fn passed(&self, expected: &str) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_as(&self.shared.logged(), expected) {
            if tokio::time::Instant::now() > deadline {
                return Err(format!("the backend got   {}\n  and should have   {expected}", self.shared.logged()));
            }
            tokio::task::yield_now().await;
        }
        let logged = self.shared.logged();
        if logged.contains("DOUBTFUL") { Err(format!("the backend got   {logged}")) } else { Ok(()) }
    }

    pub async fn connect(&self, alpn: &[u8]) -> Box<dyn Io> {
        match self.over.get() {
            Over::Tcp => {
                let stream = TcpStream::connect(self.proxy.http).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Box::new(stream)
            }
            Over::Tls => Box::new(http2::connect(self.proxy.https, "a.test", &[alpn]).await),
        }
    }

    pub fn word(&self) -> String {
        format!("word-{}", self.words.fetch_add(1, Ordering::SeqCst))
    }

    /// A fresh connection gets its own answer from the same backend, and not a byte more.
    pub async fn others_are_served(&self) -> Result<(), String> {
        let word = self.word();
        let mut reader = Reader::new(self.connect(b"http/1.1").await);
        ask_for(&mut reader.stream, &word, "Connection: close\r\n").await;
        let first = reader.message(Kind::Response { bodiless: false }).await;
        let after = reader.message(Kind::Response { bodiless: false }).await;
        match (&first, &after) {
            (Seen::Whole(message), Seen::End) if message.body() == word.as_bytes() && !reader.torn => Ok(()),
            _ => Err(format!("another client got {} and then {}", told(first), told(after))),
        }
    }

    async fn ask(&self, case: &Case) -> Result<Option<(ReadHalf, WriteHalf)>, String> {
        let (read, mut writer) = tokio::io::split(self.connect(b"http/1.1").await);
        let mut reader = Reader::new(read);
        let begun = Notify::new();
        let writing = async {
            // The proxy may refuse it before it is all there.
            let _ = write(&mut writer, &case.sends, self.written.get()).await;
            match case.then {
                Then::Ends => {
                    let _ = writer.shutdown().await;
                }
                Then::Adds(more) => {
                    begun.notified().await;
                    let _ = write(&mut writer, more, self.written.get()).await;
                }
                Then::Floods(piece) => {
                    for _ in 0..MOST_SENT / piece.len() {
                        if writer.write_all(piece).await.is_err() {
                            return;
                        }
                    }
                    self.shared.note(format!("DOUBTFUL: {MOST_SENT} bytes were taken"));
                }
                Then::Reads | Then::Leaves => {}
            }
        };
        let (mut expected, end) = match case.gets.rsplit_once("; ") {
            Some((messages, end)) => (messages.split("; ").collect::<Vec<_>>(), end),
            None => (Vec::new(), case.gets.as_str()),
        };
        if case.then == Then::Leaves {
            writing.await;
            self.passed_partly(case).await?;
            return Ok(None);
        }
        let reading = async {
            let mut got = Vec::new();
            let mut closing = None;
            let _ = tokio::time::timeout(PATIENCE, reader.stream.read_buf(&mut reader.buffer)).await;
            begun.notify_one();
            self.shared.begun.notify_one();
            if end == "cut" || end == "reset" {
                expected.push("");
            }
            for wanted in &expected {
                match reader.message(Kind::Response { bodiless: wanted.starts_with("head ") }).await {
                    Seen::Whole(message) => {
                        closing = message.field("connection").map(str::to_owned);
                        let head = if wanted.starts_with("head ") { "head " } else { "" };
                        got.push(head.to_owned() + &message.told());
                    }
                    Seen::Cut(Some(message)) => {
                        got.push(format!("{}; cut", message.told()));
                        return (got, None);
                    }
                    Seen::Reset(Some(message)) => {
                        got.push(format!("{}; reset", message.told()));
                        return (got, None);
                    }
                    other => {
                        got.push(told(other));
                        return (got, None);
                    }
                }
            }
            (got, closing)
        };
        let ((), (mut got, closing)) = tokio::join!(writing, reading);
        self.shared.got.notify_one();
        let mut kept = None;
        match end {
            "cut" | "reset" => {}
            "stays" if closing.as_deref() == Some("close") => got.push("closes".to_owned()),
            "stays" => {
                got.push("stays".to_owned());
                kept = Some((reader, writer));
            }
            // A flood, and an end of the client's, may show only after the answer.
            "closes"
                if closing.as_deref() == Some("close")
                    || expected.is_empty()
                    || matches!(case.then, Then::Floods(_) | Then::Ends) =>
            {
                got.push(match reader.message(Kind::Response { bodiless: false }).await {
                    // Whose request got no answer is cut off within that.
                    Seen::End if reader.torn && (case.then != Then::Ends || case.passes.is_empty() || !expected.is_empty()) => {
                        "torn".to_owned()
                    }
                    Seen::End => "closes".to_owned(),
                    // So much was unread.
                    Seen::Reset(None) if matches!(case.then, Then::Floods(_) | Then::Ends) => "closes".to_owned(),
                    other => told(other),
                });
            }
            "closes" => got.push("does not say that it closes".to_owned()),
            _ => {
                let _ = writer.write_all(LAST).await;
                let _ = writer.flush().await;
                let _ = writer.shutdown().await;
                let mut all = std::mem::take(&mut reader.buffer);
                let _ = tokio::time::timeout(PATIENCE, reader.stream.read_to_end(&mut all)).await;
                got.push(format!("tunnel {}", shown(&all)));
            }
        }
        let got = got.join("; ");
        if got == case.gets { Ok(kept) } else { Err(format!("the client got    {got}\n  and should have   {}", case.gets)) }
    }

    /// The client leaves when its request has gone through as far as it came.
    async fn passed_partly(&self, case: &Case) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !case.passes.is_empty() && self.proxy.plane.metrics().requests_in_flight.get() == 0 {
            if tokio::time::Instant::now() > deadline {
                return Err("the request is not under way".to_owned());
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

type ReadHalf = Reader<tokio::io::ReadHalf<Box<dyn Io>>>;
type WriteHalf = tokio::io::WriteHalf<Box<dyn Io>>;

async fn ask_for(writer: &mut (impl AsyncWrite + Unpin), word: &str, fields: &str) {
    let request = format!("GET /word/{word} HTTP/1.1\r\nHost: good.test\r\n{fields}\r\n");
    let _ = writer.write_all(request.as_bytes()).await;
    let _ = writer.flush().await;
}

trait NowOrNever {
    /// Whether it is there already.
    fn now_or_never(self) -> bool;
}

impl<F: Future> NowOrNever for F {
    fn now_or_never(self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(self).poll(&mut cx).is_ready()
    }
}
