//! Sending a request to an endpoint, and again where that is safe.
//!
//! A request is sent at most once, unless no byte of a response came and it was never written, or its method is idempotent; its body has to
//! be absent or still whole in the replay buffer ([`Upload`]). An endpoint that cannot be connected is passed over for the next one: nothing was
//! sent.

use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use penstock_http1::{Limits, Method, Name, Progress, RequestFraming};
use penstock_model::{Policies, Protocol};

use super::{
    fault::{BodyError, HeadError},
    http2::Http2,
    http2_heads,
    outgoing::Http1Upstream,
    patience::Patience,
    record::Record,
    side::{Fault, Side},
    upload::Upload,
    workspace::Workspace,
};
use crate::{
    balance::{BeginError, Loss, Tries, Wish},
    clock,
    io::{ClientStream, UpstreamStream},
    metrics::{LimitHit, Metrics},
    policy::Answer,
    route::CompiledRoute,
    upstream::{Backend, ConnectError, Connection, Place, Sender, StreamCount},
    worker::Worker,
};

/// What is taken of a response's head. Some have large cookies and policies.
pub(super) const RESPONSE_LIMITS: Limits =
    Limits { head: 128 * 1024, target: 0, fields: 128, trailers: 8 * 1024, extensions: 16 * 1024 };
/// Responses before the final one. One or two have a use.
const MOST_INTERIM: usize = 16;

/// Where a request goes, and how.
pub(super) struct Target<'a> {
    pub(super) backend: &'a Arc<Backend>,
    pub(super) policies: &'a Policies,
    pub(super) wish: &'a Wish,
    pub(super) framing: RequestFraming,
    pub(super) method: Method,
    pub(super) te_trailers: bool,
    pub(super) upgrade: bool,
    /// The client takes responses before the final one.
    pub(super) takes_interim: bool,
}

/// The connection by which a response comes.
pub(super) struct Upstream {
    pub(super) side: Side<UpstreamStream>,
    pub(super) place: Place,
    pub(super) endpoint: SocketAddr,
    stream: Option<StreamCount>,
}

impl Upstream {
    /// The connection back to where it belongs: nothing is in doubt about it.
    pub(super) fn give_back(self, worker: &Worker) {
        if let Side::Http1(mut http1) = self.side {
            http1.stream().limit_writes(None);
            worker.pool.give_back(&self.place, Http1Upstream(http1));
        }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Failure {
    TooLarge,
    TooSlow,
    ClientGone,
    /// The client's body cannot be read.
    Body(penstock_http1::BodyError),
    NoEndpoints,
    /// The backend has as many requests as the route lets it have.
    BackendFull,
    Connect(ConnectError),
    ConnectTimeout,
    ResponseTimeout,
    UpgradeOverHttp2,
    /// The request cannot be written in the backend's version.
    Unwritable,
    Http(HeadError),
}

impl Failure {
    /// The backend is at fault, or the way to it, and whoever runs it should know.
    pub(super) fn concerns_backend(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::ResponseTimeout | Self::UpgradeOverHttp2 | Self::Http(_) => true,
            Self::TooLarge
            | Self::TooSlow
            | Self::ClientGone
            | Self::Body(_)
            | Self::NoEndpoints
            | Self::BackendFull
            | Self::Unwritable => false,
        }
    }

    /// What can be done about it, where that is not plain from what it says.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Connect(error) if error.is_unverified() => {
                "; if its certificate is its own, give its authority as tls.caSecretName, or switch verification off (--insecure, tls.verify: false)"
            }
            _ => "",
        }
    }
}

impl Failure {
    /// Says in the log what is wrong with a backend, so that nobody has to turn up the level while its users wait.
    pub(super) fn tell(&self, backend: &Backend, route: &CompiledRoute) {
        let told = self.concerns_backend().then(|| backend.trouble.failed(clock::now())).flatten();
        match told {
            Some(requests) => {
                let hint = self.hint();
                tracing::warn!(backend = %backend.name(), route = %route.name().object, rule = &*route.name().rule, requests, "requests could not be forwarded: {self}{hint}");
            }
            None => tracing::debug!(backend = %backend.name(), error = %self, "a request could not be forwarded"),
        }
    }

