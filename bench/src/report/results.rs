//! The results of a run, as results.json holds them, and what is concluded from them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::tables::TableTime;
use crate::{
    machine::Machine,
    peers::Kind,
    rows::{self, Group, Target, Unit},
    statistics::{Summary, summary},
};

/// Those that Penstock is held against.
pub const YARDSTICKS: [&str; 2] = ["nginx", "haproxy"];

/// All of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub date: String,
    pub machine: Machine,
    /// How many cores were at work before anything was started; above 0.5 others were.
    pub load_before: f64,
    pub minutes: f64,
    pub runs: u8,
    pub quick: bool,
    pub peers: Vec<PeerInfo>,
    /// Who is not here, and why.
    pub missing: Vec<String>,
    pub rows: Vec<RowResult>,
    /// Routing tables by themselves, if they were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableTime>,
}

/// A proxy that took part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerInfo {
    pub name: String,
    pub version: String,
    /// Whether it is a Penstock.
    pub ours: bool,
}

/// A line of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowResult {
    pub experiment: String,
    pub group: Group,
    pub title: String,
    pub unit: Unit,
    pub target: Option<Target>,
    pub figures: BTreeMap<String, Figure>,
    /// When it was measured: a run may be done in blocks, on several days.
    #[serde(default)]
    pub date: String,
    /// How often each proxy was asked for a sample.
    #[serde(default)]
    pub runs: u8,
    /// What each proxy was then.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

/// What one proxy came to in one row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figure {
    pub samples: Vec<f64>,
    /// Operations that went well, in all samples.
    pub operations: u64,
    pub errors: u64,
    /// One of the errors, or why a sample could not be taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub example: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

impl Figure {
    pub fn summary(&self) -> Option<Summary> {
        summary(&self.samples)
    }
}

/// How a row stands with its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No target, or nothing to hold against it, or errors.
    None,
    Met,
    Missed,
}

impl RowResult {
    pub fn median(&self, peer: &str) -> Option<f64> {
        Some(self.figures.get(peer)?.summary()?.median)
    }

    /// The median of a figure without errors: what a proxy would have needed for the rest nobody knows, so nothing is concluded from others.
    pub fn sound(&self, peer: &str) -> Option<f64> {
        self.median(peer).filter(|_| self.figures.get(peer).is_some_and(|figure| figure.errors == 0))
    }

    /// The best of nginx and HAProxy, those of them that took part. None if one of them had errors: it may have been the better one.
    pub fn best(&self) -> Option<f64> {
        let taking_part = YARDSTICKS.iter().filter(|peer| self.figures.contains_key(**peer));
        let sound: Option<Vec<f64>> = taking_part.map(|peer| self.sound(peer)).collect();
        sound?.into_iter().min_by(f64::total_cmp)
    }

    /// How many times the best of nginx and HAProxy a proxy takes.
    pub fn ratio(&self, peer: &str) -> Option<f64> {
        let best = self.best().filter(|best| *best > 0.0)?;
        Some(self.sound(peer)? / best)
    }

    /// Whether there is a target, and nothing is concluded because of errors.
    pub fn undecided(&self, peer: &str) -> bool {
        let with_errors = |peer: &str| self.figures.contains_key(peer) && self.sound(peer).is_none();
        match self.target {
            None => false,
            Some(Target::AtMost(_)) => with_errors(peer),
            Some(Target::OfBest(_)) => with_errors(peer) || YARDSTICKS.into_iter().any(with_errors),
        }
    }

    pub fn verdict(&self, peer: &str) -> Verdict {
        let (reached, most) = match self.target {
            None => return Verdict::None,
            Some(Target::OfBest(most)) => (self.ratio(peer), most),
            Some(Target::AtMost(most)) => (self.sound(peer), most),
        };
        match reached {
            None => Verdict::None,
            Some(reached) if reached <= most => Verdict::Met,
            Some(_) => Verdict::Missed,
        }
    }

    /// Its name with the unit, and how often it was measured if that is not the usual number.
    pub fn label(&self, usual_runs: u8) -> String {
        let unit = self.unit.text();
        match self.runs {
            runs if runs == usual_runs => format!("{}, {unit}", self.title),
            1 => format!("{}, {unit} (1 run)", self.title),
            runs => format!("{}, {unit} ({runs} runs)", self.title),
        }
    }

    pub fn target_text(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::OfBest(most)) => format!("≤ {} × best", trim(most)),
            Some(Target::AtMost(most)) => format!("≤ {} {}", trim(most), self.unit.text()),
        }
    }
}

impl Results {
    pub fn ours(&self) -> impl Iterator<Item = &PeerInfo> {
        self.peers.iter().filter(|peer| peer.ours)
    }

