//! The incremental translation: what was read is kept, and a change costs what it changes.
//!
//! Objects that a change touches are read again (they themselves, or what they were found to depend on), the hosts that their claims
//! touch are merged again, and of backends, endpoints, reports and Secrets only the difference is taken. What comes out is always
//! what [`translate`](crate::translate) gives for the same World; and what is equal keeps its `Arc`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use penstock_model::{
    Action, Backend, BackendKey, CertificateSource, EndpointSet, Host, HostPattern, Model, ObjectRef, Origin, Route, ServicePort,
    Shared, Touched,
};

use crate::{
    Changes, Finding, Id, Key, Kind, ObjectReport, Reason, Report, Settings, Translation, Verdict, World,
    claim::{Claims, ObjectClaims},
    endpoints, ingress,
    merge::{common_ends, merge},
    pool::Pools,
    proxy_route,
    reading::{CertificateCache, Reading},
    versions::{Editable, Versions},
    world::service_of,
};

/// Keeps what was read from each object, so that a change costs what it changes.
pub struct Translator {
    settings: Settings,
    certificates: CertificateCache,
    pools: Pools,
    objects: HashMap<Id, Box<Known>>,
    /// Who read, or looked for, an object.
    dependents: HashMap<Id, BTreeSet<Id>>,
    /// Who claims a host.
    hosts: HashMap<HostPattern, Claims>,
    /// Who was told something when a host was merged last. Few are.
    told: HashMap<HostPattern, Box<[Id]>>,
    /// What merging told each object, by host.
    conflicts: HashMap<Id, BTreeMap<HostPattern, Vec<Finding>>>,
    /// How many routes name a backend, how many backends a Service port, how many objects a Secret.
    backend_uses: HashMap<BackendKey, usize>,
    port_uses: BTreeMap<ServicePort, usize>,
    secret_uses: HashMap<Key, usize>,
    /// Which objects name a Service port.
    port_users: HashMap<ServicePort, BTreeSet<Id>>,
    /// Whose slice it was when last seen.
    slice_services: HashMap<Key, Key>,
    model: Versions<Model>,
    report: Versions<Report>,
    endpoints: Versions<Endpoints>,
    wanted: Versions<BTreeSet<Key>>,
}

/// An object that was read.
#[derive(Default)]
struct Known {
    claims: ObjectClaims,
    /// How many of its routes are in the model.
    routes: usize,
}

type Endpoints = BTreeMap<ServicePort, Arc<EndpointSet>>;

/// What is in one list and not in the other, which is in order.
fn absent<'a, T: Ord>(from: &'a [T], other: &[T]) -> impl Iterator<Item = &'a T> {
    from.iter().filter(|item| other.binary_search(item).is_err())
}

/// A step from one model to the next.
pub(crate) enum ModelEdit {
    Host(HostPattern, Option<Arc<Host>>),
    Backend(BackendKey, Option<Arc<Backend>>),
    DefaultCertificate(CertificateSource),
}

impl Editable for Model {
    type Edit = ModelEdit;

    fn edit(&mut self, edit: &ModelEdit) {
        match edit {
            ModelEdit::Host(pattern, host) => put(&mut self.hosts, pattern, host.as_ref()),
            ModelEdit::Backend(key, backend) => put(&mut self.backends, key, backend.as_ref()),
            ModelEdit::DefaultCertificate(source) => self.default_certificate = source.clone(),
        }
    }

    fn compact(&mut self) {
        dense(&mut self.hosts);
        dense(&mut self.backends);
    }
}

impl Editable for Report {
    type Edit = (ObjectRef, Option<Arc<ObjectReport>>);

    fn edit(&mut self, (object, report): &Self::Edit) {
        put(&mut self.objects, object, report.as_ref());
    }

    fn compact(&mut self) {
        dense(&mut self.objects);
    }
}

impl Editable for Endpoints {
    type Edit = (ServicePort, Option<Arc<EndpointSet>>);

    fn edit(&mut self, (port, set): &Self::Edit) {
        put(self, port, set.as_ref());
    }

    fn compact(&mut self) {
        dense(self);
    }
}

impl Editable for BTreeSet<Key> {
    /// The Secret, and whether it is wanted.
    type Edit = (Key, bool);

    fn edit(&mut self, (key, wanted): &Self::Edit) {
        if *wanted {
            self.insert(key.clone());
        } else {
            self.remove(key);
        }
    }

