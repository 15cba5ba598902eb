//! A keep-alive HTTP/1.1 client: one request, its whole answer, and so on.

use std::io;

use tokio::io::AsyncWriteExt;

use super::{
    client::{Client, Target},
    tls::Stream,
    wire::{Body, Reader},
};
use crate::{backend::ANSWER, certificate::HOST};

const CHUNK: usize = 64 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// The usual 128 bytes.
    Small,
    /// A body of this size from the backend.
    Download(u64),
    /// A body of this size to the backend.
    Upload(u64),
}

/// One connection.
#[derive(Debug)]
pub struct Http1 {
    stream: Reader<Stream>,
    ask: Ask,
    request: Vec<u8>,
    chunk: Vec<u8>,
    /// How many hosts there are to ask for, and where this client stands among them.
    hosts: Option<u32>,
    turn: u32,
}

impl Http1 {
    pub fn new(stream: Stream, ask: Ask, hosts: Option<u32>, number: usize) -> Self {
        let request = match ask {
            Ask::Small => request("GET", HOST, "/some/path", ""),
            Ask::Download(size) => request("GET", HOST, &format!("/body/{size}"), ""),
            Ask::Upload(size) => request("POST", HOST, "/up", &format!("Content-Length: {size}\r\n")),
        };
        let chunk = if matches!(ask, Ask::Upload(_)) { vec![b'x'; CHUNK] } else { Vec::new() };
        Self { stream: Reader::new(stream), ask, request, chunk, hosts, turn: number as u32 }
    }

    /// Holds no buffer while idle.
    pub fn rest(&mut self) {
        self.stream.rest();
        self.request = Vec::new();
    }

    /// One request and its whole answer.
    pub async fn ask(&mut self) -> io::Result<()> {
        if let Some(hosts) = self.hosts {
            // Strides through all of them in no order that a cache could like.
            self.turn = self.turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let host = route_host(((u64::from(self.turn) * u64::from(hosts)) >> 32) as u32);
            self.request = request("GET", &host, "/some/path", "");
        } else if self.request.is_empty() {
            self.request = request("GET", HOST, "/some/path", "");
        }
        self.stream.inner().write_all(&self.request).await?;
        if let Ask::Upload(mut left) = self.ask {
            while left > 0 {
                let next = self.chunk.get(..self.chunk.len().min(left as usize)).unwrap_or_default();
                self.stream.inner().write_all(next).await?;
                left -= next.len() as u64;
            }
        }
        self.stream.inner().flush().await?;
        let head = self.stream.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = head.body.ok_or_else(|| io::Error::other("an answer without length"))?;
        let size = self.stream.drain(body).await?;
        let expected = if let Ask::Download(size) = self.ask { size } else { ANSWER as u64 };
        if (head.status(), size) != (200, expected) || head.body == Some(Body::Sized(0)) {
            return Err(io::Error::other(format!("status {} with {size} bytes", head.status())));
        }
        Ok(())
    }
}

impl Client for Http1 {
    async fn connect(target: &Target, number: usize) -> io::Result<Self> {
        Ok(Self::new(target.connector.connect().await?, target.ask, target.hosts, number))
    }

    async fn exchange(&mut self) -> io::Result<u64> {
        self.ask().await.map(|()| 1)
    }
}

/// The host of a numbered route.
pub fn route_host(number: u32) -> String {
    format!("route-{number}.{HOST}")
}

fn request(method: &str, host: &str, path: &str, more: &str) -> Vec<u8> {
    // The headers of a small API client.
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: penstock-bench\r\nAccept: */*\r\n{more}\r\n").into_bytes()
}
