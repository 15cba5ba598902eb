//! The life of one request, stage by stage in a fixed order:
//!
//! checks that hyper leaves to a proxy, client address, host and route, HTTPS redirect, address rules, upgrade allowed, body limit,
//! redirect or fixed answer, header edits, forwarding; then the answer back with its own edits, its log line and counters.
//!
//! Types of `http` stay inside this file, `forward` and `server`; the match sees a [`penstock_routing::Request`].

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use penstock_model::{PathForm, Redirect, RedirectTarget};
use penstock_routing::{HostName, Outcome, RequestPath};

use crate::{
    body::ResponseBody,
    client_address::{ClientInfo, Forwarded, Scheme},
    finish::Finish,
    forward::{self, Outgoing, forward, strip_hop_by_hop},
    forwarding,
    route::{CompiledAction, CompiledForward, CompiledRoute},
    upgrade,
    worker::Worker,
};

/// What is known of the connection that a request came on.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    /// By TCP, or as PROXY protocol told.
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
    /// The port at which clients reach the listener.
    pub(crate) port: u16,
    /// The server name of the TLS handshake.
    pub(crate) sni: Option<Box<str>>,
}

/// An answer of our own.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

pub(crate) fn refuse<T>(status: StatusCode, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, reason: reason.into() })
}

/// Challenges are asked for in plain text by the authority; sending it to https:// would ask for the certificate that is not there yet.
pub(crate) const ACME: &str = "/.well-known/acme-challenge/";

struct View<'a> {
    method: &'a Method,
    path: &'a RequestPath<'a>,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

impl penstock_routing::Request for View<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn path(&self) -> &RequestPath<'_> {
        self.path
    }

    fn header<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.map(str::as_bytes)
    }
}

/// Handles one request; never fails.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<ClientConnection>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut finish = Finish::new(&connection, &request);
    let on_upgrade = upgrade::asked(&request).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let outcome = stages(&worker, &connection, &mut finish, parts, body, on_upgrade).await;
    let response = match outcome {
        Ok(response) => response,
        Err(refusal) => finish.refuse(&refusal),
    };
    finish.done(&worker, response)
}

