//! One stream of HTTP/2, on either side, by the h2 crate: the same questions as to [`Http1`](super::http1::Http1), and the bare stream of a tunnel.
//!
//! Promises that a piece goes out only where the peer's window has room, that the window of what came is opened only as it is passed on, and
//! that a peer which leaves its window closed for too long is found out: a stream that is slow stalls no other.
//!
//! Left to others: the connection that carries it, heads ([`super::http2_heads`]).

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::HeaderMap;
use penstock_http1::{BodyError as TrailerError, Fields, FieldsError, ResponseHead};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    buffers,
    fault::{BodyError, HeadError, WriteError},
    forward::RESPONSE_LIMITS,
    http2_heads as heads,
    patience::Patience,
};
use crate::options::Limits;

/// What is asked of a window at once: it is taken from all streams of the connection for as long as it is not used.
const LARGEST_PIECE: usize = 16 * 1024;

/// A stream.
pub(super) struct Http2 {
    /// Of a client's stream, until its response begins.
    respond: Option<SendResponse<Bytes>>,
    /// Of a stream to an endpoint, until its response comes.
    response: Option<ResponseFuture>,
    send: Option<SendStream<Bytes>>,
    recv: Option<RecvStream>,
    piece: Bytes,
    /// The body that comes is over.
    read: bool,
    /// What comes is no body: it is kept for a tunnel.
    held: bool,
    trailers: Option<Box<Fields>>,
    /// How many of them there may be.
    most_trailers: usize,
    /// The body that goes is.
    ended: bool,
    /// How long the peer may leave its window closed, and since when it does.
    write_limit: Option<Duration>,
    blocked: Option<Instant>,
    patience: Patience,
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").field("read", &self.read).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Http2 {
    fn new() -> Self {
        Self {
            respond: None,
            response: None,
            send: None,
            recv: None,
            piece: Bytes::new(),
            read: false,
            held: false,
            trailers: None,
            most_trailers: RESPONSE_LIMITS.fields,
            ended: false,
            write_limit: None,
            blocked: None,
            patience: Patience::default(),
        }
    }

    /// The stream of a client's request.
    pub(super) fn of_client(respond: SendResponse<Bytes>, recv: RecvStream, limits: &Limits) -> Self {
        let read = recv.is_end_stream();
        Self {
            respond: Some(respond),
            recv: Some(recv),
            read,
            most_trailers: limits.header_count,
            write_limit: Some(limits.write_time),
            ..Self::new()
        }
    }

    /// The stream of a request to an endpoint. `ended`: it has no body.
    pub(super) fn of_upstream(
        response: ResponseFuture,
        send: SendStream<Bytes>,
        ended: bool,
        write_limit: Option<Duration>,
    ) -> Self {
        Self { response: Some(response), send: Some(send), ended, write_limit, ..Self::new() }
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        loop {
            if !self.piece.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let Some(recv) = self.recv.as_mut().filter(|_| !self.read && !self.held) else { return Poll::Ready(Ok(false)) };
            match ready!(recv.poll_data(cx)) {
                Some(data) => self.piece = data.map_err(BodyError::Http2)?,
                None => {
                    let trailers = ready!(recv.poll_trailers(cx)).map_err(BodyError::Http2)?;
                    self.read = true;
                    if let Some(trailers) = trailers {
                        within_limits(&trailers, self.most_trailers).map_err(BodyError::Framing)?;
                        let mut fields = Fields::new();
                        heads::fields_of(&trailers, &mut fields).map_err(|_| BodyError::Trailers)?;
                        self.trailers = Some(Box::new(fields));
                    }
                }
            }
        }
    }

    pub(super) fn is_read(&self) -> bool {
        self.held || (self.piece.is_empty() && (self.read || self.recv.is_none()))
    }

    /// What comes is no body, but that of a tunnel to be.
    pub(super) fn hold_body(&mut self, held: bool) {
        self.held = held;
    }

    /// What comes is not passed on.
    pub(super) fn skip_body(&mut self) {
        self.read = true;
        self.piece = Bytes::new();
    }

