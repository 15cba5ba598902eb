//! The status of objects, as the leader writes it.
//!
//! * Only what every worker of this process serves: the writer follows publications, and writes the conditions of the generation that was
//!   translated.
//! * Only when it differs from what the watches told last, by server-side apply with our own field manager.
//! * Each write is bounded by the time for which we surely lead, and names the version of the object that it was drawn from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{core::v1::Service, networking::v1::Ingress},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use penstock_api::ProxyRoute;
use penstock_translate::{Change, Id, Key, Kind, Object, Report, conditions};
use serde_json::{Value, json};
use tokio::sync::{mpsc::UnboundedReceiver, watch};

use crate::{KubernetesMetrics, Leadership, events::Events};

/// The field manager of all that we write.
pub const FIELD_MANAGER: &str = "penstock";
/// The longest that one write may take.
const WRITE: Duration = Duration::from_secs(5);
/// Between two writes: at most so many a second that a restart beside thousands of routes does not press the API server.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the leadership and failed writes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The least time between two writes of one object's status: another controller that writes the same must not draw us into a race.
const EACH: Duration = Duration::from_millis(250);

/// Where the addresses in an Ingress's status come from.
#[derive(Clone, Debug)]
pub enum StatusAddress {
    /// The Ingresses get none.
    None,
    /// Addresses or names as given.
    Fixed(Vec<String>),
    /// Those of a Service (`--publish-service`).
    Service(Key),
}

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
    services: BTreeMap<Key, Arc<Service>>,
    dirty: BTreeSet<Id>,
    /// When the status of an object was written last.
    written: BTreeMap<Id, Instant>,
    /// Ingresses whose status holds our addresses because we wrote them.
    ours: BTreeSet<Key>,
    led: bool,
    troubled: bool,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("address", &self.address).field("waiting", &self.dirty.len()).finish_non_exhaustive()
    }
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
            services: BTreeMap::new(),
            dirty: BTreeSet::new(),
            written: BTreeMap::new(),
            ours: BTreeSet::new(),
            led: false,
            troubled: false,
        }
    }

    /// `changes` are those that the World took; `reports` the report of what is served.
    pub async fn run(mut self, mut changes: UnboundedReceiver<Change>, mut reports: watch::Receiver<Arc<Report>>) {
        let mut last = reports.borrow_and_update().clone();
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                changed = reports.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            while let Ok(change) = changes.try_recv() {
                self.take(change);
            }
            if reports.has_changed().unwrap_or(false) || !Arc::ptr_eq(&last, &reports.borrow()) {
                let now = reports.borrow_and_update().clone();
                self.compare(&last, &now);
                last = now;
            }
            let leads = self.leadership.is_leader();
            if leads && !self.led {
                self.all_dirty();
            }
            self.led = leads;
            if leads {
                self.write(&last).await;
            }
        }
    }

    fn take(&mut self, change: Change) {
        let id = match &change {
            Change::Put(object) => object.id(),
            Change::Delete(id) => Some(id.clone()),
        };
        let Some(id) = id else { return };
        let published = matches!(&self.address, StatusAddress::Service(key) if id.kind == Kind::Service && *key == id.key);
        match change {
            Change::Put(Object::Ingress(object)) => drop(self.ingresses.insert(id.key.clone(), object)),
            Change::Put(Object::ProxyRoute(object)) => drop(self.routes.insert(id.key.clone(), object)),
            Change::Put(Object::Service(object)) if published => drop(self.services.insert(id.key.clone(), object)),
            Change::Put(_) => return,
            Change::Delete(_) => {
                self.written.remove(&id);
                match id.kind {
                    Kind::Ingress => {
                        self.ingresses.remove(&id.key);
                        self.ours.remove(&id.key);
                    }
                    Kind::ProxyRoute => drop(self.routes.remove(&id.key)),
                    Kind::Service if published => drop(self.services.remove(&id.key)),
                    _ => return,
                }
            }
        }
        if published {
            self.all_dirty();
        } else {
            self.dirty.insert(id);
        }
    }

    fn all_dirty(&mut self) {
        let ingresses = self.ingresses.keys().map(|key| Id { kind: Kind::Ingress, key: key.clone() });
        let routes = self.routes.keys().map(|key| Id { kind: Kind::ProxyRoute, key: key.clone() });
        self.dirty.extend(ingresses.chain(routes));
    }

    fn compare(&mut self, before: &Report, now: &Report) {
        let changed =
            now.objects.iter().filter(|(object, report)| before.objects.get(*object).is_none_or(|old| !Arc::ptr_eq(old, report)));
        let gone = before.objects.keys().filter(|object| !now.objects.contains_key(*object));
        for object in changed.map(|(object, _)| object).chain(gone) {
            let kind = match &*object.kind {
                "Ingress" => Kind::Ingress,
                "ProxyRoute" => Kind::ProxyRoute,
                _ => continue,
            };
            self.dirty.insert(Id::new(kind, &object.namespace, &object.name));
        }
    }

    async fn write(&mut self, report: &Report) {
        let addresses = self.addresses();
        let mut later = BTreeSet::new();
        let mut problems = Vec::new();
        while let Some(id) = self.dirty.pop_first() {
            if report.objects.get(&id.object_ref()).is_some_and(|object| object.problems().next().is_some()) {
                problems.push(id.clone());
            } else {
                self.events.forget(&id);
            }
            let body = match id.kind {
                _ if !self.status => None,
                Kind::Ingress => self.ingress(&id, report, &addresses),
                _ => self.route(&id, report),
            };
            let Some(body) = body else { continue };
            if self.written.get(&id).is_some_and(|written| written.elapsed() < EACH) {
                later.insert(id);
                continue;
            }
            let Some(left) = self.leadership.valid_for() else {
                later.insert(id);
                break;
            };
            let answer = tokio::time::timeout(left.min(WRITE), self.patch(&id, &body)).await;
            match answer {
                Ok(Ok(())) => {
                    self.metrics.status_writes.inc();
                    self.troubled = false;
                    self.wrote(&id, &body);
                }
                // Gone, or changed since: the watch tells what is there now.
                Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {}
                failed => {
                    let one = matches!(&failed, Ok(Err(kube::Error::Api(_))));
                    self.failed(&id, "the status", failed);
                    later.insert(id);
                    if !one {
                        break;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.dirty.append(&mut later);
        for id in problems {
            if !self.write_events(&id, report).await {
                self.dirty.insert(id);
            }
        }
    }

    /// False: it is to be tried again.
    async fn write_events(&mut self, id: &Id, report: &Report) -> bool {
        let Some(object) = report.objects.get(&id.object_ref()) else { return true };
        let (about, news) = match id.kind {
            Kind::Ingress => match self.ingresses.get(&id.key) {
                Some(ingress) => (ingress.object_ref(&()), self.events.news(id, &**ingress, object.problems())),
                None => return true,
            },
            _ => match self.routes.get(&id.key) {
                Some(route) => (route.object_ref(&()), self.events.news(id, &**route, object.problems())),
                None => return true,
            },
        };
        for (number, problem) in news {
            let Some(left) = self.leadership.valid_for() else { return false };
            let answer = tokio::time::timeout(left.min(WRITE), self.events.write(id, about.clone(), number, problem)).await;
            match answer {
                Ok(Ok(new)) => {
                    self.troubled = false;
                    self.metrics.events.inc_by(u64::from(new));
                }
                failed => {
                    self.failed(id, "an Event", failed);
                    return false;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    fn failed<T>(&mut self, id: &Id, what: &str, failed: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>) {
        self.metrics.write_failures.inc();
        let error = match failed {
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(_)) | Err(_) => "no answer in time".to_owned(),
        };
        if self.troubled {
            tracing::debug!(object = %id.object_ref(), error, "{what} could not be written");
        } else {
            self.troubled = true;
            tracing::warn!(object = %id.object_ref(), error, "{what} could not be written; it is tried again, and nothing more is said until it succeeds");
        }
    }

    /// Takes note of what was written.
    fn wrote(&mut self, id: &Id, body: &Value) {
        self.written.insert(id.clone(), Instant::now());
        if id.kind == Kind::Ingress {
            let empty = body.pointer("/status/loadBalancer/ingress").and_then(Value::as_array).is_none_or(Vec::is_empty);
            if empty {
                self.ours.remove(&id.key);
            } else {
                self.ours.insert(id.key.clone());
            }
        }
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

    /// `status.loadBalancer.ingress` as it should be, if it is not so already.
    fn ingress(&self, id: &Id, report: &Report, addresses: &[Value]) -> Option<Value> {
        let ingress = self.ingresses.get(&id.key)?;
        let served = report.objects.contains_key(&id.object_ref());
        if matches!(self.address, StatusAddress::None) || (!served && !self.ours.contains(&id.key)) {
            return None;
        }
        let wanted = if served { addresses } else { &[] };
        let current =
            ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|balancer| balancer.ingress.as_ref());
        let current: Vec<Value> = current
            .into_iter()
            .flatten()
            .map(|entry| match (&entry.ip, &entry.hostname) {
                (Some(ip), _) => json!({ "ip": ip }),
                (None, name) => json!({ "hostname": name }),
            })
            .collect();
        if current == wanted {
            return None;
        }
        Some(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": metadata(id, &ingress.metadata),
            "status": { "loadBalancer": { "ingress": wanted } },
        }))
    }

    /// The conditions as they should be, if they are not so already.
    fn route(&self, id: &Id, report: &Report) -> Option<Value> {
        let route = self.routes.get(&id.key)?;
        let object = report.objects.get(&id.object_ref())?;
        let generation = route.metadata.generation.unwrap_or_default();
        if object.generation != generation {
            // The translation of this generation is on its way.
            return None;
        }
        let current = route.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let mut sketches: Vec<(String, bool, String, String)> = conditions(report, id)
            .into_iter()
            .map(|sketch| (sketch.type_.to_string(), sketch.status, sketch.reason.to_string(), sketch.message.clone()))
            .collect();
        sketches.push(("Programmed".to_owned(), true, "Programmed".to_owned(), "every worker serves it".to_owned()));
        let wanted: Vec<Condition> = sketches
            .into_iter()
            .map(|(type_, status, reason, message)| {
                let status = if status { "True" } else { "False" }.to_owned();
                let before = current.iter().find(|condition| condition.type_ == type_ && condition.status == status);
                let since = before.map_or_else(|| Time(Timestamp::now()), |condition| condition.last_transition_time.clone());
                Condition { type_, status, reason, message, last_transition_time: since, observed_generation: Some(generation) }
            })
            .collect();
        (wanted != current).then(|| {
            json!({
                "apiVersion": "penstock.dev/v1alpha1", "kind": "ProxyRoute",
                "metadata": metadata(id, &route.metadata),
                "status": { "conditions": wanted },
            })
        })
    }

    fn addresses(&self) -> Vec<Value> {
        let entry =
            |text: &str| if text.parse::<std::net::IpAddr>().is_ok() { json!({ "ip": text }) } else { json!({ "hostname": text }) };
        let texts: BTreeSet<String> = match &self.address {
            StatusAddress::None => BTreeSet::new(),
            StatusAddress::Fixed(texts) => texts.iter().cloned().collect(),
            StatusAddress::Service(key) => self.services.get(key).map(|service| service_addresses(service)).unwrap_or_default(),
        };
        texts.iter().map(|text| entry(text)).collect()
    }
}

/// With the version that the status was drawn from: whoever stood still, and wakes when another leads, finds that it is not the last.
fn metadata(id: &Id, known: &ObjectMeta) -> Value {
    json!({ "name": id.key.name, "namespace": id.key.namespace, "resourceVersion": known.resource_version, "uid": known.uid })
}

/// As ingress-nginx reads `--publish-service`: by the Service's type.
fn service_addresses(service: &Service) -> BTreeSet<String> {
    let Some(spec) = &service.spec else { return BTreeSet::new() };
    let external = spec.external_ips.iter().flatten().cloned();
    let cluster = spec.cluster_ip.iter().filter(|ip| *ip != "None").cloned();
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.iter().cloned().collect(),
        Some("LoadBalancer") => {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let given = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
            given.filter_map(|entry| entry.ip.clone().or_else(|| entry.hostname.clone())).chain(external).collect()
        }
        Some("NodePort") if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) => external.collect(),
        _ => cluster.collect(),
    }
}
