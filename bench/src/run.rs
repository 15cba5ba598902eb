//! A run: experiment by experiment, in rounds, the peers taking turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    backend::Addresses,
    certificate::Certificate,
    child::{self, Child},
    cli::Options,
    interrupt,
    machine::{self, Machine},
    measure::{self, Bench, Sample},
    peers::{self, Kind, Peer, Running, Scene},
    report::{self, Figure, PeerInfo, Places, Results, RowResult, results::digits, tables},
    rows::{self, Experiment},
};

/// How long the backend may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// On a machine with less than so many cores at work, looked at for so long, nobody else measures or builds.
const QUIET: f64 = 0.3;
const LOOK: Duration = Duration::from_secs(5);
/// Starts of a proxy in one scene that may fail before it is not tried again: once may be chance.
const STARTS: u8 = 2;

/// The whole bench.
pub fn run(options: &Options) -> anyhow::Result<()> {
    interrupt::listen()?;
    let experiments = rows::chosen(&options.rows, options.quick);
    anyhow::ensure!(!experiments.is_empty(), "no experiment is named so; `penstock-bench list` names them");
    let (peers, missing) = peers::find(options)?;
    if !missing.is_empty() {
        eprintln!("Not all proxies are here. These are NOT measured:");
        for missing in &missing {
            eprintln!("  {missing}");
        }
    }
    let places = Places::in_folder(options.out.clone().map_or_else(|| Ok(peers::target()?.join("bench")), anyhow::Ok)?);
    let earlier = if options.keep { report::earlier(&places)? } else { None };
    let runs = options.runs.unwrap_or(if options.quick { 3 } else { 5 });
    // Asked before this process has one core only.
    let machine = Machine::here();
    // Where it takes nothing from proxies that run on a core of their own. Not before the build, which may have all.
    child::stand_on(&[options.cores.load])?;
    let load_before = settle(Duration::from_secs(options.settle.unwrap_or(if options.quick { 60 } else { 300 })))?;
    let began = Instant::now();
    let info = |peer: &Peer| PeerInfo { name: peer.name.clone(), version: peer.version.clone(), ours: peer.kind == Kind::Penstock };
    let mut results = Results {
        date: machine::today(),
        machine,
        load_before,
        minutes: 0.0,
        runs,
        quick: options.quick,
        peers: peers.iter().map(info).collect(),
        missing,
        rows: Vec::new(),
        tables: tables::found(&peers::target()?),
    };
    if let Some(earlier) = earlier {
        results.keep(earlier)?;
    }
    let minutes_before = results.minutes;
    let folder = tempfile::Builder::new().prefix("penstock-bench-").tempdir()?;
    let mut backend = Child::own("backend", options.cores.load)?;
    let addresses: Addresses = serde_json::from_str(&backend.hear(PATIENCE)?)?;
    let certificate = Certificate::make(folder.path())?;
    let mut stage = Stage {
        bench: Bench { load_core: options.cores.load, slices: if options.quick { 4 } else { 16 } },
        peers,
        options,
        backend,
        addresses,
        certificate,
        key: None,
        running: BTreeMap::new(),
        failures: BTreeMap::new(),
    };
    for experiment in &experiments {
        let rows = stage.perform(experiment, experiment.runs(runs, options.quick))?;
        results.put(experiment.name, rows);
        results.minutes = minutes_before + began.elapsed().as_secs_f64() / 60.0;
        // A run that is cut short leaves what it has.
        report::write(&results, &places)?;
    }
    drop(stage);
    print!("{}", report::table(&results));
    let measured: BTreeSet<&str> = experiments.iter().map(|experiment| experiment.name).collect();
    let measured = results.rows.iter().filter(|row| measured.contains(row.experiment.as_str()));
    let any = measured.flat_map(|row| row.figures.values()).any(|figure| !figure.samples.is_empty());
    anyhow::ensure!(any, "nothing could be measured");
    if options.docs {
        // Only now: a page is torn by half a run.
        let docs = Places::docs();
        report::write(&results, &docs)?;
        println!("{}", docs.page.display());
    }
    println!("{}, {}", places.page.display(), places.folder.join("results.json").display());
    Ok(())
}

/// Waits until nobody else is at work on the machine, but not for ever. Gives how many cores are at work then.
fn settle(most: Duration) -> anyhow::Result<f64> {
    let end = Instant::now() + most;
    let mut told = false;
    loop {
        let busy = machine::busy(LOOK)?;
        if busy < QUIET {
            return Ok(busy);
        }
        if Instant::now() >= end {
            eprintln!("{busy:.2} cores are busy with other things; measured all the same");
            return Ok(busy);
        }
        if !told {
            eprintln!(
                "{busy:.2} cores are busy with other things; waiting until it is less than {QUIET}, for {} s at most",
                most.as_secs()
            );
            told = true;
        }
    }
}

/// What proxies are started for; while it stays the same they go on.
type SceneKey = (bool, u32, bool);

struct Stage<'a> {
    bench: Bench,
    peers: Vec<Peer>,
    options: &'a Options,
    backend: Child,
    addresses: Addresses,
    certificate: Certificate,
    key: Option<SceneKey>,
    running: BTreeMap<String, Running>,
    /// Starts that failed one after the other, and why the last one did: of a proxy in a scene.
    failures: BTreeMap<(String, SceneKey), (u8, String)>,
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
            backend: self.addresses,
            certificate: self.certificate.clone(),
            cores: if experiment.both_cores { vec![cores.proxy, cores.load] } else { vec![cores.proxy] },
            access_log: experiment.access_log,
            routes: experiment.routes,
        };
        let mut peers: Vec<Peer> = self.peers.iter().filter(|peer| experiment.who.holds(peer.kind)).cloned().collect();
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
                date: machine::today(),
                runs,
                versions: peers.iter().map(|peer| (peer.name.clone(), peer.version.clone())).collect(),
            })
            .collect();
        for run in 0..runs {
            for peer in &peers {
                // Without it every further sample would be one of errors.
                self.backend.check()?;
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
            let running = self.start(peer, scene)?;
            return measure::of_fresh(&self.bench, experiment, running, scene);
        }
        if !self.running.contains_key(&peer.name) {
            let running = self.start(peer, scene)?;
            self.running.insert(peer.name.clone(), running);
        }
        let running = self.running.get_mut(&peer.name).context("it runs")?;
        let sample = measure::of_running(&self.bench, experiment, running, scene, run);
        if sample.is_err() {
            // Whatever state it is in, the next sample finds a fresh one.
            self.running.remove(&peer.name);
        }
        sample
    }

    /// Starts a proxy, unless it has been seen that it can't be: a start that never comes to serve takes all the time that it is given, each time.
    fn start(&mut self, peer: &Peer, scene: &Scene) -> anyhow::Result<Running> {
        let place = (peer.name.clone(), self.key.context("a scene")?);
        if let Some((_, error)) = self.failures.get(&place).filter(|(times, _)| *times >= STARTS) {
            anyhow::bail!("not tried again: {error}");
        }
        let started = peers::start(peer, scene);
        match &started {
            Ok(_) => {
                self.failures.remove(&place);
            }
            Err(error) => {
                let (times, last) = self.failures.entry(place).or_default();
                (*times, *last) = (*times + 1, format!("{error:#}"));
            }
        }
        started
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