async fn stages(
    worker: &Rc<Worker>,
    connection: &Rc<ClientConnection>,
    finish: &mut Finish,
    parts: http::request::Parts,
    body: Incoming,
    on_upgrade: Option<OnUpgrade>,
) -> Result<Response<ResponseBody>, Refusal> {
    let http::request::Parts { method, uri, version, mut headers, extensions, .. } = parts;
    let extended_connect = extensions.get::<hyper::ext::Protocol>().is_some();
    check(&method, version, &headers, extended_connect)?;
    let host_header = host(&uri, version, &headers)?;
    let Ok(host_text) = host_header.to_str() else { return refuse(StatusCode::BAD_REQUEST, "the Host header is not text") };

    let client = worker.shared.trusted.client(
        connection.peer.ip(),
        connection.scheme,
        Forwarded {
            forwarded_for: texts(&headers, "x-forwarded-for"),
            proto: texts(&headers, "x-forwarded-proto"),
            host: texts(&headers, "x-forwarded-host"),
            port: texts(&headers, "x-forwarded-port"),
        },
    );
    finish.client(&client);
    let asked_host = client.host.as_deref().unwrap_or(host_text);
    let name = match HostName::parse(asked_host) {
        Ok(name) => Some(name),
        // HTTP/1.0 knew no Host; such a request meets the default host.
        Err(_) if asked_host.is_empty() && version == Version::HTTP_10 => None,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "the Host header is no host"),
    };
    let host_name = name.as_ref().map_or("_", HostName::as_str);
    finish.host(host_name);

    let raw_path = uri.path();
    let path = match RequestPath::parse(raw_path) {
        Ok(path) => path,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let snapshot = worker.shared.snapshot.load();
    if let Some(sni) = &connection.sni
        && **sni != *host_name
        && worker.shared.tls.misdirected(Some(sni), Some(host_name))
    {
        return refuse(StatusCode::MISDIRECTED_REQUEST, "this host has a TLS policy of its own: open another connection for it");
    }
    let view = View { method: &method, path: &path, query: uri.query(), headers: &headers };
    let route: Arc<CompiledRoute> = match snapshot.table.find(name.as_ref(), &view) {
        Outcome::Matched(route) => route.clone(),
        Outcome::Ambiguous(ambiguity) => return refuse(StatusCode::BAD_REQUEST, ambiguity.to_string()),
        Outcome::NoRoute | Outcome::NoHost => return refuse(StatusCode::NOT_FOUND, "no route for this host and path"),
    };
    drop(snapshot);
    finish.route(&route);

    // From here on the request holds its route, never the table.
    let redirect_is_action = matches!(route.action, CompiledAction::Redirect(_) | CompiledAction::Respond(_));
    if let Some(redirect) = route.https_redirect.filter(|redirect| !(redirect.after_redirects && redirect_is_action))
        && client.scheme == Scheme::Http
        && !path.normalised().starts_with(ACME.as_bytes())
    {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if redirect.cut_trailing_slash { target.strip_suffix('/').unwrap_or(target) } else { target };
        let port = match worker.public_https_port() {
            None | Some(443) => String::new(),
            Some(port) => format!(":{port}"),
        };
        return location(redirect.code, &format!("https://{host_name}{port}{target}"));
    }
    let rules = &route.addresses;
    let listed = |list: &[ipnet::IpNet]| list.iter().any(|net| net.contains(&client.address));
    if listed(&rules.deny) || !(rules.allow.is_empty() || listed(&rules.allow)) {
        return refuse(StatusCode::FORBIDDEN, "the client's address is not allowed here");
    }
    if on_upgrade.is_some() && !route.websocket.enabled {
        return refuse(StatusCode::FORBIDDEN, "upgrades are not enabled on this route");
    }
    if let Some(limit) = route.max_body_size {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit) {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than the route allows");
        }
    }
    let forward_to = match &route.action {
        CompiledAction::Respond(respond) => {
            let Ok(status) = StatusCode::from_u16(respond.code) else {
                return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the route's answer has no status");
            };
            let Some(text) = &respond.body else { return refuse(status, String::new()) };
            let content_type = respond.content_type.as_deref().unwrap_or("text/plain; charset=utf-8");
            let mut response = Response::new(ResponseBody::full(text.as_bytes().to_vec()));
            *response.status_mut() = status;
            if let Ok(value) = HeaderValue::from_str(content_type) {
                response.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            route.response_headers.apply(response.headers_mut());
            return Ok(response);
        }
        CompiledAction::Redirect(redirect) => {
            let mut response = redirected(
                redirect,
                worker,
                connection,
                &client,
                host_name,
                name.as_ref().and_then(HostName::port),
                host_text,
                &uri,
            )?;
            route.response_headers.apply(response.headers_mut());
            return Ok(response);
        }
        CompiledAction::Forward(forward) => forward,
    };

    let target = target(forward_to, &path, route.route.matches.form, uri.query())?;
    let kind = upgrade::Kind::of(&method, &headers, &extensions);
    let protocol = kind.protocol(&headers);
    strip_hop_by_hop(&mut headers);
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    join_cookies(&mut headers);
    forwarding::set(&mut headers, route.forwarding, &client, connection, worker, asked_host, finish.request_id());
    route.request_headers.apply(&mut headers);
    let Some(backend) = forward_to.choose().cloned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the route has no backend");
    };
    finish.backend(&backend);
    let mut outgoing = Outgoing {
        method: if extended_connect { Method::GET } else { method },
        target,
        host: forward_to.host.clone().unwrap_or_else(|| host_header.clone()),
        headers,
        body: Some(body),
        upgrade: None,
    };
    if forward::is_h2(&backend) {
        if finish.is_grpc() || finish.wants_trailers() {
            outgoing.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    } else if let Some(protocol) = &protocol {
        upgrade::prepare(&mut outgoing, protocol, &kind);
    }
    let asked = outgoing.upgrade.clone();
    let sent_key = outgoing.headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let answer = match forward(worker, &route, &backend, outgoing).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(route = %route.route.object, %error, "no answer");
            return refuse(error.status(), error.to_string());
        }
    };
    finish.endpoint(answer.address);
    let mut response = answer.response;
    if let (Some(upstream), Some(client_side), Some(asked)) = (answer.upgraded, on_upgrade, asked) {
        upgrade::verify(&asked, sent_key.as_ref(), response.headers(), answer.address)
            .map_err(|error| Refusal { status: error.status(), reason: error.to_string() })?;
        upgrade::answer(&mut response, &kind, &asked);
        route.response_headers.apply(response.headers_mut());
        upgrade::join(worker, client_side, upstream, &asked, route.websocket.idle_timeout, route.metrics.clone());
        return Ok(response);
    }
    let upgrade_answer = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgrade_answer {
        return refuse(StatusCode::BAD_GATEWAY, "the upstream switched protocols without being asked");
    }
    strip_hop_by_hop(response.headers_mut());
    forwarding::answer(response.headers_mut(), route.forwarding, client.scheme);
    route.response_headers.apply(response.headers_mut());
    Ok(response)
}

