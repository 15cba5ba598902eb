//! HTTP/1.1: `GET /body/N` gives N bytes, an upgrade echoes WebSocket messages, everything else is read to its end and answered with 128 bytes.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::ANSWER;
use crate::load::{
    websocket::{ACCEPT, KEY},
    wire::{Body, Head, Reader},
};

const CHUNK: usize = 64 << 10;
/// The largest head of a server's frame.
const FRAME_HEAD: usize = 10;

pub async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = Reader::new(stream);
    let usual = answer(&[b'x'; ANSWER]);
    let chunk = vec![b'x'; CHUNK];
    loop {
        let Some(head) = stream.head().await? else { return Ok(()) };
        if head.upgrade {
            return upgrade(stream, &head).await;
        }
        stream.drain(head.body.unwrap_or(Body::Sized(0))).await?;
        let wanted = head.target().strip_prefix("/body/").and_then(|size| size.parse::<u64>().ok());
        let Some(mut left) = wanted else {
            stream.inner().write_all(&usual).await?;
            continue;
        };
        stream.inner().write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n").as_bytes()).await?;
        while left > 0 {
            let next = chunk.get(..chunk.len().min(left as usize)).unwrap_or_default();
            stream.inner().write_all(next).await?;
            left -= next.len() as u64;
        }
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}

/// Echoes messages: what the client masked comes back unmasked, as RFC 6455 §5.1 has it. The bench's clients mask with zero, so
/// that payloads need no work.
async fn upgrade(mut stream: Reader<TcpStream>, head: &Head) -> io::Result<()> {
    if head.text.contains(KEY) {
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        stream.inner().write_all(text.as_bytes()).await?;
    } else {
        return stream.inner().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    }
    let (mut stream, mut unread) = stream.into_parts();
    let mut out = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut at = 0;
        while let Some((size, payload)) = unread.get(at..).and_then(masked_frame) {
            push_frame(&mut out, payload);
            at += size;
        }
        unread.drain(..at);
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        unread.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
}

/// The size of a whole masked frame, and its payload. None: more has to come.
fn masked_frame(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (start, length): (usize, usize) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let payload = start + 4;
    let end = payload.checked_add(length)?;
    Some((end, bytes.get(payload..end)?))
}

fn push_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.reserve(FRAME_HEAD + payload.len());
    out.push(0x82);
    match payload.len() {
        length @ 0..126 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::websocket::message;

    #[test]
    fn frames_come_back_unmasked() {
        for size in [0, 64, 4096, 70_000] {
            let frame = message(size);
            let (whole, payload) = masked_frame(&frame).unwrap();
            assert_eq!((whole, payload.len()), (frame.len(), size));
            assert!(masked_frame(&frame[..frame.len() - 1]).is_none(), "a frame that is not whole");
            let mut out = Vec::new();
            push_frame(&mut out, payload);
            assert_eq!(frame.len() - out.len(), 4, "the mask is gone");
        }
    }
}