    /// Fills in what the rows of older files do not say themselves.
    pub fn complete(&mut self) {
        let versions: BTreeMap<String, String> = self.peers.iter().map(|peer| (peer.name.clone(), peer.version.clone())).collect();
        for row in &mut self.rows {
            if row.date.is_empty() {
                row.date.clone_from(&self.date);
            }
            if row.runs == 0 {
                row.runs = row.figures.values().map(|figure| figure.samples.len() as u8).max().unwrap_or_default();
            }
            if row.versions.is_empty() {
                row.versions = versions.iter().filter(|(name, _)| row.figures.contains_key(*name)).map(both).collect();
            }
        }
    }

    /// Goes on from what was measured before: its rows stay until others take their place.
    pub fn keep(&mut self, before: Self) -> anyhow::Result<()> {
        anyhow::ensure!(before.machine == self.machine, "what is to be kept was measured on another machine: {:?}", before.machine);
        let order = order();
        self.rows.extend(before.rows.into_iter().filter(|row| order.contains_key(row.experiment.as_str())));
        if self.tables.is_empty() {
            self.tables = before.tables;
        }
        self.minutes += before.minutes;
        self.load_before = self.load_before.max(before.load_before);
        self.quick &= before.quick;
        for peer in before.peers {
            if self.peers.iter().all(|own| own.name != peer.name) {
                self.peers.push(peer);
            }
        }
        for missing in before.missing {
            if !self.missing.contains(&missing) {
                self.missing.push(missing);
            }
        }
        let here: BTreeSet<&str> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
        self.missing.retain(|missing| missing.split(':').next().is_none_or(|name| !here.contains(name)));
        let place = |peer: &PeerInfo| Kind::ALL.into_iter().position(|kind| !peer.ours && kind.name() == peer.name);
        self.peers.sort_by_key(place);
        Ok(())
    }

    /// Takes the rows of an experiment, in the place of those that are there; in the order of the table.
    pub fn put(&mut self, experiment: &str, rows: Vec<RowResult>) {
        self.rows.retain(|row| row.experiment != experiment);
        self.rows.extend(rows);
        let order = order();
        self.rows.sort_by_key(|row| order.get(row.experiment.as_str()).copied());
    }

    /// How often most rows were measured.
    pub fn usual_runs(&self) -> u8 {
        let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.runs).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or(self.runs, |(runs, _)| runs)
    }

    /// The first and the last day of the rows.
    pub fn dates(&self) -> (&str, &str) {
        let dates = || self.rows.iter().map(|row| row.date.as_str());
        (dates().min().unwrap_or(&self.date), dates().max().unwrap_or(&self.date))
    }

    /// The versions of a proxy that rows were measured with, and which experiments with each.
    pub fn versions(&self, peer: &str) -> Vec<(&str, Vec<&str>)> {
        let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
        for row in &self.rows {
            let Some(version) = row.versions.get(peer) else { continue };
            let at = found.iter().position(|(known, _)| known == version).unwrap_or(found.len());
            if at == found.len() {
                found.push((version, Vec::new()));
            }
            if let Some((_, experiments)) = found.get_mut(at).filter(|(_, known)| !known.contains(&row.experiment.as_str())) {
                experiments.push(&row.experiment);
            }
        }
        found
    }
}

fn both((name, version): (&String, &String)) -> (String, String) {
    (name.clone(), version.clone())
}

/// Where each experiment stands in the table.
fn order() -> BTreeMap<&'static str, usize> {
    rows::experiments().into_iter().enumerate().map(|(place, experiment)| (experiment.name, place)).collect()
}

/// `1` for 1.0, `0.9` for 0.9.
fn trim(number: f64) -> String {
    format!("{number}")
}

