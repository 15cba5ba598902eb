//! What is measured: experiments, and the rows of the table that each gives.
//!
//! An experiment is one way of loading a proxy; a sample of it gives one value for each of its rows. Targets are the project's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{load::Kind, peers};

/// A row's unit. In all of them less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    #[serde(rename = "µs")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "KiB")]
    Kibibytes,
    #[serde(rename = "MiB")]
    Mebibytes,
    /// One figure divided by another.
    #[serde(rename = "×")]
    Times,
}

impl Unit {
    pub fn text(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Kibibytes => "KiB",
            Self::Mebibytes => "MiB",
            Self::Times => "×",
        }
    }
}

/// What Penstock means to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At most so many times the best of nginx and HAProxy.
    OfBest(f64),
    /// At most this, in the row's unit.
    AtMost(f64),
}

/// A part of the page, with a plot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    Requests,
    Latency,
    Bodies,
    Tls,
    Websockets,
    Memory,
    Routes,
    Changes,
}

impl Group {
    pub const ALL: [Self; 8] =
        [Self::Requests, Self::Latency, Self::Bodies, Self::Tls, Self::Websockets, Self::Memory, Self::Routes, Self::Changes];

    pub fn title(self) -> &'static str {
        match self {
            Self::Requests => "CPU per request",
            Self::Latency => "Latency at 2 000 requests a second",
            Self::Bodies => "Large bodies",
            Self::Tls => "TLS handshakes",
            Self::Websockets => "WebSockets",
            Self::Memory => "Memory per idle connection",
            Self::Routes => "Many routes",
            Self::Changes => "Changes of routes",
        }
    }

    /// The name of its plot.
    pub fn file(self) -> &'static str {
        match self {
            Self::Requests => "requests.svg",
            Self::Latency => "latency.svg",
            Self::Bodies => "bodies.svg",
            Self::Tls => "tls.svg",
            Self::Websockets => "websockets.svg",
            Self::Memory => "memory.svg",
            Self::Routes => "routes.svg",
            Self::Changes => "changes.svg",
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub title: String,
    pub unit: Unit,
    pub target: Option<Target>,
}

/// Load as a sample of it is made, but for the address.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub tls: bool,
    pub kind: Kind,
    pub connections: usize,
    pub rate: Option<f64>,
    pub time: Duration,
}

/// How a sample is taken.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// CPU of all threads for each operation of a closed loop.
    Cpu(Load),
    /// The same, and the median and p99 of the time of an operation.
    CpuAndTime(Load),
    /// p50 and p99 of an open loop.
    Latency(Load),
    /// Memory of each connection that holds still.
    Held { tunnels: bool, tls: bool, count: usize },
    /// CPU of a start, memory at rest, CPU for each request, with so many routes.
    Routes,
    /// One route changed among so many, again and again.
    Change,
    /// Ten changes a second against rest: at so many requests a second, or in a closed loop.
    Churn { rate: Option<f64> },
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    All,
    /// Those that are configured for some thousand routes here.
    Routed,
    /// Those that are held against each other also where it takes long.
    Main,
    Penstock,
}

impl Who {
    pub fn holds(self, kind: peers::Kind) -> bool {
        match self {
            Self::All => true,
            // Caddy's form of it is a site block with a pool of connections of its own for each route: that would measure connects.
            Self::Routed => kind != peers::Kind::Caddy,
            Self::Main => peers::Kind::MAIN.contains(&kind),
            Self::Penstock => kind == peers::Kind::Penstock,
        }
    }
}

/// One way of loading a proxy.
#[derive(Clone, Debug)]
pub struct Experiment {
    pub name: &'static str,
    pub group: Group,
    /// Part of `--quick`.
    pub quick: bool,
    pub who: Who,
    pub access_log: bool,
    /// Routes besides the usual one.
    pub routes: u32,
    /// The proxy may use both cores.
    pub both_cores: bool,
    pub measure: Measure,
    pub rows: Vec<Row>,
}

impl Experiment {
    fn new(name: &'static str, group: Group, measure: Measure, rows: Vec<Row>) -> Self {
        Self { name, group, quick: false, who: Who::All, access_log: false, routes: 0, both_cores: false, measure, rows }
    }

    fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// How often a sample is taken if `runs` are asked for. Memory hardly varies, and takes long for a quick look; tails vary much.
    pub fn runs(&self, runs: u8, quick: bool) -> u8 {
        match self.measure {
            Measure::Held { .. } | Measure::Routes if quick => 1,
            Measure::Churn { .. } | Measure::Latency(_) if !quick => runs.max(7),
            _ => runs,
        }
    }
}

fn row(title: impl Into<String>, unit: Unit, target: Option<Target>) -> Row {
    Row { title: title.into(), unit, target }
}

const CLIENTS: usize = 50;
/// HTTP/2: connections, and requests under way on each.
const CONNECTIONS: usize = 5;
const STREAMS: usize = 10;
const RATE: f64 = 2000.0;
/// The share of CPU that changes of routes may add to a request.
const CHURN: Option<Target> = Some(Target::AtMost(1.05));
const BODIES_RATE: f64 = 50.0;
const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// All of them, in the order of the table.
pub fn experiments() -> Vec<Experiment> {
    use Target::{AtMost, OfBest};
    use Unit::{Kibibytes, Mebibytes, Microseconds, Milliseconds, Times};
    let closed = |tls, kind, connections| Load { tls, kind, connections, rate: None, time: SECOND };
    let get = Kind::Get { hosts: None };
    let get2 = Kind::Get2 { streams: STREAMS };
    let grpc = Kind::Grpc { streams: STREAMS };
    let mut all = Vec::new();

    for (name, title, load, target) in [
        ("h1", "HTTP/1.1", closed(false, get, CLIENTS), Some(OfBest(0.9))),
        ("h1-tls", "HTTP/1.1 over TLS", closed(true, get, CLIENTS), Some(OfBest(0.9))),
        ("h2-tls", "HTTP/2 over TLS", closed(true, get2, CONNECTIONS), Some(OfBest(0.8))),
        ("grpc", "gRPC unary over TLS", closed(true, grpc, CONNECTIONS), None),
    ] {
        all.push(Experiment::new(name, Group::Requests, Measure::Cpu(load), vec![row(title, Microseconds, target)]).quick());
    }
    let rows = vec![row("HTTP/1.1 with an access log", Microseconds, None)];
    let logged = Experiment::new("h1-log", Group::Requests, Measure::Cpu(closed(false, get, CLIENTS)), rows);
    all.push(Experiment { access_log: true, ..logged });

    for (name, title, load) in [
        ("latency-h1", "HTTP/1.1", closed(false, get, CLIENTS)),
        ("latency-h1-tls", "HTTP/1.1 over TLS", closed(true, get, CLIENTS)),
        ("latency-h2-tls", "HTTP/2 over TLS", closed(true, get2, CONNECTIONS)),
        ("latency-grpc", "gRPC unary over TLS", closed(true, grpc, CONNECTIONS)),
    ] {
        let load = Load { rate: Some(RATE), time: SECOND * 2, ..load };
        let rows = vec![row(format!("{title}, p50"), Microseconds, None), row(format!("{title}, p99"), Microseconds, None)];
        let experiment = Experiment::new(name, Group::Latency, Measure::Latency(load), rows);
        all.push(if name == "latency-h1" { experiment.quick() } else { experiment });
    }

    for (name, title, tls, kind) in [
        ("down-1m", "1 MiB to the client", false, Kind::Download { size: MIB }),
        ("up-1m", "1 MiB to the backend", false, Kind::Upload { size: MIB }),
        ("down-1m-tls", "1 MiB to the client over TLS", true, Kind::Download { size: MIB }),
        ("up-1m-tls", "1 MiB to the backend over TLS", true, Kind::Upload { size: MIB }),
    ] {
        let rows = vec![row(format!("{title}: CPU"), Microseconds, None)];
        all.push(Experiment::new(name, Group::Bodies, Measure::Cpu(closed(tls, kind, 4)), rows));
    }
    for (name, title, tls, kind) in [
        ("latency-down-1m", "1 MiB to the client, 50 a second", false, Kind::Download { size: MIB }),
        ("latency-up-1m", "1 MiB to the backend, 50 a second", false, Kind::Upload { size: MIB }),
        ("latency-down-1m-tls", "1 MiB to the client over TLS, 50 a second", true, Kind::Download { size: MIB }),
        ("latency-up-1m-tls", "1 MiB to the backend over TLS, 50 a second", true, Kind::Upload { size: MIB }),
    ] {
        let load = Load { rate: Some(BODIES_RATE), time: SECOND * 2, ..closed(tls, kind, 8) };
        let rows = vec![row(format!("{title}: p50"), Microseconds, None), row(format!("{title}: p99"), Microseconds, None)];
        all.push(Experiment::new(name, Group::Bodies, Measure::Latency(load), rows));
    }
    for (name, title, tls, kind) in [
        ("down-100m", "100 MiB to the client", false, Kind::Download { size: 100 * MIB }),
        ("up-100m", "100 MiB to the backend", false, Kind::Upload { size: 100 * MIB }),
        ("down-100m-tls", "100 MiB to the client over TLS", true, Kind::Download { size: 100 * MIB }),
        ("up-100m-tls", "100 MiB to the backend over TLS", true, Kind::Upload { size: 100 * MIB }),
    ] {
        let rows = vec![
            row(format!("{title}: CPU"), Milliseconds, None),
            row(format!("{title}: time, one at a time, p50"), Milliseconds, None),
            row(format!("{title}: p99"), Milliseconds, None),
        ];
        all.push(Experiment::new(name, Group::Bodies, Measure::CpuAndTime(closed(tls, kind, 1)), rows));
    }

    for (name, title, resume, target) in [
        ("handshake", "Full handshake (ECDSA P-256)", false, Some(OfBest(1.0))),
        ("handshake-resumed", "Resumed handshake", true, None),
    ] {
        let measure = Measure::Cpu(closed(true, Kind::Handshake { resume }, 8));
        all.push(Experiment::new(name, Group::Tls, measure, vec![row(title, Microseconds, target)]).quick());
    }

    for (name, title, tls, kind, connections, target) in [
        ("echo", "64-byte echo", false, Kind::Echo, CLIENTS, 1.0),
        ("echo-tls", "64-byte echo, TLS", true, Kind::Echo, CLIENTS, 0.9),
        ("flood", "4 KiB message of a flood", false, Kind::Flood, 8, 0.6),
        ("flood-tls", "4 KiB message of a flood, TLS", true, Kind::Flood, 8, 0.8),
    ] {
        let measure = Measure::Cpu(closed(tls, kind, connections));
        all.push(Experiment::new(name, Group::Websockets, measure, vec![row(title, Microseconds, Some(OfBest(target)))]).quick());
    }

    for (count, names) in [
        (2000, ["client-2000", "client-2000-tls", "tunnel-2000", "tunnel-2000-tls"]),
        (9000, ["client-9000", "client-9000-tls", "tunnel-9000", "tunnel-9000-tls"]),
    ] {
        let kinds = [
            ("Keep-alive client", false, false, 1.5),
            ("Keep-alive client, TLS", false, true, 9.0),
            ("Tunnel", true, false, 2.5),
            ("Tunnel, TLS", true, true, 10.0),
        ];
        for (name, (title, tunnels, tls, target)) in names.into_iter().zip(kinds) {
            let rows = vec![row(format!("{title}, of {count}"), Kibibytes, Some(AtMost(target)))];
            let experiment = Experiment::new(name, Group::Memory, Measure::Held { tunnels, tls, count }, rows);
            all.push(if count == 2000 { experiment.quick() } else { experiment });
        }
    }

    for (name, routes, title) in [("routes-10", 10, "10"), ("routes-5000", 5000, "5 000"), ("routes-50000", 50_000, "50 000")] {
        let rows = vec![
            row(format!("{title} routes: memory, nothing connected"), Mebibytes, (routes == 5000).then_some(AtMost(30.0))),
            row(format!("{title} routes: CPU per request, all hosts in turn"), Microseconds, None),
            row(format!("{title} routes: CPU until it serves"), Milliseconds, None),
        ];
        let experiment = Experiment::new(name, Group::Routes, Measure::Routes, rows);
        let who = if routes > 5000 { Who::Main } else { Who::Routed };
        all.push(Experiment { who, routes, quick: routes == 5000, ..experiment });
    }

    for (name, routes, title, target) in [
        ("change-10", 10, "10", None),
        ("change-5000", 5000, "5 000", Some(AtMost(2.0))),
        ("change-50000", 50_000, "50 000", Some(AtMost(10.0))),
    ] {
        let rows = vec![
            row(format!("One route of {title}: decoded to published"), Milliseconds, target),
            row(format!("One route of {title}: CPU beside the data plane, reading the folder included"), Milliseconds, None),
        ];
        let experiment = Experiment::new(name, Group::Changes, Measure::Change, rows);
        all.push(Experiment { who: Who::Penstock, routes, quick: routes == 5000, ..experiment });
    }
    for (name, both_cores, title) in
        [("churn", false, "all on one core"), ("churn-two-cores", true, "the data plane on a core of its own")]
    {
        let rows = vec![
            row(format!("5 000 routes, 10 changes a second ({title}): CPU per request, against rest"), Times, CHURN),
            row(format!("… p99, against rest ({title})"), Times, Some(AtMost(1.25))),
            row(format!("… CPU per request in the data plane's threads at rest ({title})"), Microseconds, None),
            row(format!("… CPU while routes change ({title})"), Microseconds, None),
            row(format!("… p99 at rest ({title})"), Microseconds, None),
            row(format!("… p99 while routes change ({title})"), Microseconds, None),
        ];
        let experiment = Experiment::new(name, Group::Changes, Measure::Churn { rate: Some(RATE) }, rows);
        all.push(Experiment { who: Who::Penstock, routes: 5000, both_cores, quick: !both_cores, ..experiment });
    }
    // At a fixed rate a worker mostly sleeps, and what waking it costs hides what a change does; here it always has something to do.
    let rows = vec![
        row("5 000 routes, 10 changes a second, closed loop (all on one core): CPU per request, against rest", Times, CHURN),
        row("… CPU per request in the data plane's threads at rest (closed loop)", Microseconds, None),
        row("… CPU while routes change (closed loop)", Microseconds, None),
    ];
    let experiment = Experiment::new("churn-closed", Group::Changes, Measure::Churn { rate: None }, rows);
    all.push(Experiment { who: Who::Penstock, routes: 5000, ..experiment });
    all
}

