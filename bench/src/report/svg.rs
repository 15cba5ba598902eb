//! A plot of one group: a block for each row, a bar for each proxy, as long as its ratio to the best of nginx and HAProxy. Rows that neither has
//! share a measure with all such rows of their unit, so that one can be held against the other.

use std::fmt::Write;

use super::results::{Figure, Results, RowResult, digits};
use crate::rows::{Group, Target, Unit};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 96.0;
/// Where the longest bar ends; its label stands beside it.
const RIGHT: f64 = 700.0;
const BAR: f64 = 13.0;
const GAP: f64 = 3.0;
const TITLE: f64 = 20.0;
const BETWEEN: f64 = 14.0;
/// Longer bars are cut, and say so.
const LONGEST: f64 = 4.0;

/// Told apart also by who sees few colours: Okabe and Ito's palette.
fn color(name: &str, ours: bool) -> &'static str {
    match name {
        _ if ours => "#0072b2",
        "nginx" => "#009e73",
        "haproxy" => "#e69f00",
        "envoy" => "#cc79a7",
        "caddy" => "#56b4e9",
        _ => "#999999",
    }
}

/// None where no row can be drawn. Ratios of a proxy to itself are left to the table.
pub fn plot(results: &Results, group: Group) -> Option<String> {
    let rows: Vec<&RowResult> = results
        .rows
        .iter()
        .filter(|row| {
            row.group == group && row.unit != Unit::Times && row.figures.values().any(|figure| figure.summary().is_some())
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let mut body = String::new();
    let mut y = 34.0;
    for row in &rows {
        y = block(&mut body, results, row, measure(&rows, row), y);
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        height = y.ceil()
    );
    let _ = writeln!(svg, "<text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>", escape(group.title()));
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// What a bar's length is counted in.
fn measure(rows: &[&RowResult], row: &RowResult) -> f64 {
    let yardstick = |row: &RowResult| row.best().filter(|best| *best > 0.0);
    yardstick(row).unwrap_or_else(|| {
        let alike = rows.iter().filter(|other| other.unit == row.unit && yardstick(other).is_none());
        let summaries = alike.flat_map(|row| row.figures.values()).filter_map(Figure::summary);
        summaries.map(|summary| summary.most).fold(f64::MIN_POSITIVE, f64::max)
    })
}

/// Draws a row from `y` on, `unit` being one; gives where the next one begins.
fn block(svg: &mut String, results: &Results, row: &RowResult, unit: f64, mut y: f64) -> f64 {
    let drawn: Vec<_> = results.peers.iter().filter_map(|peer| Some((peer, row.figures.get(&peer.name)?.summary()?))).collect();
    let longest = drawn.iter().map(|(_, summary)| summary.median).fold(f64::MIN_POSITIVE, f64::max);
    let most = (longest / unit).clamp(1.0, LONGEST);
    let length = |value: f64| (value / unit).min(most) / most * (RIGHT - LEFT);
    let title = format!("{}, {}", row.title, row.unit.text());
    let _ = writeln!(svg, "<text x=\"8\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", y + 14.0, escape(&title));
    y += TITLE;
    let top = y;
    for (peer, summary) in drawn {
        let (name, color) = (escape(&peer.name), color(&peer.name, peer.ours));
        let (bar, middle) = (length(summary.median), y + BAR - 3.0);
        let cut = if summary.median / unit > most { "… " } else { "" };
        let ratio = row.ratio(&peer.name).map(|ratio| format!(" ({ratio:.2}×)")).unwrap_or_default();
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\">{name}</text>", LEFT - 6.0);
        let _ = writeln!(svg, "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{BAR}\" fill=\"{color}\"/>");
        let (least, greatest) = (LEFT + length(summary.least), LEFT + length(summary.most));
        let center = y + BAR / 2.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{least:.1} {center:.1}H{greatest:.1}M{least:.1} {up:.1}v6M{greatest:.1} {up:.1}v6\" stroke=\"#333333\"/>",
            up = center - 3.0
        );
        let label = LEFT + bar.max(greatest - LEFT) + 6.0;
        let _ = writeln!(svg, "<text x=\"{label:.1}\" y=\"{middle:.1}\">{cut}{}{ratio}</text>", digits(summary.median));
        y += BAR + GAP;
    }
    let target = match row.target {
        Some(Target::OfBest(share)) => row.best().map(|best| best * share),
        Some(Target::AtMost(most)) => Some(most),
        None => None,
    };
    if let Some(target) = target.filter(|target| target / unit <= most) {
        let x = LEFT + length(target);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"#d00000\" stroke-dasharray=\"3 2\"><title>target</title></path>",
            top - 2.0,
            y
        );
    }
    y + BETWEEN
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::results::tests::row;

    #[test]
    fn rows_without_a_yardstick_share_a_measure_with_those_of_their_unit() {
        let alone = |unit, sample| row(unit, None, &[("penstock", &[sample])]);
        let beside = row(Unit::Microseconds, None, &[("penstock", &[900.0]), ("nginx", &[10.0])]);
        let (long, short, other) = (alone(Unit::Microseconds, 100.0), alone(Unit::Microseconds, 5.0), alone(Unit::Kibibytes, 7.0));
        let rows = [&long, &short, &other, &beside];
        assert_eq!(rows.map(|row| digits(measure(&rows, row))), [100.0, 100.0, 7.0, 10.0].map(digits));
    }
}
