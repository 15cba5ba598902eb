//! One request, from its head to the end of its response, whichever version it came by.

use std::{future::poll_fn, pin::Pin, rc::Rc, sync::Arc};

use penstock_http1::{Expectation, Method, Name, RequestFraming, ResponseFraming, may_declare_length, reason_phrase};
use penstock_model::Protocol;

use super::{
    answer::{self, Asker},
    arrival::Client,
    fault::{BodyError, HeadError, WriteError},
    forward::{self, Asked, Failure, RESPONSE_LIMITS, Target, Upstream},
    intake::Upgrade,
    message::{RequestId, Version},
    plan::{Own, Plan, client_info, prepare},
    record::Record,
    relay::{self, Broken, Relay},
    side::Side,
    upgrade,
    upload::Upload,
    workspace::Workspace,
};
use crate::{
    client_address::{ClientInfo, Scheme},
    control::{Busy, Command},
    io::{ClientStream, UpstreamStream},
    metrics::LimitHit,
    policy::{Answer, Content},
    route::CompiledRoute,
    upstream::Backend,
};

/// What ingress-nginx says to clients on TLS by default.
const HSTS: &[u8] = b"max-age=31536000; includeSubDomains";

const UNWRITABLE_RESPONSE: WriteError = WriteError::Head("the response cannot be written");

/// What becomes of the client's connection, or of its stream.
#[derive(Debug)]
pub(super) enum After {
    /// It can have another request.
    Keep,
    /// It is closed. `unread`: something that the client sent may be unread, and must not make the kernel reset the connection.
    Close {
        unread: bool,
    },
    /// The client is gone, or the response was cut: it must not look whole.
    Cut,
    Tunnel(Box<Switched>),
}

/// What a tunnel is made of, besides the client.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) upstream: Side<UpstreamStream>,
    pub(super) websocket: bool,
    pub(super) idle: Option<std::time::Duration>,
    pub(super) record: Box<Record>,
}

/// How the forwarding of a request ended.
enum Done {
    After(After),
    /// We answer ourselves.
    Own(Own),
    Switched {
        upstream: Side<UpstreamStream>,
        websocket: bool,
        idle: Option<std::time::Duration>,
    },
}

/// How the client's connection is to be answered.
#[derive(Clone, Copy, Debug)]
struct Manner {
    version: Version,
    method: Method,
    asker: Asker,
    https: bool,
    /// The connection can have another request, as far as the client is concerned.
    persists: bool,
    /// Where the request ends is known.
    framed: bool,
}

/// A request under way.
pub(super) struct Exchange<'a> {
    pub(super) client: &'a Rc<Client>,
    side: &'a mut Side<ClientStream>,
    pub(super) work: &'a mut Workspace,
    pub(super) record: Record,
    upload: Upload,
    pub(super) id: RequestId,
    manner: Manner,
}

/// Serves the request whose head is in the workspace.
pub(super) async fn serve(client: &Rc<Client>, side: &mut Side<ClientStream>, work: &mut Workspace) -> After {
    let (mut exchange, planned) = Exchange::begin(client, side, work, Exchange::plan);
    let done = match planned {
        Ok(plan) => exchange.forward(plan).await,
        Err(own) => Done::Own(own),
    };
    match done {
        Done::After(after) => after,
        Done::Own(own) => exchange.answer(own).await,
        Done::Switched { upstream, websocket, idle } => {
            After::Tunnel(Box::new(Switched { upstream, websocket, idle, record: Box::new(exchange.record) }))
        }
    }
}

/// Refuses a request whose head is in the workspace as far as it could be read.
pub(super) async fn refuse(client: &Rc<Client>, side: &mut Side<ClientStream>, work: &mut Workspace, answer: Answer) -> After {
    let (mut exchange, ()) = Exchange::begin(client, side, work, Exchange::note_refused);
    exchange.answer(Own::of(answer, None)).await
}