    pub(super) fn is_last_piece(&self) -> bool {
        self.recv.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.piece
    }

    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.piece.len());
        self.piece.advance(length);
        self.release(length);
    }

    /// The beginning of the piece, uncopied.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        let taken = self.piece.split_to(length.min(self.piece.len()));
        self.release(taken.len());
        taken
    }

    fn release(&mut self, length: usize) {
        if let Some(recv) = &mut self.recv {
            // It cannot be more than came.
            let _ = recv.flow_control().release_capacity(length);
        }
    }

    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// Waits for room in the peer's window. Gives how much there is, `wanted` at most.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, WriteError>> {
        let Some(send) = self.send.as_mut().filter(|_| !self.ended) else { return Poll::Ready(Err(WriteError::Closed)) };
        send.reserve_capacity(wanted.min(LARGEST_PIECE));
        loop {
            let room = send.capacity();
            if room > 0 || wanted == 0 {
                self.blocked = None;
                self.patience.rest();
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(WriteError::Http2(error))),
                Poll::Ready(None) => return Poll::Ready(Err(WriteError::Closed)),
                Poll::Pending => {
                    let Some(limit) = self.write_limit else { return Poll::Pending };
                    let since = *self.blocked.get_or_insert_with(Instant::now);
                    if since.checked_add(limit).is_some_and(|due| self.patience.is_over(cx, due)) {
                        return Poll::Ready(Err(WriteError::NotTaken));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends a piece for which there is room.
    pub(super) fn put(&mut self, data: Bytes, last: bool) -> Result<(), WriteError> {
        self.ended |= last;
        let send = self.send.as_mut().ok_or(WriteError::Closed)?;
        send.send_data(data, last).map_err(WriteError::Http2)
    }

    /// Ends the body that goes.
    pub(super) fn put_end(&mut self, trailers: Option<&Fields>) -> Result<(), WriteError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let send = self.send.as_mut().ok_or(WriteError::Closed)?;
        match trailers.filter(|trailers| !trailers.is_empty()) {
            Some(trailers) => send.send_trailers(heads::trailers(trailers)),
            None => send.send_data(Bytes::new(), true),
        }
        .map_err(WriteError::Http2)
    }

    /// Begins the response. `end`: it has no body.
    pub(super) fn put_response(&mut self, status: u16, fields: &Fields, end: bool) -> Result<(), WriteError> {
        let response = heads::response(status, fields).ok_or(WriteError::Head("the response cannot be written in HTTP/2"))?;
        let mut respond = self.respond.take().ok_or(WriteError::Closed)?;
        self.send = Some(respond.send_response(response, end).map_err(WriteError::Http2)?);
        self.ended = end;
        Ok(())
    }

    /// Sends a response before the final one.
    pub(super) fn put_interim(&mut self, status: u16, fields: &Fields) {
        if let (Some(respond), Some(response)) = (&mut self.respond, heads::response(status, fields)) {
            // Whoever cannot be told is told by what follows.
            let _ = respond.send_informational(response);
        }
    }

    /// Waits for the head of the response, final or not.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<(), HeadError>> {
        let Some(response) = &mut self.response else { return Poll::Ready(Err(HeadError::Closed)) };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            head.compose(interim.status().as_u16());
            heads::fields_of(interim.headers(), head.fields_mut()).map_err(|_| HeadError::Fields)?;
            return Poll::Ready(Ok(()));
        }
        let (parts, recv) = ready!(Pin::new(response).poll(cx)).map_err(HeadError::Http2)?.into_parts();
        // Of its size h2 takes care.
        if parts.headers.len() > RESPONSE_LIMITS.fields {
            return Poll::Ready(Err(HeadError::Fields));
        }
        head.compose(parts.status.as_u16());
        heads::fields_of(&parts.headers, head.fields_mut()).map_err(|_| HeadError::Fields)?;
        self.read = recv.is_end_stream();
        self.recv = Some(recv);
        self.response = None;
        Poll::Ready(Ok(()))
    }

    /// Ready: the peer gave the stream up.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&mut self.respond, &mut self.send) {
            (Some(respond), _) => respond.poll_reset(cx).map(drop),
            (None, Some(send)) => send.poll_reset(cx).map(drop),
            (None, None) => Poll::Pending,
        }
    }

    /// Gives the stream up.
    pub(super) fn reset(&mut self, reason: Reason) {
        match (&mut self.respond, &mut self.send) {
            (Some(respond), _) => respond.send_reset(reason),
            (None, Some(send)) => send.send_reset(reason),
            (None, None) => {}
        }
    }

    /// The bare stream, for a tunnel.
    pub(super) fn into_duplex(self) -> Option<Duplex> {
        Some(Duplex { send: self.send?, recv: self.recv?, piece: self.piece, ended: self.ended, failed: false })
    }
}

/// As over HTTP/1.1: h2 takes as much for trailers as for a head.
fn within_limits(trailers: &HeaderMap, most: usize) -> Result<(), TrailerError> {
    if trailers.len() > most {
        return Err(TrailerError::Trailers(FieldsError::TooMany));
    }
    // As it would be written: a colon, a blank and a line end for each.
    let size: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > RESPONSE_LIMITS.trailers { Err(TrailerError::TrailersTooLarge) } else { Ok(()) }
}

/// A stream as bytes both ways.
pub(super) struct Duplex {
    send: SendStream<Bytes>,
    recv: RecvStream,
    piece: Bytes,
    ended: bool,
    /// The other side of the tunnel did.
    failed: bool,
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

impl Drop for Duplex {
    /// A tunnel that is over ends, as TCP does: a reset says that bytes were lost (RFC 8441 §5).
    fn drop(&mut self) {
        if self.failed {
            self.send.send_reset(Reason::CANCEL);
        } else if !self.ended {
            // Whoever is gone already needs no end.
            let _ = self.send.send_data(Bytes::new(), true);
        }
    }
}

impl crate::io::Duplex for Duplex {
    fn fail(&mut self) {
        self.failed = true;
    }
}

fn io_error(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => this.piece = data,
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        // CANCEL is what TCP's reset is here (RFC 8441 §5); this is none.
                        Some(Reason::NO_ERROR) => Ok(()),
                        _ => Err(io_error(error)),
                    });
                }
            }
        }
        let length = this.piece.len().min(buf.remaining());
        buf.put_slice(&this.piece.split_to(length));
        // It cannot be more than came.
        let _ = this.recv.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(buf.len().min(LARGEST_PIECE));
        loop {
            let room = this.send.capacity().min(buf.len());
            if room > 0 {
                let data = buffers::copy(buf.get(..room).unwrap_or_default());
                this.send.send_data(data, false).map_err(io_error)?;
                return Poll::Ready(Ok(room));
            }
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.ended, true) {
            this.send.send_data(Bytes::new(), true).map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }
}
