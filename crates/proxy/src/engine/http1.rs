//! One connection of HTTP/1.1, on either side: its stream, what was read too far, what waits to be written, and how both bodies are framed.
//!
//! Promises that no more is read than one buffer ahead of what was passed on, and no more is kept for a writer that is blocked; that what goes
//! together in time goes in one write; and that a connection on which nothing is on its way owns no buffer.
//!
//! Left to others: timeouts of reads, what a head says, whether the connection may be used again.

use std::{
    fmt, io,
    io::IoSlice,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use penstock_http1::{
    BodyDecoder, BodyEncoder, Fields, Limits, Piece, Progress, RequestError, RequestHead, ResponseError, ResponseFraming,
    ResponseHead, StartLineError, write_request, write_response,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    buffers,
    fault::{BodyError, WriteError},
};
use crate::skew::SKEW;

/// Data up to this size is copied behind what waits to be written: cheaper than a second slice of the write, and small pieces that come one
/// after another go as one.
const COPIED: usize = 4 * 1024;

/// A bare stream with the HTTP/1.1 on it.
pub(super) struct Http1<S> {
    stream: S,
    /// What was read.
    input: Vec<u8>,
    /// Up to where it was passed on.
    at: usize,
    /// How many bytes from there on are data of the body that is being read.
    piece: usize,
    /// None: the body that came was read to its end, or there is none.
    decoder: Option<BodyDecoder>,
    /// The peer ended its side.
    ended: bool,
    /// Bytes came since the last message began.
    came: bool,
    /// What waits to be written.
    output: Vec<u8>,
    /// Up to where it was.
    written: usize,
    encoder: BodyEncoder,
    /// Something may sit in a buffer below.
    unflushed: bool,
    /// A byte was written since the last message began.
    went: bool,
    /// What comes are requests.
    serves: bool,
}

impl<S> fmt::Debug for Http1<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("unread", &self.unread().len()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<S> Http1<S> {
    pub(super) fn to_client(stream: S) -> Self {
        Self::new(stream, true)
    }

    pub(super) fn to_upstream(stream: S) -> Self {
        Self::new(stream, false)
    }

    fn new(stream: S, serves: bool) -> Self {
        Self {
            stream,
            input: Vec::new(),
            at: 0,
            piece: 0,
            decoder: None,
            ended: false,
            came: false,
            output: Vec::new(),
            written: 0,
            encoder: BodyEncoder::for_response(ResponseFraming::None),
            unflushed: false,
            went: false,
            serves,
        }
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The bare stream, and what was read of it too far.
    pub(super) fn into_parts(mut self) -> (S, bytes::Bytes) {
        let unread = bytes::Bytes::copy_from_slice(self.unread());
        buffers::give_back(&mut self.input);
        buffers::give_back(&mut self.output);
        (self.stream, unread)
    }

    /// What came and belongs to nothing yet.
    pub(super) fn unread(&self) -> &[u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// Whether the peer ended its side.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a byte came, or was written, since [`Http1::begin`].
    pub(super) fn has_come(&self) -> bool {
        self.came
    }

    pub(super) fn has_gone(&self) -> bool {
        self.went
    }

    /// A request begins.
    pub(super) fn begin(&mut self) {
        self.came = !self.unread().is_empty();
        self.went = false;
    }

    /// Gives buffers back that have nothing in them.
    fn tidy(&mut self) {
        if self.at >= self.input.len() {
            self.at = 0;
            buffers::give_back(&mut self.input);
        }
    }

    /// What was read, from its beginning.
    fn whole_input(&mut self) -> &mut Vec<u8> {
        if self.at > 0 {
            self.input.drain(..self.at.min(self.input.len()));
            self.at = 0;
        }
        &mut self.input
    }

    /// Looks for a request's head in what was read.
    pub(super) fn parse_request(&mut self, head: &mut RequestHead, limits: &Limits) -> Result<Progress, RequestError> {
        head.give_buffer(buffers::small);
        let progress = head.parse(self.whole_input(), limits);
        self.tidy();
        progress
    }

    /// Looks for a response's head in what was read.
    pub(super) fn parse_response(&mut self, head: &mut ResponseHead, limits: &Limits) -> Result<Progress, ResponseError> {
        head.give_buffer(buffers::large);
        let progress = head.parse(self.whole_input(), limits);
        self.tidy();
        progress
    }

    /// The head that was parsed has this body.
    pub(super) fn expect_body(&mut self, framing: ResponseFraming, limits: Limits) {
        self.piece = 0;
        let decoder = BodyDecoder::for_response(framing, limits);
        self.decoder = (!decoder.is_done()).then_some(decoder);
    }

    /// Whether the body that came was read to its end. Of data that is not passed on yet this says nothing.
    pub(super) fn is_read(&self) -> bool {
        self.piece == 0 && self.decoder.as_ref().is_none_or(BodyDecoder::is_done)
    }

    /// Whether the body ends with the piece that is there.
    pub(super) fn is_last_piece(&self) -> bool {
        self.decoder.as_ref().is_none_or(|decoder| decoder.left() == Some(0))
    }

    /// The piece of data that is to be passed on.
    pub(super) fn data(&self) -> &[u8] {
        self.input.get(self.at..self.at + self.piece).unwrap_or_default()
    }

    /// So much of it was.
    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.piece);
        self.at += length;
        self.piece -= length;
        self.tidy();
    }

    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.decoder.as_ref().and_then(BodyDecoder::trailers)
    }

    /// Puts a request's head to what waits to be written.
    pub(super) fn put_request(
        &mut self,
        method: &str,
        target: &str,
        fields: &Fields,
        framing: ResponseFraming,
    ) -> Result<(), StartLineError> {
        self.encoder = BodyEncoder::for_response(framing);
        write_request(self.waiting(), method, target, fields)
    }

    /// Puts a response's head to what waits to be written.
    pub(super) fn put_response(
        &mut self,
        status: u16,
        reason: &str,
        fields: &Fields,
        framing: ResponseFraming,
    ) -> Result<(), StartLineError> {
        self.encoder = BodyEncoder::for_response(framing);
        write_response(self.waiting(), status, reason, fields)
    }

    /// Puts bytes to what waits to be written, as they are.
    pub(super) fn put_raw(&mut self, bytes: &[u8]) {
        self.waiting().extend_from_slice(bytes);
    }

    fn waiting(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = buffers::large();
        }
        &mut self.output
    }

    /// Ends the body that is written.
    pub(super) fn put_end(&mut self, trailers: Option<&Fields>) -> Result<(), WriteError> {
        let mut encoder = self.encoder;
        let ended = encoder.finish(trailers, self.waiting());
        self.encoder = encoder;
        ended.map_err(WriteError::Length)
    }

    /// Whether the peer takes the connection's end for that of the body.
    pub(super) fn ends_by_close(&self) -> bool {
        self.encoder.is_until_close()
    }

    /// What was written and not sent is not sent.
    pub(super) fn forget_output(&mut self) {
        self.written = 0;
        buffers::give_back(&mut self.output);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    /// Reads once into the buffer. Ready with zero: the peer ended its side.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            // Requests are mostly small; with a response's head most of its body comes.
            self.input = if self.serves && self.decoder.is_none() { buffers::small() } else { buffers::large() };
            if self.decoder.is_some() {
                self.input.resize(SKEW, 0);
                self.at = SKEW;
            }
        } else if self.input.len() == self.input.capacity() {
            self.whole_input();
        }
        if self.input.len() == self.input.capacity() {
            self.input.reserve(self.input.len().max(buffers::SMALL));
        }
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        match read {
            Poll::Ready(Ok(1..)) => self.came = true,
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                self.tidy();
            }
            Poll::Ready(Err(_)) | Poll::Pending => self.tidy(),
        }
        read
    }

    /// Sees to it that there is data to pass on. Ready with false: the body is over.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        loop {
            if self.piece > 0 {
                return Poll::Ready(Ok(true));
            }
            let Some(decoder) = &mut self.decoder else { return Poll::Ready(Ok(false)) };
            if decoder.is_done() {
                return Poll::Ready(Ok(false));
            }
            let input = self.input.get(self.at..).unwrap_or_default();
            if !input.is_empty() {
                let decoded = decoder.decode(input).map_err(BodyError::Framing)?;
                match decoded.piece {
                    Piece::Data(data) => {
                        self.at += data.start;
                        self.piece = data.len();
                    }
                    Piece::More | Piece::End => {
                        self.at += decoded.consumed;
                        self.tidy();
                    }
                }
                continue;
            }
            if ready!(self.poll_fill(cx)).map_err(BodyError::Io)? == 0 {
                if let Some(decoder) = &self.decoder {
                    decoder.finish().map_err(BodyError::Framing)?;
                }
                self.decoder = None;
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Waits until there is room to write: nothing is taken for a writer that is blocked.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        if self.output.len() - self.written < buffers::LARGE / 2 { Poll::Ready(Ok(())) } else { self.poll_out(cx) }
    }

    /// Takes a piece of the body, and writes it at once if it is large. What the peer does not take is kept.
    pub(super) fn put(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Result<(), WriteError> {
        let frame = self.encoder.piece(data.len()).map_err(WriteError::Length)?;
        self.waiting().extend_from_slice(frame.before.as_bytes());
        let mut written = 0;
        if data.len() > COPIED && self.stream.is_write_vectored() {
            let waiting = self.output.get(self.written..).unwrap_or_default();
            let slices = [IoSlice::new(waiting), IoSlice::new(data), IoSlice::new(frame.after)];
            let slices = if waiting.is_empty() { slices.get(1..).unwrap_or_default() } else { &slices };
            match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(0)) => return Err(WriteError::Io(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => {
                    self.went = true;
                    self.unflushed = true;
                    written = length;
                }
                Poll::Ready(Err(error)) => return Err(WriteError::Io(error)),
                Poll::Pending => {}
            }
        }
        let waiting = self.output.len() - self.written;
        if written < waiting {
            self.written += written;
            written = 0;
        } else {
            written -= waiting;
            self.written = 0;
            self.output.clear();
        }
        for part in [data, frame.after] {
            let there = written.min(part.len());
            written -= there;
            self.output.extend_from_slice(part.get(there..).unwrap_or_default());
        }
        if self.output.is_empty() {
            buffers::give_back(&mut self.output);
        }
        Ok(())
    }

    /// Writes what waits. Ready: all of it went to the peer.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        while self.written < self.output.len() {
            let waiting = self.output.get(self.written..).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(cx, waiting)).map_err(WriteError::Io)? {
                0 => return Poll::Ready(Err(WriteError::Io(io::ErrorKind::WriteZero.into()))),
                length => {
                    self.written += length;
                    self.went = true;
                    self.unflushed = true;
                }
            }
        }
        self.forget_output();
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(WriteError::Io)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Reads what nobody wants. Ready with false: nothing more comes.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<bool> {
        self.at = self.input.len();
        self.piece = 0;
        self.tidy();
        match ready!(self.poll_fill(cx)) {
            Ok(length @ 1..) => {
                *left = left.saturating_sub(length);
                Poll::Ready(true)
            }
            Ok(0) | Err(_) => Poll::Ready(false),
        }
    }
}
