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
                        | Reason::SecretUnreadable
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Kind, ObjectReport, Verdict};

    fn report(findings: &[(Verdict, Reason)]) -> (Report, Id) {
        let id = Id::new(Kind::ProxyRoute, "ns", "r");
        let findings = findings.iter().map(|(verdict, reason)| Finding {
            verdict: *verdict,
            field: "spec.x".to_owned(),
            reason: *reason,
            message: "why".to_owned(),
        });
        let mut report = Report::default();
        report
            .objects
            .insert(id.object_ref(), Arc::new(ObjectReport { generation: 1, served: true, findings: findings.collect() }));
        (report, id)
    }

    fn states(findings: &[(Verdict, Reason)]) -> Vec<(&'static str, bool, &'static str)> {
        let (report, id) = report(findings);
        conditions(&report, &id).into_iter().map(|sketch| (sketch.type_, sketch.status, sketch.reason)).collect()
    }

    #[test]
    fn a_problem_is_told_by_the_condition_that_it_concerns() {
        let well = [("Accepted", true, "Accepted"), ("ResolvedRefs", true, "ResolvedRefs")];
        assert_eq!(states(&[]), well);
        assert_eq!(states(&[(Verdict::Ignored, Reason::NoEndpoints), (Verdict::Honoured, Reason::Honoured)]), well);
        assert_eq!(
            states(&[(Verdict::Refused, Reason::Conflict), (Verdict::Refused, Reason::PortNotFound)]),
            [("Accepted", false, "Conflict"), ("ResolvedRefs", false, "PortNotFound")]
        );
    }

    #[test]
    fn what_is_not_ours_has_no_conditions() {
        assert!(conditions(&Report::default(), &Id::new(Kind::ProxyRoute, "ns", "r")).is_empty());
    }

    #[test]
    fn messages_name_every_problem_and_end_somewhere() {
        let (report, id) = report(&[(Verdict::Refused, Reason::InvalidValue); 3]);
        assert_eq!(conditions(&report, &id)[0].message, "spec.x: why\nspec.x: why\nspec.x: why");
        let (report, id) = self::report(&[(Verdict::Refused, Reason::InvalidValue); 1000]);
        assert!(conditions(&report, &id)[0].message.chars().count() <= MAX_MESSAGE + 1);
    }
}
