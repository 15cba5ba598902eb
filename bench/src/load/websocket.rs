//! WebSocket clients: one message and its echo, or a flood of messages with their echoes on the way back.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    client::{Client, Target},
    tls::Stream,
    wire::Reader,
};
use crate::certificate::HOST;

/// The key and answer of the example in RFC 6455 §1.3. All clients send it, so nobody has to compute a digest.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Bytes of a message of the echo.
pub const SMALL: usize = 64;
/// Bytes of a message of the flood.
pub const LARGE: usize = 4 << 10;
/// Messages that a flood sends in one go, while echoes are read.
const BATCH: usize = 256;
/// The bit beside the length that says so.
const MASKED: u8 = 0x80;

/// A binary message of a client, whole, masked with zero.
pub fn message(size: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match size {
        0..126 => frame.push(MASKED + size as u8),
        126..=0xffff => {
            frame.push(MASKED + 126);
            frame.extend_from_slice(&(size as u16).to_be_bytes());
        }
        _ => {
            frame.push(MASKED + 127);
            frame.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.resize(frame.len() + size, b'x');
    frame
}

/// The size of the echo: without the mask.
fn echo_size(message: &[u8]) -> usize {
    message.len() - 4
}

/// Opens a tunnel.
async fn open(stream: Stream) -> io::Result<Stream> {
    let mut stream = Reader::new(stream);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.inner().write_all(request.as_bytes()).await?;
    stream.inner().flush().await?;
    let head = stream.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.status() != 101 {
        return Err(io::Error::other(format!("status {} instead of 101", head.status())));
    }
    let (stream, unread) = stream.into_parts();
    if unread.is_empty() { Ok(stream) } else { Err(io::Error::other("bytes after the head of 101")) }
}

/// A tunnel that echoes small messages, one at a time.
#[derive(Debug)]
pub struct Echo {
    stream: Stream,
}

impl Echo {
    pub async fn open(stream: Stream) -> io::Result<Self> {
        Ok(Self { stream: open(stream).await? })
    }

    /// One message, and its echo.
    pub async fn echo(&mut self) -> io::Result<()> {
        let message = message(SMALL);
        self.stream.write_all(&message).await?;
        self.stream.flush().await?;
        let mut echo = [0; SMALL + 2];
        self.stream.read_exact(&mut echo).await?;
        if echo.starts_with(&[0x82, SMALL as u8]) { Ok(()) } else { Err(io::Error::other("not the echo")) }
    }
}

impl Client for Echo {
    async fn connect(target: &Target, _: usize) -> io::Result<Self> {
        Self::open(target.connector.connect().await?).await
    }

    async fn exchange(&mut self) -> io::Result<u64> {
        self.echo().await.map(|()| 1)
    }
}

/// A tunnel full of messages both ways.
#[derive(Debug)]
pub struct Flood {
    stream: Stream,
    /// Sixteen messages: what one write holds.
    messages: Vec<u8>,
    buffer: Vec<u8>,
}

const PER_WRITE: usize = 16;

impl Client for Flood {
    async fn connect(target: &Target, _: usize) -> io::Result<Self> {
        let stream = open(target.connector.connect().await?).await?;
        Ok(Self { stream, messages: message(LARGE).repeat(PER_WRITE), buffer: vec![0; 64 << 10] })
    }

    async fn exchange(&mut self) -> io::Result<u64> {
        let expected = echo_size(&message(LARGE)) * BATCH;
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        let (messages, buffer) = (&self.messages, &mut self.buffer);
        let write = async {
            for _ in 0..BATCH / PER_WRITE {
                writing.write_all(messages).await?;
            }
            writing.flush().await
        };
        let read = async {
            let mut whole = 0;
            while whole < expected {
                match reading.read(buffer).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    more => whole += more,
                }
            }
            if whole == expected { Ok(()) } else { Err(io::Error::other("more than the echo")) }
        };
        tokio::try_join!(write, read)?;
        Ok(BATCH as u64)
    }
}
