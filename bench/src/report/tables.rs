//! What building, changing and asking a routing table takes by itself. `make bench-routing` measures it; here is read what it left.

use std::{fmt::Write, fs, path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::results::digits;
use crate::machine;

/// As `crates/routing/benches/table.rs` names them.
const SHAPES: [&str; 3] = ["a host each", "one host", "regexes on one host"];
const WORK: [&str; 3] = ["build", "one route changed", "match"];
const SIZES: [u32; 4] = [10, 1_000, 5_000, 50_000];

/// One figure of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableTime {
    pub shape: String,
    pub work: String,
    pub routes: u32,
    /// The median.
    pub nanoseconds: f64,
    pub date: String,
}

/// What there is in a target folder.
pub fn found(target: &Path) -> Vec<TableTime> {
    let mut found = Vec::new();
    for (shape, work) in SHAPES.into_iter().flat_map(|shape| WORK.map(|work| (shape, work))) {
        for routes in SIZES {
            let path = target.join(format!("criterion/{shape}/{work}/{routes}/new/estimates.json"));
            if let Some((nanoseconds, date)) = estimate(&path) {
                found.push(TableTime { shape: shape.to_owned(), work: work.to_owned(), routes, nanoseconds, date });
            }
        }
    }
    found
}

/// A median as criterion writes it, and the day of it.
fn estimate(path: &Path) -> Option<(f64, String)> {
    let estimates: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let nanoseconds = estimates.get("median")?.get("point_estimate")?.as_f64()?;
    let seconds = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some((nanoseconds, machine::date(seconds / 86_400)))
}

/// Their section of the page.
pub fn section(tables: &[TableTime]) -> String {
    let mut text = String::new();
    let Some(last) = tables.iter().map(|time| time.date.as_str()).max() else { return text };
    let _ = writeln!(
        text,
        "## Routing tables by themselves\n\nFrom `make bench-routing` of {last}: medians, without a proxy around them.\n\n\
         | | 10 routes | 1 000 | 5 000 | 50 000 |\n|---|---|---|---|---|"
    );
    for (shape, work) in SHAPES.into_iter().flat_map(|shape| WORK.map(|work| (shape, work))) {
        let cell = |routes: u32| {
            let time = tables.iter().find(|time| (&*time.shape, &*time.work, time.routes) == (shape, work, routes));
            time.map_or_else(|| "–".to_owned(), |time| readable(time.nanoseconds))
        };
        let _ = writeln!(text, "| {shape}: {work} | {} |", SIZES.map(cell).join(" | "));
    }
    text.push('\n');
    text
}

fn readable(nanoseconds: f64) -> String {
    match nanoseconds {
        time if time < 1e3 => format!("{} ns", digits(time)),
        time if time < 1e6 => format!("{} µs", digits(time / 1e3)),
        time => format!("{} ms", digits(time / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_criterion_left_is_told() {
        let target = tempfile::tempdir().unwrap();
        assert_eq!(section(&found(target.path())), "");
        let folder = target.path().join("criterion/a host each/build/5000/new");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("estimates.json"), r#"{"mean": {}, "median": {"point_estimate": 2345678.9}}"#).unwrap();
        let text = section(&found(target.path()));
        assert!(text.contains("| a host each: build | – | – | 2.35 ms | – |"), "{text}");
    }
}
