//! What processes spent and hold, read from `/proc`.
//!
//! CPU time is what the scheduler counted for each thread (`schedstat`, in nanoseconds): `utime` and `stime` come in ticks of 10 ms, too coarse
//! for a second of load. Memory is PSS: each private page, and a fair share of each shared one.

use std::{collections::BTreeMap, fs};

use anyhow::Context;
use rustix::process::Pid;

/// How the threads of the data plane are called (`crates/proxy/src/data_plane.rs`).
const WORKER: &str = "worker-";

/// A process and all below it.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = parent(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(id) = found.get(next).copied() {
        found.extend(children.remove(&id).unwrap_or_default());
        next += 1;
    }
    found
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Nanoseconds of CPU that each thread of these processes had, with the thread's name.
fn threads(processes: &[u32]) -> Vec<(String, u64)> {
    let mut threads = Vec::new();
    for id in processes {
        for entry in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Some(spent) = schedstat.split_whitespace().next().and_then(|spent| spent.parse().ok()) else { continue };
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            threads.push((name.trim_end().to_owned(), spent));
        }
    }
    threads
}

/// Nanoseconds of CPU that a process and all below it had.
pub fn cpu(root: u32) -> anyhow::Result<u64> {
    let threads = threads(&tree(root));
    anyhow::ensure!(!threads.is_empty(), "process {root} is gone, or the kernel has no /proc/PID/schedstat");
    Ok(threads.into_iter().map(|(_, spent)| spent).sum())
}

/// The same, for Penstock: the threads of the data plane, and all others.
pub fn cpu_by_plane(root: u32) -> anyhow::Result<Planes> {
    let threads = threads(&[root]);
    let mut planes = Planes::default();
    for (name, spent) in threads {
        let side = if name.starts_with(WORKER) { &mut planes.data } else { &mut planes.control };
        *side += spent;
    }
    anyhow::ensure!(planes.data > 0, "process {root} has no thread named worker-N");
    Ok(planes)
}

/// The threads of Penstock, and which of them are the data plane's.
pub fn threads_by_plane(root: u32) -> anyhow::Result<Vec<(Pid, bool)>> {
    let entries = fs::read_dir(format!("/proc/{root}/task")).context("the threads")?.flatten();
    let thread = |entry: fs::DirEntry| {
        let id = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        Some((id, fs::read_to_string(entry.path().join("comm")).ok()?.starts_with(WORKER)))
    };
    Ok(entries.filter_map(thread).collect())
}

/// Nanoseconds of CPU of Penstock's two sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planes {
    pub data: u64,
    pub control: u64,
}

/// Bytes of memory of a process and all below it.
pub fn memory(root: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for id in tree(root) {
        let path = format!("/proc/{id}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        sum += kibibytes(&text, "Pss:").with_context(|| format!("no Pss in {path}"))? << 10;
    }
    Ok(sum)
}

fn kibibytes(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_smaps_are_told_apart() {
        let text = "55d5-7ffc ---p 00000000 00:00 0 [rollup]\nRss:  100 kB\nPss:   77 kB\nPss_Anon:  66 kB\n";
        assert_eq!(kibibytes(text, "Pss:"), Some(77));
        assert_eq!(kibibytes(text, "Swap:"), None);
    }

    #[test]
    fn this_process_has_cpu_and_memory() {
        let own = std::process::id();
        assert!(tree(own).contains(&own));
        assert!(cpu(own).unwrap() > 0);
        assert!(memory(own).unwrap() > 1 << 16);
    }
}
