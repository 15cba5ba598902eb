//! What the frames of an HTTP/2 connection weigh, and what its peer may send of those that ask for nothing.
//!
//! Time and useful frames fill the budget. Promises that who is served never comes near its end, and that a flood is over it within some 10 000 frames.

/// Frames of RFC 9113 §6.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const CONTINUATION: u8 = 9;
/// Flags: the stream ends; it is an acknowledgement.
pub(super) const END_STREAM: u8 = 1;
const ACK: u8 = 1;

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
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) length: u32,
}

impl Frame {
    /// It carries nothing, and ends nothing.
    pub(super) fn is_empty_data(self) -> bool {
        self.kind == DATA && self.length == 0 && self.flags & END_STREAM == 0
    }
}

/// Whose frames they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Endpoint,
}

/// What a frame of the peer's adds to the budget, or takes from it.
fn weight_of_theirs(peer: Peer, frame: Frame) -> i64 {
    match frame.kind {
        DATA if frame.is_empty_data() => IDLE,
        DATA if frame.length == 0 => 0,
        DATA | HEADERS => USEFUL + i64::from(frame.length / BYTES_A_FRAME),
        CONTINUATION if frame.length > 0 => 0,
        RST_STREAM if peer == Peer::Client => RESET,
        SETTINGS if frame.flags & ACK == 0 => CHANGED,
        // A reset by an endpoint is of what a client asked of it, which was weighed there, and may follow each answer (RFC 9113 §8.1).
        _ => IDLE,
    }
}

/// The same of one of ours.
fn weight_of_ours(peer: Peer, frame: Frame) -> i64 {
    match frame.kind {
        DATA if frame.length == 0 => 0,
        DATA | HEADERS => USEFUL + i64::from(frame.length / BYTES_A_FRAME),
        // A client can have us send them, by requests that are out of order or too many. To an endpoint they go as clients leave.
        RST_STREAM if peer == Peer::Client => RESET,
        _ => 0,
    }
}

/// What is left to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    peer: Peer,
    left: i64,
    /// What a second fills, and what there is in the beginning.
    limit: i64,
    /// When it was filled by time, in milliseconds.
    filled: u64,
}

impl Budget {
    pub(super) fn new(peer: Peer, limit: u32, now: u64) -> Self {
        // The first SETTINGS are part of the preface.
        Self { peer, left: i64::from(limit) - CHANGED, limit: i64::from(limit), filled: now }
    }

    pub(super) fn fill(&mut self, now: u64) {
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

    /// A frame came. Says whether its peer is still within.
    pub(super) fn came(&mut self, frame: Frame) -> bool {
        self.weigh(weight_of_theirs(self.peer, frame))
    }

    /// A frame went to it.
    pub(super) fn went(&mut self, frame: Frame) -> bool {
        self.weigh(weight_of_ours(self.peer, frame))
    }

    fn weigh(&mut self, weight: i64) -> bool {
        self.left = (self.left + weight).min(MOST_SAVED.max(self.limit));
        self.left >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Limits;

    const PRIORITY: u8 = 2;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    /// RFC 9218 §7.1.
    const PRIORITY_UPDATE: u8 = 16;

    fn theirs(kind: u8, length: u32) -> i64 {
        weight_of_theirs(Peer::Client, Frame { kind, flags: 0, length })
    }

    fn ours(kind: u8, length: u32) -> i64 {
        weight_of_ours(Peer::Client, Frame { kind, flags: 0, length })
    }

    fn of_endpoint(kind: u8, length: u32) -> i64 {
        weight_of_theirs(Peer::Endpoint, Frame { kind, flags: 0, length })
    }

    fn to_endpoint(kind: u8, length: u32) -> i64 {
        weight_of_ours(Peer::Endpoint, Frame { kind, flags: 0, length })
    }

    /// What is left at the least while so many rounds of these frames come, each so many milliseconds after the one before.
    fn least(rounds: u64, apart: u64, frames: &[i64]) -> i64 {
        let mut budget = Budget::new(Peer::Client, Limits::default().control_frames, 0);
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
            (
                "an endpoint that resets each stream behind its answer",
                1_000_000,
                0,
                vec![to_endpoint(HEADERS, 60), of_endpoint(HEADERS, 30), of_endpoint(DATA, 2), of_endpoint(RST_STREAM, 4)],
            ),
            ("an endpoint that refuses all", 1_000_000, 0, vec![to_endpoint(HEADERS, 60), of_endpoint(RST_STREAM, 4)]),
            (
                "an endpoint whose clients leave",
                1_000_000,
                0,
                vec![to_endpoint(HEADERS, 60), of_endpoint(HEADERS, 30), to_endpoint(RST_STREAM, 4)],
            ),
            (
                "an endpoint that ends each response by empty DATA",
                1_000_000,
                0,
                vec![to_endpoint(HEADERS, 60), of_endpoint(HEADERS, 30), of_endpoint(DATA, 0)],
            ),
            (
                "an endpoint that answers each small message by two updates and a PING",
                1_000_000,
                0,
                vec![to_endpoint(DATA, 5), 2 * of_endpoint(WINDOW_UPDATE, 4), of_endpoint(PING, 8)],
            ),
        ] {
            let least = least(rounds, apart, &frames);
            assert!(least > i64::from(Limits::default().control_frames) / 2, "{name}: {least} is left");
        }
    }

    #[test]
    fn floods_are_over_it_soon() {
        let ack = |kind| weight_of_theirs(Peer::Client, Frame { kind, flags: ACK, length: 0 });
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
            ("resets of nothing by an endpoint", 10_201, vec![of_endpoint(RST_STREAM, 4)]),
            ("requests that we have to reset", 1021, vec![theirs(HEADERS, 60), ours(RST_STREAM, 4)]),
        ] {
            assert!(least(most, 0, &frames) < 0, "{name}");
        }
        let mut saved = Budget::new(Peer::Client, 10_000, 0);
        saved.weigh(i64::from(u32::MAX));
        assert!(!saved.weigh(-MOST_SAVED - 1), "more than a moment of it can be saved up");
    }

    #[test]
    fn a_small_limit_is_filled_too() {
        let mut budget = Budget::new(Peer::Client, 2, 0);
        budget.weigh(CHANGED - 2);
        for now in (0..=500).step_by(250) {
            budget.fill(now);
        }
        assert_eq!(budget.left, 1);
    }
}
