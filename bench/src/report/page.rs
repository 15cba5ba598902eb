//! The page: tables by group with plots, what was lost, where and how it was measured.

use std::fmt::Write;

use super::{
    results::{Results, RowResult, Verdict, YARDSTICKS, digits},
    table::{cell, ratio, troubles},
    tables,
};
use crate::rows::{Group, Unit};

const HOW: &str = include_str!("how.md");

/// `plots`: the folder of the plots as the page's links name it, ending in a slash, or nothing.
pub fn page(results: &Results, plots: &str) -> String {
    let usual_runs = results.usual_runs();
    let when = match results.dates() {
        (first, last) if first == last => format!("the run of {first}"),
        (first, last) => format!("runs of {first} to {last}"),
    };
    let mut page = format!(
        "# Benchmarks\n\nWritten by `make bench` from {when} ({}each figure {usual_runs} times where its row does not say otherwise, {:.0} minutes); do not edit. \
         All figures, sample by sample: [results.json]({plots}results.json).\n\n",
        if results.quick { "quick, " } else { "" },
        results.minutes
    );
    page.push_str(
        "Medians, with the range of the runs in parentheses. Less is better everywhere. *Ratio* is Penstock's figure divided by the better one of nginx and HAProxy in \
         that row; ✓ means that the project's target for the row is met, ✗ that it is missed. `–` is not measured. `!` marks figures with errors, from which nothing is \
         concluded; they are listed below.\n\n",
    );
    losses(&mut page, results);
    for group in Group::ALL {
        let rows: Vec<&RowResult> = results.rows.iter().filter(|row| row.group == group).collect();
        if !rows.is_empty() {
            section(&mut page, results, group, &rows, plots);
        }
    }
    page.push_str(&tables::section(&results.tables));
    page.push_str("## Who, and where\n\n| proxy | version |\n|---|---|\n");
    for peer in &results.peers {
        // With more than one: which rows are of which.
        let versions = results.versions(&peer.name);
        let told: Vec<String> =
            versions.iter().map(|(version, experiments)| format!("{version}: {}", experiments.join(", "))).collect();
        let _ = match versions.as_slice() {
            [] | [_] => writeln!(page, "| {} | {} |", peer.name, versions.first().map_or(&*peer.version, |(version, _)| version)),
            _ => writeln!(page, "| {} | {} |", peer.name, told.join("; ")),
        };
    }
    page.push('\n');
    for missing in &results.missing {
        let _ = writeln!(page, "Not measured: {missing}.\n");
    }
    let machine = &results.machine;
    let _ = writeln!(
        page,
        "{}, {} cores, {} GiB; {}, Linux {}; {} descriptors a process. Cores at work before the run: {:.2}{}.\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.system,
        machine.kernel,
        machine.descriptors,
        results.load_before,
        if results.load_before > 0.5 { " (others were at work: read latencies with care)" } else { "" }
    );
    let troubles = troubles(results);
    if !troubles.is_empty() {
        page.push_str("## Errors\n\n");
        for trouble in troubles {
            let _ = writeln!(page, "* {trouble}");
        }
        page.push('\n');
    }
    page.push_str(HOW);
    page
}

/// The rows that do not flatter us come first.
fn losses(page: &mut String, results: &Results) {
    let Some(ours) = results.ours().next() else { return };
    let name = &ours.name;
    let (mut missed, mut behind, mut undecided, mut met) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for row in &results.rows {
        let title = format!("{}, {}", group_of(row), row.title);
        let median = row.median(name).map(digits).unwrap_or_default();
        match (row.verdict(name), row.ratio(name)) {
            (Verdict::Missed, found) => {
                let found = found.map(|ratio| format!(", {ratio:.2} × best")).unwrap_or_default();
                missed.push(format!("{title}: {median} {}{found} (target {})", row.unit.text(), row.target_text()));
            }
            (Verdict::Met, _) => met += 1,
            (Verdict::None, _) if row.undecided(name) => undecided.push(title),
            (Verdict::None, Some(ratio)) if ratio > 1.0 => {
                behind.push(format!("{title}: {median} {}, {ratio:.2} × best", row.unit.text()));
            }
            (Verdict::None, _) => {}
        }
    }
    let _ = writeln!(page, "## Where Penstock loses\n\nOf its targets {met} are met, {} missed:\n", missed.len());
    for line in missed {
        let _ = writeln!(page, "* {line}");
    }
    if !undecided.is_empty() {
        page.push_str("\nRows with a target of which nothing is concluded, for there were errors:\n\n");
        for line in undecided {
            let _ = writeln!(page, "* {line}");
        }
    }
    if !behind.is_empty() {
        page.push_str("\nRows without a target in which nginx or HAProxy does better:\n\n");
        for line in behind {
            let _ = writeln!(page, "* {line}");
        }
    }
    let others: Vec<String> = results.rows.iter().filter_map(|row| ahead(results, row, name)).collect();
    if !others.is_empty() {
        page.push_str("\nRows in which another of the proxies does better:\n\n");
        for line in others {
            let _ = writeln!(page, "* {line}");
        }
    }
    page.push('\n');
}

/// Who else needs less than we do, but for those that the ratio is to.
fn ahead(results: &Results, row: &RowResult, name: &str) -> Option<String> {
    let ours = row.sound(name)?;
    let others = results.peers.iter().filter(|peer| !peer.ours && !YARDSTICKS.contains(&peer.name.as_str()));
    let less = others.filter_map(|peer| Some((peer, row.sound(&peer.name).filter(|theirs| *theirs < ours)?)));
    let (peer, theirs) = less.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let unit = row.unit.text();
    Some(format!("{}, {}: {} {unit}, {} with {} {unit}", group_of(row), row.title, digits(ours), peer.name, digits(theirs)))
}

fn group_of(row: &RowResult) -> &'static str {
    row.group.title()
}

fn section(page: &mut String, results: &Results, group: Group, rows: &[&RowResult], plots: &str) {
    let _ = writeln!(page, "## {}\n", group.title());
    if rows.iter().any(|row| row.unit != Unit::Times) {
        let _ = writeln!(page, "![{}]({plots}{})\n", group.title(), group.file());
    }
    // A column for each who has a figure here.
    let peers: Vec<&str> = results
        .peers
        .iter()
        .map(|peer| peer.name.as_str())
        .filter(|name| rows.iter().any(|row| row.figures.contains_key(*name)))
        .collect();
    let _ = writeln!(page, "| | target | ratio | {} |", peers.join(" | "));
    let _ = writeln!(page, "|---|---|---|{}", "---|".repeat(peers.len()));
    for row in rows {
        let ratios: Vec<String> = results.ours().map(|ours| ratio(row, &ours.name)).collect();
        let cells: Vec<String> = peers.iter().map(|peer| cell(row, peer)).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            row.label(results.usual_runs()),
            row.target_text(),
            ratios.join(" "),
            cells.join(" | ")
        );
    }
    page.push('\n');
    let figures = rows.iter().flat_map(|row| row.figures.values().map(|figure| (row.experiment.as_str(), figure)));
    let notes = figures.filter_map(|(experiment, figure)| Some(format!("{} ({experiment})", figure.note.as_deref()?)));
    // Each of an experiment's rows has the same one.
    let mut notes: Vec<String> = notes.collect();
    notes.dedup();
    if !notes.is_empty() {
        let _ = writeln!(page, "In the last samples {}.\n", notes.join("; "));
    }
}
