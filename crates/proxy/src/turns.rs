//! How long threads run when others want their core.
//!
//! A thread that wakes has to wait until the one that runs had its turn, some 1 to 3 ms. A change of routes takes less than that, so whoever shares a core
//! with the threads that read routes waits for the whole of it: a worker (a container with one core), a backend, a client. Whoever asks for shorter turns
//! than the one that runs may go before it, and has no more of the core for it. So workers ask for short turns, and the threads beside them for long ones
//! (Linux 6.12, `sched_setattr(2)`: `sched_runtime` of SCHED_OTHER; before, it has no effect).
//!
//! Nobody goes first who had more than its share, though. A worker that went before a change once, for a request, is woken again by the backend's answer
//! a moment later, and then waits for the rest of the change. So those who make changes also take less of a core that others want: `StandBack`.
#![allow(
    unsafe_code,
    reason = "the system call has no safe wrapper; what it reads and writes is one structure of ours, whose size it is told"
)]

use std::io;

/// Less than any usual turn of others, and long enough that changing threads costs nothing to speak of. The kernel takes 0.1 to 100 ms.
const SHORT: u64 = 1_000_000;
/// More than any usual turn of others, which is 2.8 ms at most. With 10 ms or more it would be a change that waits long where others never rest.
const LONG: u64 = 4_000_000;

/// A third of what others have of a core that is wanted (`sched(7)`, a factor of 1.25 each). With 10 it would be a tenth, and changes would be slow beside a
/// worker that never rests.
const BACK: i32 = 5;
/// The nicest that there is.
const NICEST: i32 = 19;

/// `struct sched_attr` of its first version (linux/sched/types.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Nanoseconds.
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;
const _: () = assert!(SIZE == 48);
/// SCHED_OTHER.
const OTHER: u32 = 0;

/// Asks for short turns of this thread: a worker.
pub(crate) fn shorten() -> io::Result<()> {
    ask(SHORT, None)
}

/// Asks for long turns of this thread and of those that it starts: all that is not a worker. A worker that one of them starts asks for its own.
///
/// # Errors
/// What the system answers. Nothing depends on it.
pub fn lengthen() -> io::Result<()> {
    ask(LONG, None)
}

/// Less of a core that others want, and long turns: for those who make changes, once the workers have begun. A thread that starts another gives it what it
/// has, and what it gave away it does not get back without privileges, so that workers must not be started by one of these.
#[derive(Clone, Copy, Debug)]
pub struct StandBack {
    nice: i32,
}

impl StandBack {
    /// Nicer than this thread is now. Known once, so that threads whose starter stood back already do not stand back further.
    ///
    /// # Errors
    /// What the system answers. Nothing depends on it.
    pub fn from_here() -> io::Result<Self> {
        Ok(Self { nice: (attributes()?.nice + BACK).min(NICEST) })
    }

    /// Asks for it for this thread, and those that it starts from now on.
    ///
    /// # Errors
    /// What the system answers. Nothing depends on it.
    pub fn ask(self) -> io::Result<()> {
        ask(LONG, Some(self.nice))
    }
}

/// All else about the thread stays as it is, and so does a thread that somebody gave another policy.
fn ask(turn: u64, nice: Option<i32>) -> io::Result<()> {
    let now = attributes()?;
    if now.policy != OTHER {
        return Ok(());
    }
    set(&Attributes { size: SIZE, runtime: turn, nice: nice.unwrap_or(now.nice), ..now })
}

fn attributes() -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes `SIZE` bytes at most to a place that has them, all of whose values are ones of its fields; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn set(attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the structure says that it has, which is its size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread has after it asked for a turn. Older kernels have no turn of a thread's own, and say 0; threads of other policies are left alone.
    fn expected(before: &Attributes, turn: u64) -> u64 {
        if before.policy == OTHER && before.runtime != 0 { turn } else { before.runtime }
    }

    #[test]
    fn a_thread_has_short_turns_and_is_otherwise_as_it_was() {
        let before = attributes().unwrap();
        shorten().unwrap();
        let after = attributes().unwrap();
        assert_eq!((after.policy, after.nice, after.flags), (before.policy, before.nice, before.flags));
        assert_eq!(after.runtime, expected(&before, SHORT));
    }

    #[test]
    fn threads_have_the_turns_of_the_one_that_started_them_until_they_ask() {
        let before = attributes().unwrap();
        lengthen().unwrap();
        assert_eq!(attributes().unwrap().runtime, expected(&before, LONG));
        let started = std::thread::spawn(|| {
            let first = attributes().unwrap().runtime;
            shorten().unwrap();
            (first, attributes().unwrap().runtime)
        });
        assert_eq!(started.join().unwrap(), (expected(&before, LONG), expected(&before, SHORT)));
    }

    #[test]
    fn who_stands_back_has_less_and_so_have_those_it_starts() {
        let before = attributes().unwrap();
        let back = StandBack::from_here().unwrap();
        back.ask().unwrap();
        let started = std::thread::spawn(move || {
            // No further, though the one that started it stood back already.
            back.ask().unwrap();
            attributes().unwrap()
        });
        let started = started.join().unwrap();
        for after in [attributes().unwrap(), started] {
            let nice = if before.policy == OTHER { (before.nice + BACK).min(NICEST) } else { before.nice };
            assert_eq!((after.policy, after.nice), (before.policy, nice));
            assert_eq!(after.runtime, expected(&before, LONG));
        }
    }
}
