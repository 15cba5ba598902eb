//! Warning Events about problems of objects (events.k8s.io/v1).
//!
//! An Event's name is drawn from what it says and from the time, in pieces of less than an hour, so that the same problem of the same generation
//! of an object is written once in that time, by whichever replica and however often. The API server forgets Events after a time of its
//! own (an hour by default); while a problem stands it is told again before that.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use penstock_translate::{Finding, Id};
use tokio::time::Instant;

/// Who reports, in every Event.
const REPORTER: &str = "penstock.dev/controller";
/// What the API server allows for a note, in bytes.
const MAX_NOTE: usize = 1024;
/// The longest part of an object's name in an Event's: names have 253 bytes at most.
const MAX_NAME: usize = 200;

/// The most Events about one object at a time. Who has more problems has seen enough of them.
const MOST: usize = 20;
/// While a problem stands it is told again after so long.
const AGAIN: Duration = Duration::from_mins(50);

/// The Events that were written about each object.
pub(crate) struct Events {
    client: Client,
    /// The process, as in the Lease.
    instance: String,
    /// Which problems, and when.
    told: BTreeMap<Id, BTreeMap<u64, Instant>>,
}

/// An Event that is to be written.
#[derive(Debug)]
pub(crate) struct Telling {
    id: Id,
    number: u64,
    reason: &'static str,
    note: String,
}

impl Events {
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self { client, instance, told: BTreeMap::new() }
    }

    /// The next that is to be written about an object.
    pub(crate) fn next<'a>(
        &mut self,
        id: &Id,
        object: &ObjectMeta,
        problems: impl Iterator<Item = &'a Finding>,
    ) -> Option<Telling> {
        self.next_at(id, object, problems, Instant::now())
    }

    fn next_at<'a>(
        &mut self,
        id: &Id,
        object: &ObjectMeta,
        problems: impl Iterator<Item = &'a Finding>,
        now: Instant,
    ) -> Option<Telling> {
        let all: Vec<_> = problems.take(MOST).map(|problem| (number(object, problem), problem)).collect();
        let numbers: BTreeSet<u64> = all.iter().map(|(number, _)| *number).collect();
        let told = self.told.entry(id.clone()).or_default();
        told.retain(|known, since| numbers.contains(known) && *since + AGAIN > now);
        let news = all.into_iter().find(|(number, _)| !told.contains_key(number));
        if told.is_empty() {
            self.told.remove(id);
        }
        let (number, problem) = news?;
        let note = cut(&format!("{}: {}", problem.field, problem.message), MAX_NOTE).to_owned();
        Some(Telling { id: id.clone(), number, reason: problem.reason.as_str(), note })
    }

    /// When something about an object is to be told again.
    pub(crate) fn again_at(&self, id: &Id) -> Option<Instant> {
        self.told.get(id)?.values().min().map(|since| *since + AGAIN)
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&mut self, id: &Id) {
        self.told.remove(id);
    }

    /// Writes one; true if it is new to the cluster.
    pub(crate) async fn write(&mut self, about: &ObjectReference, telling: Telling) -> Result<bool, kube::Error> {
        let Telling { id, number, reason, note } = telling;
        let namespace = id.key.namespace.to_string();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name(&id, number, SystemTime::now())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(about.clone()),
            type_: Some("Warning".to_owned()),
            reason: Some(reason.to_owned()),
            action: Some("Translate".to_owned()),
            note: Some(note),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        let new = match api.create(&PostParams::default(), &event).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.is_already_exists() => false,
            Err(error) => return Err(error),
        };
        self.told.entry(id).or_default().insert(number, Instant::now());
        Ok(new)
    }
}

/// The same for the same problem of the same generation of an object, in every process of one version.
fn number(object: &ObjectMeta, problem: &Finding) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&object.uid, object.generation, &problem.field, problem.reason.as_str(), &problem.message).hash(&mut hasher);
    hasher.finish()
}

/// Another one when the time has come to tell it again.
fn name(id: &Id, number: u64, now: SystemTime) -> String {
    let piece = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / AGAIN.as_secs();
    let mut hasher = DefaultHasher::new();
    (number, piece).hash(&mut hasher);
    format!("{}.{:016x}", cut(&id.key.name, MAX_NAME).trim_end_matches(['.', '-']), hasher.finish())
}

fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use penstock_translate::{Kind, Reason, Verdict};

    use super::*;
    use crate::watches::tests::silent_client;

    fn problem(message: &str) -> Finding {
        Finding { verdict: Verdict::Refused, field: "spec".to_owned(), reason: Reason::InvalidValue, message: message.to_owned() }
    }

    #[tokio::test]
    async fn a_problem_is_told_once_and_again_while_it_stands_before_it_is_forgotten() {
        let mut events = Events::new(silent_client(), "penstock".to_owned());
        let (id, object, now) = (Id::new(Kind::Ingress, "n", "i"), ObjectMeta::default(), Instant::now());
        let problems = [problem("one"), problem("two")];
        for expected in ["spec: one", "spec: two"] {
            let telling = events.next_at(&id, &object, problems.iter(), now).unwrap();
            assert_eq!(telling.note, expected);
            events.told.entry(id.clone()).or_default().insert(telling.number, now);
        }
        assert!(events.next_at(&id, &object, problems.iter(), now).is_none());
        assert_eq!(events.again_at(&id), Some(now + AGAIN));
        assert_eq!(events.next_at(&id, &object, problems.iter(), now + AGAIN).unwrap().note, "spec: one");
        assert!(events.next_at(&id, &object, [].iter(), now).is_none(), "no problem any more");
        assert_eq!(events.again_at(&id), None);
        let many: Vec<Finding> = (0..100).map(|number| problem(&number.to_string())).collect();
        let mut count = 0;
        while let Some(telling) = events.next_at(&id, &object, many.iter(), now) {
            events.told.entry(id.clone()).or_default().insert(telling.number, now);
            count += 1;
        }
        assert_eq!(count, MOST);
    }

    #[test]
    fn the_name_of_an_event_is_the_same_for_a_while_and_then_another() {
        let id = Id::new(Kind::Ingress, "n", "i");
        let begin = UNIX_EPOCH + AGAIN * 1000;
        let name = |after: Duration| name(&id, 7, begin + after);
        assert_eq!(name(Duration::ZERO), name(AGAIN / 2));
        assert_ne!(name(Duration::ZERO), name(AGAIN));
    }
}
