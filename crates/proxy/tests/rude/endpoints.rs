//! Endpoints of HTTP/2 that are rude, frame by frame. As in the tables of HTTP/1.1, others are served after each case: whoever asks for a word of his
//! own gets that, over the same connection to the endpoint where it was kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use penstock_proxy::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    frames::{DATA, EH, ES, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, farewell},
    stage::{ALONE, is_source, told, within_bounds},
    support::{
        PATIENCE, Proxy, backend,
        http2::{PREFACE, frame, to_http2},
        met, route, start_within,
    },
    wire::{Kind, Reader, Seen},
};

/// What a flood sends at most, and what may be taken of it: the sockets' buffers, and what is read before it is over the budget.
const MOST_SENT: usize = 64 << 20;
const MOST_TAKEN: usize = 32 << 20;

/// What the endpoint does when a request is there.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame of the request's stream: kind, flags, payload.
    On(u8, u8, Vec<u8>),
    /// Any bytes.
    Raw(Vec<u8>),
    /// With the request's stream as the last that it looked at, or the one before.
    GoAway {
        before: bool,
        code: u32,
    },
    /// Waits until the client has something.
    Begun,
    /// Says this again and again, and reads what comes, until the connection is closed.
    Flood(Vec<u8>),
    /// Ends its side, and reads what comes.
    Close,
    Reset,
}

pub struct Case {
    name: &'static str,
    /// A section, or a fault that others had.
    source: &'static str,
    method: &'static str,
    /// With the request's head, or when it is there as a whole.
    early: bool,
    /// What is done with the request each time that it comes.
    attempts: Vec<Vec<Step>>,
    /// What the client gets, message by message; and that its connection `closes`, where it does not stay.
    gets: &'static str,
    /// How many connections to the endpoint are made from the case to the word after it.
    connections: usize,
}

/// A GET that is answered so.
pub fn case(name: &'static str, source: &'static str, steps: Vec<Step>, gets: &'static str, connections: usize) -> Case {
    Case { name, source, method: "GET", early: false, attempts: vec![steps], gets, connections }
}

impl Case {
    /// It comes once more, and is answered so.
    pub fn again(mut self, steps: Vec<Step>) -> Self {
        self.attempts.push(steps);
        self
    }

    pub fn asked_by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub fn gets(self, gets: &'static str) -> Self {
        Self { gets, ..self }
    }

    pub fn early(self) -> Self {
        Self { early: true, ..self }
    }

    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }
}

pub fn head(fields: &[(&str, &str)], flags: u8) -> Step {
    Step::On(HEADERS, EH | flags, block(fields))
}

pub fn ok(flags: u8) -> Step {
    head(&[(":status", "200")], flags)
}

pub fn data(text: &str, flags: u8) -> Step {
    Step::On(DATA, flags, text.into())
}

pub fn reset(code: u32) -> Step {
    Step::On(RST_STREAM, 0, code.to_be_bytes().into())
}

/// A whole answer.
pub fn hello() -> Vec<Step> {
    vec![ok(0), data("hello", ES)]
}

#[derive(Default)]
struct Shared {
    attempts: Mutex<(VecDeque<Vec<Step>>, bool)>,
    connections: AtomicUsize,
    begun: Notify,
    /// How much was taken of a flood, and with what it was ended.
    flooded: Mutex<Option<(usize, Option<String>)>>,
    flood_over: Notify,
}

/// An endpoint, and the proxy before it.
struct Stage {
    proxy: Proxy,
    shared: Arc<Shared>,
    words: AtomicUsize,
}

async fn stage() -> Stage {
    let shared = Arc::new(Shared::default());
    let kept = shared.clone();
    let address = backend(move |stream| serve(stream, kept.clone())).await;
    let mut made = route("/", address);
    made.policies.timeouts.send = Some(Duration::from_millis(500));
    Stage { proxy: start_within(Limits::default(), &to_http2(made)), shared, words: AtomicUsize::new(0) }
}

/// Plays what there is to be played, and gives back the body of every other request.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    stream.set_nodelay(true).unwrap();
    let mut preface = [0; PREFACE.len()];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    // Room for all bodies together.
    let first = [frame(SETTINGS, 0, 0, &[]), frame(WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes())].concat();
    if stream.write_all(&first).await.is_err() {
        return;
    }
    let mut bodies = HashMap::<u32, Vec<u8>>::new();
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let [a, b, c, kind, flags, number @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        let number = u32::from_be_bytes(number);
        match kind {
            SETTINGS if flags == 0 => {
                let _ = stream.write_all(&frame(SETTINGS, 1, 0, &[])).await;
            }
            HEADERS => drop(bodies.insert(number, Vec::new())),
            DATA => bodies.entry(number).or_default().extend(payload),
            _ => {}
        }
        let whole = matches!(kind, HEADERS | DATA) && flags & ES != 0;
        let steps = {
            let (attempts, early) = &mut *shared.attempts.lock().unwrap();
            if whole && !*early || kind == HEADERS && *early { attempts.pop_front() } else { None }
        };
        if let Some(steps) = steps {
            bodies.remove(&number);
            if !play(&mut stream, &steps, number, &shared).await {
                return;
            }
        } else if whole && let Some(body) = bodies.remove(&number) {
            let answer = [frame(HEADERS, EH, number, &block(&[(":status", "200")])), frame(DATA, ES, number, &body)].concat();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// Says whether the connection goes on.
async fn play(stream: &mut TcpStream, steps: &[Step], number: u32, shared: &Shared) -> bool {
    for step in steps {
        let bytes = match step {
            Step::On(kind, flags, payload) => frame(*kind, *flags, number, payload),
            Step::Raw(bytes) => bytes.clone(),
            Step::GoAway { before, code } => {
                let last = if *before { number.saturating_sub(2) } else { number };
                frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
            }
            Step::Begun => {
                shared.begun.notified().await;
                continue;
            }
            Step::Flood(piece) => {
                let (mut taken, mut came) = (0, Vec::new());
                let (mut reader, mut writer) = stream.split();
                let writing = async {
                    while taken < MOST_SENT && writer.write_all(piece).await.is_ok() {
                        taken += piece.len();
                    }
                };
                let reading = async { while matches!(reader.read_buf(&mut came).await, Ok(1..)) {} };
                tokio::join!(writing, reading);
                *shared.flooded.lock().unwrap() = Some((taken, farewell(&came)));
                shared.flood_over.notify_one();
                return false;
            }
            Step::Close => {
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return false;
            }
            Step::Reset => {
                let _ = rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO));
                return false;
            }
        };
        if stream.write_all(&bytes).await.is_err() {
            return false;
        }
    }
    true
}