impl<'a> Exchange<'a> {
    /// Begins with what is to be done while it is known who the client is.
    fn begin<T>(
        client: &'a Rc<Client>,
        side: &'a mut Side<ClientStream>,
        work: &'a mut Workspace,
        first: impl FnOnce(&mut Self, &ClientInfo) -> T,
    ) -> (Self, T) {
        let record = Record::begin(&client.worker, client.control.begin());
        // An error of ours, for the test of what becomes of others.
        #[cfg(test)]
        assert!(work.request.fields().get_raw(b"x-test-panic").is_none(), "on purpose");
        let id = RequestId::of(work.request.fields());
        let info = client_info(client, work);
        let manner = Manner {
            version: work.version,
            method: work.request.method(),
            asker: Asker::of(&work.request),
            https: info.scheme == Scheme::Https,
            persists: work.request.persists(),
            framed: true,
        };
        let begun = side.is_read() || matches!(&*side, Side::Http1(side) if !side.unread().is_empty());
        let waits_for_continue = !begun && work.request.expectation() == Expectation::Continue;
        let upload = Upload::new(None, None, waits_for_continue, record.began().into());
        let mut exchange = Self { client, side, work, record, upload, id, manner };
        let came_to = first(&mut exchange, &info);
        (exchange, came_to)
    }

    /// Notes a request that was refused for its head: of its host no more is known than what stands there.
    pub(super) fn note_refused(&mut self, info: &ClientInfo) {
        let Workspace { request, version, connect, .. } = &*self.work;
        let host = request.fields().get(Name::Host).and_then(|host| std::str::from_utf8(host).ok());
        self.record.head(request, (*version, *connect), host.unwrap_or_default(), info, self.id.as_str());
    }

    async fn forward(&mut self, plan: Plan) -> Done {
        let Plan { route, backend, upgrade, mut framing, wish } = plan;
        let bodiless = self.side.is_read();
        // With a body an upgrade would have to wait for its end; a server may ignore it (RFC 9110 §7.8).
        let upgrade = upgrade.filter(|upgrade| match upgrade {
            Upgrade::ExtendedConnect => true,
            // Nor can a backend on HTTP/2 be asked to speak something else: but who wants a WebSocket is to be told.
            Upgrade::Http1 { .. } if backend.protocol() != Protocol::Http1 => upgrade.is_for_websocket(),
            Upgrade::Http1 { .. } => bodiless,
        });
        let policies = &route.route.policies;
        let te_trailers = self.work.request.takes_trailers();
        if upgrade.is_some() {
            framing = RequestFraming::None;
        } else {
            if self.manner.version == Version::Http2 && !bodiless && framing == RequestFraming::None {
                framing = RequestFraming::Chunked;
            }
            let limits = &self.client.worker.shared.options.limits;
            // Streams of HTTP/2 end one by one, and may be silent for long with good reason.
            let idle = (self.manner.version != Version::Http2).then_some(limits.body_time);
            let waits = self.upload.waits_for_continue();
            self.upload = Upload::new(policies.max_body_size, idle, waits, self.record.began().into());
        }
        if !prepare(self.work, &route) {
            self.manner.persists = false;
            return Done::Own(Own::of(Answer::page(400, "Connection has too many options."), Some(route)));
        }
        let key = upgrade.as_ref().and_then(|upgrade| upgrade::request(&mut self.work.request, upgrade));
        // The tunnel's bytes are no body of the request.
        let hidden = matches!(upgrade, Some(Upgrade::ExtendedConnect));
        let target = Target {
            backend: &backend,
            policies,
            wish: &wish,
            framing,
            method: self.manner.method,
            te_trailers,
            upgrade: upgrade.is_some(),
            takes_interim: self.manner.version != Version::Http10,
        };
        if hidden {
            self.side.hold_body(true);
        }
        let mut asked = Asked {
            worker: &self.client.worker,
            side: &mut *self.side,
            work: &mut *self.work,
            upload: &mut self.upload,
            record: &mut self.record,
        };
        let sent = forward::send(&mut asked, &target).await;
        if hidden {
            self.side.hold_body(false);
        }
        let upstream = match sent {
            Ok(upstream) => upstream,
            Err(failure) => return self.failed(&failure, &backend, &route),
        };
        let status = self.work.response.status();
        self.record.status(status);
        let from = (&backend.balance, &**backend.name());
        if let Some(cookie) = wish.cookie(&policies.balancing, from, upstream.endpoint, self.manner.https)
            && self.work.response.fields_mut().push(Name::SetCookie, cookie.as_bytes()).is_err()
        {
            return self.refuse("The cookie of this route cannot be written.", &route);
        }
        if let Some(upgrade) = &upgrade {
            match upgrade::judge(&self.work.response, upgrade, key.as_deref()) {
                Ok(None) => {}
                Ok(Some(websocket)) => return Box::pin(self.switch(upstream, &route, upgrade, websocket)).await,
                Err(why) => return self.refuse(why, &route),
            }
        } else if status == 101 {
            return self.refuse("The backend switched protocols unasked.", &route);
        }
        drop((upgrade, wish));
        self.relay(upstream, route, &backend).await
    }

