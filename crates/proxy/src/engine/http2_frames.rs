//! What a client of HTTP/2 has us do beyond its requests: frames that ask for nothing, and requests that it takes back. The h2 crate limits neither
//! for a client that reads (CVE-2019-9512, -9513, -9515, -9518, CVE-2023-44487, CVE-2025-8671).
//!
//! [`Counted`] lies between a connection's bytes and h2. It follows the headers of frames, both ways, and touches no payload; each frame is weighed,
//! and what they weigh is held against a budget that time and useful frames fill. Promises the same count however the bytes are cut, and that
//! over the budget nothing more is read. What is said to the client then is up to whoever drives the connection.

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

use super::patience::Patience;
use crate::{clock, metrics::LimitHit};

/// Frames of RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
/// Flags: the stream ends; it is an acknowledgement.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

/// `PRI * HTTP/2.0` and so on (RFC 9113 §3.4).
const PREFACE: u32 = 24;

/// The weight of most frames that carry nothing.
const IDLE: i64 = -1;
/// Of a reset, by either side, so that with its request it weighs ten frames: it may have cost a connection to an endpoint, and is taken
/// back without having been waited for.
const RESET: i64 = -14;
/// SETTINGS are applied to each stream that there is: 256 by default.
const CHANGED: i64 = -200;
/// What a head or a piece of data gives: a client may answer each piece of its response by a WINDOW_UPDATE for the stream, one for the connection
/// and a PING that measures the way.
const USEFUL: i64 = 4;
/// Who reads a large piece bit by bit may say so: a frame for each of so many bytes.
const BYTES_A_FRAME: u32 = 256;
/// What may be saved up: of a response that is under way, 20 000 pieces may be answered late.
const MOST_SAVED: i64 = 100_000;

/// What is known of a frame by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    length: u32,
}

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
}

impl Follower {
    fn behind_the_preface() -> Self {
        Self { left: PREFACE, ..Self::default() }
    }

    fn feed(&mut self, mut bytes: &[u8], mut saw: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = bytes.len().min(self.left as usize);
                // It fits, being no more than `left`.
                self.left -= here as u32;
                bytes = bytes.get(here..).unwrap_or_default();
            } else if self.known == 0
                && let Some((&[a, b, c, kind, flags, ..], rest)) = bytes.split_first_chunk::<9>()
            {
                self.left = u32::from_be_bytes([0, a, b, c]);
                saw(Frame { kind, flags, length: self.left });
                bytes = rest;
            } else if let Some((&byte, rest)) = bytes.split_first() {
                match self.known {
                    0..=2 => self.length = self.length << 8 | u32::from(byte),
                    3 => self.kind = byte,
                    4 => self.flags = byte,
                    // The stream's number.
                    _ => {}
                }
                self.known += 1;
                if self.known == 9 {
                    saw(Frame { kind: self.kind, flags: self.flags, length: self.length });
                    *self = Self { left: self.length, ..Self::default() };
                }
                bytes = rest;
            }
        }
    }
}

/// What a frame of the client's adds to the budget, or takes from it.
fn weight_of_theirs(frame: Frame) -> i64 {
    match frame.kind {
        DATA if frame.length == 0 => {
            if frame.flags & END_STREAM == 0 {
                IDLE
            } else {
                0
            }
        }
        DATA | HEADERS => USEFUL + i64::from(frame.length / BYTES_A_FRAME),
        CONTINUATION if frame.length > 0 => 0,
        RST_STREAM => RESET,
        SETTINGS if frame.flags & ACK == 0 => CHANGED,
        _ => IDLE,
    }
}

/// The same of one of ours.
fn weight_of_ours(frame: Frame) -> i64 {
    match frame.kind {
        DATA if frame.length == 0 => 0,
        DATA | HEADERS => USEFUL + i64::from(frame.length / BYTES_A_FRAME),
        // A client can have us send them, by requests that are out of order or too many.
        RST_STREAM => RESET,
        _ => 0,
    }
}

