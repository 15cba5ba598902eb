//! A run: experiment by experiment, in rounds, the peers taking turns.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Context;

use crate::{
    backend::Addresses,
    certificate::Certificate,
    child::Child,
    cli::Options,
    interrupt,
    machine::{self, Machine},
    measure::{self, Bench, Sample},
    peers::{self, Kind, Peer, Running, Scene},
    report::{self, Figure, PeerInfo, Places, Results, RowResult, results::digits},
    rows::{self, Experiment},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The whole bench.
pub fn run(options: &Options) -> anyhow::Result<()> {
    interrupt::listen()?;
    let experiments = rows::chosen(&options.rows, options.quick);
    anyhow::ensure!(!experiments.is_empty(), "no experiment is named so; `penstock-bench list` names them");
    let (peers, missing) = peers::find(options)?;
    for missing in &missing {
        eprintln!("not measured: {missing}");
    }
    let places = match (&options.out, options.docs) {
        (_, true) => Places::docs(),
        (Some(folder), false) => Places::in_folder(folder.clone()),
        (None, false) => Places::in_folder(peers::target()?.join("bench")),
    };
    let runs = options.runs.unwrap_or(if options.quick { 3 } else { 5 });
    let began = Instant::now();
    let info = |peer: &Peer| PeerInfo { name: peer.name.clone(), version: peer.version.clone(), ours: peer.kind == Kind::Penstock };
    let mut results = Results {
        date: machine::today(),
        machine: Machine::here(),
        load_before: machine::load_average(),
        minutes: 0.0,
        runs,
        quick: options.quick,
        peers: peers.iter().map(info).collect(),
        missing,
        rows: Vec::new(),
    };
    let folder = tempfile::Builder::new().prefix("penstock-bench-").tempdir()?;
    let mut backend = Child::own("backend", options.cores.load)?;
    let addresses: Addresses = serde_json::from_str(&backend.hear(PATIENCE)?)?;
    let certificate = Certificate::make(folder.path())?;
    let mut stage = Stage {
        bench: Bench { load_core: options.cores.load },
        peers,
        options,
        backend: addresses,
        certificate,
        key: None,
        running: BTreeMap::new(),
    };
    for experiment in &experiments {
        let rows = stage.perform(experiment, experiment.runs(runs, options.quick))?;
        results.rows.extend(rows);
        results.minutes = began.elapsed().as_secs_f64() / 60.0;
        // A run that is cut short leaves what it has.
        report::write(&results, &places)?;
    }
    drop(stage);
    print!("{}", report::table(&results));
    println!("{}, {}", places.page.display(), places.folder.join("results.json").display());
    Ok(())
}

/// What proxies are started for; while it stays the same they go on.
type SceneKey = (bool, u32, bool);

struct Stage<'a> {
    bench: Bench,
    peers: Vec<Peer>,
    options: &'a Options,
    backend: Addresses,
    certificate: Certificate,
    key: Option<SceneKey>,
    running: BTreeMap<String, Running>,
}

impl Stage<'_> {
    fn perform(&mut self, experiment: &Experiment, runs: u8) -> anyhow::Result<Vec<RowResult>> {
        let key = (experiment.access_log, experiment.routes, experiment.both_cores);
        if self.key != Some(key) || !measure::shares_a_proxy(&experiment.measure) {
            self.running.clear();
            self.key = Some(key);
        }
        let cores = self.options.cores;
        let scene = Scene {
            backend: self.backend,
            certificate: self.certificate.clone(),
            cores: if experiment.both_cores { vec![cores.proxy, cores.load] } else { vec![cores.proxy] },
            access_log: experiment.access_log,
            routes: experiment.routes,
        };
        let mut rows: Vec<RowResult> = experiment
            .rows
            .iter()
            .map(|row| RowResult {
                experiment: experiment.name.to_owned(),
                group: experiment.group,
                title: row.title.clone(),
                unit: row.unit,
                target: row.target,
                figures: BTreeMap::new(),
            })
            .collect();
        let mut peers: Vec<Peer> = self.peers.iter().filter(|peer| experiment.who.holds(peer.kind)).cloned().collect();
        for run in 0..runs {
            for peer in &peers {
                let sample = self.sample(experiment, peer, &scene, run);
                interrupt::check()?;
                note(experiment, &mut rows, peer, run, runs, sample);
            }
            // Nobody always comes after the same one.
            let first = 1.min(peers.len());
            peers.rotate_left(first);
        }
        Ok(rows)
    }

    fn sample(&mut self, experiment: &Experiment, peer: &Peer, scene: &Scene, run: u8) -> anyhow::Result<Sample> {
        if !measure::shares_a_proxy(&experiment.measure) {
            return measure::of_fresh(&self.bench, experiment, peer, scene);
        }
        if !self.running.contains_key(&peer.name) {
            self.running.insert(peer.name.clone(), peers::start(peer, scene)?);
        }
        let running = self.running.get_mut(&peer.name).context("it runs")?;
        let sample = measure::of_running(&self.bench, experiment, running, scene, run);
        if experiment.access_log {
            // The disk is not what is measured.
            let _ = std::fs::File::options().write(true).open(running.log()).and_then(|log| log.set_len(0));
        }
        if sample.is_err() {
            // Whatever state it is in, the next sample finds a fresh one.
            self.running.remove(&peer.name);
        }
        sample
    }
}

/// Tells of a sample, and keeps it.
fn note(experiment: &Experiment, rows: &mut [RowResult], peer: &Peer, run: u8, runs: u8, sample: anyhow::Result<Sample>) {
    let told = match &sample {
        Ok(sample) => {
            let values: Vec<String> = sample.values.iter().copied().map(digits).collect();
            let errors = if sample.errors > 0 { format!(", {} errors", sample.errors) } else { String::new() };
            format!("{}{errors}", values.join(", "))
        }
        Err(error) => format!("failed: {error:#}"),
    };
    eprintln!("{} {}/{runs} {}: {told}", experiment.name, run + 1, peer.name);
    let sample = sample.unwrap_or_else(|error| Sample { errors: 1, example: Some(format!("{error:#}")), ..Sample::default() });
    for (index, row) in rows.iter_mut().enumerate() {
        let figure: &mut Figure = row.figures.entry(peer.name.clone()).or_default();
        figure.samples.extend(sample.values.get(index));
        figure.operations += sample.operations;
        figure.errors += sample.errors;
        figure.example = figure.example.take().or_else(|| sample.example.clone());
        figure.note.clone_from(&sample.note);
    }
}
