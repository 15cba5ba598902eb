//! By what a file is known to be as it was, without reading it.
//!
//! Whatever changes a file's content also changes the time of its last change of state, which nobody can set. But that clock ticks: two writes
//! within one tick leave the same stamp. So a stamp is taken only of a file that had been left alone for longer than a tick.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longer than any tick: FAT counts two seconds.
const TICK: Duration = Duration::from_secs(3);

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that is about to be read. None: what is read may change and the stamp stay.
    pub fn of(metadata: &Metadata, now: SystemTime) -> Option<Self> {
        let stamp = Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        (metadata.is_file() && stamp.is_settled(now)).then_some(stamp)
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        [self.modified, self.changed].into_iter().all(|(seconds, nanoseconds)| {
            let nanoseconds = Duration::from_nanos(nanoseconds.try_into().unwrap_or_default());
            let time = Duration::from_secs(seconds.try_into().unwrap_or_default()) + nanoseconds;
            // A time to come, by the clock of another machine, says nothing.
            now.checked_sub(time).is_some_and(|age| age > TICK)
        })
    }
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
