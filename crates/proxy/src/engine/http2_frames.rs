//! What a peer of HTTP/2 has us do beyond requests and responses: frames that ask for nothing, and requests that are taken back. The h2 crate limits
//! neither for a peer that reads (CVE-2019-9512, -9513, -9515, -9518, CVE-2023-44487, CVE-2025-8671).
//!
//! [`Counted`] lies between a connection's bytes and h2. It follows the headers of frames, both ways, and touches no payload; each frame is weighed,
//! and what they weigh is held against a [`Budget`]. Promises the same count however the bytes are cut, and that over the budget nothing more is
//! read. What is said to a client then is up to whoever drives the connection; one to an endpoint fails.
//!
//! DATA that holds nothing is weighed and goes no further. h2 takes 100 of those in the whole life of a connection, which one to an endpoint that
//! ends each response by one has soon, and fails all of its requests at the next.

use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    http2_budget::{Budget, CONTINUATION, Frame, HEADERS, Peer, RST_STREAM},
    patience::Patience,
};
use crate::{clock, control::Control, metrics::LimitHit};

/// `PRI * HTTP/2.0` and so on (RFC 9113 §3.4).
const PREFACE: u32 = 24;
/// The length of a frame's header.
const HEADER: usize = 9;
/// A flag: the head ends.
const END_HEADERS: u8 = 4;
/// GOAWAY with ENHANCE_YOUR_CALM, and no stream of the endpoint's. The client's part of h2 cannot be told to send it.
const FAREWELL: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Follows the frames of one direction (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Follower {
    /// Bytes until the next header.
    left: u32,
    /// How many bytes of a header are known, if it came in pieces, and what they say.
    known: u8,
    kind: u8,
    flags: u8,
    length: u32,
    /// A piece of a head came, and not its end: nothing else may come (RFC 9113 §6.10).
    in_head: bool,
}

impl Follower {
    fn behind_the_preface() -> Self {
        Self { left: PREFACE, ..Self::default() }
    }

    /// Reads on, to the end of a header or of a payload at most. Gives how many bytes that were, and the header if it is whole.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Frame>) {
        if self.left > 0 {
            let here = bytes.len().min(self.left as usize);
            // It fits, being no more than `left`.
            self.left -= here as u32;
            return (here, None);
        }
        if self.known == 0
            && let Some(&[a, b, c, kind, flags, ..]) = bytes.first_chunk::<HEADER>()
        {
            return (HEADER, Some(self.begin(Frame { kind, flags, length: u32::from_be_bytes([0, a, b, c]) })));
        }
        let Some(&byte) = bytes.first() else { return (0, None) };
        match self.known {
            0..=2 => self.length = self.length << 8 | u32::from(byte),
            3 => self.kind = byte,
            4 => self.flags = byte,
            // The stream's number.
            _ => {}
        }
        self.known += 1;
        if usize::from(self.known) < HEADER {
            return (1, None);
        }
        (1, Some(self.begin(Frame { kind: self.kind, flags: self.flags, length: self.length })))
    }

    fn begin(&mut self, frame: Frame) -> Frame {
        let in_head = matches!(frame.kind, HEADERS | CONTINUATION) && frame.flags & END_HEADERS == 0;
        *self = Self { left: frame.length, kind: frame.kind, in_head, ..Self::default() };
        frame
    }

    /// The rest of a head is to come.
    fn awaits_head(&self) -> bool {
        self.in_head || (self.left > 0 && matches!(self.kind, HEADERS | CONTINUATION))
    }

    fn is_between_frames(&self) -> bool {
        self.left == 0 && self.known == 0
    }
}

/// The limit that h2 ended a connection for: floods of CONTINUATION, and resets. It tells them apart no further.
pub(super) fn limit_of(error: &h2::Error) -> Option<LimitHit> {
    (error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)).then_some(LimitHit::Resets)
}

/// How long a client that is over it has to take our last word, and what is read of it meanwhile: a connection that is closed with bytes unread is
/// reset by the kernel, and the word may be lost.
const LAST_WORD: Duration = Duration::from_secs(1);
const MOST_UNREAD: usize = 1 << 20;

/// A connection, whose frames are counted.
pub(super) struct Counted<S> {
    stream: S,
    peer: Peer,
    theirs: Follower,
    ours: Follower,
    budget: Budget,
    over: Rc<Cell<Option<LimitHit>>>,
    /// Of a client's connection: is told of heads that come in part.
    control: Option<Rc<Control>>,
    end: End,
}

/// How far the end has come of a connection whose client is over its budget.
#[derive(Debug, Default)]
struct End {
    shut: bool,
    /// What was read and not looked at.
    unread: usize,
    due: Option<Instant>,
    patience: Patience,
}

impl<S> fmt::Debug for Counted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl<S> Counted<S> {
    /// `limit`: what a second fills. `over` is told once the budget is exceeded, while the connection is read or written.
    pub(super) fn new(stream: S, peer: Peer, limit: u32, over: Rc<Cell<Option<LimitHit>>>) -> Self {
        let budget = Budget::new(peer, limit, clock::now());
        let (begun, bare) = (Follower::behind_the_preface(), Follower::default());
        let (theirs, ours) = match peer {
            Peer::Client => (begun, bare),
            Peer::Endpoint => (bare, begun),
        };
        Self { stream, peer, theirs, ours, budget, over, control: None, end: End::default() }
    }

    /// Tells this of each head that comes in part: h2 says nothing before it is whole, and has no limit of its time.
    pub(super) fn telling(self, control: Rc<Control>) -> Self {
        Self { control: Some(control), ..self }
    }

