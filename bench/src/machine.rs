//! Where and when: what a reader needs to know beside the figures.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub system: String,
    pub descriptors: u64,
}

impl Machine {
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches([' ', '\t', ':', '=']).trim_matches('"').to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kibibytes: u64 = memory.split(' ').next().and_then(|size| size.parse().ok()).unwrap_or_default();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kibibytes.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME"),
            descriptors: crate::child::descriptors(),
        }
    }
}

/// What the processors did since the start of the machine, in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    all: u64,
    idle: u64,
    cores: usize,
}

impl Ticks {
    fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let numbers = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        // user, nice, system, idle, waiting for a disk, two kinds of interrupts, stolen by the host; guests are in the first two again.
        let ticks: Vec<u64> = numbers.take(8).map_while(|number| number.parse().ok()).collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or_default();
        let cores = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
        Self { all: ticks.iter().sum(), idle: at(3) + at(4), cores }
    }

    /// How many cores were at work between two looks, on the mean.
    fn busy(self, since: Self) -> f64 {
        let (all, idle) = (self.all.saturating_sub(since.all), self.idle.saturating_sub(since.idle));
        if all == 0 { 0.0 } else { all.saturating_sub(idle) as f64 / all as f64 * self.cores as f64 }
    }
}

/// How many cores are at work, looked at for some time. The load average would remember for minutes what this very bench did before.
pub fn busy(time: Duration) -> anyhow::Result<f64> {
    let before = Ticks::now();
    crate::child::pause(time)?;
    Ok(Ticks::now().busy(before))
}

/// Today (UTC), as `2026-11-22`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    date(seconds / 86_400)
}

/// The date of a day since 1970: Howard Hinnant's `civil_from_days`.
pub fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_at_work_are_counted() {
        let before = Ticks::parse("cpu  100 0 100 800 0 0 0 0 50 0\ncpu0 50 0 50 400\ncpu1 50 0 50 400\nintr 7\n");
        assert_eq!(before, Ticks { all: 1000, idle: 800, cores: 2 });
        let after = Ticks { all: 1200, idle: 850, cores: 2 };
        assert!((after.busy(before) - 1.5).abs() < 1e-9);
        assert!(after.busy(after) < 1e-9);
    }

    #[test]
    fn days_are_dates() {
        assert_eq!([0, 59, 11_016, 20_779].map(date), ["1970-01-01", "1970-03-01", "2000-02-29", "2026-11-22"]);
    }
}
