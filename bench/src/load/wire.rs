//! HTTP/1.1 as far as the bench's own client and backend need it: heads, and bodies that are read to their end.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read at once, and the largest head.
const BUFFER: usize = 64 << 10;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Sized(u64),
    Chunked,
}

/// A head, of a request or a response.
#[derive(Debug)]
pub struct Head {
    pub text: String,
    /// None: nothing said so.
    pub body: Option<Body>,
    pub upgrade: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (mut body, mut upgrade) = (None, false);
        for line in text.lines().skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse().ok().map(Body::Sized);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                body = Some(Body::Chunked);
            } else if name.eq_ignore_ascii_case("upgrade") {
                upgrade = true;
            }
        }
        Self { text, body, upgrade }
    }

    /// The second word of a response.
    pub fn status(&self) -> u16 {
        self.text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The second word of a request.
    pub fn target(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }
}

/// A connection with what was read and not yet used.
#[derive(Debug)]
pub struct Reader<S> {
    inner: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, buffer: Vec::new(), start: 0, end: 0 }
    }

    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The connection, and what was read beyond.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        let unread = self.unread().to_vec();
        (self.inner, unread)
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads more. False: it ended.
    async fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(io::Error::other("a head or line larger than 64 KiB"));
        }
        let read = self.inner.read(room).await?;
        self.end += read;
        Ok(read > 0)
    }

    /// Holds no buffer until the next byte is wanted.
    pub fn rest(&mut self) {
        if self.start == self.end {
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    /// The next head. None: the peer ended between messages.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(length) = find(self.unread(), b"\r\n\r\n") {
                let head = Head::parse(self.unread().get(..length).unwrap_or_default());
                self.start += length;
                return Ok(Some(head));
            }
            if !self.fill().await? {
                return if self.start == self.end { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads a body to its end; gives its size.
    pub async fn drain(&mut self, body: Body) -> io::Result<u64> {
        match body {
            Body::Sized(size) => {
                self.skip(size).await?;
                Ok(size)
            }
            Body::Chunked => {
                let mut whole = 0;
                loop {
                    let line = self.line().await?;
                    let digits = line.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
                    if size == 0 {
                        // Trailers, up to the empty line.
                        while !self.line().await?.is_empty() {}
                        return Ok(whole);
                    }
                    self.skip(size + 2).await?;
                    whole += size;
                }
            }
        }
    }

    /// Passes over this many bytes.
    pub async fn skip(&mut self, mut size: u64) -> io::Result<()> {
        loop {
            let here = size.min((self.end - self.start) as u64);
            self.start += here as usize;
            size -= here;
            if size == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(length) = find(self.unread(), b"\r\n") {
                let line = self.unread().get(..length - 2).unwrap_or_default();
                let line = String::from_utf8_lossy(line).into_owned();
                self.start += length;
                return Ok(line);
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Where the first `mark` ends.
fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark).map(|at| at + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_read_one_after_another() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\nrest";
        let mut reader = Reader::new(&text[..]);
        let head = reader.head().await.unwrap().unwrap();
        assert_eq!((head.status(), head.body), (200, Some(Body::Sized(3))));
        assert_eq!(reader.drain(Body::Sized(3)).await.unwrap(), 3);
        let head = reader.head().await.unwrap().unwrap();
        assert_eq!((head.status(), head.body), (404, Some(Body::Chunked)));
        assert_eq!(reader.drain(Body::Chunked).await.unwrap(), 2);
        assert_eq!(reader.unread(), b"rest");
        assert!(reader.head().await.is_err(), "half a head is an error");
    }
}
