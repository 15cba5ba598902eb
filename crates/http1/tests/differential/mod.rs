//! The same bytes, read by us and by hyper: shared by the test of the corpus and the fuzz targets.
//!
//! What we take, hyper has to take as the same.
#![allow(dead_code)] // Each of those uses what it needs.

pub mod requests;
pub mod responses;

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use hyper::{
    HeaderMap,
    rt::{Read, ReadBufCursor, Write},
};
use penstock_http1::Fields;

/// A connection that gives its bytes and ends. What is written to it is forgotten.
struct Wire<'a> {
    unread: &'a [u8],
    /// Whether it gives nothing before something was written.
    waits: bool,
}

impl<'a> Wire<'a> {
    fn of_client(bytes: &'a [u8]) -> Self {
        Self { unread: bytes, waits: false }
    }

    fn of_server(bytes: &'a [u8]) -> Self {
        Self { unread: bytes, waits: true }
    }
}

impl Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.waits {
            return Poll::Pending;
        }
        let (piece, rest) = self.unread.split_at(self.unread.len().min(buffer.remaining()));
        buffer.put_slice(piece);
        self.unread = rest;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.waits = false;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a future that waits for nothing outside: where it is not ready, it is at one of the next polls.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("it waits for what never comes");
}

/// Names in lower case, and values.
type Lines = Vec<(String, Vec<u8>)>;

/// A map has no order between names.
fn sorted(lines: impl Iterator<Item = (String, Vec<u8>)>) -> Lines {
    let mut lines: Lines = lines.collect();
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}

fn our_lines(fields: &Fields) -> Lines {
    sorted(fields.iter().map(|field| (String::from_utf8_lossy(field.raw_name).to_ascii_lowercase(), field.value.to_vec())))
}

fn their_lines(fields: &HeaderMap) -> Lines {
    sorted(fields.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())))
}