    fn compact(&mut self) {
        *self = std::mem::take(self).into_iter().collect();
    }
}

/// One entry after another in their order leaves nodes half full; made of all at once they are full.
fn dense<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, Arc<V>>, key: &K, value: Option<&Arc<V>>) {
    match value {
        Some(value) => map.insert(key.clone(), Arc::clone(value)),
        None => map.remove(key),
    };
}

/// What one call of [`Translator::apply`] has found to do.
#[derive(Default)]
struct Work {
    objects: BTreeSet<Id>,
    hosts: BTreeSet<HostPattern>,
    services: BTreeSet<Key>,
    /// Whose report is to be written again.
    reports: BTreeSet<Id>,
    backends: BTreeSet<BackendKey>,
    ports: BTreeSet<ServicePort>,
    default_certificate: bool,
    /// Secrets that were first or last named.
    secrets: BTreeSet<Key>,
    model: Vec<ModelEdit>,
    changes: Changes,
}

fn note(touched: &mut Touched, edits: &[ModelEdit]) {
    for edit in edits {
        match edit {
            ModelEdit::Host(pattern, _) => drop(touched.hosts.insert(pattern.clone())),
            ModelEdit::Backend(key, _) => drop(touched.backends.insert(key.clone())),
            ModelEdit::DefaultCertificate(_) => touched.default_certificate = true,
        }
    }
}

impl fmt::Debug for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Translator")
            .field("settings", &self.settings)
            .field("objects", &self.objects.len())
            .field("hosts", &self.hosts.len())
            .finish_non_exhaustive()
    }
}