/// Three digits that count.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn row(unit: Unit, target: Option<Target>, figures: &[(&str, &[f64])]) -> RowResult {
        let figure = |samples: &[f64]| Figure { samples: samples.to_vec(), operations: 1, ..Figure::default() };
        RowResult {
            experiment: "one".to_owned(),
            group: Group::Requests,
            title: "A row".to_owned(),
            unit,
            target,
            figures: figures.iter().map(|(name, samples)| ((*name).to_owned(), figure(samples))).collect(),
            date: "2026-11-27".to_owned(),
            runs: 1,
            versions: figures.iter().map(|(name, _)| ((*name).to_owned(), "1".to_owned())).collect(),
        }
    }

    #[test]
    fn a_ratio_is_to_the_best_of_nginx_and_haproxy() {
        let figures: [(&str, &[f64]); 4] =
            [("penstock", &[9.0, 8.0, 30.0]), ("nginx", &[10.0]), ("haproxy", &[12.0]), ("envoy", &[1.0])];
        let row = row(Unit::Microseconds, Some(Target::OfBest(0.9)), &figures);
        assert_eq!(row.best(), Some(10.0));
        assert_eq!(row.ratio("penstock"), Some(0.9));
        assert_eq!(row.verdict("penstock"), Verdict::Met);
        assert_eq!(row.verdict("haproxy"), Verdict::Missed);
        assert_eq!(row.verdict("caddy"), Verdict::None);
    }

    #[test]
    fn nothing_is_concluded_from_figures_with_errors() {
        let figures: [(&str, &[f64]); 3] = [("penstock", &[9.0]), ("nginx", &[1.0]), ("haproxy", &[12.0])];
        let mut share = row(Unit::Microseconds, Some(Target::OfBest(0.9)), &figures);
        share.figures.get_mut("nginx").unwrap().errors = 1;
        assert_eq!((share.best(), share.ratio("penstock"), share.verdict("penstock")), (None, None, Verdict::None));
        assert!(share.undecided("penstock"));
        let mut bound = row(Unit::Kibibytes, Some(Target::AtMost(10.0)), &figures);
        assert_eq!((bound.verdict("penstock"), bound.undecided("penstock")), (Verdict::Met, false));
        bound.figures.get_mut("penstock").unwrap().errors = 1;
        assert_eq!((bound.verdict("penstock"), bound.undecided("penstock")), (Verdict::None, true));
    }

    #[test]
    fn a_bound_needs_no_other_proxy() {
        let row = row(Unit::Kibibytes, Some(Target::AtMost(2.5)), &[("penstock", &[2.6])]);
        assert_eq!(row.ratio("penstock"), None);
        assert_eq!(row.verdict("penstock"), Verdict::Missed);
        assert_eq!(row.target_text(), "≤ 2.5 KiB");
    }

    fn results(date: &str, peers: &[&str], experiments: &[&str]) -> Results {
        let info = |name: &&str| PeerInfo { name: (*name).to_owned(), version: date.to_owned(), ours: *name == "penstock" };
        let row = |name: &&str| RowResult {
            experiment: (*name).to_owned(),
            date: String::new(),
            runs: 0,
            versions: BTreeMap::new(),
            ..row(Unit::Microseconds, None, &[("penstock", &[1.0, 2.0])])
        };
        let mut results = Results {
            date: date.to_owned(),
            machine: Machine::default(),
            load_before: 0.1,
            minutes: 1.0,
            runs: 2,
            quick: false,
            peers: peers.iter().map(info).collect(),
            missing: vec!["caddy: not here".to_owned()],
            rows: experiments.iter().map(row).collect(),
            tables: Vec::new(),
        };
        results.complete();
        results
    }

    #[test]
    fn what_is_kept_stays_until_it_is_measured_again() {
        let before = results("2026-11-26", &["penstock", "nginx", "caddy"], &["h1", "flood", "of old"]);
        let mut now = results("2026-11-27", &["penstock", "haproxy", "envoy"], &[]);
        now.keep(before).unwrap();
        let named = |results: &Results| results.rows.iter().map(|row| row.experiment.clone()).collect::<Vec<_>>();
        assert_eq!(named(&now), ["h1", "flood"], "what is no experiment any more is left out");
        let peers: Vec<_> = now.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(peers, ["penstock", "nginx", "haproxy", "envoy", "caddy"]);
        assert!(now.missing.is_empty(), "it was here before");
        assert_eq!((now.minutes, now.dates(), now.usual_runs()), (2.0, ("2026-11-26", "2026-11-26"), 2));

        let fresh = results("2026-11-27", &["penstock"], &["h1", "echo"]).rows;
        now.put("echo", fresh.iter().filter(|row| row.experiment == "echo").cloned().collect());
        now.put("h1", fresh.into_iter().filter(|row| row.experiment == "h1").collect());
        assert_eq!(named(&now), ["h1", "echo", "flood"]);
        assert_eq!(now.dates(), ("2026-11-26", "2026-11-27"));
        assert_eq!(now.versions("penstock"), [("2026-11-27", vec!["h1", "echo"]), ("2026-11-26", vec!["flood"])]);

        let mut elsewhere = results("2026-11-28", &[], &[]);
        elsewhere.machine.cores = 64;
        assert!(elsewhere.keep(now).is_err());
    }

    #[test]
    fn a_row_says_how_often_it_was_measured_if_others_were_not() {
        let row = row(Unit::Microseconds, None, &[]);
        assert_eq!((row.label(1), row.label(5)), ("A row, µs".to_owned(), "A row, µs (1 run)".to_owned()));
    }

    #[test]
    fn three_digits_count() {
        assert_eq!([0.0123, 1.234, 12.34, 123.4, 9.999].map(digits), ["0.012", "1.23", "12.3", "123", "10.0"]);
    }
}