    /// What the client is told.
    pub(super) fn answer(&self, metrics: &Metrics) -> Answer {
        match self {
            Self::TooLarge => Answer::page(413, "The request's body is larger than this route allows."),
            Self::TooSlow => {
                metrics.limits.inc(LimitHit::BodyTime);
                Answer::page(408, "The request's body did not come in time.")
            }
            Self::ClientGone => Answer::plain(400),
            Self::Body(error) => Answer::page(error.status(), error.message()),
            Self::NoEndpoints => Answer::page(503, "The backend of this route has no endpoints."),
            Self::BackendFull => Answer::page(503, "The backend of this route has as many requests as it may."),
            Self::Connect(_) => Answer::page(502, "The backend cannot be reached."),
            Self::ConnectTimeout => Answer::page(504, "The backend cannot be reached in time."),
            Self::ResponseTimeout => {
                metrics.limits.inc(LimitHit::ResponseTime);
                Answer::page(504, "The backend did not answer in time.")
            }
            Self::UpgradeOverHttp2 => {
                Answer::page(502, "The backend speaks HTTP/2, over which it cannot be asked for a WebSocket.")
            }
            Self::Unwritable => Answer::page(502, "The request cannot be written in the backend's version of HTTP."),
            Self::Http(_) => Answer::page(502, "The backend's answer cannot be read, or it closed the connection."),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the request's body is too large"),
            Self::TooSlow => f.write_str("the request's body did not come in time"),
            Self::ClientGone => f.write_str("the client went away"),
            Self::Body(error) => write!(f, "the request's body cannot be read: {error}"),
            Self::NoEndpoints => f.write_str("no endpoints"),
            Self::BackendFull => f.write_str("the backend has as many requests as it may"),
            Self::Connect(error) => error.fmt(f),
            Self::ConnectTimeout => f.write_str("no endpoint could be connected in time"),
            Self::ResponseTimeout => f.write_str("no response in time"),
            Self::UpgradeOverHttp2 => f.write_str("an upgrade cannot be asked for over HTTP/2"),
            Self::Unwritable => f.write_str("the request cannot be written in the backend's version"),
            Self::Http(error) => error.fmt(f),
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Response,
    /// It may be sent again.
    Again(Failure),
    /// On whose account.
    Failed(Failure, Loss),
}

/// The client's part of an exchange.
pub(super) struct Asked<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) side: &'a mut Side<ClientStream>,
    pub(super) work: &'a mut Workspace,
    pub(super) upload: &'a mut Upload,
    pub(super) record: &'a mut Record,
}

