//! A route as the workers run it: the model's route, its backends by handle, and what can be made ready beforehand.
//!
//! Policies run in one order for every route, however it was written ([`CompiledRoute::decide`]): a redirect of ingress-nginx's, redirect to
//! HTTPS, address rules, whether upgrades are allowed, the declared length of the body; then a redirect or fixed answer, or forwarding: fields that belong to
//! the hop, forwarding headers, the route's own edits, rewrite, backends. What is refused early costs nothing later.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use penstock_model::{Action, Forward, Forwarding, HostRewrite, ObjectRef, Respond, Route};

use crate::{
    engine::HeaderPlan,
    head::RequestHead,
    metrics::{Metrics, RouteMetrics},
    policy::{Answer, Content, addresses, https_redirect, redirect, rewrite::Rewrite},
    upstream::{Backend, Registry},
};

/// A compiled route. Requests hold it by `Arc`, never the table that it came from.
#[derive(Debug)]
pub struct CompiledRoute {
    /// The route of the model.
    pub route: Arc<Route>,
    name: Arc<RouteName>,
    pub(crate) request_headers: HeaderPlan,
    pub(crate) response_headers: HeaderPlan,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) action: CompiledAction,
}

/// What a route is called, in logs and metrics: all that is kept of it by what outlives tables.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteName {
    pub(crate) object: ObjectRef,
    pub(crate) rule: Box<str>,
}

#[derive(Debug)]
pub(crate) enum CompiledAction {
    Forward(CompiledForward),
    Redirect(penstock_model::Redirect),
    Respond(Answer),
}

/// Where a route sends requests.
#[derive(Debug)]
pub(crate) struct CompiledForward {
    pub(crate) backends: Vec<(Arc<Backend>, u32)>,
    total_weight: u64,
    turn: AtomicU64,
    pub(crate) rewrite: Rewrite,
    pub(crate) host: Option<Box<str>>,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Decision<'r> {
    Answer(Answer),
    Forward(&'r CompiledForward),
}

/// Compiles a route. Pure but for the registry, where the backends it names are made if they are new.
pub fn compile(route: &Arc<Route>, registry: &Registry, metrics: &Metrics) -> CompiledRoute {
    let action = match &*route.action {
        Action::Forward(forward) => CompiledAction::Forward(CompiledForward::new(forward, route, registry)),
        Action::Redirect(redirect) => CompiledAction::Redirect(redirect.clone()),
        Action::Respond(respond) => CompiledAction::Respond(respond_answer(respond)),
    };
    let name = Arc::new(RouteName { object: route.object.clone(), rule: route.rule.clone() });
    CompiledRoute {
        request_headers: HeaderPlan::compile(&route.policies.request_headers),
        response_headers: HeaderPlan::compile(&route.policies.response_headers),
        metrics: metrics.route(&name),
        action,
        name,
        route: route.clone(),
    }
}

fn respond_answer(respond: &Respond) -> Answer {
    let content = match &respond.body {
        None => Content::Page { hint: None },
        Some(body) => Content::Text {
            content_type: respond.content_type.as_deref().unwrap_or("text/plain; charset=utf-8").into(),
            body: (&**body).into(),
        },
    };
    Answer { status: respond.code, location: None, content }
}

impl CompiledForward {
    fn new(forward: &Forward, route: &Route, registry: &Registry) -> Self {
        let backends: Vec<_> = forward
            .backends
            .iter()
            .filter(|backend| backend.weight > 0)
            .map(|weighted| (registry.backend(&weighted.backend), weighted.weight))
            .collect();
        Self {
            total_weight: backends.iter().map(|(_, weight)| u64::from(*weight)).sum(),
            backends,
            turn: AtomicU64::new(0),
            rewrite: Rewrite::compile(&forward.path, &route.matches),
            host: match &forward.host {
                HostRewrite::AsReceived => None,
                HostRewrite::To(host) => Some(host.clone()),
            },
        }
    }

    /// The backend whose turn it is, in proportion to weight; another one if that has no endpoint now. None: no backend has any, or it is the
    /// turn of one that does not exist, whose share is nobody else's (Gateway API, `HTTPRouteRule.backendRefs`).
    ///
    /// `kept`: how the backend calls itself that a client is to be brought back to.
    pub(crate) fn choose(&self, kept: Option<&str>) -> Option<&Arc<Backend>> {
        if let [(only, _)] = &*self.backends {
            return only.has_endpoints().then_some(only);
        }
        if let Some(kept) = kept {
            let mut backends = self.backends.iter().map(|(backend, _)| backend);
            let found = backends.find(|backend| backend.has_endpoints() && backend.balance.tag(backend.name()) == kept);
            if found.is_some() {
                return found;
            }
        }
        // Multiples of the golden ratio spread evenly whatever the weights, and need no state but a count.
        let turn = self.turn.fetch_add(1, Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut point = (turn * self.total_weight) >> 32;
        let chosen = self.backends.iter().position(|(_, weight)| {
            let here = point < u64::from(*weight);
            point = point.saturating_sub(u64::from(*weight));
            here
        });
        let (before, from) = self.backends.split_at_checked(chosen?)?;
        if from.first().is_some_and(|(chosen, _)| chosen.is_missing()) {
            return None;
        }
        from.iter().chain(before).map(|(backend, _)| backend).find(|backend| backend.has_endpoints())
    }
}

impl CompiledRoute {
    pub(crate) fn name(&self) -> &Arc<RouteName> {
        &self.name
    }

    /// The backends that it sends requests to, with their weights.
    pub fn backends(&self) -> &[(Arc<Backend>, u32)] {
        match &self.action {
            CompiledAction::Forward(forward) => &forward.backends,
            CompiledAction::Redirect(_) | CompiledAction::Respond(_) => &[],
        }
    }

    pub(crate) fn ingress_nginx(&self) -> bool {
        self.route.policies.forwarding == Forwarding::IngressNginx
    }

    /// A redirect of ingress-nginx's is answered before it goes to HTTPS, and is open to all addresses.
    fn redirects_first(&self) -> bool {
        matches!(self.action, CompiledAction::Redirect(_))
            && (self.ingress_nginx() || self.route.policies.https_redirect.is_some_and(|rule| rule.after_redirects))
    }

    /// Runs the stages up to the backends.
    pub(crate) fn decide(&self, request: &RequestHead<'_>) -> Decision<'_> {
        match self.refuse(request) {
            Some(answer) => Decision::Answer(answer),
            None => match &self.action {
                CompiledAction::Redirect(redirect) => Decision::Answer(redirect::answer(redirect, request)),
                CompiledAction::Respond(answer) => Decision::Answer(answer.clone()),
                CompiledAction::Forward(forward) => Decision::Forward(forward),
            },
        }
    }

    fn refuse(&self, request: &RequestHead<'_>) -> Option<Answer> {
        let policies = &self.route.policies;
        if self.redirects_first() {
            return None;
        }
        if let Some(answer) = policies.https_redirect.and_then(|rule| https_redirect::redirect(rule, request)) {
            return Some(answer);
        }
        if let Some(answer) = addresses::refuse(&policies.addresses, request.client.address) {
            return Some(answer);
        }
        if request.upgrade.is_some() && !policies.websocket.enabled && matches!(self.action, CompiledAction::Forward(_)) {
            return Some(Answer::page(403, "WebSockets are switched off for this route."));
        }
        match (policies.max_body_size, request.content_length) {
            (Some(limit), Some(length)) if length > limit => {
                Some(Answer::page(413, "The request's body is larger than this route allows."))
            }
            _ => None,
        }
    }
}