    /// Passes a response on.
    async fn relay(&mut self, mut upstream: Upstream, route: Arc<CompiledRoute>, backend: &Backend) -> Done {
        let framing = match self.work.response.framing(self.manner.method) {
            Ok(framing) => framing,
            Err(error) => {
                let failure = Failure::Http(HeadError::Response(error));
                return self.failed(&failure, backend, &route);
            }
        };
        let upstream_persists = self.work.response.persists(framing);
        let framing = match &mut upstream.side {
            Side::Http1(http1) => {
                http1.expect_body(framing, RESPONSE_LIMITS);
                framing
            }
            Side::Http2(http2) if framing == ResponseFraming::None => {
                http2.skip_body();
                framing
            }
            Side::Http2(http2) if http2.is_read() && http2.trailers().is_none() => ResponseFraming::Length(0),
            // The stream says where it ends.
            Side::Http2(_) if framing == ResponseFraming::UntilClose => ResponseFraming::Chunked,
            Side::Http2(_) => framing,
        };
        if self.work.response.fields_mut().remove_hop_by_hop().is_err() {
            return self.refuse("The backend's answer has a Connection with too many options.", &route);
        }
        finish(self.work, &route, self.manner.https);
        let keeps = match self.begin_response(framing) {
            Ok(keeps) => keeps,
            Err(error) => {
                self.record.aborted(error);
                return Done::After(After::Cut);
            }
        };
        let read_limit = route.route.policies.timeouts.read;
        // A slow response keeps no route alive.
        drop(route);
        let relayed = Relay {
            client: &mut *self.side,
            upstream: &mut upstream.side,
            upload: &mut self.upload,
            record: &mut self.record,
            read_limit,
        }
        .response()
        .await;
        if let Err(broken) = relayed {
            let metrics = &self.client.worker.shared.metrics;
            match &broken {
                Broken::Response(BodyError::Idle) => metrics.limits.inc(LimitHit::ResponseTime),
                Broken::Client(Some(WriteError::NotTaken)) => metrics.limits.inc(LimitHit::WriteTime),
                Broken::Request(BodyError::TooLarge) => metrics.limits.inc(LimitHit::BodySize),
                _ => {}
            }
            self.record.aborted(&broken);
            if let Side::Http2(stream) = &mut *self.side {
                stream.reset(match broken {
                    Broken::Client(_) => h2::Reason::CANCEL,
                    Broken::Response(_) | Broken::Request(_) => h2::Reason::INTERNAL_ERROR,
                });
            }
            return Done::After(After::Cut);
        }
        // The connection is not idle while its body comes.
        let busy = self.client.control.begin();
        self.record.finish();
        let Self { client, side, upload, manner, .. } = self;
        if !upload.is_over() {
            let shared = &client.worker.shared;
            let body_time = shared.options.limits.body_time;
            Box::pin(relay::rest_of_upload(side, &mut upstream.side, upload, body_time, &shared.metrics)).await;
        }
        let clean = match &upstream.side {
            Side::Http1(http1) => {
                upload.is_sent() && upstream_persists && http1.is_read() && http1.unread().is_empty() && !http1.has_ended()
            }
            Side::Http2(_) => true,
        };
        if clean {
            upstream.give_back(&client.worker);
        } else {
            drop(upstream);
        }
        Done::After(end(side, upload, keeps, manner.framed, busy).await)
    }

