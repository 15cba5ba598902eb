//! The results of a run, as results.json holds them, and what is concluded from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    rows::{Group, Target, Unit},
    statistics::{Summary, summary},
};

/// Those that Penstock is held against.
pub const YARDSTICKS: [&str; 2] = ["nginx", "haproxy"];

/// All of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub date: String,
    pub machine: Machine,
    /// The load of the machine before anything was started; above 0.5 others were at work.
    pub load_before: f64,
    pub minutes: f64,
    pub runs: u8,
    pub quick: bool,
    pub peers: Vec<PeerInfo>,
    /// Who is not here, and why.
    pub missing: Vec<String>,
    pub rows: Vec<RowResult>,
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

    #[test]
    fn three_digits_count() {
        assert_eq!([0.0123, 1.234, 12.34, 123.4, 9.999].map(digits), ["0.012", "1.23", "12.3", "123", "10.0"]);
    }
}
