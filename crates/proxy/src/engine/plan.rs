//! The stages before the backends: what a request's head says, which route takes it, and what is to be sent. Nothing here waits.

use std::sync::Arc;

use penstock_http1::{Name, RequestFraming};
use penstock_routing::{HostName, Outcome};

use super::{
    arrival::Client,
    exchange::Exchange,
    headers,
    intake::{self, Intake, Refused, Upgrade},
    message::Version,
    workspace::Workspace,
};
use crate::{
    balance::Wish,
    client_address::{ClientInfo, Forwarded, Scheme},
    head::RequestHead,
    metrics::Listener,
    policy::{Answer, forwarding},
    route::{CompiledForward, CompiledRoute, Decision},
    upstream::Backend,
};

/// What the health checks of balancers ask of an address, whatever its hosts: ingress-nginx answers there, and charts name it. Unless an
/// object claims it for all hosts, the answer is that we are there. For more there is the admin port.
const HEALTH: &[u8] = b"/healthz";

/// What the stages before the backends came to. Target, host and edits are in the workspace.
pub(super) struct Plan {
    pub(super) route: Arc<CompiledRoute>,
    pub(super) backend: Arc<Backend>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) framing: RequestFraming,
    pub(super) wish: Wish,
}

/// An answer of our own, and the route that gives it.
pub(super) struct Own {
    pub(super) answer: Answer,
    pub(super) route: Option<Arc<CompiledRoute>>,
    /// Where the request ends is known.
    pub(super) framed: bool,
}

impl Own {
    pub(super) fn of(answer: Answer, route: Option<Arc<CompiledRoute>>) -> Self {
        Self { answer, route, framed: true }
    }
}

impl Exchange<'_> {
    /// Reads the head, and runs the stages before the backends.
    pub(super) fn plan(&mut self, info: &ClientInfo) -> Result<Plan, Own> {
        let Self { client, work, record, id, .. } = self;
        let id = id.as_str();
        let Workspace { request, version, connect, edits, target, host, .. } = &mut **work;
        let (version, connect) = (*version, *connect);
        let intake = match intake::read(request, version, connect) {
            // Of a request whose end is not known nothing else counts.
            Ok(_) | Err(Refused { framed: true, .. }) if request.is_server_wide() => {
                record.head(request, (version, connect), "", info, id);
                return Err(Own::of(Answer::plain(204), None));
            }
            Ok(intake) => intake,
            Err(Refused { answer, framed }) => {
                self.note_refused(info);
                return Err(Own { answer, route: None, framed });
            }
        };
        record.head(request, (version, connect), intake.authority, info, id);
        let shared = &client.worker.shared;
        let name = intake.host.as_ref();
        let host_name = name.map(HostName::as_str);
        let http2 = version == Version::Http2;
        if client.listener == Listener::Https && shared.tls.misdirected(client.sni.as_deref(), host_name, http2) {
            return Err(Own::of(Answer::page(421, "This connection was made for another host."), None));
        }
        let ports = shared.ports();
        let seen = RequestHead {
            method: request.method_str(),
            authority: intake.authority,
            path: &intake.path,
            query: intake.query,
            headers: request.fields(),
            client: info,
            listener: client.entrance(ports),
            ports,
            request_id: id,
            name_has_certificate: info.scheme == Scheme::Http && host_name.is_some_and(|name| shared.tls.has_certificate(name)),
            content_length: intake.content_length,
            upgrade: intake.upgrade.as_ref().map(Upgrade::protocols),
        };
        let route = match_route(client, name, &intake, &seen)?;
        record.route(&route);
        let own = |answer, route: &Arc<CompiledRoute>| Err(Own::of(answer, Some(route.clone())));
        let forward = match route.decide(&seen) {
            Decision::Answer(answer) => return own(answer, &route),
            Decision::Forward(forward) => forward,
        };
        let wish = Wish::of(&route.route.policies.balancing, &seen);
        let Some(backend) = forward.choose(wish.backend()).cloned() else {
            return own(Answer::page(503, "The backend of this route has no endpoints."), &route);
        };
        forwarding::edits(route.route.policies.forwarding, &seen, edits);
        put_host(host, forward, &route, &seen);
        if !put_target(target, forward, &seen) {
            return own(Answer::page(400, "The path that the rewrite gives cannot be sent."), &route);
        }
        let Intake { upgrade, framing, .. } = intake;
        Ok(Plan { route, backend, upgrade, framing, wish })
    }
}

fn match_route(
    client: &Client,
    name: Option<&HostName<'_>>,
    intake: &Intake<'_>,
    seen: &RequestHead<'_>,
) -> Result<Arc<CompiledRoute>, Own> {
    let table = client.worker.shared.table.load();
    let answer = match table.find(name, seen) {
        Outcome::Matched(route) => return Ok(route.clone()),
        Outcome::NoHost | Outcome::NoRoute if !table.is_claimed(name) && intake.path.raw() == HEALTH => Answer::text(200, "ok\n"),
        Outcome::NoHost => Answer::page(404, "No route is set up for this host."),
        Outcome::NoRoute => Answer::page(404, "No route of this host takes this request."),
        Outcome::Ambiguous(_) => Answer::page(400, "The path can be read in more than one way."),
    };
    Err(Own::of(answer, None))
}

/// Puts the host that the backend is asked for.
fn put_host(out: &mut Vec<u8>, forward: &CompiledForward, route: &CompiledRoute, request: &RequestHead<'_>) {
    let host = match &forward.host {
        Some(host) => host,
        // ingress-nginx sends on what a trusted proxy was asked for.
        None if route.ingress_nginx() => request.public_authority(),
        None => request.authority,
    };
    out.clear();
    out.extend_from_slice(host.as_bytes());
}

/// Puts the target that the backend is asked for. Says whether it can be sent.
fn put_target(out: &mut Vec<u8>, forward: &CompiledForward, request: &RequestHead<'_>) -> bool {
    out.clear();
    out.extend_from_slice(&forward.rewrite.apply(request.path));
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    !out.is_empty() && out.iter().all(u8::is_ascii_graphic)
}

/// Makes the fields of a request those that the backend gets. Says whether that can be.
pub(super) fn prepare(work: &mut Workspace, route: &CompiledRoute) -> bool {
    let Workspace { request, edits, host, .. } = work;
    let fields = request.fields_mut();
    if fields.remove_hop_by_hop().is_err() {
        return false;
    }
    // We answer it ourselves when the body is asked for (RFC 9110 §10.1.1).
    fields.remove(Name::Expect);
    if route.ingress_nginx() {
        headers::drop_underscores(fields);
    }
    headers::join_cookies(fields);
    headers::drop_twins(fields, edits);
    edits.apply(fields);
    if fields.set(Name::Host, host).is_err() {
        host.clear();
    }
    route.request_headers.apply(fields);
    true
}

pub(super) fn client_info(client: &Client, work: &Workspace) -> ClientInfo {
    let fields = work.request.fields();
    client.worker.shared.trusted.client(
        client.peer.ip(),
        client.scheme,
        Forwarded {
            forwarded_for: fields.all(Name::XForwardedFor),
            proto: fields.all(Name::XForwardedProto),
            host: fields.all(Name::XForwardedHost),
            port: fields.all(Name::XForwardedPort),
        },
    )
}