/// What hyper lets through and no two parsers may read differently.
fn check(method: &Method, version: Version, headers: &HeaderMap, extended_connect: bool) -> Result<(), Refusal> {
    if *method == Method::CONNECT && !extended_connect {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served");
    }
    if *method == Method::TRACE {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not served");
    }
    if version < Version::HTTP_2 {
        for value in headers.get_all(header::TRANSFER_ENCODING) {
            // Anything but the one coding that was taken off would be passed on as a lie (RFC 9112 §6.1).
            if !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return refuse(StatusCode::NOT_IMPLEMENTED, "only the transfer coding `chunked` is served");
            }
        }
        if headers.contains_key(header::TRANSFER_ENCODING) && version == Version::HTTP_10 {
            return refuse(StatusCode::BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding");
        }
    }
    Ok(())
}

/// The host that the request is for (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return refuse(StatusCode::BAD_REQUEST, "more than one Host header");
    }
    if let Some(authority) = uri.authority() {
        if authority.as_str().contains('@') {
            return refuse(StatusCode::BAD_REQUEST, "user information in the authority");
        }
        if version == Version::HTTP_2
            && first.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()))
        {
            return refuse(StatusCode::BAD_REQUEST, "the Host header and :authority differ");
        }
        if version < Version::HTTP_2 && version > Version::HTTP_10 && first.is_none() {
            return refuse(StatusCode::BAD_REQUEST, "no Host header");
        }
        return HeaderValue::from_str(authority.as_str())
            .map_err(|_| Refusal { status: StatusCode::BAD_REQUEST, reason: "the authority is no host".to_owned() });
    }
    match first {
        Some(host) if !host.is_empty() => Ok(host.clone()),
        // HTTP/1.0 knew no Host; it meets the default host.
        None if version == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        _ => refuse(StatusCode::BAD_REQUEST, "no Host header"),
    }
}

fn texts<'a>(headers: &'a HeaderMap, name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}

/// HTTP/2 may send a cookie in pieces; HTTP/1.1 must not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_some() && crumbs.next().is_some() {
        let joined = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, value);
        }
    }
}

fn target(forward: &CompiledForward, path: &RequestPath<'_>, form: PathForm, query: Option<&str>) -> Result<Uri, Refusal> {
    Uri::try_from(forward.target(path, form, query))
        .map_err(|_| Refusal { status: StatusCode::BAD_REQUEST, reason: "the path cannot be rewritten to a path".to_owned() })
}

fn location(code: u16, url: &str) -> Result<Response<ResponseBody>, Refusal> {
    let (Ok(status), Ok(value)) = (StatusCode::from_u16(code), HeaderValue::from_str(url)) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the route's redirect is no redirect");
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, value);
    Ok(response)
}

fn redirected(
    redirect: &Redirect,
    worker: &Worker,
    connection: &ClientConnection,
    client: &ClientInfo,
    name: &str,
    name_port: Option<u16>,
    host: &str,
    uri: &Uri,
) -> Result<Response<ResponseBody>, Refusal> {
    let url = match &redirect.target {
        RedirectTarget::Literal(url) if url.starts_with('/') => format!("{}://{}{url}", client.scheme.as_str(), name),
        RedirectTarget::Literal(url) => url.to_string(),
        RedirectTarget::SameOrigin { path } => format!("{}://{host}{path}", connection.scheme.as_str()),
        RedirectTarget::Parts { scheme, host, port, path } => {
            let chosen = match scheme.as_deref() {
                Some("https") => Scheme::Https,
                Some(_) => Scheme::Http,
                None => client.scheme,
            };
            let port = match (port, scheme, client.scheme) {
                (Some(port), ..) => *port,
                (None, Some(_), _) => match chosen {
                    Scheme::Https => worker.public_https_port().unwrap_or(443),
                    Scheme::Http => worker.public_http_port().unwrap_or(80),
                },
                (None, None, _) => client.port.or(name_port).unwrap_or(chosen.default_port()),
            };
            let port = if port == chosen.default_port() { String::new() } else { format!(":{port}") };
            let target = match (path, uri.query()) {
                (Some(path), Some(query)) => format!("{path}?{query}"),
                (Some(path), None) => path.to_string(),
                (None, _) => uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            };
            format!("{}://{}{port}{target}", chosen.as_str(), host.as_deref().unwrap_or(name))
        }
    };
    location(redirect.code, &url)
}

/// A name that is not among `http`'s own.
pub(crate) const fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}