    /// Puts the response's head to the client, framed as its version has it. Says whether the connection can have another request.
    fn begin_response(&mut self, framing: ResponseFraming) -> Result<bool, WriteError> {
        let Workspace { response, .. } = &mut *self.work;
        let status = response.status();
        let fields = response.fields_mut();
        match self.side {
            Side::Http2(stream) => {
                let end = matches!(framing, ResponseFraming::None | ResponseFraming::Length(0));
                match framing {
                    // A length that is said is said as it was read, and not where there is no content (RFC 9110 §8.6).
                    ResponseFraming::Length(_) if !fields.contains(Name::ContentLength) => {}
                    ResponseFraming::None if may_declare_length(status) => {}
                    ResponseFraming::Chunked | ResponseFraming::UntilClose => {}
                    framing => framing.declare(fields).map_err(|_| UNWRITABLE_RESPONSE)?,
                }
                stream.put_response(status, fields, end)?;
                self.work.release_heads();
                Ok(true)
            }
            Side::Http1(http1) => {
                let old = self.manner.version == Version::Http10;
                let framing = match framing {
                    ResponseFraming::Chunked | ResponseFraming::UntilClose if old => ResponseFraming::UntilClose,
                    ResponseFraming::UntilClose => ResponseFraming::Chunked,
                    framing => framing,
                };
                match framing {
                    // To HEAD, and with 304, it says what there would be.
                    ResponseFraming::None if may_declare_length(status) => {}
                    framing => framing.declare(fields).map_err(|_| UNWRITABLE_RESPONSE)?,
                }
                let told = self.client.worker.draining.get() || self.client.control.command() >= Command::Finish;
                let silent = self.upload.waits_for_continue() && !http1.is_read();
                let keeps =
                    self.manner.persists && self.manner.framed && !told && !silent && framing != ResponseFraming::UntilClose;
                let connection = match (keeps, old) {
                    (false, _) => Some(&b"close"[..]),
                    (true, true) => Some(&b"keep-alive"[..]),
                    (true, false) => None,
                };
                if let Some(connection) = connection {
                    fields.push(Name::Connection, connection).map_err(|_| UNWRITABLE_RESPONSE)?;
                }
                let reason = match response.reason() {
                    "" => reason_phrase(status),
                    reason => reason,
                };
                http1.put_response(status, reason, response.fields(), framing).map_err(|_| UNWRITABLE_RESPONSE)?;
                self.work.release_heads();
                Ok(keeps)
            }
        }
    }

    /// Hands both connections over to a tunnel.
    async fn switch(&mut self, upstream: Upstream, route: &Arc<CompiledRoute>, upgrade: &Upgrade, websocket: bool) -> Done {
        let fields = self.work.response.fields_mut();
        if upgrade::response(fields, upgrade).is_none() {
            return self.refuse("The backend's answer cannot be read.", route);
        }
        finish(self.work, route, self.manner.https);
        let fields = self.work.response.fields();
        let put = match self.side {
            Side::Http1(http1) => {
                http1.put_response(101, reason_phrase(101), fields, ResponseFraming::None).map_err(|_| UNWRITABLE_RESPONSE)
            }
            Side::Http2(stream) => {
                self.record.status(200);
                stream.put_response(200, fields, false)
            }
        };
        self.record.begin_tunnel();
        let told = match put {
            Ok(()) => poll_fn(|cx| self.side.poll_out(cx)).await,
            Err(error) => Err(error),
        };
        if told.is_err() {
            self.record.note(crate::tunnel::End::HandOver);
            return Done::After(After::Cut);
        }
        Done::Switched { upstream: upstream.side, websocket, idle: route.route.policies.websocket.idle_timeout }
    }

