//! Lines of the access log on their way out: the threads that serve gather them in memory, and one thread writes them.
//!
//! Promises that handing over takes no system call but for the first line after a silence, never waits for whoever reads, and says if a line
//! cannot be taken; and that no more than [`MOST`] bytes wait.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How long lines are gathered before they are written: to wake a thread and write costs more than making some lines, and whoever looks on
/// does not see a tenth of a second.
const GATHERING: Duration = Duration::from_millis(100);
/// So many bytes are written although more may come.
const ENOUGH: usize = 256 * 1024;
/// Bytes that wait to be written: some seconds of a slow reader at a few thousand requests per second.
pub(super) const MOST: usize = 4 << 20;

/// Where lines are handed over. Clones share one writer.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// To the writer: something waits that did not before, it is enough, or it shall end.
    told: Condvar,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// No more are taken.
    ends: bool,
    /// The writer wrote what there was, and ended.
    over: bool,
}

impl Queue {
    /// Lines from here on are written there.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = queue.0.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            shared.write_lines(out);
            shared.waiting().over = true;
            shared.over.notify_all();
        })?;
        Ok(queue)
    }

    /// Whether the line was taken.
    pub(super) fn put(&self, line: &[u8]) -> bool {
        let mut waiting = self.0.waiting();
        let before = waiting.lines.len();
        if waiting.ends || before + line.len() > MOST {
            return false;
        }
        waiting.lines.extend_from_slice(line);
        let is_enough = before < ENOUGH && waiting.lines.len() >= ENOUGH;
        drop(waiting);
        if before == 0 || is_enough {
            self.0.told.notify_one();
        }
        true
    }

    /// Takes no more, and waits until what was handed over is written. Says whether it was in time; a reader that takes nothing can't hold the
    /// process up for longer.
    pub(super) fn end(&self, within: Duration) -> bool {
        let mut waiting = self.0.waiting();
        waiting.ends = true;
        self.0.told.notify_one();
        let ended = self.0.over.wait_timeout_while(waiting, within, |waiting| !waiting.over);
        ended.unwrap_or_else(PoisonError::into_inner).0.over
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lines(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let waiting = self.told.wait_while(self.waiting(), |waiting| waiting.lines.is_empty() && !waiting.ends);
            let gathering = |waiting: &mut Waiting| waiting.lines.len() < ENOUGH && !waiting.ends;
            let waiting = self.told.wait_timeout_while(waiting.unwrap_or_else(PoisonError::into_inner), GATHERING, gathering);
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner).0;
            mem::swap(&mut waiting.lines, &mut lines);
            let ends = waiting.ends;
            drop(waiting);
            // Nobody is left to tell if it fails, and the next try may go through.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            if ends {
                return;
            }
            lines.clear();
            // What a burst took is given back.
            lines.shrink_to(2 * ENOUGH);
        }
    }
}
