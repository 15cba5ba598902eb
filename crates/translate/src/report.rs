//! The report: what was made of each object, by name of field and annotation.
//!
//! It is output like any other: `check` prints it, status and Events are written from it, goldens assert it.

use std::{collections::BTreeMap, sync::Arc};

use penstock_model::{ObjectRef, Shared};
use serde::Serialize;

/// What was made of every object that is ours, and of those they refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub objects: BTreeMap<ObjectRef, Arc<ObjectReport>>,
}

/// What was made of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ObjectReport {
    /// `metadata.generation` of what was read; zero if it has none.
    pub generation: i64,
    /// Whether a route of it is in the Model. For conditions; the findings say it by field.
    #[serde(skip)]
    pub served: bool,
    /// In the order of the fields.
    pub findings: Shared<[Finding]>,
}

/// What was made of one field or annotation.
#[derive(Clone, Debug, Hash, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    /// `spec.rules[0].host`, `metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]`
    pub field: String,
    /// CamelCase, for Events and conditions.
    pub reason: Reason,
    /// One sentence for the owner of the object: what is wrong and what was done instead. Empty for what was simply honoured.
    pub message: String,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    Honoured,
    /// Understood, and deliberately without effect here, or without effect because of something else.
    Ignored,
    /// Cannot be honoured: the owner must know. A finding of this kind is a Problem.
    Refused,
}

/// Why. The names go into Events and conditions and are therefore kept.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    Honoured,
    /// An annotation of ours or of ingress-nginx that is not known, or not supported.
    UnknownAnnotation,
    UnsupportedAnnotation,
    UnsupportedField,
    InvalidValue,
    /// Another, older object claims the same.
    Conflict,
    BackendNotFound,
    PortNotFound,
    NoEndpoints,
    SecretNotFound,
    /// The controller is not allowed to read it.
    SecretUnreadable,
    InvalidSecret,
    CertificateMismatch,
    ExternalBackendRefused,
    NoEffect,
}

impl ObjectReport {
    /// The findings that the owner must know of.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict == Verdict::Refused)
    }
}

impl Reason {
    /// As written in Events and conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Honoured => "Honoured",
            Self::UnknownAnnotation => "UnknownAnnotation",
            Self::UnsupportedAnnotation => "UnsupportedAnnotation",
            Self::UnsupportedField => "UnsupportedField",
            Self::InvalidValue => "InvalidValue",
            Self::Conflict => "Conflict",
            Self::BackendNotFound => "BackendNotFound",
            Self::PortNotFound => "PortNotFound",
            Self::NoEndpoints => "NoEndpoints",
            Self::SecretNotFound => "SecretNotFound",
            Self::SecretUnreadable => "SecretUnreadable",
            Self::InvalidSecret => "InvalidSecret",
            Self::CertificateMismatch => "CertificateMismatch",
            Self::ExternalBackendRefused => "ExternalBackendRefused",
            Self::NoEffect => "NoEffect",
        }
    }
}