const CLOSES: &str = "closes";

impl Stage {
    /// Asks for a word of its own.
    async fn word(&self, reader: &mut Reader<TcpStream>) -> Result<(), String> {
        let word = format!("word-{}", self.words.fetch_add(1, Ordering::SeqCst));
        let request = format!("POST /word HTTP/1.1\r\nHost: good.test\r\nContent-Length: {}\r\n\r\n{word}", word.len());
        let _ = reader.stream.write_all(request.as_bytes()).await;
        match reader.message(Kind::Response { bodiless: false }).await {
            Seen::Whole(message) if message.body() == word.as_bytes() && reader.buffer.is_empty() => Ok(()),
            Seen::End | Seen::Reset(None) => Err(CLOSES.to_owned()),
            other => Err(format!("a word is answered by {}", told(other))),
        }
    }

    /// It is bounded, and counted.
    async fn flood_is_over(&self) -> Result<(), String> {
        let flooded = async {
            loop {
                if let Some(flooded) = self.shared.flooded.lock().unwrap().take() {
                    break flooded;
                }
                self.shared.flood_over.notified().await;
            }
        };
        let Ok((taken, farewell)) = tokio::time::timeout(3 * PATIENCE, flooded).await else {
            return Err("the flood is never ended".to_owned());
        };
        let counted = met(&self.proxy, "control_frames") + met(&self.proxy, "resets");
        if taken > MOST_TAKEN || counted != 1 || farewell.as_deref() != Some("ENHANCE_YOUR_CALM") {
            return Err(format!(
                "{taken} bytes were taken of the flood, it was counted {counted} times, its farewell is {farewell:?}"
            ));
        }
        Ok(())
    }

    async fn others_are_served(&self) -> Result<(), String> {
        self.word(&mut self.client().await).await
    }

    async fn client(&self) -> Reader<TcpStream> {
        Reader::new(TcpStream::connect(self.proxy.http).await.unwrap())
    }

    async fn play(&self, case: &Case) -> Result<(), String> {
        // So that there is a connection, and its SETTINGS are known.
        self.others_are_served().await?;
        let before = self.shared.connections.load(Ordering::SeqCst);
        *self.shared.attempts.lock().unwrap() = (case.attempts.iter().cloned().collect(), case.early);
        let mut reader = self.client().await;
        let body = if case.method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
        let _ = reader.stream.write_all(format!("{} /x HTTP/1.1\r\nHost: a\r\n{body}", case.method).as_bytes()).await;
        let _ = tokio::time::timeout(PATIENCE, reader.stream.read_buf(&mut reader.buffer)).await;
        self.shared.begun.notify_one();
        let mut got = Vec::new();
        let stays = loop {
            match reader.message(Kind::Response { bodiless: case.method == "HEAD" }).await {
                Seen::Whole(message) => {
                    got.push(message.told());
                    if !message.start.starts_with('1') {
                        break message.field("connection") != Some("close");
                    }
                }
                other => {
                    got.push(told(other));
                    break false;
                }
            }
        };
        if case.attempts.iter().flatten().any(|step| matches!(step, Step::Flood(_))) {
            self.flood_is_over().await?;
        }
        let left = std::mem::take(&mut self.shared.attempts.lock().unwrap().0).len();
        if stays && let Err(why) = self.word(&mut reader).await {
            got.push(why);
        }
        self.others_are_served().await?;
        let got = got.join("; ");
        if got != case.gets {
            return Err(format!("the client got    {got}\n  and should have   {}", case.gets));
        }
        if left > 0 {
            return Err(format!("it should have come {left} times more"));
        }
        let connections = self.shared.connections.load(Ordering::SeqCst) - before;
        if connections != case.connections {
            return Err(format!("{connections} connections were made instead of {}", case.connections));
        }
        Ok(())
    }
}

/// Plays all cases on one stage, so that the connection to the endpoint is the same for as long as it is kept.
pub async fn run_in_turn(cases: Vec<Case>) {
    let _alone = ALONE.lock().await;
    let stage = stage().await;
    for (number, case) in cases.iter().enumerate() {
        if let Err(why) = stage.play(case).await {
            panic!("{} {}, {number} ({})\n  {why}", case.method, case.name, case.source);
        }
    }
}

/// Plays all cases of a table, each on a stage of its own, and says which of them did not go as they should.
pub async fn run(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for case in &cases {
        assert!(is_source(case.source), "{}: {}", case.name, case.source);
        let played = within_bounds(async || stage().await.play(case).await).await;
        if let Err(why) = played {
            failures.push(format!("{} {} ({})\n  {why}", case.method, case.name, case.source));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