impl Translator {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            certificates: CertificateCache::new(),
            pools: Pools::default(),
            objects: HashMap::new(),
            dependents: HashMap::new(),
            hosts: HashMap::new(),
            told: HashMap::new(),
            conflicts: HashMap::new(),
            backend_uses: HashMap::new(),
            port_uses: BTreeMap::new(),
            secret_uses: HashMap::new(),
            port_users: HashMap::new(),
            slice_services: HashMap::new(),
            model: Versions::default(),
            report: Versions::default(),
            endpoints: Versions::default(),
            wanted: Versions::default(),
        }
    }

    /// Reads everything anew. What comes out equal to what was there keeps its `Arc`.
    pub fn rebuild(&mut self, world: &World) -> Translation {
        let mut work = Work { default_certificate: true, ..Work::default() };
        work.secrets.extend(self.settings.default_certificate.clone());
        work.objects.extend(self.objects.keys().cloned());
        work.objects.extend(world.ingresses.keys().map(|key| Id { kind: Kind::Ingress, key: key.clone() }));
        work.objects.extend(world.proxy_routes.keys().map(|key| Id { kind: Kind::ProxyRoute, key: key.clone() }));
        work.services.extend(self.port_uses.keys().map(|port| Key { namespace: port.namespace.clone(), name: port.name.clone() }));
        self.slice_services =
            world.endpoint_slices.iter().filter_map(|(key, slice)| Some((key.clone(), service_of(slice)?))).collect();
        self.certificates.clear();
        self.run(world, work)
    }

    /// Brings the translation up to `world`, in which only `changes` differ from the World of the last call.
    pub fn apply(&mut self, world: &World, changes: &[Id]) -> Translation {
        let mut work = Work::default();
        for change in changes {
            match change.kind {
                Kind::Ingress | Kind::ProxyRoute => {
                    work.objects.insert(change.clone());
                }
                Kind::EndpointSlice => {
                    let now = world.endpoint_slices.get(&change.key).and_then(|slice| service_of(slice));
                    let before = match &now {
                        Some(service) => self.slice_services.insert(change.key.clone(), service.clone()),
                        None => self.slice_services.remove(&change.key),
                    };
                    work.services.extend(before.into_iter().chain(now));
                }
                Kind::IngressClass | Kind::Service | Kind::Secret => {
                    work.objects.extend(self.dependents.get(change).into_iter().flatten().cloned());
                    if change.kind == Kind::Service {
                        work.services.insert(change.key.clone());
                    }
                    work.default_certificate |=
                        change.kind == Kind::Secret && self.settings.default_certificate.as_ref() == Some(&change.key);
                }
            }
        }
        self.run(world, work)
    }

    fn run(&mut self, world: &World, mut work: Work) -> Translation {
        for id in std::mem::take(&mut work.objects) {
            self.read(world, &id, &mut work);
        }
        for pattern in std::mem::take(&mut work.hosts) {
            self.merge(&pattern, &mut work);
        }
        if work.default_certificate {
            self.default_certificate(world, &mut work);
        }
        self.settle_backends(&mut work);
        let model = std::mem::take(&mut work.model);
        note(&mut work.changes.touched, &model);
        self.model.advance(model);
        self.settle_endpoints(world, &mut work);
        let reports: Vec<_> = work.reports.iter().filter_map(|id| self.settle_report(id)).collect();
        work.changes.reports.extend(reports.iter().map(|(object, _)| object.clone()));
        self.report.advance(reports);
        self.settle_secrets(&work);
        self.pools.clean();
        Translation {
            changes: Arc::new(work.changes),
            model: Arc::clone(self.model.now()),
            report: Arc::clone(self.report.now()),
            endpoints: Arc::clone(self.endpoints.now()),
            wanted_secrets: Arc::clone(self.wanted.now()),
        }
    }

    /// Reads one object again, and notes which hosts that touches.
    fn read(&mut self, world: &World, id: &Id, work: &mut Work) {
        let reading = Reading::new(world, &self.settings, &mut self.certificates, &mut self.pools);
        let claims = match id.kind {
            Kind::Ingress => world.ingresses.get(&id.key).map(|ingress| ingress::read(reading, id, ingress)),
            Kind::ProxyRoute => world.proxy_routes.get(&id.key).map(|route| proxy_route::read(reading, id, route)),
            Kind::IngressClass | Kind::Service | Kind::EndpointSlice | Kind::Secret => None,
        };
        let there = claims.is_some();
        let mut known = self.objects.remove(id).unwrap_or_default();
        let mut now = claims.unwrap_or_default();
        // What is the same stays, and with it its claims stay shared with those that hosts hold.
        if known.claims != now {
            self.note_dependencies(id, &known.claims, &now);
            self.note_services(id, &known.claims, &now);
            self.note_secrets(&known.claims, &now, work);
            self.note_hosts(&known.claims, &mut now, work);
            work.reports.insert(id.clone());
            known.claims = now;
        }
        if there {
            self.objects.insert(id.clone(), known);
        }
    }

    fn note_dependencies(&mut self, id: &Id, before: &ObjectClaims, now: &ObjectClaims) {
        for gone in absent(before.dependencies(), now.dependencies()) {
            if let Some(dependents) = self.dependents.get_mut(gone) {
                dependents.remove(id);
                if dependents.is_empty() {
                    self.dependents.remove(gone);
                }
            }
        }
        for new in absent(now.dependencies(), before.dependencies()) {
            self.dependents.entry(new.clone()).or_default().insert(id.clone());
        }
    }

    fn note_services(&mut self, id: &Id, before: &ObjectClaims, now: &ObjectClaims) {
        for (_, port) in before.services() {
            if let Some(users) = self.port_users.get_mut(port) {
                users.remove(id);
                if users.is_empty() {
                    self.port_users.remove(port);
                }
            }
        }
        for (_, port) in now.services() {
            self.port_users.entry(port.clone()).or_default().insert(id.clone());
        }
    }

    fn note_secrets(&mut self, before: &ObjectClaims, now: &ObjectClaims, work: &mut Work) {
        for gone in absent(before.secrets(), now.secrets()) {
            count_down(&mut self.secret_uses, gone);
            work.secrets.insert(gone.clone());
            if !self.secret_uses.contains_key(gone) {
                self.certificates.remove(gone);
            }
        }
        for new in absent(now.secrets(), before.secrets()) {
            *self.secret_uses.entry(new.clone()).or_default() += 1;
            work.secrets.insert(new.clone());
        }
    }

    fn note_hosts(&mut self, before: &ObjectClaims, now: &mut ObjectClaims, work: &mut Work) {
        for (pattern, claim) in &before.hosts {
            if now.host(pattern).is_none_or(|now| now != claim) {
                if let Some(claims) = self.hosts.get_mut(pattern) {
                    claims.remove(&claim.order);
                }
                work.hosts.insert(pattern.clone());
            }
        }
        for (pattern, claim) in &mut now.hosts {
            match before.host(pattern) {
                Some(before) if before == claim => *claim = Arc::clone(before),
                _ => {
                    self.hosts.entry(pattern.clone()).or_default().insert(Arc::clone(claim));
                    work.hosts.insert(pattern.clone());
                }
            }
        }
    }

    /// Merges the claims on one host again.
    fn merge(&mut self, pattern: &HostPattern, work: &mut Work) {
        let previous = self.model.now().hosts.get(pattern).cloned();
        let Some(claims) = self.hosts.get(pattern) else { return };
        let merged = merge(pattern, claims, previous.as_ref());
        if claims.is_empty() {
            self.hosts.remove(pattern);
        }
        let mut told: BTreeMap<Id, Vec<Finding>> = BTreeMap::new();
        for (id, finding) in merged.conflicts {
            told.entry(id).or_default().push(finding);
        }
        let mut concerned: BTreeSet<Id> = self.told.remove(pattern).into_iter().flatten().collect();
        concerned.extend(told.keys().cloned());
        if !told.is_empty() {
            self.told.insert(pattern.clone(), told.keys().cloned().collect());
        }
        for id in &concerned {
            let by_host = self.conflicts.entry(id.clone()).or_default();
            let before = by_host.remove(pattern);
            let now = told.remove(id);
            if before != now {
                work.reports.insert(id.clone());
            }
            if let Some(now) = now {
                by_host.insert(pattern.clone(), now);
            }
            if by_host.is_empty() {
                self.conflicts.remove(id);
            }
        }
        let same = match (&previous, &merged.host) {
            (Some(previous), Some(now)) => Arc::ptr_eq(previous, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.count_uses(previous.as_deref(), merged.host.as_deref(), work);
            work.model.push(ModelEdit::Host(pattern.clone(), merged.host));
        }
    }

    /// Counts the routes of a host by their objects, and what they name, as far as the routes are not the same.
    fn count_uses(&mut self, before: Option<&Host>, now: Option<&Host>, work: &mut Work) {
        let before = before.map(|host| host.routes.as_slice()).unwrap_or_default();
        let now = now.map(|host| host.routes.as_slice()).unwrap_or_default();
        let (start, end) = common_ends(before, now);
        // First what came, so that what only moved never counts as gone.
        for route in now.iter().take(now.len() - end).skip(start) {
            for key in backends(route) {
                *self.backend_uses.entry(key.clone()).or_default() += 1;
                work.backends.insert(key.clone());
            }
            if let Some(id) = author(route) {
                if let Some(object) = self.objects.get_mut(&id) {
                    object.routes += 1;
                }
                work.reports.insert(id);
            }
        }
        for route in before.iter().take(before.len() - end).skip(start) {
            for key in backends(route) {
                count_down(&mut self.backend_uses, key);
                work.backends.insert(key.clone());
            }
            if let Some(id) = author(route) {
                // One that is gone has no count any more.
                if let Some(object) = self.objects.get_mut(&id) {
                    object.routes = object.routes.saturating_sub(1);
                }
                work.reports.insert(id);
            }
        }
    }

    fn settle_backends(&mut self, work: &mut Work) {
        for key in &work.backends {
            let (was, is) = (self.model.now().backends.contains_key(key), self.backend_uses.contains_key(key));
            if was == is {
                continue;
            }
            work.model.push(ModelEdit::Backend(key.clone(), is.then(|| Arc::new(Backend { key: key.clone() }))));
            if let Origin::Service(port) = &key.origin {
                let uses = self.port_uses.entry(port.clone()).or_default();
                *uses = if is { *uses + 1 } else { uses.saturating_sub(1) };
                if *uses == 0 {
                    self.port_uses.remove(port);
                }
                work.ports.insert(port.clone());
            }
        }
    }

    fn settle_endpoints(&mut self, world: &World, work: &mut Work) {
        for service in &work.services {
            let first = ServicePort { namespace: service.namespace.clone(), name: service.name.clone(), port: "".into() };
            let ports = self.port_uses.range(first..).map(|(port, _)| port);
            let ports = ports.take_while(|port| port.namespace == service.namespace && port.name == service.name);
            work.ports.extend(ports.cloned());
        }
        let mut edits = Vec::new();
        for port in &work.ports {
            let before = self.endpoints.now().get(port);
            let now = self.port_uses.contains_key(port).then(|| endpoints::endpoint_set(world, port));
            if before.map(|set| &**set) == now.as_ref() {
                continue;
            }
            let silent = |set: Option<&EndpointSet>| set.is_some_and(|set| set.endpoints.is_empty());
            if silent(before.map(|set| &**set)) != silent(now.as_ref()) {
                work.reports.extend(self.port_users.get(port).into_iter().flatten().cloned());
            }
            edits.push((port.clone(), now.map(Arc::new)));
        }
        work.changes.touched.endpoints.extend(edits.iter().map(|(port, _)| port.clone()));
        self.endpoints.advance(edits);
    }

    fn settle_secrets(&mut self, work: &Work) {
        let edits = work.secrets.iter().filter_map(|key| {
            let wanted = self.secret_uses.contains_key(key) || self.settings.default_certificate.as_ref() == Some(key);
            (self.wanted.now().contains(key) != wanted).then(|| (key.clone(), wanted))
        });
        let edits = edits.collect();
        self.wanted.advance(edits);
    }

    /// Writes the report of one object again.
    fn settle_report(&self, id: &Id) -> Option<(ObjectRef, Option<Arc<ObjectReport>>)> {
        let object = id.object_ref();
        let before = self.report.now().objects.get(&object);
        let Some(Known { claims, routes }) = self.objects.get(id).map(|known| &**known).filter(|known| known.claims.ours) else {
            // That of the default certificate is written where the certificate is read.
            return (before.is_some() && id.kind != Kind::Secret).then_some((object, None));
        };
        let told: Vec<&Finding> = self.conflicts.get(id).into_iter().flat_map(BTreeMap::values).flatten().collect();
        let silent: Vec<Finding> = claims.services().iter().filter_map(|(field, port)| self.silent(field, port)).collect();
        let superseded =
            |finding: &&Finding| finding.verdict == Verdict::Honoured && told.iter().any(|told| told.field == finding.field);
        let findings: Shared<[Finding]> = if told.is_empty() && silent.is_empty() {
            claims.findings.clone()
        } else {
            let own = claims.findings.iter().filter(|finding| !superseded(finding));
            own.chain(told.iter().copied()).cloned().chain(silent).collect()
        };
        let report = ObjectReport { generation: claims.generation, served: *routes > 0, findings };
        if before.is_some_and(|before| **before == report) {
            return None;
        }
        Some((object, Some(Arc::new(report))))
    }

    fn silent(&self, field: &str, port: &ServicePort) -> Option<Finding> {
        let set = self.endpoints.now().get(port)?;
        set.endpoints.is_empty().then(|| Finding {
            verdict: Verdict::Ignored,
            field: field.to_owned(),
            reason: Reason::NoEndpoints,
            message: format!("no endpoint of {port} is ready; requests are answered 503"),
        })
    }

    /// `--default-ssl-certificate`
    fn default_certificate(&mut self, world: &World, work: &mut Work) {
        let mut source = CertificateSource::SelfSigned;
        if let Some(key) = self.settings.default_certificate.clone() {
            let mut reading = Reading::new(world, &self.settings, &mut self.certificates, &mut self.pools);
            let id = Id { kind: Kind::Secret, key: key.clone() };
            let mut findings = Vec::new();
            match reading.certificate(&key.namespace, &key.name, false) {
                Ok(certificate) => source = CertificateSource::Given(Arc::clone(&certificate.pair)),
                Err(problem) => findings.push(Finding {
                    verdict: Verdict::Refused,
                    field: "data".to_owned(),
                    reason: problem.reason(),
                    message: format!("{problem}; as default certificate one is made instead"),
                }),
            }
            let object = id.object_ref();
            let now = (!findings.is_empty()).then(|| ObjectReport { findings: findings.into(), ..ObjectReport::default() });
            if self.report.now().objects.get(&object).map(|report| &**report) != now.as_ref() {
                work.changes.reports.push(object.clone());
                self.report.advance(vec![(object, now.map(Arc::new))]);
            }
        }
        if self.model.now().default_certificate != source {
            work.model.push(ModelEdit::DefaultCertificate(source));
        }
    }
}

/// The object that asked for a route.
fn author(route: &Route) -> Option<Id> {
    let ObjectRef { kind, namespace, name } = &route.object;
    let kind = [Kind::Ingress, Kind::ProxyRoute].into_iter().find(|known| known.name() == *kind)?;
    Some(Id { kind, key: Key { namespace: Arc::clone(namespace), name: Arc::clone(name) } })
}

/// The backends that a route names.
fn backends(route: &Route) -> impl Iterator<Item = &BackendKey> {
    let forward = match &*route.action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    forward.into_iter().flat_map(|forward| &forward.backends).map(|weighted| &weighted.backend)
}

fn count_down<K: Eq + std::hash::Hash>(uses: &mut HashMap<K, usize>, key: &K) {
    let Some(count) = uses.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        uses.remove(key);
    }
}
