//! By what a file is known to be as it was, without reading it.
//!
//! Whatever changes a file's content also changes the time of its last change of state, which nobody can set. But that clock ticks: two writes
//! within one tick leave the same stamp. So a stamp is taken only of a file that had been left alone for longer than a tick.

use std::{
    fs::Metadata,
    hash::{BuildHasher, RandomState},
    num::NonZeroU64,
    os::unix::fs::MetadataExt,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longer than any tick: FAT counts two seconds.
const TICK: Duration = Duration::from_secs(3);

/// What the file system says of a file: device, inode, size, both times. Kept as a hash with a key of this process, since there are thousands of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(NonZeroU64);

impl Stamp {
    /// The stamp of a file that is about to be read. None: what is read may change and the stamp stay.
    pub fn of(metadata: &Metadata, now: SystemTime) -> Option<Self> {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let settled = [modified, changed].into_iter().all(|time| is_settled(time, now));
        let hash = HASHER.hash_one((metadata.dev(), metadata.ino(), metadata.size(), modified, changed));
        (metadata.is_file() && settled).then_some(Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)))
    }
}

/// Whether what happened at this time, in seconds and nanoseconds, is more than a tick ago.
fn is_settled((seconds, nanoseconds): (i64, i64), now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = Duration::from_nanos(nanoseconds.try_into().unwrap_or_default());
    let time = Duration::from_secs(seconds.try_into().unwrap_or_default()) + nanoseconds;
    // A time to come, by the clock of another machine, says nothing.
    now.checked_sub(time).is_some_and(|age| age > TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_a_moment_ago_or_in_time_to_come_has_no_stamp() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let touched = metadata.modified().unwrap();
        assert_eq!(Stamp::of(&metadata, touched), None);
        assert_eq!(Stamp::of(&metadata, touched + TICK), None);
        assert_eq!(Stamp::of(&metadata, touched - 2 * TICK), None);
        assert!(Stamp::of(&metadata, touched + 2 * TICK).is_some());
    }

    #[test]
    fn a_file_whose_time_was_set_back_is_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let past = SystemTime::now() - 100 * TICK;
        let later = SystemTime::now() + 100 * TICK;
        let stamp = || {
            file.as_file().set_modified(past).unwrap();
            Stamp::of(&file.as_file().metadata().unwrap(), later).unwrap()
        };
        let before = stamp();
        // The clock of the file system has to tick once in between.
        let deadline = SystemTime::now() + Duration::from_secs(10);
        while stamp() == before {
            assert!(SystemTime::now() < deadline, "it is not told apart");
            std::thread::yield_now();
        }
    }
}
