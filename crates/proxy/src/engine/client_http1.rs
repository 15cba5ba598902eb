//! A client's HTTP/1.1 connection: one head after another, each with its exchange, until one of the two ends it.
//!
//! Promises that a connection which waits for a request owns no buffer; and that a head which cannot be read is answered, counted and logged
//! like any request, and its connection closed in a way that lets the client read the answer.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use penstock_http1::{FieldsError, Limits, Name, Progress, RequestError, ResponseFraming, ResponseHead, reason_phrase};
use tokio::time::Instant;

use super::{
    answer::{self, Asker},
    arrival::Client,
    coroutine,
    exchange::{After, Switched},
    http1::Http1,
    message::{Connect, Version},
    patience::Patience,
    record,
    side::Side,
    workspace::{self, Workspace},
};
use crate::{clock, control::Command, io::ClientStream, metrics::LimitHit, policy::Answer, tunnel};

/// How long a client has to take our last word, and to stop talking.
const LAST_WORD: Duration = Duration::from_secs(2);
/// What is read of it meanwhile.
const MOST_UNREAD: usize = 1 << 20;

/// What is waited for between two requests.
enum Next {
    /// The head in the workspace.
    Request(Box<Workspace>),
    /// The connection is over.
    Over,
    /// The client is to be told why.
    Refused(RequestError),
    /// The head did not come in time.
    Late,
}

/// Serves a connection until it ends. `held` is kept for as long.
#[expect(clippy::manual_async_fn, reason = "an async function has room for its arguments twice")]
pub(super) fn serve(client: Rc<Client>, mut side: Side<ClientStream>, held: impl Sized) -> impl Future<Output = ()> {
    async move {
        let _ = &held;
        loop {
            let next = match &mut side {
                Side::Http1(http1) => {
                    if !http1.unread().is_empty() {
                        // It has begun already.
                        client.control.bytes_came(clock::now());
                    }
                    let mut work = None;
                    poll_fn(|cx| poll_next(cx, &client, http1, &mut work)).await
                }
                Side::Http2(_) => return,
            };
            let work = match next {
                Next::Request(work) => work,
                Next::Over => return,
                Next::Refused(error) => {
                    return Box::pin(refuse(&client, side, error.status(), error.message(), Some(error))).await;
                }
                Next::Late => return Box::pin(refuse(&client, side, 408, "The request did not come in time.", None)).await,
            };
            let ended = coroutine::serve(&client, side, work).await;
            side = ended.side;
            workspace::give_back(ended.work);
            match ended.after {
                After::Keep => {}
                After::Close { unread } => return Box::pin(close(side, unread)).await,
                After::Cut => return cut(side),
                After::Tunnel(switched) => return tunnel_begins(&client, side, *switched),
            }
            if client.control.command() >= Command::Finish {
                // It was told while its request went on, and had no farewell in its response.
                return Box::pin(close(side, false)).await;
            }
        }
    }
}

// A connection that waits for a request, or for a response, is this and little more.
const _: () = assert!(size_of::<Http1<ClientStream>>() <= 256);

fn limits(client: &Client) -> Limits {
    let limits = &client.worker.shared.options.limits;
    Limits { head: limits.head_size, fields: limits.header_count, ..Limits::default() }
}