    /// Gives how many bytes are left without those of empty DATA.
    fn came(&mut self, bytes: &mut [u8]) -> usize {
        let now = clock::now();
        self.budget.fill(now);
        let (mut at, mut kept) = (0, 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let in_head = self.theirs.in_head;
            let (length, frame) = self.theirs.step(rest);
            // One that came in pieces, or is none of a stream's or out of place, is for h2 to judge.
            let of_stream = rest.get(5..HEADER).is_some_and(|number| number != [0; 4]);
            let empty = length == HEADER && of_stream && !in_head && frame.is_some_and(Frame::is_empty_data);
            if let Some(frame) = frame {
                self.note(frame, |budget| budget.came(frame));
            }
            if !empty {
                if kept < at {
                    bytes.copy_within(at..at + length, kept);
                }
                kept += length;
            }
            at += length;
            if let Some(control) = &self.control {
                if self.theirs.awaits_head() { control.head_comes(now) } else { control.head_came() }
            }
        }
        kept
    }

    fn went(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (length, frame) = self.ours.step(bytes);
            if let Some(frame) = frame {
                self.note(frame, |budget| budget.went(frame));
            }
            bytes = bytes.get(length..).unwrap_or_default();
        }
    }

    fn note(&mut self, frame: Frame, weigh: impl FnOnce(&mut Budget) -> bool) {
        if !weigh(&mut self.budget) && self.over.get().is_none() {
            self.over.set(Some(if frame.kind == RST_STREAM { LimitHit::Resets } else { LimitHit::ControlFrames }));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.over.get().is_some() {
                match this.peer {
                    // Who drives it knows as soon as this is over, and ends it.
                    Peer::Client => return Poll::Pending,
                    Peer::Endpoint => {
                        if this.ours.is_between_frames() {
                            // Whoever does not take it now learns of it by the end of the connection.
                            let _ = Pin::new(&mut this.stream).poll_write(cx, &FAREWELL);
                        }
                        return Poll::Ready(Err(io::Error::other("the endpoint sends too many frames that ask for nothing")));
                    }
                }
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let came = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let kept = this.came(came);
            buf.set_filled(before + kept);
            // Nothing at all would be the end.
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(length)) = written {
            this.went(buf.get(..length).unwrap_or_default());
        }
        written
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut length)) = written {
            for buf in bufs {
                let here = length.min(buf.len());
                this.went(buf.get(..here).unwrap_or_default());
                length -= here;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, over, end, .. } = self.get_mut();
        if over.get().is_none() {
            return Pin::new(stream).poll_shutdown(cx);
        }
        let due = *end.due.get_or_insert_with(|| Instant::now() + LAST_WORD);
        let mut scratch = [0; 4096];
        while end.unread < MOST_UNREAD && !end.patience.is_over(cx, due) {
            if !end.shut {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                end.shut = true;
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => end.unread += buf.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed<'b>(mut follower: Follower, pieces: impl IntoIterator<Item = &'b [u8]>) -> (Follower, Vec<Frame>) {
        let mut seen = Vec::new();
        for mut piece in pieces {
            while !piece.is_empty() {
                let (length, frame) = follower.step(piece);
                seen.extend(frame);
                piece = &piece[length..];
            }
        }
        (follower, seen)
    }

    #[test]
    fn empty_data_goes_no_further_and_all_else_as_it_came() {
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
        };
        let empty = frame(0, 0, 1, b"");
        let kept = [
            frame(1, END_HEADERS, 1, b"head"),
            frame(0, 0, 1, b"a piece"),
            // Within a piece it is no frame.
            frame(0, 0, 3, &empty),
            frame(0, 1, 1, b""),
            frame(0, 0, 0, b""),
            [frame(1, 0, 5, b"x"), frame(0, 0, 5, b""), frame(9, END_HEADERS, 5, b"y")].concat(),
        ];
        let bytes = [empty.clone(), kept.join(&empty[..]), empty.repeat(2)].concat();
        for cut in 0..=bytes.len() {
            let mut counted = Counted::new((), Peer::Endpoint, 10_000, Rc::default());
            let mut got = Vec::new();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                let mut piece = piece.to_vec();
                let length = counted.came(&mut piece);
                got.extend_from_slice(&piece[..length]);
            }
            // One that is cut stays.
            let wanted = kept.concat();
            let whole = fed(Follower::default(), [&got[..]]);
            assert!(whole.0.is_between_frames(), "{cut}");
            assert!(got == wanted || got.len() == wanted.len() + HEADER, "{cut}: {got:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec((any::<u8>(), any::<u8>(), prop_oneof![0_usize..20, Just(70_000)]), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            cut_short in 0_usize..9,
        ) {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            let mut wanted = Vec::new();
            for &(kind, flags, length) in &frames {
                bytes.extend(&(length as u32).to_be_bytes()[1..]);
                bytes.extend([kind, flags, 0, 0, 0, 1]);
                bytes.extend(std::iter::repeat_n(4, length));
                wanted.push(Frame { kind, flags, length: length as u32 });
            }
            bytes.extend(std::iter::repeat_n(9, cut_short));
            let begin = Follower::behind_the_preface();
            let whole = fed(begin, [&bytes[..]]);
            prop_assert_eq!(&whole.1, &wanted);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            prop_assert_eq!(&fed(begin, cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]])), &whole);
            prop_assert_eq!(&fed(begin, bytes.chunks(1)), &whole);
        }
    }
}
