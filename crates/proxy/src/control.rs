//! What a client connection is doing, and the word that it is to end: what stands between the task that drives it, the stream under it
//! and the worker's sweep.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use crate::clock;

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Command {
    None,
    /// When its requests are over; new ones are refused as the protocol has it.
    Finish,
    /// Now: the head of a request did not come in time.
    HeadTimedOut,
    /// At once, whatever the protocol has still to say: it was told to end before, and does not.
    Cut,
}

/// How long a connection that was told to end, and has nothing under way, may be silent before it is cut. An honest client has answered by
/// then (HTTP/2's farewell takes one round trip); one that does not would hold its connection for ever.
const FAREWELL: u64 = 5_000;

/// Later than any time.
const NO_HEAD: u64 = u64::MAX;

/// The limits that the sweep keeps, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepLimits {
    pub(crate) head: u64,
    pub(crate) idle: u64,
    pub(crate) write: u64,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Control {
    in_flight: Cell<u32>,
    /// A request has begun to come, or the first is awaited.
    head: Cell<bool>,
    http2: Cell<bool>,
    /// Since when it is without a request, or waits for the rest of a head.
    since: Cell<u64>,
    /// Over HTTP/2: since when the rest of a head is awaited that came in part, or [`NO_HEAD`]. Each idle connection has one.
    in_head: Cell<u64>,
    command: Cell<Command>,
    /// When it was told to end.
    told: Cell<u64>,
    /// When the client took something last.
    taken: Cell<u64>,
    /// The client took nothing for as long as the limit allows.
    stalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Control {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            in_flight: Cell::new(0),
            head: Cell::new(true),
            http2: Cell::new(false),
            since: Cell::new(clock::now()),
            in_head: Cell::new(NO_HEAD),
            command: Cell::new(Command::None),
            told: Cell::new(0),
            taken: Cell::new(clock::now()),
            stalled: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// Bytes came from the client.
    pub(crate) fn bytes_came(&self, now: u64) {
        if self.in_flight.get() == 0 && !self.head.get() && !self.speaks_http2() {
            self.head.set(true);
            self.since.set(now);
        }
    }

    /// Over HTTP/2 a head has come in part. Nothing else can come before the rest of it (RFC 9113 §6.10), whatever is under way.
    pub(crate) fn head_comes(&self, now: u64) {
        self.in_head.set(self.in_head.get().min(now));
    }

    /// Over HTTP/2 no head is awaited, or a whole one came.
    pub(crate) fn head_came(&self) {
        self.in_head.set(NO_HEAD);
    }

    /// Bytes went to the client.
    pub(crate) fn bytes_taken(&self, now: u64) {
        self.taken.set(now);
    }

    /// The client took nothing for too long: its connection is lost.
    pub(crate) fn stall(&self) {
        self.stalled.set(true);
    }

    /// HTTP/2 is spoken. The first request has the time of a head, as over HTTP/1.1: its preface and settings say nothing yet.
    pub(crate) fn http2_begins(&self) {
        self.http2.set(true);
        self.since.set(clock::now());
    }

    pub(crate) fn speaks_http2(&self) -> bool {
        self.http2.get()
    }

    /// A request's head is complete.
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.in_flight.set(self.in_flight.get() + 1);
        Busy(self.clone())
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.get() > 0
    }

    /// Tells the connection to end if it exceeds its limits, and cuts it if it was told and does not.
    pub(crate) fn sweep(&self, now: u64, limits: SweepLimits) -> Option<Command> {
        let told = self.command.get();
        // What is under way is finished all the same: its answers wait for no head.
        if told < Command::HeadTimedOut && now.saturating_sub(self.in_head.get()) > limits.head {
            self.tell(Command::HeadTimedOut);
            return Some(Command::HeadTimedOut);
        }
        if self.is_busy() {
            return None;
        }
        let since = self.since.get();
        let late = self.head.get();
        if told == Command::Cut {
            return None;
        }
        // A head that came in part after the farewell has its time, and its 408.
        if told > Command::None && !(told == Command::Finish && late && !self.speaks_http2()) {
            let since = since.max(self.told.get());
            // What is still on its way to a slow client may take its time, as long as it moves.
            let quiet = now.saturating_sub(since.max(self.taken.get()));
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
        if self.command.get() < command {
            self.command.set(command);
            self.told.set(clock::now());
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What the connection is to do. Whoever asks is woken at the next word.
    pub(crate) fn listen(&self, waker: &Waker) -> Command {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        self.command.get()
    }

    /// What it was told so far.
    pub(crate) fn command(&self) -> Command {
        self.command.get()
    }
}

/// A request under way: its connection is not idle while this lives.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Control>);

impl Busy {
    /// Whether the client took nothing of what it was sent for too long.
    pub(crate) fn has_stalled(&self) -> bool {
        self.0.stalled.get()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.head.set(false);
        self.0.since.set(clock::now());
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
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
    fn a_head_over_http2_has_its_time_whatever_is_under_way() {
        let limits = SweepLimits { head: 1000, idle: 5000, write: 20_000 };
        let control = Control::new();
        control.http2_begins();
        let busy = control.begin();
        control.head_comes(500);
        control.head_comes(1500);
        assert_eq!(control.sweep(1500, limits), None);
        control.head_came();
        assert_eq!(control.sweep(1501, limits), None, "it came");
        control.head_comes(2000);
        assert_eq!(control.sweep(3001, limits), Some(Command::HeadTimedOut));
        assert_eq!(control.sweep(u64::MAX, limits), None, "what is under way is not cut");
        drop(busy);
        assert_eq!(control.sweep(5001, limits), Some(Command::Cut));
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