pub(super) async fn send(asked: &mut Asked<'_>, target: &Target<'_>) -> Result<Upstream, Failure> {
    let backend = target.backend;
    if target.upgrade && backend.protocol() != Protocol::Http1 {
        return Err(Failure::UpgradeOverHttp2);
    }
    let worker = asked.worker.clone();
    let shared = &worker.shared;
    let timeouts = &target.policies.timeouts;
    let deadline = timeouts.request.and_then(|limit| asked.record.began().checked_add(limit));
    let most_connects = shared.options.limits.connect_attempts;
    let times = (asked.record.began(), deadline);
    let begun = {
        let mut beginning = pin!(Tries::begin(&shared.connector, backend, target.policies, target.wish, most_connects, times));
        poll_fn(|cx| match beginning.as_mut().poll(cx) {
            Poll::Ready(begun) => Poll::Ready(Some(begun)),
            // Who left while a place or a name is waited for leaves the place to others.
            Poll::Pending => asked.side.poll_gone(cx).map(|()| None),
        })
        .await
    };
    let mut tries = match begun.ok_or(Failure::ClientGone)? {
        Ok(tries) => tries,
        Err(BeginError::NoEndpoints) => return Err(Failure::NoEndpoints),
        Err(BeginError::Full) => return Err(Failure::BackendFull),
        Err(BeginError::Resolve(error)) => {
            shared.metrics.upstream_connect_failures.inc(error.reason());
            return Err(Failure::Connect(error));
        }
    };
    let mut freed = false;
    loop {
        let Some(endpoint) = tries.endpoint() else { return Err(Failure::NoEndpoints) };
        let Some((connect_limit, in_full)) = tries.connect_limit(timeouts.connect) else { return Err(Failure::ResponseTimeout) };
        let fresh = tries.needs_fresh_connection();
        let kept = if fresh { None } else { worker.pool.kept(backend, endpoint) };
        let waited = kept.is_none();
        let connected = match kept {
            Some(connection) => Some(Ok(connection)),
            None => {
                // Boxed, as all that is rare: each client connection's task is as large as the largest of what it may wait for.
                let mut connecting = Box::pin(worker.pool.connect(&shared.connector, backend, endpoint, connect_limit, fresh));
                poll_fn(|cx| match connecting.as_mut().poll(cx) {
                    Poll::Ready(connected) => Poll::Ready(Some(connected)),
                    // Who left while we connect is not waited for.
                    Poll::Pending => asked.side.poll_gone(cx).map(|()| None),
                })
                .await
            }
        };
        let connection = match connected {
            None => return Err(Failure::ClientGone),
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                tracing::debug!(backend = %backend.name(), %endpoint, %error, "an endpoint cannot be connected");
                // Connections that wait for requests are worth less than this one. For a client that comes none is closed: those who are there
                // already need them.
                let has_freed = error.lacks_descriptors() && !std::mem::replace(&mut freed, true) && worker.pool.free() > 0;
                if has_freed || tries.not_connected(&error, in_full) {
                    continue;
                }
                asked.record.upstream(backend, endpoint, None, tries.made());
                return Err(if error.is_timeout() { Failure::ConnectTimeout } else { Failure::Connect(error) });
            }
        };
        let reused = connection.reused;
        let repeats = tries.sends(waited, target.method.is_idempotent());
        asked.upload.begins(tries.sent_at());
        let attempt = match begin(connection, asked.work, target, endpoint) {
            Ok(mut upstream) => {
                let mut attempt = Attempting {
                    upstream: &mut upstream.side,
                    target,
                    deadlines: tries.deadlines(),
                    sent_at: tries.sent_at().into(),
                    reused,
                    repeats,
                    first: !fresh,
                    interim: 0,
                    patience: Patience::default(),
                };
                match poll_fn(|cx| attempt.poll(cx, asked)).await {
                    Attempt::Response => {
                        let can_be_repeated = repeats && !target.upgrade && asked.upload.is_whole();
                        let (after, again) = tries.answered(asked.work.response.status(), can_be_repeated);
                        if !again {
                            asked.upload.forget();
                            asked.record.upstream(backend, endpoint, Some(after), tries.made());
                            asked.record.holds(tries.finish());
                            return Ok(upstream);
                        }
                        // What is left of that response is not waited for, and its connection ends with it.
                        drop(upstream);
                        asked.upload.again();
                        continue;
                    }
                    late @ Attempt::Failed(_, Loss::Late) => {
                        if let Some(stream) = &upstream.stream {
                            stream.is_late();
                        }
                        late
                    }
                    other => other,
                }
            }
            Err(failure @ Failure::Unwritable) => return Err(failure),
            // The connection ended in between.
            Err(failure) => Attempt::Again(failure),
        };
        let (loss, can_be_repeated, failure) = match attempt {
            Attempt::Again(failure) => (Loss::Broken { reused }, true, failure),
            Attempt::Failed(failure, loss) => (loss, repeats && asked.upload.is_whole(), failure),
            Attempt::Response => return Err(Failure::NoEndpoints),
        };
        if !tries.lost(loss, can_be_repeated) {
            asked.record.upstream(backend, endpoint, None, tries.made());
            return Err(failure);
        }
        asked.upload.again();
    }
}

