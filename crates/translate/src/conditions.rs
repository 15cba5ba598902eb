//! Conditions of a ProxyRoute, drawn from its report. Times, `observedGeneration` and `Programmed` are for the writer of status.

use crate::{Finding, Id, Reason, Report};

/// Longer messages than this are cut: a status is read in a terminal.
const MAX_MESSAGE: usize = 2000;

/// A condition without what only its writer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionSketch {
    /// `Accepted` or `ResolvedRefs`.
    pub type_: &'static str,
    pub status: bool,
    /// CamelCase.
    pub reason: &'static str,
    pub message: String,
}

/// The conditions `Accepted` (the route is well-formed, and its hosts and paths are its own) and `ResolvedRefs` (what it refers to is
/// there). Empty if the object is not ours.
pub fn conditions(report: &Report, id: &Id) -> Vec<ConditionSketch> {
    let Some(report) = report.objects.get(&id.object_ref()) else { return Vec::new() };
    let of = |concerns: fn(Reason) -> bool| report.problems().filter(|problem| concerns(problem.reason)).collect::<Vec<_>>();
    vec![
        sketch(
            "Accepted",
            "Accepted",
            &of(|reason| matches!(reason, Reason::InvalidValue | Reason::UnsupportedField | Reason::Conflict)),
        ),
        sketch(
            "ResolvedRefs",
            "ResolvedRefs",
            &of(|reason| {
                matches!(
                    reason,
                    Reason::BackendNotFound
                        | Reason::PortNotFound
                        | Reason::SecretNotFound
                        | Reason::InvalidSecret
                        | Reason::CertificateMismatch
                        | Reason::ExternalBackendRefused
                )
            }),
        ),
    ]
}

fn sketch(type_: &'static str, well: &'static str, problems: &[&Finding]) -> ConditionSketch {
    let Some(first) = problems.first() else {
        return ConditionSketch { type_, status: true, reason: well, message: String::new() };
    };
    let mut message =
        problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect::<Vec<_>>().join("\n");
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    ConditionSketch { type_, status: false, reason: first.reason.as_str(), message }
}
