//! What a client connection is doing, and the word that it is to end: what stands between the task that drives it, the stream under it
//! and the worker's sweep.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

use crate::clock;

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    None = 0,
    /// When its requests are over; new ones are refused as the protocol has it.
    Finish = 1,
    /// Now: the head of a request did not come in time.
    HeadTimedOut = 2,
    /// At once, whatever the protocol has still to say: it was told to end before, and does not.
    Cut = 3,
}

/// How long a connection that was told to end, and has nothing under way, may be silent before it is cut. An honest client has answered by
/// then (HTTP/2's farewell takes one round trip); one that does not would hold its connection for ever.
const FAREWELL: u64 = 5_000;

/// The limits that the sweep keeps, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepLimits {
    pub(crate) head: u64,
    pub(crate) idle: u64,
    pub(crate) write: u64,
}

/// One client connection. Everything happens on one thread; atomics are here because the HTTP library wants streams that could be sent
/// to others.
#[derive(Debug)]
pub(crate) struct Control {
    in_flight: AtomicU32,
    /// A request has begun to come, or the first is awaited.
    head: AtomicBool,
    http2: AtomicBool,
    /// Since when it is without a request, or waits for the rest of a head.
    since: AtomicU64,
    command: AtomicU8,
    /// When it was told to end.
    told: AtomicU64,
    /// When the client took something last.
    taken: AtomicU64,
    /// The client took nothing for as long as the limit allows.
    stalled: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicU32::new(0),
            head: AtomicBool::new(true),
            http2: AtomicBool::new(false),
            since: AtomicU64::new(clock::now()),
            command: AtomicU8::new(Command::None as u8),
            told: AtomicU64::new(0),
            taken: AtomicU64::new(clock::now()),
            stalled: AtomicBool::new(false),
            waker: Mutex::new(None),
        })
    }

    /// Bytes came from the client.
    pub(crate) fn bytes_came(&self, now: u64) {
        if self.in_flight.load(Relaxed) == 0 && !self.head.load(Relaxed) && !self.speaks_http2() {
            self.head.store(true, Relaxed);
            self.since.store(now, Relaxed);
        }
    }

    /// Bytes went to the client.
    pub(crate) fn bytes_taken(&self, now: u64) {
        self.taken.store(now, Relaxed);
    }

    /// The client took nothing for too long: its connection is lost.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// HTTP/2 is spoken. The first request has the time of a head, as over HTTP/1.1: its preface and settings say nothing yet.
    pub(crate) fn http2_begins(&self) {
        self.http2.store(true, Relaxed);
        self.since.store(clock::now(), Relaxed);
    }

    pub(crate) fn speaks_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// A request's head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Relaxed);
        Busy(self.clone())
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    /// Tells the connection to end if it exceeds its limits, and cuts it if it was told and does not.
    pub(crate) fn sweep(&self, now: u64, limits: SweepLimits) -> Option<Command> {
        if self.is_busy() {
            return None;
        }
        let since = self.since.load(Relaxed);
        let told = self.command.load(Relaxed);
        let late = self.head.load(Relaxed);
        if told == Command::Cut as u8 {
            return None;
        }
        // A head that came in part after the farewell has its time, and its 408.
        if told > Command::None as u8 && !(told == Command::Finish as u8 && late && !self.speaks_http2()) {
            let since = since.max(self.told.load(Relaxed));
            // What is still on its way to a slow client may take its time, as long as it moves.
            let quiet = now.saturating_sub(since.max(self.taken.load(Relaxed)));
            if quiet <= FAREWELL && now.saturating_sub(since) <= limits.write.max(FAREWELL) {
                return None;
            }
            self.tell(Command::Cut);
            return Some(Command::Cut);
        }
        let (limit, command) = if late { (limits.head, Command::HeadTimedOut) } else { (limits.idle, Command::Finish) };
        if now.saturating_sub(since) <= limit {
            return None;
        }
        self.tell(command);
        Some(command)
    }

    pub(crate) fn tell(&self, command: Command) {
        if self.command.fetch_max(command as u8, Relaxed) < command as u8 {
            self.told.store(clock::now(), Relaxed);
        }
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What the connection is to do. Whoever asks is woken at the next word.
    pub(crate) fn listen(&self, waker: &Waker) -> Command {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        match self.command.load(Relaxed) {
            0 => Command::None,
            1 => Command::Finish,
            2 => Command::HeadTimedOut,
            _ => Command::Cut,
        }
    }
}

/// A request under way: its connection is not idle while this lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Control>);

impl Busy {
    /// Whether the client took nothing of what it was sent for too long.
    pub(crate) fn has_stalled(&self) -> bool {
        self.0.stalled.load(Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.head.store(false, Relaxed);
        self.0.since.store(clock::now(), Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_swept_by_what_it_waits_for() {
        let limits = SweepLimits { head: 1000, idle: 5000, write: 60_000 };
        let control = Control::new();
        assert_eq!(control.sweep(1000, limits), None);
        assert_eq!(control.sweep(1001, limits), Some(Command::HeadTimedOut));

        let control = Control::new();
        let busy = control.begin();
        assert_eq!(control.sweep(u64::MAX, limits), None, "a request is under way");
        drop(busy);
        assert_eq!(control.sweep(5000, limits), None);
        assert_eq!(control.sweep(5001, limits), Some(Command::Finish));
        // The thread's clock stands at zero here: it was told then.
        assert_eq!(control.sweep(4999, limits), None, "it is told once");
        control.bytes_came(6000);
        assert_eq!(control.sweep(7001, limits), Some(Command::HeadTimedOut), "a head began and did not end");
    }

    #[test]
    fn who_does_not_end_when_told_is_cut() {
        let limits = SweepLimits { head: 1000, idle: 5000, write: 20_000 };
        let control = Control::new();
        control.http2_begins();
        assert_eq!(control.sweep(1001, limits), Some(Command::HeadTimedOut), "neither preface nor request");
        control.bytes_taken(4000);
        assert_eq!(control.sweep(9000, limits), None, "it took something a moment ago");
        assert_eq!(control.sweep(9001, limits), Some(Command::Cut));
        assert_eq!(control.sweep(20_000, limits), None, "once");

        let control = Control::new();
        control.http2_begins();
        let busy = control.begin();
        control.tell(Command::Finish);
        assert_eq!(control.sweep(u64::MAX, limits), None, "a stream is open");
        drop(busy);
        control.bytes_taken(20_000);
        assert_eq!(control.sweep(20_000, limits), None);
        control.bytes_taken(20_001);
        assert_eq!(control.sweep(20_001, limits), Some(Command::Cut), "taking crumbs does not hold a connection for ever");
    }
}