/// Puts the head of the request to a connection. Nothing is written yet over HTTP/1.1: what there is of the body goes with it.
fn begin(connection: Connection, work: &mut Workspace, target: &Target<'_>, endpoint: SocketAddr) -> Result<Upstream, Failure> {
    let Connection { sender, place, .. } = connection;
    if work.host.is_empty() {
        // An address has nothing in it that a field cannot have.
        let _ = work.request.fields_mut().set(Name::Host, endpoint.to_string().as_bytes());
    }
    let path = std::str::from_utf8(&work.target).map_err(|_| Failure::Unwritable)?;
    match sender {
        Sender::Http1(Http1Upstream(mut http1)) => {
            http1.begin();
            http1.stream().limit_writes(target.policies.timeouts.send);
            target.framing.declare(work.request.fields_mut()).map_err(|_| Failure::Unwritable)?;
            http1
                .put_request(work.request.method_str(), path, work.request.fields(), target.framing.into())
                .map_err(|_| Failure::Unwritable)?;
            Ok(Upstream { side: Side::Http1(http1), place, endpoint, stream: None })
        }
        Sender::Http2 { mut sender, stream } => {
            if let RequestFraming::Length(_) = target.framing {
                // Said as it was read.
                target.framing.declare(work.request.fields_mut()).map_err(|_| Failure::Unwritable)?;
            }
            let scheme = if target.backend.tls().is_some() { "https" } else { "http" };
            let request = http2_heads::request(work.request.method_str(), scheme, path, work.request.fields(), target.te_trailers);
            let request = request.ok_or(Failure::Unwritable)?;
            let ended = matches!(target.framing, RequestFraming::None | RequestFraming::Length(0));
            let sent = sender.sender.send_request(request, ended);
            let (response, send) = sent.map_err(|error| Failure::Http(HeadError::Http2(error)))?;
            let write_limit = target.policies.timeouts.send;
            let side = Side::Http2(Box::new(Http2::of_upstream(response, send, ended, write_limit)));
            Ok(Upstream { side, place, endpoint, stream: Some(stream) })
        }
    }
}

/// One attempt: the request's body goes, and the head of a response is waited for, both at once.
struct Attempting<'a> {
    upstream: &'a mut Side<UpstreamStream>,
    target: &'a Target<'a>,
    /// Of the request, and of this try if its endpoint is the only one that is waited for.
    deadlines: (Option<Instant>, Option<Instant>),
    sent_at: tokio::time::Instant,
    /// Its connection had carried a request before.
    reused: bool,
    /// It may be sent again whatever was written of it.
    repeats: bool,
    /// Nothing was sent before.
    first: bool,
    interim: usize,
    patience: Patience,
}

