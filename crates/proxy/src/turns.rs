//! How long a worker's thread runs when others want its core.
//!
//! A thread that wakes has to wait until the one that runs had its turn, some 3 ms. Where a worker shares its core with the threads that read routes (a
//! container with one core), that is what a change costs those who ask meanwhile. One that asks for shorter turns than others goes before them; it has
//! no more of the core for it (Linux 6.12, `sched_setattr(2)`: `sched_runtime` of SCHED_OTHER; before, it has no effect).
#![allow(
    unsafe_code,
    reason = "the system call has no safe wrapper; what it reads and writes is one structure of ours, whose size it is told"
)]

use std::io;

/// Less than any usual turn of others, and long enough that changing threads costs nothing to speak of. The kernel takes 0.1 to 100 ms.
const TURN: u64 = 1_000_000;

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

/// Asks for short turns of this thread. All else about it stays as it is, and so does a thread that somebody gave another policy.
pub(crate) fn shorten() -> io::Result<()> {
    let now = attributes()?;
    if now.policy != OTHER {
        return Ok(());
    }
    set(&Attributes { size: SIZE, runtime: TURN, ..now })
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

    #[test]
    fn a_thread_has_short_turns_and_is_otherwise_as_it_was() {
        let before = attributes().unwrap();
        shorten().unwrap();
        let after = attributes().unwrap();
        assert_eq!((after.policy, after.nice, after.flags), (before.policy, before.nice, before.flags));
        // Older kernels have no turn of a thread's own, and say 0; threads of other policies are left alone.
        let expected = if before.policy == OTHER && before.runtime != 0 { TURN } else { before.runtime };
        assert_eq!(after.runtime, expected);
    }
}
