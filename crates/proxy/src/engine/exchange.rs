//! One request, from its head to its response.

use std::{cell::Cell, fmt::Write as _, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header, uri::PathAndQuery};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use penstock_model::Protocol;
use penstock_routing::{HostName, Outcome};

use super::{
    answer::{self, Asker},
    body::{RequestBody, ResponseBody},
    forward::{self, Failure, Target},
    headers::{self, Fields},
    intake::{self, Intake, Upgrade},
    record::Record,
    serve::Client,
    upgrade,
};
use crate::{
    balance::Wish,
    client_address::{ClientInfo, Forwarded, Scheme},
    clock,
    head::RequestHead,
    metrics::{LimitHit, Listener},
    policy::{Answer, forwarding},
    route::{CompiledForward, CompiledRoute, Decision},
    upstream::Backend,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken from a client: a UUID has 36, and logs shall stay readable.
const LONGEST_REQUEST_ID: usize = 128;
/// What ingress-nginx says to clients on TLS by default.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// What the health checks of balancers ask of an address, whatever its hosts: ingress-nginx answers there, and charts name it. Unless an
/// object claims it for all hosts, the answer is that we are there. For more there is the admin port.
const HEALTH: &[u8] = b"/healthz";

/// What the stages before the backends came to.
struct Plan {
    route: Arc<CompiledRoute>,
    backend: Arc<Backend>,
    path: PathAndQuery,
    /// None: the request has no host, and the endpoint's address takes its place.
    host: Option<HeaderValue>,
    forwarding: Vec<forwarding::Edit>,
    upgrade: Option<Upgrade>,
    wish: Wish,
}

/// Serves one request. Never fails: what goes wrong is an answer, or an aborted body.
pub(super) async fn serve(client: Rc<Client>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let record = Record::begin(&client.worker, client.control.begin());
    // An error of ours, for the test of what becomes of others.
    #[cfg(test)]
    assert!(!request.headers().contains_key("x-test-panic"), "on purpose");
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let http1 = head.version != Version::HTTP_2;
    let mut response = respond(&client, head, body, on_upgrade, record).await;
    if http1 && client.worker.draining.get() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn respond(
    client: &Rc<Client>,
    mut head: http::request::Parts,
    body: Incoming,
    on_upgrade: OnUpgrade,
    mut record: Box<Record>,
) -> Response<ResponseBody> {
    let asker = Asker::of(&head.method, &head.headers);
    let mut body = RequestBody::of_client(client, &head, body);
    let request_id = request_id(&head.headers);
    let info = client_info(client, &head.headers);
    let https = info.scheme == Scheme::Https;
    let shared = &client.worker.shared;
    let planned = match intake::read(&head) {
        _ if let Some(limit) = intake::over_limit(&head, shared.options.limits.head_size) => {
            record.head(&head, "", &info, &request_id);
            shared.metrics.limits.inc(limit);
            Err((Answer::page(431, "The head of the request is too large, or has too many fields."), None))
        }
        _ if intake::is_server_wide_options(&head.method, &head.uri) => {
            record.head(&head, "", &info, &request_id);
            Err((Answer::plain(204), None))
        }
        Err(answer) => {
            let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            record.head(&head, host, &info, &request_id);
            Err((answer, None))
        }
        Ok(intake) => {
            record.head(&head, intake.authority, &info, &request_id);
            plan(client, &head, &intake, &info, &request_id, &mut record)
        }
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err((answer, route)) => {
            if answer.status == 413 {
                client.worker.shared.metrics.limits.inc(LimitHit::BodySize);
            }
            return own_answer(&answer, route.as_deref(), &asker, &request_id, https, record);
        }
    };
    let Plan { route, backend, path, host, forwarding, upgrade, wish } = plan;
    // With a body an upgrade would have to wait for its end; a server may ignore it (RFC 9110 §7.8).
    let upgrade = upgrade.filter(|upgrade| match upgrade {
        Upgrade::ExtendedConnect => true,
        // Nor can a backend on HTTP/2 be asked to speak something else: but who wants a WebSocket is to be told.
        Upgrade::Http1 { .. } if backend.protocol() != Protocol::Http1 => upgrade.is_for_websocket(),
        Upgrade::Http1 { .. } => http_body::Body::is_end_stream(&body),
    });

    let te_trailers = headers::has_item(&head.headers, &header::TE, "trailers");
    prepare(&mut head.headers, &route, forwarding);
    let policies = &route.route.policies;
    match &upgrade {
        Some(_) => body = RequestBody::empty(),
        None => body.limit(policies.max_body_size),
    }
    record.upload(body.upload());
    let key = match &upgrade {
        Some(upgrade) => upgrade::request(&mut head, upgrade),
        None => None,
    };
    let target = Target { backend: &backend, policies, wish: &wish, path, host, te_trailers, upgrade: upgrade.is_some() };
    let sent = forward::send(&client.worker, &target, head, body, &mut record).await;
    let mut upstream = match sent {
        Ok(upstream) => upstream,
        Err(failure) => {
            let answer = failed(&failure, &client.worker.shared.metrics);
            record.note(&failure);
            tell(&backend, &route, &failure);
            return own_answer(&answer, Some(&route), &asker, &request_id, https, record);
        }
    };

    let status = upstream.response.status();
    record.status(status.as_u16());
    let from = (&backend.balance, &**backend.name());
    if let Some(cookie) = wish.cookie(&policies.balancing, from, upstream.connection.endpoint, https) {
        upstream.response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    if let Some(upgrade) = &upgrade {
        let switched = match upgrade::judge(&upstream.response, upgrade, key.as_deref()) {
            Ok(switched) => switched,
            Err(why) => {
                record.note(why);
                return own_answer(&Answer::page(502, why), Some(&route), &asker, &request_id, https, record);
            }
        };
        if let Some(websocket) = switched {
            let on_upstream = hyper::upgrade::on(&mut upstream.response);
            let (mut parts, _) = upstream.response.into_parts();
            upgrade::response(&mut parts.headers, upgrade);
            finish(&mut parts.headers, &route, https);
            let http2 = *upgrade == Upgrade::ExtendedConnect;
            if http2 {
                record.status(200);
                parts.status = StatusCode::OK;
            }
            parts.version = Version::HTTP_11;
            // Kept until both sides are handed over: it is what drives the upstream's.
            drop(upstream.connection);
            let idle = policies.websocket.idle_timeout;
            record.begin_tunnel();
            upgrade::join(&client.worker, on_upgrade, on_upstream, websocket, idle, record);
            return Response::from_parts(parts, ResponseBody::none());
        }
    } else if status == StatusCode::SWITCHING_PROTOCOLS {
        let why = "The backend switched protocols unasked.";
        record.note(why);
        return own_answer(&Answer::page(502, why), Some(&route), &asker, &request_id, https, record);
    }

    let (mut parts, incoming) = upstream.response.into_parts();
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        // It overrides the length (RFC 9112 §6.3), which need not be true: to pass it on would let the client read another end.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.extensions = http::Extensions::new();
    finish(&mut parts.headers, &route, https);
    parts.version = Version::HTTP_11;
    let body = ResponseBody::upstream(incoming, upstream.connection, client.worker.pool.clone(), policies.timeouts.read, record);
    Response::from_parts(parts, body)
}

/// The stages before the backends. An answer comes with the route that gives it.
fn plan(
    client: &Client,
    head: &http::request::Parts,
    intake: &Intake<'_>,
    info: &ClientInfo,
    request_id: &str,
    record: &mut Record,
) -> Result<Plan, (Answer, Option<Arc<CompiledRoute>>)> {
    let shared = &client.worker.shared;
    let name = intake.host.as_ref();
    let host_name = name.map(HostName::as_str);
    let http2 = head.version == Version::HTTP_2;
    if client.listener == Listener::Https && shared.tls.misdirected(client.sni.as_deref(), host_name, http2) {
        return Err((Answer::page(421, "This connection was made for another host."), None));
    }
    let ports = shared.ports();
    let request = RequestHead {
        // RFC 8441's CONNECT is what GET is over HTTP/1.1: a route does not see by which version a WebSocket comes.
        method: if intake.upgrade == Some(Upgrade::ExtendedConnect) { "GET" } else { head.method.as_str() },
        authority: intake.authority,
        path: &intake.path,
        query: intake.query,
        headers: &Fields(&head.headers),
        client: info,
        listener: client.entrance(ports),
        ports,
        request_id,
        name_has_certificate: host_name.is_some_and(|name| shared.tls.has_certificate(name)),
        content_length: intake.content_length,
        upgrade: intake.upgrade.as_ref().map(Upgrade::protocols),
    };
    let route = {
        let table = shared.table.load();
        match table.find(name, &request) {
            Outcome::Matched(route) => route.clone(),
            Outcome::NoHost | Outcome::NoRoute if !table.is_claimed(name) && intake.path.raw() == HEALTH => {
                return Err((Answer::text(200, "ok\n"), None));
            }
            Outcome::NoHost => return Err((Answer::page(404, "No route is set up for this host."), None)),
            Outcome::NoRoute => return Err((Answer::page(404, "No route of this host takes this request."), None)),
            Outcome::Ambiguous(_) => {
                return Err((Answer::page(400, "The path can be read in more than one way."), None));
            }
        }
    };
    record.route(&route);
    let forward = match route.decide(&request) {
        Decision::Answer(answer) => return Err((answer, Some(route))),
        Decision::Forward(forward) => forward,
    };
    let wish = Wish::of(&route.route.policies.balancing, &request);
    let Some(backend) = forward.choose(wish.backend()) else {
        return Err((Answer::page(503, "The backend of this route has no endpoints."), Some(route)));
    };
    let forwarding = forwarding::edits(route.route.policies.forwarding, &request);
    let host = host(forward, &route, &request);
    let Some(path) = target(forward, &request) else {
        return Err((Answer::page(400, "The path that the rewrite gives cannot be sent."), Some(route)));
    };
    Ok(Plan { backend: backend.clone(), path, host, forwarding, upgrade: intake.upgrade.clone(), wish, route })
}

fn host(forward: &CompiledForward, route: &CompiledRoute, request: &RequestHead<'_, Fields<'_>>) -> Option<HeaderValue> {
    let host = match &forward.host {
        Some(host) => host,
        // ingress-nginx sends on what a trusted proxy was asked for.
        None if route.ingress_nginx() => request.public_authority(),
        None => request.authority,
    };
    HeaderValue::from_str(host).ok().filter(|host| !host.is_empty())
}

fn target(forward: &CompiledForward, request: &RequestHead<'_, Fields<'_>>) -> Option<PathAndQuery> {
    let path = forward.rewrite.apply(request.path);
    let mut target = Vec::with_capacity(path.len() + request.query.map_or(0, |query| query.len() + 1));
    target.extend_from_slice(&path);
    if let Some(query) = request.query {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).ok()
}

/// Makes the fields of a request those that the backend gets.
fn prepare(fields: &mut HeaderMap, route: &CompiledRoute, forwarding: Vec<forwarding::Edit>) {
    headers::remove_hop_by_hop(fields);
    // We answer it ourselves when the body is asked for (RFC 9110 §10.1.1).
    fields.remove(header::EXPECT);
    if route.ingress_nginx() {
        headers::drop_underscores(fields);
    }
    headers::join_cookies(fields);
    headers::drop_twins(fields, &forwarding);
    headers::write(fields, forwarding);
    route.request_headers.apply(fields);
}

/// What the client's response carries besides what the upstream sent.
fn finish(fields: &mut HeaderMap, route: &CompiledRoute, https: bool) {
    if route.ingress_nginx() {
        fields.remove(header::SERVER);
        if https {
            fields.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
    }
    route.response_headers.apply(fields);
    answer::finish(fields);
}

fn own_answer(
    answer: &Answer,
    route: Option<&CompiledRoute>,
    asker: &Asker,
    request_id: &str,
    https: bool,
    mut record: Box<Record>,
) -> Response<ResponseBody> {
    if let crate::policy::Content::Page { hint: Some(hint) } = answer.content {
        record.note_once(hint);
    }
    let mut response = answer::response(answer, asker, request_id, record);
    if let Some(route) = route {
        if route.ingress_nginx() && https {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
        route.response_headers.apply(response.headers_mut());
    }
    response
}

/// Says in the log what is wrong with a backend, so that nobody has to turn up the level while its users wait.
fn tell(backend: &Backend, route: &CompiledRoute, failure: &Failure) {
    let told = failure.concerns_backend().then(|| backend.trouble.failed(clock::now())).flatten();
    match told {
        Some(requests) => {
            let hint = failure.hint();
            tracing::warn!(backend = %backend.name(), route = %route.name().object, rule = &*route.name().rule, requests, "requests could not be forwarded: {failure}{hint}");
        }
        None => tracing::debug!(backend = %backend.name(), error = %failure, "a request could not be forwarded"),
    }
}

fn failed(failure: &Failure, metrics: &crate::metrics::Metrics) -> Answer {
    match failure {
        Failure::TooLarge => {
            metrics.limits.inc(LimitHit::BodySize);
            Answer::page(413, "The request's body is larger than this route allows.")
        }
        Failure::TooSlow => {
            metrics.limits.inc(LimitHit::BodyTime);
            Answer::page(408, "The request's body did not come in time.")
        }
        Failure::ClientGone => Answer::plain(400),
        Failure::NoEndpoints => Answer::page(503, "The backend of this route has no endpoints."),
        Failure::BackendFull => Answer::page(503, "The backend of this route has as many requests as it may."),
        Failure::Connect(_) => Answer::page(502, "The backend cannot be reached."),
        Failure::ConnectTimeout => Answer::page(504, "The backend cannot be reached in time."),
        Failure::ResponseTimeout => {
            metrics.limits.inc(LimitHit::ResponseTime);
            Answer::page(504, "The backend did not answer in time.")
        }
        Failure::UpgradeOverHttp2 => Answer::page(502, "The backend speaks HTTP/2, over which it cannot be asked for a WebSocket."),
        Failure::Http(_) => Answer::page(502, "The backend's answer cannot be read, or it closed the connection."),
    }
}

fn client_info(client: &Client, headers: &HeaderMap) -> ClientInfo {
    let lines = |name: &'static str| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    client.worker.shared.trusted.client(
        client.peer.ip(),
        client.scheme,
        Forwarded {
            forwarded_for: lines("x-forwarded-for"),
            proto: lines("x-forwarded-proto"),
            host: lines("x-forwarded-host"),
            port: lines("x-forwarded-port"),
        },
    )
}

/// The client's id of a request, if it can be one, else a new one of 32 hexadecimal digits.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes).unwrap_or_default();
    if (1..=LONGEST_REQUEST_ID).contains(&given.len()) && given.iter().all(u8::is_ascii_graphic) {
        return String::from_utf8_lossy(given).into_owned();
    }
    thread_local! {
        // Random at the start of the thread, then counted: unique without asking for randomness each time.
        static NEXT: Cell<(u64, u64)> = Cell::new((rand::random(), rand::random()));
    }
    let (high, low) = NEXT.get();
    NEXT.set((high, low.wrapping_add(0x9E37_79B9_7F4A_7C15)));
    let mut id = String::with_capacity(32);
    let _ = write!(id, "{high:016x}{low:016x}");
    id
}