/// How long a client that is over it has to take our last word, and what is read of it meanwhile: a connection that is closed with bytes unread is
/// reset by the kernel, and the word may be lost.
const LAST_WORD: Duration = Duration::from_secs(1);
const MOST_UNREAD: usize = 1 << 20;

/// What is left to a client.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: i64,
    /// What a second fills, and what there is in the beginning.
    limit: i64,
    /// When it was filled by time, in milliseconds.
    filled: u64,
}

impl Budget {
    fn new(limit: u32, now: u64) -> Self {
        // The first SETTINGS are part of the preface.
        Self { left: i64::from(limit) - CHANGED, limit: i64::from(limit), filled: now }
    }

    fn fill(&mut self, now: u64) {
        if self.left >= self.limit {
            self.filled = now;
            return;
        }
        let passed = i64::try_from(now.saturating_sub(self.filled)).unwrap_or(i64::MAX);
        let gain = passed.saturating_mul(self.limit) / 1000;
        if gain > 0 {
            self.left = self.left.saturating_add(gain).min(self.limit);
            self.filled = now;
        }
    }

    /// Says whether it is still within.
    fn weigh(&mut self, weight: i64) -> bool {
        self.left = (self.left + weight).min(MOST_SAVED.max(self.limit));
        self.left >= 0
    }
}

/// A client's connection, whose frames are counted.
pub(super) struct Counted<S> {
    stream: S,
    theirs: Follower,
    ours: Follower,
    budget: Budget,
    over: Rc<Cell<Option<LimitHit>>>,
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
    pub(super) fn new(stream: S, limit: u32, over: Rc<Cell<Option<LimitHit>>>) -> Self {
        let budget = Budget::new(limit, clock::now());
        Self { stream, theirs: Follower::behind_the_preface(), ours: Follower::default(), budget, over, end: End::default() }
    }

    fn came(&mut self, bytes: &[u8]) {
        self.budget.fill(clock::now());
        let Self { theirs, budget, over, .. } = self;
        theirs.feed(bytes, |frame| note(budget, over, frame, weight_of_theirs(frame)));
    }

    fn went(&mut self, bytes: &[u8]) {
        let Self { ours, budget, over, .. } = self;
        ours.feed(bytes, |frame| note(budget, over, frame, weight_of_ours(frame)));
    }
}

