//! How a sample of an experiment is taken. Each gives one value for each row, and what went wrong on the way.

mod access_log;
mod changes;
mod memory;
mod routes;
mod traffic;

use std::time::Duration;

use anyhow::Context;

use crate::{
    child::Child,
    load::{Outcome, Task},
    peers::{Running, Scene},
    rows::{Experiment, Measure},
};
use access_log::AccessLog;

/// How long a load generator may take beyond the time that it was given.
const BEYOND: Duration = Duration::from_secs(90);

/// One value for each row of the experiment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub values: Vec<f64>,
    pub operations: u64,
    /// Those before, that no value counts.
    pub warm_up: u64,
    pub errors: u64,
    pub example: Option<String>,
    /// What a reader of the figure should know.
    pub note: Option<String>,
}

impl Sample {
    fn of(outcome: Outcome, values: Vec<f64>) -> Self {
        Self {
            values,
            operations: outcome.operations,
            warm_up: outcome.warm_up,
            errors: outcome.errors,
            example: outcome.example,
            note: None,
        }
    }
}

/// What a sample needs besides a proxy.
#[derive(Debug)]
pub struct Bench {
    pub load_core: usize,
    /// Into how many a sample is cut that compares two states of one proxy.
    pub slices: u8,
}

impl Bench {
    /// A load generator that has connected and warmed up.
    fn load(&self, task: &Task) -> anyhow::Result<Child> {
        let mut load = Child::own("load", self.load_core)?;
        load.say(&serde_json::to_string(task)?)?;
        let ready = load.hear(task.warm_up + BEYOND)?;
        anyhow::ensure!(ready == "\"ready\"", "the load generator said {ready}");
        Ok(load)
    }

    /// The phase that counts.
    fn go(load: &mut Child, task: &Task) -> anyhow::Result<Outcome> {
        load.say("go")?;
        Ok(serde_json::from_str(&load.hear(task.time + BEYOND)?)?)
    }
}

/// Whether samples of this kind can share one running proxy.
pub fn shares_a_proxy(measure: &Measure) -> bool {
    !matches!(measure, Measure::Held { .. } | Measure::Routes)
}

/// One sample from a proxy that runs.
pub fn of_running(bench: &Bench, experiment: &Experiment, running: &mut Running, scene: &Scene, run: u8) -> anyhow::Result<Sample> {
    let log = if experiment.access_log { Some(AccessLog::begin(running).context("the access log")?) } else { None };
    let mut sample = match &experiment.measure {
        Measure::Cpu(load) => traffic::cpu(bench, running, load, false),
        Measure::CpuAndTime(load) => traffic::cpu(bench, running, load, true),
        Measure::Latency(load) => traffic::latency(bench, running, load),
        Measure::Change => changes::one_by_one(running, scene, run),
        Measure::Churn { rate } => changes::churn(bench, running, scene, *rate, run),
        Measure::Held { .. } | Measure::Routes => anyhow::bail!("this needs a proxy of its own"),
    }?;
    if let Some(log) = log {
        log.check(&mut sample)?;
    }
    Ok(sample)
}

/// One sample from a proxy that was started for it just now.
pub fn of_fresh(bench: &Bench, experiment: &Experiment, running: Running, scene: &Scene) -> anyhow::Result<Sample> {
    match experiment.measure {
        Measure::Held { tunnels, tls, count } => memory::held(bench, &running, tunnels, tls, count),
        Measure::Routes => routes::routes(bench, running, scene),
        _ => anyhow::bail!("this needs a proxy that runs"),
    }
}
