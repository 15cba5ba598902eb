//! The report as `check` prints it.

use std::fmt::Write;

use penstock_translate::{Report, Verdict};
use serde_json::json;

use crate::{files::FileNote, manifests::Loaded};

/// For people: one block per object, one line per field.
pub fn text(report: &Report, loaded: &Loaded) -> String {
    let Loaded { errors, warnings, places, .. } = loaded;
    let mut out = String::new();
    for error in errors {
        let _ = writeln!(out, "refused   {error}");
    }
    for warning in warnings {
        let _ = writeln!(out, "ignored   {warning}");
    }
    let others = loaded.of_other_classes(report);
    for (object, class) in &others {
        let class = class.as_ref().map_or_else(|| "names no class".to_owned(), |class| format!("is of the class `{class}`"));
        let _ = writeln!(out, "ignored   {object} {class}");
    }
    if !out.is_empty() {
        out.push('\n');
    }
    for (object, entry) in &report.objects {
        let _ = match places.get(object) {
            Some(place) => writeln!(out, "{object} ({place})"),
            None => writeln!(out, "{object}"),
        };
        for finding in entry.findings.iter() {
            let _ = write!(out, "  {:<9} {}", word(finding.verdict), finding.field);
            if finding.verdict != Verdict::Honoured {
                let _ = write!(out, " ({})", finding.reason.as_str());
            }
            if !finding.message.is_empty() {
                let _ = write!(out, "\n            {}", finding.message);
            }
            out.push('\n');
        }
    }
    let count = |verdict| {
        let findings = report.objects.values().flat_map(|object| object.findings.iter());
        findings.filter(|finding| finding.verdict == verdict).count()
    };
    let refused = count(Verdict::Refused) + errors.len();
    let _ = writeln!(
        out,
        "{} object{}: {} honoured, {} ignored, {refused} refused",
        report.objects.len(),
        if report.objects.len() == 1 { "" } else { "s" },
        count(Verdict::Honoured),
        count(Verdict::Ignored) + warnings.len() + others.len(),
    );
    let supporting: Vec<_> = loaded.supporting().into_iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
    if !supporting.is_empty() {
        let _ = writeln!(out, "read besides, for those that refer to them: {}", supporting.join(", "));
    }
    if report.objects.is_empty() {
        out.push_str("there is nothing to serve: no Ingress and no ProxyRoute that is asked for\n");
    }
    out
}

/// For programs.
pub fn json(report: &Report, loaded: &Loaded) -> serde_json::Value {
    let note = |note: &FileNote| json!({ "path": note.path, "line": note.place.map(|place| place.0), "column": note.place.map(|place| place.1), "message": note.message });
    let objects: Vec<_> = report
        .objects
        .iter()
        .map(|(object, entry)| {
            let findings: Vec<_> = entry
                .findings
                .iter()
                .map(|finding| {
                    json!({ "verdict": word(finding.verdict), "field": finding.field, "reason": finding.reason.as_str(), "message": finding.message })
                })
                .collect();
            json!({ "kind": object.kind, "namespace": object.namespace, "name": object.name, "place": loaded.places.get(object), "generation": entry.generation, "findings": findings })
        })
        .collect();
    let others = loaded.of_other_classes(report).into_iter();
    let others: Vec<_> = others
        .map(|(object, class)| json!({ "kind": object.kind, "namespace": object.namespace, "name": object.name, "class": class }))
        .collect();
    json!({
        "objects": objects,
        "otherClasses": others,
        "errors": loaded.errors.iter().map(note).collect::<Vec<_>>(),
        "warnings": loaded.warnings.iter().map(note).collect::<Vec<_>>(),
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Honoured => "honoured",
        Verdict::Ignored => "ignored",
        Verdict::Refused => "refused",
    }
}