fn note(budget: &mut Budget, over: &Cell<Option<LimitHit>>, frame: Frame, weight: i64) {
    if !budget.weigh(weight) && over.get().is_none() {
        over.set(Some(if frame.kind == RST_STREAM { LimitHit::Resets } else { LimitHit::ControlFrames }));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.over.get().is_some() {
            // Who drives it knows as soon as this is over, and ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.came(buf.filled().get(before..).unwrap_or_default());
        polled
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
    use crate::options::Limits;

    const PRIORITY: u8 = 2;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    /// RFC 9218 §7.1.
    const PRIORITY_UPDATE: u8 = 16;

    fn theirs(kind: u8, length: u32) -> i64 {
        weight_of_theirs(Frame { kind, flags: 0, length })
    }

    fn ours(kind: u8, length: u32) -> i64 {
        weight_of_ours(Frame { kind, flags: 0, length })
    }

    /// What is left at the least while so many rounds of these frames come, each so many milliseconds after the one before.
    fn least(rounds: u64, apart: u64, frames: &[i64]) -> i64 {
        let mut budget = Budget::new(Limits::default().control_frames, 0);
        let mut least = budget.left;
        for round in 0..rounds {
            budget.fill(round * apart);
            for weight in frames {
                budget.weigh(*weight);
                least = least.min(budget.left);
            }
        }
        least
    }

    #[test]
    fn who_is_served_never_comes_near_the_limit() {
        let (updates, ping) = (2 * theirs(WINDOW_UPDATE, 4), theirs(PING, 8));
        let request = theirs(HEADERS, 60);
        let navigated = [request, theirs(RST_STREAM, 4)].repeat(100);
        let bits = 64 * theirs(WINDOW_UPDATE, 4);
        for (name, rounds, apart, frames) in [
            ("a PING a second for a day", 86_400, 1000, vec![ping]),
            ("a download, each piece answered by two updates and a PING", 1_000_000, 0, vec![ours(DATA, 16_384), updates, ping]),
            ("one that is read 256 bytes at a time", 100_000, 0, vec![ours(DATA, 16_384), bits]),
            (
                "small messages, each answered so, and acknowledged",
                1_000_000,
                0,
                vec![ours(DATA, 5), updates, ping, theirs(DATA, 5)],
            ),
            ("an upload, each piece with a PING", 1_000_000, 0, vec![theirs(DATA, 16_384), ping, theirs(PING, 8)]),
            ("requests that are answered", 1_000_000, 0, vec![request, ours(HEADERS, 30), ours(DATA, 2), updates]),
            ("requests that are taken back 500 times a second", 60_000, 2, vec![request, theirs(RST_STREAM, 4)]),
            (
                "one that is taken back for each that is answered",
                1_000_000,
                0,
                vec![request, theirs(RST_STREAM, 4), request, ours(HEADERS, 30), ours(DATA, 2)],
            ),
            ("100 that are taken back at once, four times a second", 2000, 250, navigated),
            ("priorities of 100 requests, told anew four times a second", 2000, 250, vec![theirs(PRIORITY_UPDATE, 10); 100]),
            ("old browsers' priorities", 1, 0, vec![theirs(PRIORITY, 5); 106]),
            ("settings that follow the bandwidth", 10, 250, vec![theirs(SETTINGS, 6)]),
            (
                "streams of a client that reads none of them",
                256,
                0,
                vec![request, ours(HEADERS, 30), ours(DATA, 16_384), ours(RST_STREAM, 4)],
            ),
        ] {
            let least = least(rounds, apart, &frames);
            assert!(least > i64::from(Limits::default().control_frames) / 2, "{name}: {least} is left");
        }
    }

    #[test]
    fn floods_are_over_it_soon() {
        let ack = |kind| weight_of_theirs(Frame { kind, flags: ACK, length: 0 });
        for (name, most, frames) in [
            ("PING", 10_201, vec![theirs(PING, 8)]),
            ("PING that answers none of ours", 10_201, vec![ack(PING)]),
            ("SETTINGS", 52, vec![theirs(SETTINGS, 0)]),
            ("SETTINGS that answer none of ours", 10_201, vec![ack(SETTINGS)]),
            ("PRIORITY", 10_201, vec![theirs(PRIORITY, 5)]),
            ("WINDOW_UPDATE", 10_201, vec![theirs(WINDOW_UPDATE, 4)]),
            ("what nobody knows", 10_201, vec![theirs(77, 0)]),
            ("empty DATA", 10_201, vec![theirs(DATA, 0)]),
            ("empty CONTINUATION", 10_201, vec![theirs(CONTINUATION, 0)]),
            ("requests that are taken back", 1021, vec![theirs(HEADERS, 60), theirs(RST_STREAM, 4)]),
            ("requests that we have to reset", 1021, vec![theirs(HEADERS, 60), ours(RST_STREAM, 4)]),
        ] {
            assert!(least(most, 0, &frames) < 0, "{name}");
        }
        let mut saved = Budget::new(10_000, 0);
        saved.weigh(i64::from(u32::MAX));
        assert!(!saved.weigh(-MOST_SAVED - 1), "more than a moment of it can be saved up");
    }

    #[test]
    fn a_small_limit_is_filled_too() {
        let mut budget = Budget::new(2, 0);
        budget.weigh(CHANGED - 2);
        for now in (0..=500).step_by(250) {
            budget.fill(now);
        }
        assert_eq!(budget.left, 1);
    }

    fn fed<'b>(mut follower: Follower, pieces: impl IntoIterator<Item = &'b [u8]>) -> (Follower, Vec<Frame>) {
        let mut seen = Vec::new();
        for piece in pieces {
            follower.feed(piece, |frame| seen.push(frame));
        }
        (follower, seen)
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
