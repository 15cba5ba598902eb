//! Warning Events about problems of objects (events.k8s.io/v1).
//!
//! An Event's name is drawn from what it says, so that the same problem of the same generation of an object is written once, by whichever
//! replica and however often. The API server forgets Events after a time of its own (an hour by default).

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::PostParams};
use penstock_translate::{Finding, Id};

/// Who reports, in every Event.
const REPORTER: &str = "penstock.dev/controller";
/// What the API server allows for a note, in bytes.
const MAX_NOTE: usize = 1024;
/// The longest part of an object's name in an Event's: names have 253 bytes at most.
const MAX_NAME: usize = 200;

/// The Events that were written about each object.
pub(crate) struct Events {
    client: Client,
    /// The process, as in the Lease.
    instance: String,
    told: BTreeMap<Id, BTreeSet<u64>>,
}

impl Events {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self { client, instance, told: BTreeMap::new() }
    }

    /// What is to be written about an object, by the number of each problem.
    pub(crate) fn news<'a>(
        &mut self,
        id: &Id,
        object: &impl Resource,
        problems: impl Iterator<Item = &'a Finding>,
    ) -> Vec<(u64, &'a Finding)> {
        let all: Vec<_> = problems.map(|problem| (number(object, problem), problem)).collect();
        let told = self.told.entry(id.clone()).or_default();
        told.retain(|known| all.iter().any(|(number, _)| number == known));
        let news = all.into_iter().filter(|(number, _)| !told.contains(number)).collect();
        if told.is_empty() {
            self.told.remove(id);
        }
        news
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&mut self, id: &Id) {
        self.told.remove(id);
    }

    /// Writes one; true if it is new to the cluster.
    pub(crate) async fn write(
        &mut self,
        id: &Id,
        about: ObjectReference,
        number: u64,
        problem: &Finding,
    ) -> Result<bool, kube::Error> {
        let namespace = id.key.namespace.to_string();
        let event = Event {
            metadata: kube::core::ObjectMeta {
                name: Some(format!("{}.{number:016x}", cut(&id.key.name, MAX_NAME).trim_end_matches(['.', '-']))),
                namespace: Some(namespace.clone()),
                ..Default::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(about),
            type_: Some("Warning".to_owned()),
            reason: Some(problem.reason.as_str().to_owned()),
            action: Some("Translate".to_owned()),
            note: Some(cut(&format!("{}: {}", problem.field, problem.message), MAX_NOTE).to_owned()),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Default::default()
        };
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let new = match api.create(&PostParams::default(), &event).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.is_already_exists() => false,
            Err(error) => return Err(error),
        };
        self.told.entry(id.clone()).or_default().insert(number);
        Ok(new)
    }
}

/// The same for the same problem of the same generation of an object, in every process of one version.
fn number(object: &impl Resource, problem: &Finding) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&object.meta().uid, object.meta().generation, &problem.field, problem.reason.as_str(), &problem.message).hash(&mut hasher);
    hasher.finish()
}

fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}
