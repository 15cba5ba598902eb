//! Frames of HTTP/2 as they are, written and read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    stage::{Io, Stage},
    support::{
        PATIENCE,
        http2::{PREFACE, frame},
    },
    wire::shown,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Flags of RFC 9113 §6: the stream ends, the head ends.
pub const ES: u8 = 1;
pub const EH: u8 = 4;

/// Fields as literals without indexing (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // An integer of 7 bits and more (RFC 7541 §5.1).
            let mut rest = text.len();
            bytes.push(rest.min(127) as u8);
            if let Some(more) = rest.checked_sub(127) {
                rest = more;
                while rest >= 128 {
                    bytes.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

#[derive(Debug, Default)]
struct Got {
    status: String,
    body: Vec<u8>,
    end: Option<String>,
}

impl Got {
    /// The last status that came.
    fn last(&self) -> &str {
        self.status.rsplit("; ").next().unwrap_or_default()
    }
}

/// The first field of a head that h2 wrote, which is its status.
pub fn status(block: &[u8]) -> String {
    const STATIC: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [index @ 0x88..=0x8e, ..] => STATIC[usize::from(index - 0x88)].to_owned(),
        [_, coded, rest @ ..] => {
            // Digits in Huffman's code (RFC 7541, appendix B): five bits for 0, 1 and 2, six for the others.
            let coded = &rest[..usize::from(coded & 127)];
            let bits: Vec<u8> = coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)).collect();
            let (mut at, mut text) = (0, String::new());
            while text.len() < 3 {
                let number = |length| bits[at..at + length].iter().fold(0, |number, bit| number * 2 + bit);
                let short = number(5);
                let (digit, length) = if short < 3 { (short, 5) } else { (number(6) - 0x19 + 3, 6) };
                at += length;
                text += &digit.to_string();
            }
            text
        }
        _ => "none".to_owned(),
    }
}

/// RFC 9113 §7.
fn reason(code: &[u8]) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let code = u32::from_be_bytes(code[..4].try_into().unwrap());
    NAMES.get(code as usize).map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

/// What the last GOAWAY among these frames says.
pub fn farewell(mut bytes: &[u8]) -> Option<String> {
    let mut told = None;
    while let Some(head) = bytes.get(..9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + length) else { break };
        if head[3] == GOAWAY {
            told = Some(reason(&payload[4..]));
        }
        bytes = &bytes[9 + length..];
    }
    told
}

pub struct Connection {
    pub stream: Box<dyn Io>,
    buffer: Vec<u8>,
}

impl Connection {
    /// With these settings of the client's.
    pub async fn open(stage: &Stage, settings: &[u8]) -> Self {
        let mut stream = stage.connect(b"h2").await;
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.unwrap();
        stream.flush().await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The next frame: kind, flags, stream, payload. None: it was closed, or nothing comes.
    pub async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let Some(head) = self.buffer.get(..9) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
                if self.buffer.len() >= 9 + length {
                    let payload = self.buffer[9..9 + length].to_vec();
                    self.buffer.drain(..9 + length);
                    return Some((kind, flags, stream, payload));
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            if !matches!(read, Ok(Ok(1..))) {
                return None;
            }
        }
    }

    /// Reads until both streams are over, or the connection is. `answered`: something is to come on the first. Says what came of the first, and the body of the second.
    pub async fn outcome(&mut self, answered: bool) -> (String, Vec<u8>) {
        let mut got = [Got::default(), Got::default()];
        got[0].end = (!answered).then(String::new);
        let mut told = None;
        while got.iter().any(|got| got.end.is_none()) {
            let Some((kind, flags, stream, payload)) = self.frame().await else {
                return (told.unwrap_or_else(|| format!("cut after {got:?}")), Vec::new());
            };
            match (kind, stream) {
                (HEADERS | DATA | RST_STREAM, 1 | 3) => {
                    let got = &mut got[stream as usize / 2];
                    match kind {
                        HEADERS if got.status.is_empty() => got.status = status(&payload),
                        // What came was no final response.
                        HEADERS if got.last().starts_with('1') => got.status = format!("{}; {}", got.status, status(&payload)),
                        DATA => got.body.extend_from_slice(&payload),
                        RST_STREAM => got.end = Some(format!("reset {}", reason(&payload))),
                        _ => {}
                    }
                    if kind != RST_STREAM && flags & ES != 0 && got.end.is_none() {
                        got.end = Some(String::new());
                    }
                }
                (GOAWAY, 0) => told = Some(format!("closed {}", reason(&payload[4..]))),
                _ => {}
            }
        }
        let [first, second] = got;
        let reset = first.end.clone().filter(|end| !end.is_empty());
        let body = if first.last().starts_with(['4', '5']) || first.body.is_empty() {
            String::new()
        } else {
            format!(" {}", shown(&first.body))
        };
        let whole = format!("{}{body}", first.status);
        (reset.map_or(whole.clone(), |reset| format!("{whole} {reset}").trim().to_owned()), second.body)
    }
}