/// Those that the filters choose.
pub fn chosen(filters: &[String], quick: bool) -> Vec<Experiment> {
    let chosen = |experiment: &Experiment| {
        let named = filters.iter().any(|filter| match filter.strip_prefix('=') {
            Some(whole) => experiment.name == whole,
            None => experiment.name.contains(filter.as_str()),
        });
        if filters.is_empty() { !quick || experiment.quick } else { named }
    };
    experiments().into_iter().filter(chosen).collect()
}

pub fn print_list() {
    for experiment in experiments() {
        let mark = if experiment.quick { "quick" } else { "" };
        println!("{:<18} {mark:<6} {}", experiment.name, experiment.group.title());
        for row in experiment.rows {
            println!("{:<25} {}, {}", "", row.title, row.unit.text());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_titles_differ() {
        let all = experiments();
        let names: BTreeSet<_> = all.iter().map(|experiment| experiment.name).collect();
        assert_eq!(names.len(), all.len());
        let rows: Vec<_> =
            all.iter().flat_map(|one| one.rows.iter().map(|row| (one.name, one.group.title(), &row.title))).collect();
        let distinct: BTreeSet<_> = rows.iter().collect();
        assert_eq!(distinct.len(), rows.len());
    }

    #[test]
    fn filters_choose_by_part_or_whole() {
        let names = |filters: &[&str], quick| {
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            chosen(&filters, quick).iter().map(|experiment| experiment.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["=h1"], false), ["h1"]);
        assert_eq!(names(&["flood", "=grpc"], true), ["grpc", "flood", "flood-tls"]);
        assert!(names(&[], true).len() < names(&[], false).len());
    }
}
