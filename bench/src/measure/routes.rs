//! What many routes cost at rest: CPU until they are served, memory, and CPU per request that goes round all of them.

use std::time::Duration;

use super::{Bench, Sample, traffic};
use crate::{
    child,
    load::Kind,
    peers::{Running, Scene},
    procfs,
    rows::Load,
};

/// Until what the start needed is given back.
const SETTLE: Duration = Duration::from_millis(1500);

pub fn routes(bench: &Bench, mut running: Running, scene: &Scene) -> anyhow::Result<Sample> {
    let start = procfs::cpu(running.child.id())?;
    child::pause(SETTLE)?;
    let memory = procfs::memory(running.child.id())?;
    let load = Load {
        tls: false,
        kind: Kind::Get { hosts: Some(scene.routes) },
        connections: 50,
        rate: None,
        time: Duration::from_secs(1),
    };
    let mut sample = traffic::cpu(bench, &mut running, &load, false)?;
    sample.values.insert(0, memory as f64 / f64::from(1 << 20));
    sample.values.push(start as f64 / 1e6);
    Ok(sample)
}
