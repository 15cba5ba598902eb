//! What an Ingress says (`networking.k8s.io/v1`), in either profile.

mod asked;
mod balancing;
mod tls;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};
use penstock_model::{
    Action, Forward, HostPattern, HostRewrite, Match, ObjectRef, PathForm, PathMatch, PathRewrite, Policies, Redirect,
    RedirectTarget, Respond, Route, Shared, WeightedBackend, pattern,
};

use self::asked::Asked;
use crate::{
    Id, Profile, Reason,
    annotations::{PATH_VARIABLES, VirtualHost, quoted},
    backends::{self, ServiceReference},
    claim::{HostClaim, NginxPath, ObjectClaims, Order, RouteClaim},
    locations, names, ownership,
    profile::Defaults,
    reading::Reading,
};

/// Answers what was asked for and cannot be done safely.
const CLOSED: u16 = 503;

/// Reads an Ingress.
pub(crate) fn read(mut reading: Reading<'_>, id: &Id, ingress: &Ingress) -> ObjectClaims {
    let annotations = ingress.metadata.annotations.as_ref();
    let spec = ingress.spec.clone().unwrap_or_default();
    let profile = ownership::of_ingress(&mut reading, &id.key.namespace, spec.ingress_class_name.as_deref(), annotations);
    let Some(profile) = profile else {
        return ObjectClaims { needs: reading.needs(), ..ObjectClaims::default() };
    };
    let asked = Asked::read(&mut reading, profile.defaults(), annotations);
    let order = Arc::new(Order {
        created: ingress.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        ingress_nginx: profile == Profile::IngressNginx,
        object: id.clone(),
    });
    let policies = reading.pools.policies.share(asked.policies.clone());
    let mut reader = Reader {
        reading,
        asked,
        policies,
        defaults: profile.defaults(),
        nginx: profile == Profile::IngressNginx,
        object: id.object_ref(),
        order,
        namespace: &id.key.namespace,
        hosts: BTreeMap::new(),
        rule_less: spec.rules.as_ref().is_none_or(Vec::is_empty),
    };
    if !reader.asked.refused {
        reader.spec(&spec);
    }
    let Reader { mut reading, hosts, .. } = reader;
    ObjectClaims {
        ours: true,
        generation: ingress.metadata.generation.unwrap_or_default(),
        findings: reading.share_findings(),
        hosts: hosts.into_iter().map(|(pattern, claim)| (pattern, Arc::new(claim))).collect(),
        needs: reading.needs(),
    }
}

struct Reader<'w, 'a> {
    reading: Reading<'w>,
    asked: Asked,
    policies: Shared<Policies>,
    defaults: &'static Defaults,
    nginx: bool,
    object: ObjectRef,
    order: Arc<Order>,
    namespace: &'a str,
    hosts: BTreeMap<HostPattern, HostClaim>,
    rule_less: bool,
}

/// The kinds of `pathType`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathType {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// Whether a path can be run as a pattern.
enum Runnable {
    Yes,
    /// No, and the path is left out.
    LeftOut,
    /// No, and since its Ingress keeps clients out, all that begins so is closed.
    Closed(Box<str>),
}