impl Attempting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, asked: &mut Asked<'_>) -> Poll<Attempt> {
        if !asked.upload.is_over() {
            let keeps = !self.has_come() && (self.repeats || self.first && !self.has_gone());
            let passed = asked.upload.poll(cx, asked.side, self.upstream, keeps);
            asked.record.received(asked.upload.received());
            match passed {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(Fault::Reader(error))) => {
                    let failure = match error {
                        BodyError::TooLarge => Failure::TooLarge,
                        BodyError::Framing(error) if error != penstock_http1::BodyError::Truncated => Failure::Body(error),
                        _ => Failure::ClientGone,
                    };
                    return Poll::Ready(Attempt::Failed(failure, Loss::NotTheirs));
                }
                Poll::Ready(Err(Fault::Writer(error))) if error.is_stall() => {
                    return Poll::Ready(Attempt::Failed(Failure::ResponseTimeout, Loss::Late));
                }
                // What it answers, or that it does not, is told by the other direction.
                Poll::Ready(Err(Fault::Writer(_))) => asked.upload.refuse(),
            }
        }
        while let Poll::Ready(head) = self.poll_head(cx, asked.work) {
            match head {
                Ok(()) if asked.work.response.is_interim() => {
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        let failure = Failure::Http(HeadError::TooManyInterim);
                        return Poll::Ready(Attempt::Failed(failure, Loss::Unreadable));
                    }
                    self.pass_interim(cx, asked);
                }
                Ok(()) => return Poll::Ready(Attempt::Response),
                Err(error) => return Poll::Ready(self.judge(error, asked.upload)),
            }
        }
        if asked.side.poll_gone(cx).is_ready() {
            return Poll::Ready(Attempt::Failed(Failure::ClientGone, Loss::NotTheirs));
        }
        self.poll_limits(cx, asked)
    }

    /// An endpoint has no time to lose while the client is waited for.
    fn poll_limits(&mut self, cx: &mut Context<'_>, asked: &Asked<'_>) -> Poll<Attempt> {
        let upload = &*asked.upload;
        let policies = self.target.policies;
        let of_client = upload.waits_for_client();
        let (deadline, of_try) = self.deadlines;
        let of_endpoint = if of_client {
            None
        } else {
            let progress = upload.progress();
            let read = policies.timeouts.read.and_then(|read| progress.checked_add(read));
            let of_try = match policies.retries.per_try {
                Some(limit) if progress > self.sent_at => progress.checked_add(limit),
                _ => of_try.map(tokio::time::Instant::from_std),
            };
            read.into_iter().chain(of_try).min()
        };
        let body = upload.due();
        let deadline = deadline.map(tokio::time::Instant::from_std);
        let Some(due) = [body, of_endpoint, deadline].into_iter().flatten().min() else { return Poll::Pending };
        if !self.patience.is_over(cx, due) {
            return Poll::Pending;
        }
        Poll::Ready(match asked.side {
            _ if !of_client => Attempt::Failed(Failure::ResponseTimeout, Loss::Late),
            // Its stream may be open for as long as it likes, and it was the answer that did not come in time.
            Side::Http2(_) => Attempt::Failed(Failure::ResponseTimeout, Loss::NotTheirs),
            Side::Http1(_) => Attempt::Failed(Failure::TooSlow, Loss::NotTheirs),
        })
    }

    fn has_come(&self) -> bool {
        match &*self.upstream {
            Side::Http1(http1) => http1.has_come(),
            Side::Http2(_) => false,
        }
    }

    fn has_gone(&self) -> bool {
        match &*self.upstream {
            Side::Http1(http1) => http1.has_gone(),
            // What went matters less there: the endpoint says itself what it did not look at.
            Side::Http2(_) => false,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, work: &mut Workspace) -> Poll<Result<(), HeadError>> {
        let http1 = match self.upstream {
            Side::Http1(http1) => http1,
            Side::Http2(http2) => return http2.poll_head(cx, &mut work.response),
        };
        loop {
            if !http1.unread().is_empty() {
                if !http1.has_gone() {
                    return Poll::Ready(Err(HeadError::Unasked));
                }
                match http1.parse_response(&mut work.response, &RESPONSE_LIMITS) {
                    Ok(Progress::Complete) => return Poll::Ready(Ok(())),
                    Ok(Progress::Incomplete) => {}
                    Err(error) => return Poll::Ready(Err(HeadError::Response(error))),
                }
            }
            match std::task::ready!(http1.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Err(HeadError::Closed)),
                Err(error) => return Poll::Ready(Err(HeadError::Io(error))),
            }
        }
    }

    /// What is said before the response is for the client, but that it may send its body, which we say ourselves (RFC 9110 §15.2).
    fn pass_interim(&self, cx: &mut Context<'_>, asked: &mut Asked<'_>) {
        let response = &mut asked.work.response;
        if response.status() == 100 || !self.target.takes_interim || response.fields_mut().remove_hop_by_hop().is_err() {
            return;
        }
        // Whoever went by it would take the response's head for a body (RFC 9110 §8.6).
        response.fields_mut().remove(Name::ContentLength);
        match asked.side {
            Side::Http1(client) => {
                let reason = penstock_http1::reason_phrase(response.status());
                let none = penstock_http1::ResponseFraming::None;
                if client.put_response(response.status(), reason, response.fields(), none).is_ok() {
                    // What goes wrong here shows with the response.
                    let _ = client.poll_out(cx);
                }
            }
            Side::Http2(client) => client.put_interim(response.status(), response.fields()),
        }
    }

    fn judge(&self, error: HeadError, upload: &Upload) -> Attempt {
        let repeatable = match &error {
            HeadError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Attempt::Failed(Failure::ResponseTimeout, Loss::Late);
            }
            // Bytes that came before ours are the answer to nothing.
            HeadError::Unasked => true,
            HeadError::Io(_) | HeadError::Closed => !self.has_come() && (self.repeats || !self.has_gone()),
            // The connection ended, and nobody can say what the endpoint looked at.
            HeadError::Http2(error) if error.is_io() => self.repeats && self.interim == 0,
            // The endpoint says that it did not look at it (RFC 9113 §6.8, §8.7).
            HeadError::Http2(error) => {
                error.is_remote()
                    && (error.reason() == Some(h2::Reason::REFUSED_STREAM)
                        || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)))
            }
            HeadError::Response(_) | HeadError::TooManyInterim | HeadError::Fields => false,
        };
        let loss = match error {
            // Whether it had been idle for too long decides on whose account.
            HeadError::Io(_) | HeadError::Closed if !self.has_come() => Loss::Broken { reused: self.reused },
            _ => Loss::Unreadable,
        };
        let failure = Failure::Http(error);
        if repeatable && upload.is_whole() { Attempt::Again(failure) } else { Attempt::Failed(failure, loss) }
    }
}
