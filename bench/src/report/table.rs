//! The table on the terminal.

use std::fmt::Write;

use super::results::{Results, RowResult, Verdict, digits};
use crate::rows::Group;

/// Medians with ranges, the ratio to the best of nginx and HAProxy, and the target.
pub fn table(results: &Results) -> String {
    let mut lines = vec![header(results)];
    for group in Group::ALL {
        let rows: Vec<&RowResult> = results.rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        lines.push(vec![format!("— {}", group.title())]);
        lines.extend(rows.into_iter().map(|row| line(results, row)));
    }
    let mut text = columns(&lines);
    text.push_str("\nRatio: to the best of nginx and HAProxy; ✓ target met, ✗ missed. In parentheses the range of the runs. !: errors, see results.json.\n");
    for missing in &results.missing {
        let _ = writeln!(text, "Not measured: {missing}");
    }
    for trouble in troubles(results) {
        let _ = writeln!(text, "! {trouble}");
    }
    text
}

fn header(results: &Results) -> Vec<String> {
    let mut cells = vec!["row".to_owned(), "target".to_owned(), "ratio".to_owned()];
    cells.extend(results.peers.iter().map(|peer| peer.name.clone()));
    cells
}

fn line(results: &Results, row: &RowResult) -> Vec<String> {
    let mut cells = vec![row.label(results.usual_runs()), row.target_text()];
    let ratios: Vec<String> = results.ours().map(|ours| ratio(row, &ours.name)).collect();
    cells.push(ratios.join(" "));
    cells.extend(results.peers.iter().map(|peer| cell(row, &peer.name)));
    cells
}

/// The ratio and whether it meets the target.
pub fn ratio(row: &RowResult, peer: &str) -> String {
    let mark = match row.verdict(peer) {
        Verdict::None => "",
        Verdict::Met => "✓",
        Verdict::Missed => "✗",
    };
    match row.ratio(peer) {
        Some(ratio) => format!("{ratio:.2}{mark}"),
        None => mark.to_owned(),
    }
}

/// `12.3 (12.0–12.9)`, with a mark if there were errors.
pub fn cell(row: &RowResult, peer: &str) -> String {
    let Some(figure) = row.figures.get(peer) else { return "–".to_owned() };
    let mark = if figure.errors > 0 { "!" } else { "" };
    match figure.summary() {
        None => "failed!".to_owned(),
        Some(summary) if figure.samples.len() == 1 => format!("{}{mark}", digits(summary.median)),
        Some(summary) => {
            format!("{}{mark} ({}–{})", digits(summary.median), digits(summary.least), digits(summary.most))
        }
    }
}

/// What went wrong, one line an experiment and proxy.
pub fn troubles(results: &Results) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for row in &results.rows {
        for (peer, figure) in &row.figures {
            if figure.errors > 0 {
                let example = figure.example.as_deref().unwrap_or("unknown");
                let line = format!(
                    "{} with {peer}: {} errors beside {} that went well; one of them: {example}",
                    row.experiment, figure.errors, figure.operations
                );
                if !told.contains(&line) {
                    told.push(line);
                }
            }
        }
    }
    told
}

/// Cells side by side; a line of one cell takes the width.
fn columns(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter(|line| line.len() > 1).filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.chars().count()))))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::results::tests::row,
        rows::{Target, Unit},
    };

    #[test]
    fn cells_tell_median_range_and_errors() {
        let figures: [(&str, &[f64]); 2] = [("penstock", &[11.0, 12.0, 15.0]), ("nginx", &[])];
        let mut row = row(Unit::Microseconds, Some(Target::AtMost(11.5)), &figures);
        assert_eq!(cell(&row, "penstock"), "12.0 (11.0–15.0)");
        assert_eq!((cell(&row, "nginx"), cell(&row, "caddy")), ("failed!".to_owned(), "–".to_owned()));
        assert_eq!(ratio(&row, "penstock"), "✗");
        row.figures.get_mut("penstock").unwrap().errors = 2;
        assert_eq!(cell(&row, "penstock"), "12.0! (11.0–15.0)");
    }

    #[test]
    fn columns_are_aligned() {
        let cell = |text: &str| text.to_owned();
        let lines = [vec![cell("row"), cell("a")], vec![cell("— a long heading")], vec![cell("longer, µs"), cell("12")]];
        assert_eq!(columns(&lines), "row         a\n— a long heading\nlonger, µs  12\n");
    }
}
