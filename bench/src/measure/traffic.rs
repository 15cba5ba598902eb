//! CPU per operation, and latency.

use std::time::Duration;

use super::{Bench, Sample};
use crate::{load::Task, peers::Running, procfs, rows::Load};

const WARM_UP: Duration = Duration::from_millis(300);

/// The load on this proxy.
pub fn task(running: &Running, load: &Load) -> Task {
    Task {
        address: if load.tls { running.https } else { running.http },
        tls: load.tls,
        kind: load.kind,
        connections: load.connections,
        rate: load.rate,
        warm_up: WARM_UP,
        time: load.time,
    }
}

/// CPU of all threads of the proxy, divided by the operations: in µs; or in ms, with the median and p99 of the time of an operation.
pub fn cpu(bench: &Bench, running: &mut Running, load: &Load, time: bool) -> anyhow::Result<Sample> {
    let task = task(running, load);
    let mut generator = bench.load(&task)?;
    let before = procfs::cpu(running.child.id())?;
    let outcome = Bench::go(&mut generator, &task)?;
    let spent = procfs::cpu(running.child.id())?.saturating_sub(before);
    anyhow::ensure!(outcome.operations > 0, "nothing was done: {}", outcome.example.as_deref().unwrap_or("no error"));
    let each = spent as f64 / outcome.operations as f64;
    let values = if time { vec![each / 1e6, outcome.p50_us / 1e3, outcome.p99_us / 1e3] } else { vec![each / 1e3] };
    Ok(Sample::of(outcome, values))
}

/// p50 and p99 in µs.
pub fn latency(bench: &Bench, running: &Running, load: &Load) -> anyhow::Result<Sample> {
    let task = task(running, load);
    let mut generator = bench.load(&task)?;
    let outcome = Bench::go(&mut generator, &task)?;
    anyhow::ensure!(outcome.operations > 0, "nothing was done: {}", outcome.example.as_deref().unwrap_or("no error"));
    let values = vec![outcome.p50_us, outcome.p99_us];
    Ok(Sample::of(outcome, values))
}
