//! One side of an exchange, whichever version it speaks, and a body's way from one to the other.
//!
//! Promises back-pressure: a piece is read only when the one before was passed on; and that what can go in one write does.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use penstock_http1::Fields;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    buffers,
    fault::{BodyError, WriteError},
    http1::Http1,
    http2::Http2,
};

/// Bytes that one body moves before others have their turn.
const FAIR_SHARE: usize = 256 * 1024;

/// A client or an endpoint.
#[derive(Debug)]
pub(super) enum Side<S> {
    Http1(Box<Http1<S>>),
    Http2(Box<Http2>),
}

// Both are boxed, so that those who hold one stay small.
const _: () = assert!(size_of::<Side<tokio::net::TcpStream>>() <= 16);

/// Whose fault it was.
#[derive(Debug)]
pub(super) enum Fault {
    Reader(BodyError),
    Writer(WriteError),
}

/// For whom a body waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Reader,
    Writer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    /// Sees to it that there is data to pass on. Ready with false: the body is over.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        match self {
            Self::Http1(side) => side.poll_piece(cx),
            Self::Http2(side) => side.poll_piece(cx),
        }
    }

    /// Whether the body that comes was read and passed on to its end.
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::Http1(side) => side.is_read(),
            Self::Http2(side) => side.is_read(),
        }
    }

    /// Over HTTP/2: what comes is no body, but that of a tunnel to be.
    pub(super) fn hold_body(&mut self, held: bool) {
        if let Self::Http2(side) = self {
            side.hold_body(held);
        }
    }

    /// Whether nothing comes after the piece that is there.
    fn is_last_piece(&self) -> bool {
        match self {
            Self::Http1(side) => side.is_last_piece(),
            Self::Http2(side) => side.is_last_piece(),
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::Http1(side) => side.data(),
            Self::Http2(side) => side.data(),
        }
    }

    fn consume(&mut self, length: usize) {
        match self {
            Self::Http1(side) => side.consume(length),
            Self::Http2(side) => side.consume(length),
        }
    }

    /// The beginning of the piece as bytes that can be kept.
    fn take(&mut self, length: usize) -> Bytes {
        match self {
            Self::Http1(side) => {
                let bytes = buffers::copy(side.data().get(..length).unwrap_or_default());
                side.consume(length);
                bytes
            }
            Self::Http2(side) => side.take(length),
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Http1(side) => side.trailers(),
            Self::Http2(side) => side.trailers(),
        }
    }

    /// Waits for room to write. Gives how much of so much data can be put.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, WriteError>> {
        match self {
            Self::Http1(side) => side.poll_room(cx).map_ok(|()| wanted),
            Self::Http2(side) => side.poll_room(cx, wanted),
        }
    }

    /// Puts a piece for which there is room.
    pub(super) fn put(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<(), WriteError> {
        match self {
            Self::Http1(side) => side.put(cx, data),
            Self::Http2(side) => side.put(buffers::copy(data), false),
        }
    }

    pub(super) fn put_end(&mut self, trailers: Option<&Fields>) -> Result<(), WriteError> {
        match self {
            Self::Http1(side) => side.put_end(trailers),
            Self::Http2(side) => side.put_end(trailers),
        }
    }

    /// Ready: what was put went to the peer, or to the connection of its stream.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        match self {
            Self::Http1(side) => side.poll_out(cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ready: the peer is gone. Over HTTP/1.1 that shows only when the message that comes is over (what comes next is kept, one buffer of it);
    /// before, it shows where that is read.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(side) if !side.is_read() => Poll::Pending,
            Self::Http1(side) if side.has_ended() => Poll::Ready(()),
            Self::Http1(side) if !side.unread().is_empty() => Poll::Pending,
            Self::Http1(side) => match ready!(side.poll_fill(cx)) {
                Ok(1..) => Poll::Pending,
                Ok(0) | Err(_) => Poll::Ready(()),
            },
            Self::Http2(side) => side.poll_gone(cx),
        }
    }
}

/// Passes a body on, to its end or until one of the two has to be waited for. `sees` is shown each piece before it goes.
pub(super) fn poll_pass<A, B>(
    cx: &mut Context<'_>,
    from: &mut Side<A>,
    to: &mut Side<B>,
    waits: &mut Waits,
    mut sees: impl FnMut(&[u8]) -> Result<(), BodyError>,
) -> Poll<Result<(), Fault>>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut moved = 0;
    loop {
        match from.poll_piece(cx) {
            Poll::Ready(Ok(true)) => {
                *waits = Waits::Writer;
                let length = from.data().len();
                let room = ready!(to.poll_room(cx, length)).map_err(Fault::Writer)?;
                sees(from.data().get(..room).unwrap_or_default()).map_err(Fault::Reader)?;
                match to {
                    Side::Http1(to) => {
                        to.put(cx, from.data()).map_err(Fault::Writer)?;
                        from.consume(length);
                    }
                    Side::Http2(to) => {
                        let last = room == length && from.is_last_piece();
                        to.put(from.take(room), last).map_err(Fault::Writer)?;
                    }
                }
                moved += room;
                if moved >= FAIR_SHARE {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(false)) => {
                *waits = Waits::Writer;
                to.put_end(from.trailers()).map_err(Fault::Writer)?;
                return to.poll_out(cx).map_err(Fault::Writer);
            }
            Poll::Ready(Err(error)) => {
                // What came before it is the peer's.
                let _ = to.poll_out(cx);
                return Poll::Ready(Err(Fault::Reader(error)));
            }
            Poll::Pending => {
                *waits = if to.poll_out(cx).map_err(Fault::Writer)?.is_ready() { Waits::Reader } else { Waits::Writer };
                return Poll::Pending;
            }
        }
    }
}
