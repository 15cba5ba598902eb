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

    /// HTTP/2 is spoken, and its preface came: from here on it is idle without a request, not late with a head.
    pub(crate) fn http2_begins(&self) {
        self.http2.store(true, Relaxed);
        self.head.store(false, Relaxed);
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

    /// Tells the connection to end if it exceeds its limits (milliseconds).
    pub(crate) fn sweep(&self, now: u64, head_time: u64, idle_time: u64) -> Option<Command> {
        if self.is_busy() {
            return None;
        }
        let (limit, command) =
            if self.head.load(Relaxed) { (head_time, Command::HeadTimedOut) } else { (idle_time, Command::Finish) };
        if now.saturating_sub(self.since.load(Relaxed)) <= limit || self.command.load(Relaxed) >= command as u8 {
            return None;
        }
        self.tell(command);
        Some(command)
    }

    pub(crate) fn tell(&self, command: Command) {
        self.command.fetch_max(command as u8, Relaxed);
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
            _ => Command::HeadTimedOut,
        }
    }
}

/// A request under way: its connection is not idle while this lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Control>);

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
        let control = Control::new();
        assert_eq!(control.sweep(1000, 1000, 5000), None);
        assert_eq!(control.sweep(1001, 1000, 5000), Some(Command::HeadTimedOut));

        let control = Control::new();
        let busy = control.begin();
        assert_eq!(control.sweep(u64::MAX, 1000, 5000), None, "a request is under way");
        drop(busy);
        assert_eq!(control.sweep(5000, 1000, 5000), None);
        assert_eq!(control.sweep(5001, 1000, 5000), Some(Command::Finish));
        assert_eq!(control.sweep(5002, 1000, 5000), None, "it is told once");
        control.bytes_came(6000);
        assert_eq!(control.sweep(7001, 1000, 5000), Some(Command::HeadTimedOut), "a head began and did not end");
    }
}
