//! A reader of HTTP/1.1 that forgives nothing: what it takes, every parser reads in the same way.
//!
//! Both ends of a case read the proxy by it, so that each message which goes out either way is held against the grammar: CRLF and no other line
//! end, tokens, one framing in its canonical form, nothing of one hop.

use std::{fmt::Write as _, io::ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::support::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    /// `bodiless`: it answers HEAD.
    Response {
        bodiless: bool,
    },
}

/// What came of a message.
#[derive(Debug)]
pub enum Seen {
    Whole(Message),
    /// The connection ended within it.
    Cut(Option<Message>),
    /// It ended before it.
    End,
    /// It was reset, before a message or within it.
    Reset(Option<Message>),
    Bad(String),
}

#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Method and target, or status.
    pub start: String,
    fields: Vec<(String, String)>,
    framing: &'static str,
    /// Without a body: how long it would be.
    declares: String,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// What the proxy adds to each message, and what is said of a message in another way.
const UNTOLD: [&str; 14] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "host",
    "server",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "allow",
];

impl Message {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// In one line: the start, what the fields say besides what the proxy always adds, the body.
    pub fn told(&self) -> String {
        let own = self.field("server") == Some("penstock") && self.start.as_bytes()[0] >= b'4';
        if own && self.start.as_bytes()[0].is_ascii_digit() {
            return self.start.clone();
        }
        let mut text = self.start.clone();
        if let Some(host) = self.field("host") {
            let _ = write!(text, " for {host}");
        }
        if self.start.starts_with(char::is_alphabetic)
            && let Some(options) = self.field("connection")
        {
            let _ = write!(text, " Connection: {options}");
        }
        for (name, value) in self.fields.iter().filter(|(name, _)| !UNTOLD.contains(&name.to_lowercase().as_str())) {
            let _ = write!(text, " {name}: {value}");
        }
        if !self.framing.is_empty() {
            let _ = write!(text, " {} {}", self.framing, shown(&self.body));
        }
        if !self.declares.is_empty() {
            let _ = write!(text, " {}", self.declares);
        }
        for (name, value) in &self.trailers {
            let _ = write!(text, " trailer {name}: {value}");
        }
        text
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

pub fn shown(bytes: &[u8]) -> String {
    if bytes.len() > 80 { format!("<{} bytes>", bytes.len()) } else { format!("\"{}\"", bytes.escape_ascii()) }
}

pub struct Reader<S> {
    pub stream: S,
    pub buffer: Vec<u8>,
    /// Over TLS: it ended without a word (RFC 8446 §6.1), as if somebody had cut it.
    pub torn: bool,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), torn: false }
    }

    /// Waits for a head; false: none came.
    pub async fn has_head(&mut self) -> bool {
        while find(&self.buffer, b"\r\n\r\n").is_none() {
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return false;
            }
        }
        true
    }

    pub async fn message(&mut self, kind: Kind) -> Seen {
        let mut ended = false;
        loop {
            let found = match parse(&self.buffer, kind, ended && !self.torn) {
                Ok(found) => found,
                Err(why) => return Seen::Bad(format!("{why}: {}", shown(&self.buffer))),
            };
            match found {
                (Some(message), Some(length)) => {
                    self.buffer.drain(..length);
                    return Seen::Whole(message);
                }
                (None, _) if ended && self.buffer.is_empty() => return Seen::End,
                (partial, None) if ended => return Seen::Cut(partial),
                _ => {}
            }
            match tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Seen::Bad(format!("nothing more came after {}", shown(&self.buffer))),
                Ok(Ok(read)) => ended = read == 0,
                Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => (ended, self.torn) = (true, true),
                Ok(Err(_)) => return Seen::Reset(parse(&self.buffer, kind, false).ok().and_then(|(message, _)| message)),
            }
        }
    }
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Lines of a section. Bytes above 127 are taken as Latin-1, so that each is seen.
fn fields(section: &str) -> Result<Vec<(String, String)>, String> {
    let mut fields = Vec::new();
    for line in section.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        if !is_token(name) {
            return Err(format!("{name:?} is no name"));
        }
        if value.trim() != value || value.chars().any(|c| c.is_control() && c != '\t' && (c as u32) < 128) {
            return Err(format!("{value:?} is no value"));
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    Ok(fields)
}

fn start_of(line: &str, kind: Kind) -> Result<String, String> {
    let mut parts = line.splitn(3, ' ');
    let (first, second, third) = (parts.next().unwrap(), parts.next().ok_or("one word")?, parts.next().ok_or("two words")?);
    match kind {
        Kind::Request => {
            if !is_token(first)
                || third != "HTTP/1.1"
                || !second.bytes().all(|byte| byte.is_ascii_graphic())
                || second.contains('#')
            {
                return Err(format!("{line:?} is no request line"));
            }
            Ok(format!("{first} {second}"))
        }
        Kind::Response { .. } => {
            if first != "HTTP/1.1" || second.len() != 3 || !second.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("{line:?} is no status line"));
            }
            if third.chars().any(|c| !(' '..='~').contains(&c)) {
                return Err(format!("{third:?} is no reason"));
            }
            Ok(second.to_owned())
        }
    }
}

type Found = (Option<Message>, Option<usize>);