impl Reader<'_, '_> {
    fn spec(&mut self, spec: &k8s_openapi::api::networking::v1::IngressSpec) {
        let rules = spec.rules.as_deref().unwrap_or_default();
        for (number, rule) in rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default();
            let pattern = if host.is_empty() { Some(HostPattern::Any) } else { names::host_pattern(host) };
            let Some(pattern) = pattern else {
                let message = format!("{} is not a DNS name or *.NAME; the rule is left out", quoted(host));
                self.reading.refused(format!("spec.rules[{number}].host"), Reason::InvalidValue, message);
                continue;
            };
            self.host(&pattern);
            if rule.http.as_ref().is_none_or(|http| http.paths.is_empty()) && spec.default_backend.is_none() {
                let message = "there are no paths; requests are answered 404 unless another object claims their path";
                self.reading.ignored(format!("spec.rules[{number}]"), Reason::NoEffect, message);
            }
            for (place, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                self.path(&pattern, number, place, path);
            }
        }
        if let Some(backend) = &spec.default_backend {
            self.default_backend(backend, rules.is_empty());
        } else if rules.is_empty() {
            self.reading.refused("spec", Reason::InvalidValue, "there is neither a rule nor a default backend; nothing is served");
        }
        self.implied();
        self.tls(spec.tls.as_deref().unwrap_or_default());
    }

    /// The claim on a host, which begins empty.
    fn host(&mut self, pattern: &HostPattern) -> &mut HostClaim {
        self.hosts.entry(pattern.clone()).or_insert_with(|| HostClaim {
            order: Arc::clone(&self.order),
            routes: Vec::new(),
            app_root: None,
            fallback: None,
            rule_less: self.rule_less,
            implied_root: None,
            tls: None,
            certificate_only: false,
        })
    }

    fn path(&mut self, host: &HostPattern, rule: usize, place: usize, path: &HTTPIngressPath) {
        let field = format!("spec.rules[{rule}].http.paths[{place}]");
        let Some((text, kind)) = self.path_type(&field, path) else { return };
        let before = self.reading.findings.len();
        let Some(forward) = self.forward(&path.backend, &field) else { return };
        let name = format!("rules[{rule}].paths[{place}]");
        let claim = if self.nginx {
            self.nginx_path(&field, &name, &text, kind, forward)
        } else {
            self.native_path(&field, &name, &text, kind, forward)
        };
        let Some(claim) = claim else { return };
        self.served(&field, before);
        self.host(host).routes.push(claim);
    }

    /// Says of a field what became of it, unless something was said since there were so many findings.
    fn served(&mut self, field: &str, findings: usize) {
        if self.reading.findings.len() > findings {
            return;
        }
        match &self.asked.closed_by {
            None => self.reading.honoured(field),
            Some(by) => {
                let message = format!("requests are answered 503 because of {by}");
                self.reading.ignored(field, Reason::NoEffect, message);
            }
        }
    }

    /// The path's text and type, if they go together.
    fn path_type(&mut self, field: &str, path: &HTTPIngressPath) -> Option<(String, PathType)> {
        let kind = match path.path_type.as_str() {
            "Exact" => PathType::Exact,
            "Prefix" => PathType::Prefix,
            // A manifest in a file may leave it out; ingress-nginx reads that as ImplementationSpecific.
            "ImplementationSpecific" | "" => PathType::ImplementationSpecific,
            other => {
                let message = format!("{} is not Exact, Prefix or ImplementationSpecific; the path is left out", quoted(other));
                self.reading.refused(format!("{field}.pathType"), Reason::InvalidValue, message);
                return None;
            }
        };
        let text = match path.path.as_deref() {
            None | Some("") => "/",
            Some(text) => text,
        };
        if !text.starts_with('/') {
            let message = format!("{} does not begin with /; the path is left out", quoted(text));
            self.reading.refused(format!("{field}.path"), Reason::InvalidValue, message);
            return None;
        }
        Some((text.to_owned(), kind))
    }

    fn native_path(&mut self, field: &str, name: &str, text: &str, kind: PathType, mut forward: Forward) -> Option<RouteClaim> {
        let target = self.asked.rewrite_target.clone();
        let groups = target.as_deref().is_some_and(has_groups);
        let path = if kind == PathType::ImplementationSpecific && (self.asked.use_regex || groups) {
            match self.check_regex(field, text, false) {
                Runnable::Yes => {}
                Runnable::LeftOut => return None,
                Runnable::Closed(start) => {
                    let route = self.closed_route(name, locations::closed(&start, text, false));
                    return Some(RouteClaim { field: field.into(), route: Arc::new(route), nginx: None });
                }
            }
            if let Some(replacement) = target {
                forward.path = PathRewrite::Regex { pattern: text.into(), ignore_case: false, replacement };
            }
            PathMatch::Regex { pattern: text.into(), ignore_case: false }
        } else {
            if groups {
                let message = format!(
                    "{} names groups, and the path {} is not a regular expression (it would be, as ImplementationSpecific); the path is \
                     not rewritten",
                    quoted(target.as_deref().unwrap_or_default()),
                    quoted(text)
                );
                self.reading.refused(format!("{field}.pathType"), Reason::InvalidValue, message);
            } else if let Some(target) = target {
                forward.path = PathRewrite::Full(target);
            }
            if kind == PathType::Exact { PathMatch::Exact(text.into()) } else { PathMatch::Prefix(text.into()) }
        };
        let route = self.route(name, path, self.action(forward));
        Some(RouteClaim { field: field.into(), route: Arc::new(route), nginx: None })
    }

    /// How the path is matched is for the whole host to say; what does not depend on that is settled here.
    fn nginx_path(&mut self, field: &str, name: &str, text: &str, kind: PathType, forward: Forward) -> Option<RouteClaim> {
        let exact = kind == PathType::Exact;
        let target = self.asked.rewrite_target.clone();
        let mut closed = None;
        if self.asked.use_regex || target.as_deref().is_some_and(|target| target != text) {
            closed = match self.check_regex(field, text, true) {
                Runnable::Yes => None,
                Runnable::LeftOut => return None,
                Runnable::Closed(start) => Some(start),
            };
        }
        let path = if exact { PathMatch::Exact(text.into()) } else { PathMatch::Prefix(text.into()) };
        let (route, nginx) = if closed.is_some() {
            (self.closed_route(name, path), NginxPath { path: text.into(), exact, regex: true, target: None, closed })
        } else {
            let nginx = NginxPath { path: text.into(), exact, regex: self.asked.use_regex, target, closed };
            (self.route(name, path, self.action(forward)), nginx)
        };
        Some(RouteClaim { field: field.into(), route: Arc::new(route), nginx: Some(Box::new(nginx)) })
    }

    /// Whether a path can be run as a pattern; if not, its owner is told.
    fn check_regex(&mut self, field: &str, text: &str, ignore_case: bool) -> Runnable {
        let free = pattern::after_nginx_anchor(text).filter(|_| self.nginx);
        let result = pattern::compile_path(free.as_deref().unwrap_or(text), ignore_case)
            .and_then(|_| pattern::compile_rewrite(text, ignore_case));
        let Err(error) = result else { return Runnable::Yes };
        let start = self.asked.guards().then(|| pattern::literal_start(text));
        let instead = match start {
            Some(start) => format!(
                "requests whose path begins with {} are answered 503, since the Ingress keeps clients out and no other path may let them \
                 in",
                quoted(start)
            ),
            None => "the path is left out".to_owned(),
        };
        let message = format!("{}: {error}; {instead}", quoted(text));
        self.reading.refused(format!("{field}.path"), Reason::InvalidValue, message);
        start.map_or(Runnable::LeftOut, |start| Runnable::Closed(start.into()))
    }

    /// A route that answers 503.
    fn closed_route(&mut self, rule: &str, path: PathMatch) -> Route {
        let mut route = self.route(rule, path, Action::Respond(Respond { code: CLOSED, body: None, content_type: None }));
        route.policies = asked::closed(&route.policies, self.defaults).into();
        route
    }

    /// Sends to the backend of a path. None: the path is to be left out.
    fn forward(&mut self, backend: &IngressBackend, field: &str) -> Option<Forward> {
        let mut forward = Forward { backends: Vec::new(), path: self.defaults.path.clone(), host: HostRewrite::AsReceived };
        if let Some(service) = &backend.service {
            let port = service.port.as_ref();
            let number = port.and_then(|port| port.number).map(|number| number.to_string());
            let reference = ServiceReference {
                namespace: self.namespace,
                name: &service.name,
                port: number.or_else(|| port.and_then(|port| port.name.clone())).unwrap_or_default(),
                field: format!("{field}.backend.service"),
            };
            forward.host = self.virtual_host(&reference);
            let spoken = &self.asked.spoken;
            let backend = backends::of_service(&mut self.reading, &reference, spoken, self.defaults.external_names_need_leave);
            forward.backends.push(WeightedBackend { backend, weight: 1 });
            return Some(forward);
        }
        let skip = self.defaults.skip_resource_backends;
        let (field, reason, what) = match &backend.resource {
            Some(resource) => (
                format!("{field}.backend.resource"),
                Reason::UnsupportedField,
                format!("{} {} is no Service", resource.kind, resource.name),
            ),
            None => (format!("{field}.backend"), Reason::InvalidValue, "there is no backend".to_owned()),
        };
        let instead = if skip { "the path is left out" } else { "requests are answered 503" };
        self.reading.refused(field, reason, format!("{what}; {instead}"));
        (!skip).then_some(forward)
    }

    /// The Host header for a path whose backend is this.
    fn virtual_host(&self, to: &ServiceReference<'_>) -> HostRewrite {
        let VirtualHost::Text(text) = &self.asked.host else { return HostRewrite::AsReceived };
        let mut host = text.to_string();
        for variable in PATH_VARIABLES {
            let value = match variable {
                "proxy_upstream_name" => format!("{}-{}-{}", to.namespace, to.name, to.port),
                "service_name" => to.name.to_owned(),
                "service_port" => to.port.clone(),
                "ingress_name" => self.object.name.to_string(),
                _ => to.namespace.to_owned(),
            };
            host = host.replace(&format!("${{{variable}}}"), &value).replace(&format!("${variable}"), &value);
        }
        HostRewrite::To(host.into())
    }

    /// What is done with a request that would be forwarded so.
    fn action(&self, forward: Forward) -> Action {
        if self.asked.closed_by.is_some() {
            return Action::Respond(Respond { code: CLOSED, body: None, content_type: None });
        }
        match &self.asked.redirect {
            Some(redirect) => Action::Redirect(redirect.clone()),
            None => Action::Forward(forward),
        }
    }

    fn route(&mut self, rule: &str, path: PathMatch, action: Action) -> Route {
        let mut policies = self.policies.clone();
        if self.asked.cookie_by_path && policies.balancing.affinity.is_some() {
            let path = self.cookie_path(&path);
            if let Some(affinity) = &mut policies.balancing.affinity {
                affinity.cookie.path = path;
            }
        }
        let matches = self.any(path);
        let pools = &mut *self.reading.pools;
        let (matches, action) = (pools.matches.share(matches), pools.actions.share(action));
        Route { object: self.object.clone(), rule: rule.into(), matches, action, policies }
    }

    /// The path for cookies that are for the paths that this matches.
    fn cookie_path(&self, path: &PathMatch) -> Box<str> {
        let pattern = self.asked.use_regex || self.asked.rewrite_target.is_some();
        // What would end the attribute cannot stand in it.
        let fits = |path: &str| path.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && byte != b';');
        match path {
            PathMatch::Exact(path) if fits(path) => path.clone(),
            PathMatch::Prefix(path) if fits(path) && !(self.nginx && pattern) => path.clone(),
            PathMatch::Exact(_) => "/".into(),
            // What begins with this folder is all that clients can be told of a pattern.
            PathMatch::Prefix(text) | PathMatch::Regex { pattern: text, .. } | PathMatch::Location { written: text, .. } => {
                let start = pattern::literal_start(text);
                let folder = start.rsplit_once('/').map_or("", |(folder, _)| folder);
                if folder.is_empty() || !fits(folder) { "/".into() } else { folder.into() }
            }
        }
    }

    fn any(&self, path: PathMatch) -> Match {
        Match { path, form: self.defaults.path_form, method: None, headers: Vec::new(), query: Vec::new() }
    }

    /// The backend of requests that no path takes: of the Ingress's own hosts or, without rules, of every host that nobody claims.
    fn default_backend(&mut self, backend: &IngressBackend, alone: bool) {
        let field = "spec.defaultBackend";
        let findings = self.reading.findings.len();
        let Some(forward) = self.forward_default(backend) else { return };
        let only_any = self.hosts.keys().all(|host| *host == HostPattern::Any);
        if self.nginx && !alone && only_any {
            let message = "a rule without host does not make this the backend of all hosts that nobody claims, in the ingress-nginx \
                           profile: an Ingress without rules does";
            self.reading.ignored(field, Reason::NoEffect, message);
        }
        self.served(field, findings);
        // ingress-nginx applies redirects to the default backend of a host, and not to that of all others.
        let action =
            if alone && self.nginx && self.asked.closed_by.is_none() { Action::Forward(forward) } else { self.action(forward) };
        let route = Arc::new(self.route("defaultBackend", PathMatch::Prefix("/".into()), action));
        let claim = RouteClaim { field: field.into(), route, nginx: None };
        if alone {
            self.host(&HostPattern::Any).fallback = Some(Box::new(claim));
        } else {
            for (pattern, host) in &mut self.hosts {
                // The host of all others is nobody's to make: as in ingress-nginx, an Ingress without rules says what it falls back on.
                if !self.nginx || *pattern != HostPattern::Any {
                    host.fallback = Some(Box::new(claim.clone()));
                }
            }
        }
    }

    /// Fields of the default backend have no `backend` between them.
    fn forward_default(&mut self, backend: &IngressBackend) -> Option<Forward> {
        let before = self.reading.findings.len();
        let services = self.reading.services.len();
        let forward = self.forward(backend, "spec.defaultBackend");
        for finding in self.reading.findings.iter_mut().skip(before) {
            finding.field = finding.field.replacen(".backend", "", 1);
        }
        for (field, _) in self.reading.services.iter_mut().skip(services) {
            *field = field.replacen(".backend", "", 1);
        }
        forward
    }

    /// What follows from the Ingress as a whole, for each of its hosts.
    fn implied(&mut self) {
        if let Some((path, field)) = self.asked.app_root.clone() {
            let target = RedirectTarget::SameOrigin { path };
            let action = Action::Redirect(Redirect { code: 302, target });
            let mut route = self.route("app-root", PathMatch::Exact("/".into()), action);
            if self.nginx {
                route.policies.https_redirect = None;
            }
            let claim = RouteClaim { field: field.into(), route: Arc::new(route), nginx: None };
            for host in self.hosts.values_mut() {
                host.app_root = Some(Box::new(claim.clone()));
            }
        }
        if self.nginx {
            let action = if self.asked.closed_by.is_some() || self.asked.redirect.is_some() {
                self.action(Forward { backends: Vec::new(), path: PathRewrite::AsReceived, host: HostRewrite::AsReceived })
            } else {
                Action::Respond(Respond { code: 404, body: None, content_type: None })
            };
            let route = Arc::new(self.route("root", PathMatch::Prefix("/".into()), action));
            for (pattern, host) in &mut self.hosts {
                host.implied_root = (*pattern != HostPattern::Any).then(|| Arc::clone(&route));
            }
        }
    }
}

