//! Whether all that was asked stands in the access log. A proxy that drops lines does less work, and its figure must not pass for one of those
//! that wrote them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Sample;
use crate::{child, peers::Running};

/// How long lines may wait for company before they are written: a second, where a proxy is told how long, and some more.
const PATIENCE: Duration = Duration::from_secs(3);
const GLANCE: Duration = Duration::from_millis(100);

/// The log of one sample.
#[derive(Debug)]
pub struct AccessLog {
    path: PathBuf,
}

impl AccessLog {
    /// Empties it: neither the disk nor what was asked before is what is measured.
    pub fn begin(running: &Running) -> io::Result<Self> {
        let path = running.access_log();
        File::options().write(true).open(&path)?.set_len(0)?;
        Ok(Self { path })
    }

    /// Counts each request without a line as an error.
    pub fn check(&self, sample: &mut Sample) -> anyhow::Result<()> {
        let asked = sample.warm_up + sample.operations;
        let end = Instant::now() + PATIENCE;
        let mut told = lines(&self.path)?;
        while told < asked && Instant::now() < end {
            child::pause(GLANCE)?;
            told = lines(&self.path)?;
        }
        if told < asked {
            sample.errors += asked - told;
            sample.example.get_or_insert_with(|| format!("{} of {asked} requests have no line in the access log", asked - told));
        }
        Ok(())
    }
}

fn lines(path: &Path) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut lines = 0;
    while file.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_line_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let log = AccessLog { path };
        let mut whole = Sample { warm_up: 1, operations: 2, ..Sample::default() };
        log.check(&mut whole).unwrap();
        assert_eq!((whole.errors, whole.example), (0, None));
        let mut short = Sample { warm_up: 1, operations: 4, ..Sample::default() };
        log.check(&mut short).unwrap();
        assert_eq!(short.errors, 2);
        assert!(short.example.is_some_and(|example| example.starts_with("2 of 5 requests")));
    }
}
