//! What a change of one route costs Penstock: by itself, and to requests that are served meanwhile.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{Bench, Sample, traffic};
use crate::{
    child,
    load::{Kind, Outcome},
    peers::{RouteFolder, Running, Scene},
    procfs::{self, Planes},
    rows::Load,
    statistics::summary,
};

/// Changes in one sample, one after the other.
const CHANGES: u32 = 5;
/// Between a publication and the next edit.
const REST: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks into the log.
const GLANCE: Duration = Duration::from_millis(10);
/// Edits while requests are served: ten a second.
const EVERY: Duration = Duration::from_millis(100);
/// How long the last of them may take; fewer publications than edits are no error, but told.
const LAST: Duration = Duration::from_secs(1);
/// How long each state of the proxy is looked at before the other has its turn: long enough for some changes and for a p99 that is not the worst of all,
/// short enough that most slices see no stall of a shared machine. Such a stall, of five milliseconds, is a p99 by itself.
const SLICE: Duration = Duration::from_millis(500);

/// The lines of the pipeline about one change, as the log has them.
#[derive(Debug, Default)]
struct Told {
    /// Milliseconds from the decoded event to the end of its translation, of each change.
    translated: Vec<f64>,
    /// Milliseconds from there until every worker serves it.
    published: Vec<f64>,
}

impl Told {
    fn line(&mut self, line: &str) {
        if line.contains(" translated ") {
            self.translated.extend(value(line, "took=").and_then(milliseconds));
        } else if line.contains(" routes changed ") {
            self.published.extend(value(line, "took_us=").and_then(|us| us.parse::<f64>().ok()).map(|us| us / 1e3));
        }
    }
}

/// A log that is followed. Each reading goes on where the last one ended: one that began at the first line again, every ten milliseconds, would take CPU
/// that the proxy may want.
struct Log<R> {
    source: R,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    told: Told,
}

impl Log<File> {
    /// From now on.
    fn of(running: &Running) -> anyhow::Result<Self> {
        let mut source = File::open(running.log()).context("the log")?;
        source.seek(SeekFrom::End(0)).context("the log")?;
        Ok(Self::new(source))
    }
}

impl<R: Read> Log<R> {
    fn new(source: R) -> Self {
        Self { source, begun: Vec::new(), told: Told::default() }
    }

    /// What it has told so far.
    fn read(&mut self) -> anyhow::Result<&Told> {
        self.source.read_to_end(&mut self.begun).context("the log")?;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.begun.drain(..whole).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            self.told.line(line);
        }
        Ok(&self.told)
    }

    /// Waits until it tells of so many publications. Whether it does in time.
    fn published(&mut self, count: usize, patience: Duration) -> anyhow::Result<bool> {
        let end = Instant::now() + patience;
        while self.read()?.published.len() < count {
            if Instant::now() >= end {
                return Ok(false);
            }
            child::pause(GLANCE)?;
        }
        Ok(true)
    }
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(name).nth(1)?.split_whitespace().next()
}

/// A `Duration` as `Debug` shows it: `1.5ms`, `830.2µs`, `2s`.
fn milliseconds(text: &str) -> Option<f64> {
    [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)]
        .into_iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// Changes one route after another; from decoded to published, and CPU of all threads but the data plane's, in ms.
pub fn one_by_one(running: &mut Running, scene: &Scene, run: u8) -> anyhow::Result<Sample> {
    let folder = RouteFolder::of(running.folder.path(), scene.backend.http);
    let mut log = Log::of(running)?;
    let before = procfs::cpu_by_plane(running.child.id())?.control;
    for change in 0..CHANGES {
        let number = (u32::from(run) * CHANGES + change).wrapping_mul(7919) % scene.routes;
        folder.edit(number, u32::from(run) + 1)?;
        anyhow::ensure!(log.published(change as usize + 1, PATIENCE)?, "an edit was not served within {PATIENCE:?}");
        child::pause(REST)?;
    }
    let spent = procfs::cpu_by_plane(running.child.id())?.control.saturating_sub(before);
    let told = log.read()?;
    let last = |times: &[f64]| {
        let times = times.get(times.len().saturating_sub(CHANGES as usize)..).unwrap_or_default();
        summary(times).map(|summary| summary.median).context("the log tells no times")
    };
    let values = vec![last(&told.translated)? + last(&told.published)?, spent as f64 / 1e6 / f64::from(CHANGES)];
    Ok(Sample { values, operations: CHANGES.into(), ..Sample::default() })
}

