//! How client connections spread over the workers.
//!
//! The kernel deals new connections out by a hash of their addresses. Of few that last, as tunnels do, one worker may get twice as many as
//! another, and stays with them. So a worker that has clearly more than the one with the least hands what it accepts on to that one.

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use crate::io::Open;

/// How many connections more than another a worker may have, and a part of what the other has. To hand one over costs two system calls and
/// wakes a thread: it must not happen over what chance makes of many short ones.
const SLACK: usize = 8;
const SLACK_PART: usize = 8;

/// The workers, as they see each other.
#[derive(Debug)]
pub(crate) struct Spread {
    workers: Box<[Known]>,
}

#[derive(Debug)]
struct Known {
    open: AtomicUsize,
    hand: mpsc::UnboundedSender<Handed>,
}

/// A connection that changes hands before anything was read of it. It does not block.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) open: Open,
}

/// Where a worker finds what others hand to it.
pub(crate) type Incoming = mpsc::UnboundedReceiver<Handed>;

impl Spread {
    pub(crate) fn new(workers: usize) -> (Self, Vec<Incoming>) {
        let (known, incoming) = (0..workers)
            .map(|_| {
                let (hand, incoming) = mpsc::unbounded_channel();
                (Known { open: AtomicUsize::new(0), hand }, incoming)
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        (Self { workers: known.into() }, incoming)
    }

    /// A connection begins at a worker (or ends).
    pub(crate) fn count(&self, worker: usize, begins: bool) {
        if let Some(known) = self.workers.get(worker) {
            let _ = if begins { known.open.fetch_add(1, Relaxed) } else { known.open.fetch_sub(1, Relaxed) };
        }
    }

    /// Whom a worker should hand the connection to that it just accepted and counted.
    pub(crate) fn better(&self, worker: usize) -> Option<usize> {
        let own = self.workers.get(worker)?.open.load(Relaxed);
        let others = self.workers.iter().enumerate().filter(|(_, known)| !known.hand.is_closed());
        let (other, least) = others.map(|(number, known)| (number, known.open.load(Relaxed))).min_by_key(|(_, open)| *open)?;
        (own > least + least / SLACK_PART + SLACK).then_some(other)
    }

    /// Gives it back if the other takes nothing any more.
    pub(crate) fn hand(&self, to: usize, mut handed: Handed) -> Result<(), Handed> {
        let from = handed.open.move_to(to);
        let Some(known) = self.workers.get(to) else { return Err(handed) };
        known.hand.send(handed).map_err(|mpsc::error::SendError(mut handed)| {
            handed.open.move_to(from);
            handed
        })
    }

    /// How many connections each worker has.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.workers.iter().map(|known| known.open.load(Relaxed)).collect()
    }

    /// As if a worker had so many more connections.
    #[cfg(test)]
    pub(crate) fn burden(&self, worker: usize, more: usize) {
        self.workers[worker].open.fetch_add(more, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_clearly_more_hands_over_to_the_one_with_the_least() {
        for (counts, worker, better) in [
            (&[9, 0, 1][..], 0, Some(1)),
            (&[8, 0, 1], 0, None),
            (&[73, 80, 57], 0, Some(2)),
            (&[72, 80, 57], 0, None),
            (&[0, 100], 0, None),
            (&[1000], 0, None),
            (&[], 0, None),
        ] {
            let (spread, _incoming) = Spread::new(counts.len());
            counts.iter().enumerate().for_each(|(number, count)| spread.burden(number, *count));
            assert_eq!(spread.better(worker), better, "{counts:?}");
        }
    }

    #[test]
    fn who_takes_nothing_any_more_is_handed_nothing() {
        let (spread, mut incoming) = Spread::new(3);
        spread.burden(0, 100);
        assert_eq!(spread.better(0), Some(1));
        incoming[1].close();
        assert_eq!(spread.better(0), Some(2));
        drop(incoming);
        assert_eq!(spread.better(0), None);
    }
}