/// Waits for the next head. `work` is taken when its first byte comes.
fn poll_next(
    cx: &mut Context<'_>,
    client: &Client,
    http1: &mut Http1<ClientStream>,
    work: &mut Option<Box<Workspace>>,
) -> Poll<Next> {
    let limits = limits(client);
    loop {
        if !http1.unread().is_empty() {
            let head = work.get_or_insert_with(workspace::take);
            match http1.parse_request(&mut head.request, &limits) {
                Ok(Progress::Complete) => break,
                Ok(Progress::Incomplete) => {}
                Err(error) => return Poll::Ready(Next::Refused(error)),
            }
        }
        match http1.poll_fill(cx) {
            Poll::Ready(Ok(1..)) => continue,
            Poll::Ready(Ok(0)) => {
                http1.stream().say_end();
                return Poll::Ready(Next::Over);
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Next::Over),
            Poll::Pending => {}
        }
        return match client.control.listen(cx.waker()) {
            Command::Cut => Poll::Ready(Next::Over),
            Command::HeadTimedOut => {
                client.worker.shared.metrics.limits.inc(LimitHit::HeadTime);
                // Who sent nothing at all waits for no answer.
                Poll::Ready(if http1.unread().is_empty() { Next::Over } else { Next::Late })
            }
            // A head that has begun to come has its time, and its answer.
            Command::Finish if http1.unread().is_empty() => {
                http1.stream().say_end();
                Poll::Ready(Next::Over)
            }
            Command::Finish | Command::None => Poll::Pending,
        };
    }
    let Some(mut work) = work.take() else { return Poll::Ready(Next::Over) };
    work.version = Version::from(work.request.version());
    work.connect = Connect::No;
    // What cannot be framed is refused with the rest of what is wrong with a head, and its connection closed.
    let framing = work.request.framing().map_or(ResponseFraming::None, Into::into);
    http1.expect_body(framing, limits);
    Poll::Ready(Next::Request(work))
}

/// Answers a head that cannot be read, or did not come.
async fn refuse(client: &Client, mut side: Side<ClientStream>, status: u16, why: &'static str, error: Option<RequestError>) {
    let limit = match error {
        Some(RequestError::HeadTooLarge) => Some(LimitHit::HeadSize),
        Some(RequestError::Fields(FieldsError::TooMany)) => Some(LimitHit::HeaderCount),
        _ => None,
    };
    if let Some(limit) = limit {
        client.worker.shared.metrics.limits.inc(limit);
    }
    record::refused(&client.worker, client.peer.ip(), client.scheme, status, &why);
    let mut head = ResponseHead::new();
    let page = answer::compose(&Answer::page(status, why), Asker::default(), &[], "", &mut head);
    let framing = ResponseFraming::Length(page.body.len() as u64);
    if let Side::Http1(http1) = &mut side {
        let _ = head.fields_mut().push(Name::Connection, b"close");
        if http1.put_response(head.status(), reason_phrase(status), head.fields(), framing).is_err() {
            return;
        }
        http1.put_raw(&page.body);
    }
    close(side, true).await;
}

/// Writes what there is still to be written, ends our side, and if something may be unread waits until the client has taken it: a connection
/// that is closed with bytes unread is reset by the kernel, and the client may lose the answer.
async fn close(side: Side<ClientStream>, unread: bool) {
    let Side::Http1(mut http1) = side else { return };
    let mut patience = Patience::default();
    let due = Instant::now() + LAST_WORD;
    let mut left = MOST_UNREAD;
    let (mut out, mut shut) = (false, false);
    poll_fn(|cx| {
        if patience.is_over(cx, due) {
            return Poll::Ready(());
        }
        if !out {
            match http1.poll_out(cx) {
                Poll::Ready(Ok(())) => out = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        if out && !shut {
            match http1.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => shut = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        if shut && !unread {
            return Poll::Ready(());
        }
        while left > 0 {
            match http1.poll_discard(cx, &mut left) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// Closes a connection within a response, so that this cannot be taken for its end.
fn cut(mut side: Side<ClientStream>) {
    if let Side::Http1(http1) = &mut side
        && http1.ends_by_close()
    {
        http1.stream().reset_on_close();
    }
}

/// Joins both sides. The tunnel's task is spawned anew, so that nothing of HTTP stays in memory.
fn tunnel_begins(client: &Client, side: Side<ClientStream>, switched: Switched) {
    let (Side::Http1(http1), Switched { upstream: Side::Http1(upstream), websocket, idle, record }) = (side, switched) else {
        return;
    };
    let ((mut stream, from_client), (mut upstream, from_upstream)) = (http1.into_parts(), upstream.into_parts());
    stream.lift_limits();
    upstream.lift_limits();
    let client_side = (tunnel::Side::Client(stream), from_client);
    let upstream_side = (tunnel::Side::Upstream(upstream), from_upstream);
    tokio::task::spawn_local(tunnel::run(client.worker.clone(), client_side, upstream_side, websocket, idle, record));
}