/// A pair: at rest, and while ten routes are changed a second, a slice of each in turn; which comes first alternates. A stall of the machine hits one slice
/// then, of which the median knows nothing. At rest as many files are changed beside those that are served: what that costs the load generator, on whose
/// core it is done, is not the proxy's. Without a rate, in a closed loop, CPU alone is told: times there are those of a queue.
pub fn churn(bench: &Bench, running: &Running, scene: &Scene, rate: Option<f64>, run: u8) -> anyhow::Result<Sample> {
    if let [workers, others] = scene.cores[..] {
        child::part_planes(running.child.id(), workers, others)?;
    }
    let (mut rest, mut changing) = (Vec::new(), Vec::new());
    let at_rest = |number| at_rest(bench, running, scene, rate, number);
    let while_changing = |number| while_changing(bench, running, scene, rate, number);
    for slice in 0..bench.slices {
        let number = u32::from(run) * u32::from(bench.slices) + u32::from(slice);
        if number.is_multiple_of(2) {
            rest.push(at_rest(number)?);
            changing.push(while_changing(number)?);
        } else {
            changing.push(while_changing(number)?);
            rest.push(at_rest(number)?);
        }
    }
    let (rest, changing) = (Slices(rest), Slices(changing));
    let cpu = changing.cpu_us() / rest.cpu_us();
    let values = match rate {
        Some(_) => {
            let tail = changing.p99_us()? / rest.p99_us()?;
            vec![cpu, tail, rest.cpu_us(), changing.cpu_us(), rest.p99_us()?, changing.p99_us()?]
        }
        None => vec![cpu, rest.cpu_us(), changing.cpu_us()],
    };
    let all = || rest.0.iter().chain(&changing.0);
    let (edits, published) =
        changing.0.iter().fold((0, 0), |(edits, published), slice| (edits + slice.edits, published + slice.published));
    Ok(Sample {
        values,
        operations: all().map(|slice| slice.outcome.operations).sum(),
        warm_up: all().map(|slice| slice.outcome.warm_up).sum(),
        errors: all().map(|slice| slice.outcome.errors).sum(),
        example: all().find_map(|slice| slice.outcome.example.clone()),
        note: Some(format!("{edits} edits gave {published} publications")),
    })
}

struct Loaded {
    outcome: Outcome,
    /// Of the data plane's threads, in nanoseconds.
    cpu: u64,
    edits: u32,
    published: usize,
}

struct Slices(Vec<Loaded>);

impl Slices {
    /// Per request.
    fn cpu_us(&self) -> f64 {
        let (cpu, operations): (u64, u64) =
            self.0.iter().fold((0, 0), |(cpu, operations), slice| (cpu + slice.cpu, operations + slice.outcome.operations));
        cpu as f64 / 1e3 / operations as f64
    }

    /// The median of the slices.
    fn p99_us(&self) -> anyhow::Result<f64> {
        let all: Vec<f64> = self.0.iter().map(|slice| slice.outcome.p99_us).collect();
        Ok(summary(&all).context("no slice")?.median)
    }
}

fn loaded(bench: &Bench, running: &Running, scene: &Scene, rate: Option<f64>) -> anyhow::Result<Loaded> {
    let kind = Kind::Get { hosts: Some(scene.routes) };
    let load = Load { tls: false, kind, connections: 50, rate, time: SLICE };
    let task = traffic::task(running, &load);
    let mut generator = bench.load(&task)?;
    let before = procfs::cpu_by_plane(running.child.id())?;
    let outcome = Bench::go(&mut generator, &task)?;
    let Planes { data, .. } = procfs::cpu_by_plane(running.child.id())?;
    anyhow::ensure!(outcome.operations > 0, "nothing was done: {}", outcome.example.as_deref().unwrap_or("no error"));
    Ok(Loaded { outcome, cpu: data.saturating_sub(before.data), edits: 0, published: 0 })
}

fn at_rest(bench: &Bench, running: &Running, scene: &Scene, rate: Option<f64>, number: u32) -> anyhow::Result<Loaded> {
    let folder = RouteFolder::beside(running.folder.path(), scene.backend.http)?;
    Ok(edited(folder, scene.routes, number, || loaded(bench, running, scene, rate))?.0)
}

fn while_changing(bench: &Bench, running: &Running, scene: &Scene, rate: Option<f64>, number: u32) -> anyhow::Result<Loaded> {
    let folder = RouteFolder::of(running.folder.path(), scene.backend.http);
    let mut log = Log::of(running)?;
    let (loaded, edits) = edited(folder, scene.routes, number, || loaded(bench, running, scene, rate))?;
    // The last one may be under way still.
    log.published(edits as usize, LAST)?;
    Ok(Loaded { edits, published: log.told.published.len(), ..loaded })
}

/// Edits files of a folder for as long as something takes. Gives what came of that, and the number of edits.
fn edited<T>(
    folder: RouteFolder,
    routes: u32,
    number: u32,
    meanwhile: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, u32)> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let editor = std::thread::spawn(move || {
        let mut edits = 0_u32;
        let mut next = Instant::now();
        while !stopped.load(Ordering::Relaxed) {
            folder.edit((number * 1000 + edits).wrapping_mul(7919) % routes, number * 1000 + edits + 1)?;
            edits += 1;
            next += EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        anyhow::Ok(edits)
    });
    let outcome = meanwhile();
    stop.store(true, Ordering::Relaxed);
    let edits = editor.join().map_err(|_| anyhow::anyhow!("the editor of routes failed"))??;
    Ok((outcome?, edits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_log_are_read() {
        let line = "2026-01-01T00:00:00Z DEBUG translated changes=1 took=1.25ms";
        assert_eq!(value(line, "took=").and_then(milliseconds), Some(1.25));
        assert_eq!(milliseconds("500µs"), Some(0.5));
        assert_eq!(milliseconds("2s"), Some(2000.0));
        assert_eq!(milliseconds("fast"), None);
    }

    #[test]
    fn a_log_is_read_on_from_where_it_was() {
        let line = "2026-01-01T00:00:00Z  INFO routes changed hosts=1 changed=a.test took_us=250\n";
        let (begun, rest) = line.split_at(40);
        let mut log = Log::new(std::io::Cursor::new(begun.as_bytes().to_vec()));
        assert!(log.read().unwrap().published.is_empty(), "a line that is not whole");
        log.source.get_mut().extend_from_slice(rest.as_bytes());
        assert_eq!(log.read().unwrap().published, [0.25]);
        assert_eq!(log.read().unwrap().published, [0.25], "nothing is read twice");
    }
}