/// Where the health checks of balancers come to ingress-nginx.
pub(crate) const HEALTH: &str = "/healthz";

/// The answer to health checks at the host of all others, which no Ingress takes from ingress-nginx that does not name the path. Where the
/// host has no root, the data plane answers by itself.
pub(crate) fn health(root: ObjectRef) -> Route {
    let answer = Respond { code: 200, body: Some("ok\n".into()), content_type: Some("text/plain; charset=utf-8".into()) };
    Route {
        object: root,
        rule: "healthz".into(),
        matches: Match {
            path: PathMatch::Exact(HEALTH.into()),
            form: PathForm::Decoded,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
        .into(),
        action: Action::Respond(answer).into(),
        policies: Policies { https_redirect: None, ..Profile::IngressNginx.defaults().policies() }.into(),
    }
}

/// Whether a rewrite names a group of the pattern.
fn has_groups(target: &str) -> bool {
    target.as_bytes().windows(2).any(|pair| matches!(pair, [b'$', b'1'..=b'9']))
}

/// The slash redirect of nginx: `/foo` to `/foo/`, decided before any annotation is looked at (`ingress-nginx` v1.15.1, recorded).
pub(crate) fn slash_redirect(of: &Route, path: &str) -> Option<Route> {
    let short = path.strip_suffix('/').filter(|short| !short.is_empty())?;
    let target = RedirectTarget::Parts { scheme: None, host: None, port: None, path: Some(path.into()) };
    Some(Route {
        object: of.object.clone(),
        rule: format!("{}.slash", of.rule).into(),
        matches: Match {
            path: PathMatch::Exact(short.into()),
            form: PathForm::Decoded,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
        .into(),
        action: Action::Redirect(Redirect { code: 301, target }).into(),
        policies: Policies { https_redirect: None, ..Profile::IngressNginx.defaults().policies() }.into(),
    })
}