    fn refuse(&mut self, why: &'static str, route: &Arc<CompiledRoute>) -> Done {
        self.record.note(why);
        Done::Own(Own::of(Answer::page(502, why), Some(route.clone())))
    }

    fn failed(&mut self, failure: &Failure, backend: &Backend, route: &Arc<CompiledRoute>) -> Done {
        failure.tell(backend, route);
        self.record.note(failure);
        if matches!(failure, Failure::ClientGone) {
            return Done::After(After::Cut);
        }
        let answer = failure.answer(&self.client.worker.shared.metrics);
        // Where such a body ends nobody knows.
        let framed = !matches!(failure, Failure::Body(_) | Failure::TooSlow);
        Done::Own(Own { answer, route: Some(route.clone()), framed })
    }

    /// Answers by ourselves. Boxed, as all that is rare.
    fn answer<'f>(&'f mut self, own: Own) -> Pin<Box<dyn Future<Output = After> + 'f>> {
        Box::pin(self.answer_now(own))
    }

    async fn answer_now(&mut self, Own { answer, route, framed }: Own) -> After {
        if answer.status == 413 {
            self.client.worker.shared.metrics.limits.inc(LimitHit::BodySize);
        }
        self.manner.framed = framed;
        if let Content::Page { hint: Some(hint) } = answer.content {
            self.record.note_once(hint);
        }
        let Workspace { request, response, .. } = &mut *self.work;
        let accept = answer::accept(request.fields());
        let page = answer::compose(&answer, self.manner.asker, &accept, self.id.as_str(), response);
        self.record.status(page.status);
        if let Some(route) = &route {
            if route.ingress_nginx() && self.manner.https {
                let _ = response.fields_mut().set(Name::StrictTransportSecurity, HSTS);
            }
            route.response_headers.apply(response.fields_mut());
        }
        let bodiless = self.manner.method == Method::Head || matches!(response.status(), 204 | 304);
        let framing = if bodiless { ResponseFraming::None } else { ResponseFraming::Length(page.body.len() as u64) };
        let keeps = match self.begin_response(framing) {
            Ok(keeps) => keeps,
            Err(error) => {
                self.record.aborted(error);
                return After::Cut;
            }
        };
        let mut at = 0;
        let side = &mut *self.side;
        let told = poll_fn(|cx| {
            while let Some(rest @ [_, ..]) = page.body.get(at..) {
                let room = std::task::ready!(side.poll_room(cx, rest.len()))?;
                side.put(cx, rest.get(..room).unwrap_or_default())?;
                at += room;
            }
            side.put_end(None)?;
            side.poll_out(cx)
        })
        .await;
        self.record.sent(at as u64);
        if let Err(error) = told {
            if let WriteError::NotTaken = error {
                self.client.worker.shared.metrics.limits.inc(LimitHit::WriteTime);
            }
            self.record.aborted(error);
            return After::Cut;
        }
        // The connection is not idle while what is left of the request comes.
        let busy = self.client.control.begin();
        self.record.finish();
        let Self { side, upload, manner, .. } = self;
        end(side, upload, keeps, manner.framed, busy).await
    }
}

/// Sees to what is left of the request.
///
/// The connection is busy meanwhile.
async fn end(side: &mut Side<ClientStream>, upload: &Upload, keeps: bool, framed: bool, _busy: Busy) -> After {
    // Whoever waits for our 100 sends nothing, or what nobody can tell from the next request.
    let silent = upload.waits_for_continue() && !side.is_read();
    if keeps && !silent && (side.is_read() || Box::pin(relay::read_out(side)).await) {
        return After::Keep;
    }
    After::Close { unread: !framed || !side.is_read() }
}

/// What the client's response carries besides what the upstream sent.
fn finish(work: &mut Workspace, route: &CompiledRoute, https: bool) {
    let fields = work.response.fields_mut();
    if route.ingress_nginx() {
        fields.remove(Name::Server);
        if https {
            let _ = fields.set(Name::StrictTransportSecurity, HSTS);
        }
    }
    route.response_headers.apply(fields);
    answer::finish(fields);
}
