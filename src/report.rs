//! The report as `check` prints it.

use std::fmt::Write;

use penstock_translate::{Report, Verdict};
use serde_json::json;

use crate::files::FileNote;

/// For people: one block per object, one line per field.
pub fn text(report: &Report, errors: &[FileNote], warnings: &[FileNote]) -> String {
    let mut out = String::new();
    for error in errors {
        let _ = writeln!(out, "refused   {error}");
    }
    for warning in warnings {
        let _ = writeln!(out, "ignored   {warning}");
    }
    if !(errors.is_empty() && warnings.is_empty()) {
        out.push('\n');
    }
    for (object, entry) in &report.objects {
        let _ = writeln!(out, "{object}");
        for finding in &entry.findings {
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
        let findings = report.objects.values().flat_map(|object| &object.findings);
        findings.filter(|finding| finding.verdict == verdict).count()
    };
    let refused = count(Verdict::Refused) + errors.len();
    let _ = writeln!(
        out,
        "{} objects: {} honoured, {} ignored, {refused} refused",
        report.objects.len(),
        count(Verdict::Honoured),
        count(Verdict::Ignored) + warnings.len(),
    );
    out
}

/// For programs.
pub fn json(report: &Report, errors: &[FileNote], warnings: &[FileNote]) -> serde_json::Value {
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
            json!({ "kind": object.kind, "namespace": object.namespace, "name": object.name, "generation": entry.generation, "findings": findings })
        })
        .collect();
    json!({
        "objects": objects,
        "errors": errors.iter().map(note).collect::<Vec<_>>(),
        "warnings": warnings.iter().map(note).collect::<Vec<_>>(),
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Honoured => "honoured",
        Verdict::Ignored => "ignored",
        Verdict::Refused => "refused",
    }
}
