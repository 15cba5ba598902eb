//! Memory per connection that holds still: the difference that so many of them make, in a process that has had some before.

use std::time::Duration;

use super::{BEYOND, Bench, Sample};
use crate::{
    child::{self, Child},
    load::{Held, Kind, Order, Task},
    peers::Running,
    procfs,
};

/// Connections that are open before the difference is taken: pools, tables and the first buffers are there by then.
const BEFORE: usize = 200;
/// Until what was freed is given back, and timers have run.
const SETTLE: Duration = Duration::from_millis(700);

pub fn held(bench: &Bench, running: &Running, tunnels: bool, tls: bool, count: usize) -> anyhow::Result<Sample> {
    let needed = ((count + BEFORE) * 2) as u64 + 200;
    let have = child::descriptors();
    anyhow::ensure!(have >= needed, "{needed} descriptors are needed, and {have} allowed (ulimit -n)");
    let mut load = bench.load(&Task {
        address: if tls { running.https } else { running.http },
        tls,
        kind: Kind::Hold { tunnels },
        connections: 0,
        rate: None,
        warm_up: Duration::ZERO,
        time: Duration::ZERO,
    })?;
    let mut sample = Sample::default();
    order(&mut load, &Order::Open(BEFORE), &mut sample)?;
    child::pause(SETTLE)?;
    let before = procfs::memory(running.child.id())?;
    let more = order(&mut load, &Order::Open(count), &mut sample)?;
    child::pause(SETTLE)?;
    let after = procfs::memory(running.child.id())?;
    anyhow::ensure!(more > 0, "none could be opened: {}", sample.example.as_deref().unwrap_or("no error"));
    // A connection that was dropped meanwhile costs nothing, and must not count as cheap.
    order(&mut load, &Order::Check, &mut sample)?;
    sample.values = vec![after.saturating_sub(before) as f64 / more as f64 / 1024.0];
    Ok(sample)
}

/// Has an order carried out; gives how often that went well.
fn order(load: &mut Child, order: &Order, sample: &mut Sample) -> anyhow::Result<usize> {
    load.say(&serde_json::to_string(order)?)?;
    let held: Held = serde_json::from_str(&load.hear(BEYOND * 2)?)?;
    sample.operations += held.well as u64;
    sample.errors += held.errors;
    sample.example = sample.example.take().or(held.example);
    Ok(held.well)
}
