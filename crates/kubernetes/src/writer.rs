//! Writes status and Events, as the leader.
//!
//! * Only what every worker of this process serves: the writer is given objects and report together, once they are served.
//! * Only when it differs from what the watches told last, by server-side apply with our own field manager.
//! * One write at a time, the newest first; before each the writer takes note of what came meanwhile.
//! * Each write is bounded by the time for which we surely lead, and names the version of the object that it was drawn from.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Service, networking::v1::Ingress};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use penstock_api::ProxyRoute;
use penstock_translate::{Change, Id, Key, Kind, Object, Report};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    FIELD_MANAGER, KubernetesMetrics, Leadership, ServedReceiver, StatusAddress,
    events::Events,
    queue::{BUSY, Job, Queue, REFUSED, Task},
    served::News,
    status,
};

/// The longest that one write may take.
const WRITE: Duration = Duration::from_secs(5);
/// Between two writes: at most so many a second that a restart beside thousands of routes does not press the API server.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the leadership is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the writer rests when the API server does not answer at all; it doubles up to [`LONGEST_REST`].
const REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// What to write, and where.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    /// False: only Events are written (`--update-status=false`).
    pub status: bool,
    pub address: StatusAddress,
    /// The name of this process in Events, as in the Lease.
    pub instance: String,
}

/// Writes status and Events for as long as the process runs.
pub struct StatusWriter {
    client: Client,
    leadership: Leadership,
    status: bool,
    address: StatusAddress,
    metrics: KubernetesMetrics,
    events: Events,
    ingresses: BTreeMap<Key, Arc<Ingress>>,
    routes: BTreeMap<Key, Arc<ProxyRoute>>,
    published: Option<Arc<Service>>,
    report: Arc<Report>,
    queue: Queue,
    led: bool,
    troubled: bool,
    /// Whether it was said that there is no such Service as --publish-service names.
    missed: bool,
    rest: Duration,
    rests_until: Option<Instant>,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("address", &self.address).field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

/// What came of a write.
enum Outcome {
    Written,
    /// Gone, or changed since it was drawn: the watch tells what is there now.
    Stale,
    /// The API server would not have it; not before so long, and tried at least so often.
    Refused {
        at_least: Duration,
        at_most: Duration,
    },
    /// There was no answer.
    Silence,
}

impl StatusWriter {
    pub fn new(client: Client, leadership: Leadership, options: StatusOptions, metrics: KubernetesMetrics) -> Self {
        Self {
            events: Events::new(client.clone(), options.instance),
            client,
            leadership,
            status: options.status,
            address: options.address,
            metrics,
            ingresses: BTreeMap::new(),
            routes: BTreeMap::new(),
            published: None,
            report: Arc::default(),
            queue: Queue::default(),
            led: false,
            troubled: false,
            missed: false,
            rest: REST,
            rests_until: None,
        }
    }