/// Gives the message as far as it came, and its length once it is whole.
fn parse(bytes: &[u8], kind: Kind, ended: bool) -> Result<Found, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok((None, None)) };
    let text: String = bytes[..end].iter().map(|byte| *byte as char).collect();
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a bare CR or LF, or a NUL".to_owned());
    }
    let (line, section) = text.split_once("\r\n").unwrap_or((&text, ""));
    let mut message = Message { start: start_of(line, kind)?, fields: fields(section)?, ..Message::default() };
    let given = message.fields.clone();
    let all = |name: &'static str| {
        let called = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        given.iter().filter(called).map(|(_, value)| value.as_str())
    };
    let once = |name: &'static str| match all(name).count() {
        0 | 1 => Ok(all(name).next()),
        _ => Err(format!("more than one {name}")),
    };
    for name in ["Keep-Alive", "Proxy-Connection", "TE", "HTTP2-Settings"] {
        if all(name).next().is_some() {
            return Err(format!("{name} is passed on"));
        }
    }
    let connection = once("Connection")?;
    if once("Upgrade")?.is_some() != connection.is_some_and(|value| value == "Upgrade") {
        return Err("Upgrade and Connection disagree".to_owned());
    }
    let (length, coding) = (once("Content-Length")?, once("Transfer-Encoding")?);
    if coding.is_some_and(|coding| coding != "chunked") || (coding.is_some() && length.is_some()) {
        return Err(format!("framed as {length:?} and {coding:?}"));
    }
    let length: Option<usize> = match length.map(|text| (text, text.parse::<usize>())) {
        None => None,
        Some((text, Ok(length))) if length.to_string() == text => Some(length),
        Some((text, _)) => return Err(format!("a length of {text:?}")),
    };
    let start = end + 4;
    let status = message.start.clone();
    let no_body = match kind {
        Kind::Request => {
            if once("Host")?.is_none() || all("X-Forwarded-For").ne(["127.0.0.1"]) || all("Expect").next().is_some() {
                return Err("not one Host, or X-Forwarded-For is not the client, or Expect is passed on".to_owned());
            }
            // Who the client is, and where it asked, is said once, and by us.
            let host = once("Host")?;
            if once("X-Real-IP")? != Some("127.0.0.1")
                || !matches!(once("X-Forwarded-Proto")?, Some("http" | "https"))
                || once("X-Forwarded-Port")?.is_none_or(|port| port.parse::<u16>().is_err())
                || once("X-Request-ID")?.is_none_or(str::is_empty)
                || once("X-Forwarded-Host")?.is_some_and(|told| Some(told) != host)
            {
                return Err("what the proxy says of the client is missing, or not ours".to_owned());
            }
            if connection.is_some_and(|connection| connection != "Upgrade") {
                return Err(format!("Connection: {connection:?}"));
            }
            length.is_none() && coding.is_none()
        }
        Kind::Response { bodiless } => {
            let interim = status.starts_with('1') || status == "204";
            if interim && (length.is_some() || coding.is_some()) {
                return Err(format!("{status} speaks of a length"));
            }
            if connection.is_some_and(|connection| !["close", "keep-alive", "Upgrade"].contains(&connection)) {
                return Err(format!("Connection: {connection:?}"));
            }
            bodiless || interim || status == "304"
        }
    };
    if no_body {
        if let Some(length) = length {
            message.declares = format!("of {length}");
        } else if coding.is_some() {
            message.declares.push_str("of chunks");
        }
        return Ok((Some(message), Some(start)));
    }
    let rest = &bytes[start..];
    if let Some(length) = length {
        message.framing = "length";
        message.body = rest[..length.min(rest.len())].to_vec();
        let whole = (rest.len() >= length).then_some(start + length);
        return Ok((Some(message), whole));
    }
    if coding.is_some() {
        message.framing = "chunked";
        let used = chunks(rest, &mut message)?;
        return Ok((Some(message), used.map(|used| start + used)));
    }
    if connection != Some("close") {
        return Err("a body without a length, and the connection is not said to close".to_owned());
    }
    message.framing = "until close";
    message.body = rest.to_vec();
    Ok((Some(message), ended.then_some(bytes.len())))
}

/// Gives how long it is, once it is whole.
fn chunks(bytes: &[u8], message: &mut Message) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let size = usize::from_str_radix(&text, 16).map_err(|_| format!("a chunk of {text:?}"))?;
        if format!("{size:x}") != text.to_lowercase() {
            return Err(format!("a chunk of {text:?}"));
        }
        at += line + 2;
        if size == 0 {
            let rest = &bytes[at..];
            if rest.starts_with(b"\r\n") {
                return Ok(Some(at + 2));
            }
            let Some(end) = find(rest, b"\r\n\r\n") else { return Ok(None) };
            message.trailers = fields(&String::from_utf8_lossy(&rest[..end]))?;
            return Ok(Some(at + end + 4));
        }
        let there = bytes.len().saturating_sub(at).min(size);
        message.body.extend_from_slice(&bytes[at..at + there]);
        at += size;
        match bytes.get(at..at + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += 2,
            Some(other) => return Err(format!("a chunk ends in {other:?}")),
        }
    }
}
