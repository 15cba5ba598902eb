//! From the objects to a model: pure, total, incremental.
//!
//! [`translate`] is the definition: a [`World`] and [`Settings`] in, a [`Translation`] out, no error return, because one bad object never
//! stops another. What runs is [`Translator::apply`], which reads again only what a change touches and always gives what
//! [`translate`] would.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod annotations;
mod backends;
mod bounds;
mod certificates;
mod claim;
mod conditions;
mod endpoints;
mod ingress;
mod locations;
mod merge;
mod names;
mod ownership;
mod pool;
mod profile;
mod proxy_route;
mod reading;
mod report;
mod settings;
mod translator;
mod versions;
mod world;

pub use annotations::{Annotation, BadValue, Scope, Spelling, annotations, reference};
pub use conditions::{ConditionSketch, conditions};
pub use ownership::CLASS_ANNOTATION;
pub use profile::profiles_reference;
pub use report::{Finding, ObjectReport, Reason, Report, Verdict};
pub use settings::{AddressGuard, DEFAULT_CLASS, INGRESS_NGINX_CONTROLLER, NATIVE_CONTROLLER, Ownership, Profile, Settings};
pub use translator::Translator;
pub use world::{Change, Id, IdRef, Key, Kind, Object, World, kept};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use penstock_model::{EndpointSet, Model, ObjectRef, ServicePort, Touched};

/// What a World means.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    pub model: Arc<Model>,
    pub report: Arc<Report>,
    /// The endpoints of every Service port that the model names. They change without touching a route.
    pub endpoints: Arc<BTreeMap<ServicePort, Arc<EndpointSet>>>,
    /// The Secrets that a better translation would need; whoever keeps the World fetches them and translates again.
    pub wanted_secrets: Arc<BTreeSet<Key>>,
    /// What differs from the translation that the same [`Translator`] gave before this one.
    pub changes: Arc<Changes>,
}

/// What differs between a translation and the one before it: exactly what came, went, or is another now. In no particular order, nothing
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub touched: Touched,
    pub reports: Vec<ObjectRef>,
}

/// The definition: what `world` means under `settings`.
pub fn translate(world: &World, settings: &Settings) -> Translation {
    Translator::new(settings.clone()).rebuild(world)
}