    pub async fn run(mut self, served: ServedReceiver) {
        loop {
            self.learn(served.take());
            let leads = self.leadership.is_leader();
            if leads && !self.led {
                self.touch_all();
            }
            self.led = leads;
            let now = Instant::now();
            let rests = self.rests_until.filter(|until| *until > now);
            let job = if leads && rests.is_none() { self.queue.next(now) } else { None };
            if let Some(job) = job {
                self.work(job).await;
            } else {
                let until = rests.or_else(|| self.queue.until()).unwrap_or(now + LOOK).min(now + LOOK);
                tokio::select! {
                    () = served.came() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
        }
    }

    fn learn(&mut self, news: News) {
        let now = Instant::now();
        for (id, change) in news.changes {
            self.take(&id, change, now);
        }
        let Some(report) = news.report else { return };
        let before = std::mem::replace(&mut self.report, report.clone());
        let changed =
            report.objects.iter().filter(|(object, new)| before.objects.get(*object).is_none_or(|old| !Arc::ptr_eq(old, new)));
        let gone = before.objects.keys().filter(|object| !report.objects.contains_key(*object));
        for object in changed.map(|(object, _)| object).chain(gone) {
            let kind = match object.kind {
                "Ingress" => Kind::Ingress,
                "ProxyRoute" => Kind::ProxyRoute,
                _ => continue,
            };
            self.queue.touch(&Id::new(kind, &object.namespace, &object.name), now);
        }
        if let StatusAddress::Service(key) = &self.address
            && self.published.is_none()
            && !std::mem::replace(&mut self.missed, true)
        {
            tracing::warn!(service = %key, "the Service of --publish-service does not exist; Ingresses get no address until it does");
        }
    }

    fn take(&mut self, id: &Id, change: Change, now: Instant) {
        match (id.kind, change) {
            (_, Change::Put(Object::Ingress(object))) => drop(self.ingresses.insert(id.key.clone(), object)),
            (_, Change::Put(Object::ProxyRoute(object))) => drop(self.routes.insert(id.key.clone(), object)),
            (Kind::Ingress, Change::Delete(_)) => drop(self.ingresses.remove(&id.key)),
            (Kind::ProxyRoute, Change::Delete(_)) => drop(self.routes.remove(&id.key)),
            (Kind::Service, change) => {
                if matches!(&self.address, StatusAddress::Service(key) if *key == id.key) {
                    self.published = match change {
                        Change::Put(Object::Service(service)) => Some(service),
                        _ => None,
                    };
                    self.missed &= self.published.is_none();
                    self.touch_all();
                }
                return;
            }
            _ => return,
        }
        self.queue.touch(id, now);
    }

    fn touch_all(&mut self) {
        let now = Instant::now();
        let ingresses = self.ingresses.keys().map(|key| Id { kind: Kind::Ingress, key: key.clone() });
        let routes = self.routes.keys().map(|key| Id { kind: Kind::ProxyRoute, key: key.clone() });
        ingresses.chain(routes).for_each(|id| self.queue.touch(&id, now));
    }

    async fn work(&mut self, job: Job) {
        match job.task {
            Task::Status => {
                let body = if self.status { self.draw(&job.id) } else { None };
                let Some(body) = body else { return self.queue.done(&job) };
                let Some(left) = self.leadership.valid_for() else { return self.queue.ready(job) };
                let outcome = self.outcome(&job.id, "the status", timeout(left.min(WRITE), self.patch(&job.id, &body)).await);
                if matches!(outcome, Outcome::Written) {
                    self.metrics.status_writes.inc();
                }
                self.settle(job, &outcome);
            }
            Task::Events => {
                let Some((about, event)) = self.next_event(&job.id) else {
                    if let Some(moment) = self.events.again_at(&job.id) {
                        self.queue.later(job, moment);
                    }
                    return;
                };
                let Some(left) = self.leadership.valid_for() else { return self.queue.ready(job) };
                let answer = timeout(left.min(WRITE), self.events.write(&about, event)).await;
                let new = matches!(answer, Ok(Ok(true)));
                let outcome = self.outcome(&job.id, "an Event", answer.map(|answer| answer.map(drop)));
                self.metrics.events.inc_by(u64::from(new));
                if matches!(outcome, Outcome::Written) {
                    // There may be more to say of it.
                    self.queue.ready(job);
                } else {
                    self.settle(job, &outcome);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn draw(&self, id: &Id) -> Option<Value> {
        match id.kind {
            Kind::Ingress => {
                let addresses = status::addresses(&self.address, self.published.as_deref());
                status::of_ingress(id, self.ingresses.get(&id.key)?, &self.report, &addresses)
            }
            _ => status::of_route(id, self.routes.get(&id.key)?, &self.report),
        }
    }

    /// The next Event about an object.
    fn next_event(&mut self, id: &Id) -> Option<(k8s_openapi::api::core::v1::ObjectReference, crate::events::Telling)> {
        let object = match id.kind {
            Kind::Ingress => self.ingresses.get(&id.key).map(|ingress| (ingress.object_ref(&()), &ingress.metadata)),
            _ => self.routes.get(&id.key).map(|route| (route.object_ref(&()), &route.metadata)),
        };
        let report = self.report.objects.get(&id.object_ref());
        let (Some((about, metadata)), Some(report)) = (object, report) else {
            self.events.forget(id);
            return None;
        };
        Some((about, self.events.next(id, metadata, report.problems())?))
    }

    async fn patch(&self, id: &Id, body: &Value) -> Result<(), kube::Error> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let (namespace, name) = (&id.key.namespace, &id.key.name);
        match id.kind {
            Kind::Ingress => {
                let api = Api::<Ingress>::namespaced(self.client.clone(), namespace);
                api.patch_status(name, &parameters, &Patch::Apply(body)).await.map(drop)
            }
            _ => {
                let api = Api::<ProxyRoute>::namespaced(self.client.clone(), namespace);
                api.patch_status(name, &parameters, &Patch::Apply(body)).await.map(drop)
            }
        }
    }

    fn outcome(&mut self, id: &Id, what: &str, answer: Result<Result<(), kube::Error>, tokio::time::error::Elapsed>) -> Outcome {
        let outcome = judge(&answer);
        let error = match answer {
            Ok(Ok(())) => {
                self.troubled = false;
                self.rest = REST;
                return outcome;
            }
            _ if matches!(outcome, Outcome::Stale) => return outcome,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.metrics.write_failures.inc();
        if self.troubled {
            tracing::debug!(object = %id.object_ref(), error, "{what} could not be written");
        } else {
            self.troubled = true;
            tracing::warn!(object = %id.object_ref(), error, "{what} could not be written; it is tried again, and nothing more is said until a write succeeds");
        }
        outcome
    }

    fn settle(&mut self, job: Job, outcome: &Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Written => self.queue.wrote(job, now),
            Outcome::Stale => self.queue.done(&job),
            Outcome::Refused { at_least, at_most } => self.queue.refused(job, now, *at_least, *at_most),
            Outcome::Silence => {
                self.rests_until = Some(now + self.rest);
                self.rest = (self.rest * 2).min(LONGEST_REST);
                self.queue.ready(job);
            }
        }
    }
}

fn judge(answer: &Result<Result<(), kube::Error>, tokio::time::error::Elapsed>) -> Outcome {
    let status = match answer {
        Ok(Ok(())) => return Outcome::Written,
        Ok(Err(kube::Error::Api(status))) => status,
        Ok(Err(_)) | Err(_) => return Outcome::Silence,
    };
    if status.is_not_found() || status.is_conflict() {
        return Outcome::Stale;
    }
    let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    let at_most = if status.code == 429 || status.code >= 500 { BUSY } else { REFUSED };
    Outcome::Refused { at_least: Duration::from_secs(asked.into()), at_most }
}
