//! A client's HTTP/2 connection: it is driven here, and each of its streams is a task of its own, so that none waits for another.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Connection, SendResponse},
};
use http::Request;
use penstock_http1::Limits;

use super::{
    arrival::Client,
    buffers, coroutine,
    exchange::{self, After, Switched},
    http2::Http2,
    http2_budget::Peer,
    http2_frames::{Counted, limit_of},
    http2_heads::{self, Unwritable},
    message::{Connect, Version},
    side::Side,
    workspace::{self, Workspace},
};
use crate::{control::Command, io::ClientStream, metrics::LimitHit, policy::Answer, task::Task, tunnel};

/// What a client may send on a stream before we took it: 20 Mbit/s over 50 ms. The connection's window is this for as many streams as there
/// may be: what is not taken counts against both, so with less, streams that are blocked (an upload that its backend does not read) would keep
/// their siblings from sending. It is the most that a client can make us hold, 32 MiB by default; it has to open 256 uploads to backends that
/// do not read for that.
const STREAM_WINDOW: u32 = 128 * 1024;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Of each stream, what may wait to be sent: memory follows the slowest client.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that we have to reset for a client's faults before its connection is closed: as the h2 crate has it by default (RUSTSEC-2024-0003).
const MOST_ERRORS: usize = 1024;

/// Serves a connection until it ends. `_held` is kept for as long.
pub(super) async fn serve(client: Rc<Client>, stream: ClientStream, _held: impl Sized) {
    let limits = &client.worker.shared.options.limits;
    let metrics = &client.worker.shared.metrics;
    let control = &client.control;
    control.http2_begins();
    let mut builder = h2::server::Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(Some(MOST_ERRORS))
        // Twice what we take: what goes over our limit a little gets our own answer, and is counted.
        .max_header_list_size(u32::try_from(limits.head_size.saturating_mul(2)).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams.max(1)).min(LARGEST_WINDOW))
        .max_send_buffer_size(SEND_BUFFER);
    let over = Rc::new(Cell::new(None));
    let counted = Counted::new(stream, Peer::Client, limits.control_frames, over.clone()).telling(control.clone());
    let mut handshake = std::pin::pin!(builder.handshake::<_, Bytes>(counted));
    let shaken = poll_fn(|cx| match control.listen(cx.waker()) {
        Command::HeadTimedOut => {
            metrics.limits.inc(LimitHit::HeadTime);
            Poll::Ready(None)
        }
        Command::Cut => Poll::Ready(None),
        // What was told meanwhile is said with the first frames.
        Command::Finish | Command::None => handshake.as_mut().poll(cx).map(Result::ok),
    })
    .await;
    let Some(mut connection) = shaken else { return };
    if client.worker.draining.get() {
        connection.graceful_shutdown();
    }
    if let Err(error) = drive(&client, &mut connection, &over).await {
        if let Some(limit) = limit_of(&error) {
            metrics.limits.inc(limit);
        }
        tracing::debug!(%error, peer = %client.peer, "a client connection failed");
    }
}

async fn drive(
    client: &Rc<Client>,
    connection: &mut Connection<Counted<ClientStream>, Bytes>,
    over: &Cell<Option<LimitHit>>,
) -> Result<(), h2::Error> {
    let mut told = Command::None;
    let mut calmed = false;
    poll_fn(|cx| {
        let command = client.control.listen(cx.waker());
        if command != told {
            told = command;
            match command {
                Command::None => {}
                Command::HeadTimedOut => {
                    client.worker.shared.metrics.limits.inc(LimitHit::HeadTime);
                    connection.graceful_shutdown();
                }
                Command::Finish => connection.graceful_shutdown(),
                Command::Cut => return Poll::Ready(Ok(())),
            }
        }
        loop {
            let accepted = connection.poll_accept(cx);
            if let Some(limit) = over.get()
                && !std::mem::replace(&mut calmed, true)
            {
                client.worker.shared.metrics.limits.inc(limit);
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            match std::task::ready!(accepted) {
                Some(Ok((request, respond))) => spawn(client, request, respond),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

fn spawn(client: &Rc<Client>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let task = Task::new(client.worker.shared.metrics.clone());
    let client = client.clone();
    tokio::task::spawn_local(async move {
        let _task = task;
        stream(&client, request, respond).await;
    });
}

/// Serves one request.
async fn stream(client: &Rc<Client>, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let limits = &client.worker.shared.options.limits;
    let (parts, recv) = request.into_parts();
    let mut side = Side::Http2(Box::new(Http2::of_client(respond, recv, limits)));
    let mut work = workspace::take();
    let read = read_head(client, &parts, &mut work);
    // It may be large, and is in the workspace now.
    drop(parts);
    let after = match read {
        Ok(()) => {
            let ended = coroutine::serve(client, side, work).await;
            (side, work) = (ended.side, ended.work);
            ended.after
        }
        Err(answer) => Box::pin(exchange::refuse(client, &mut side, &mut work, answer)).await,
    };
    workspace::give_back(work);
    if let After::Tunnel(switched) = after {
        tunnel_begins(client, side, *switched);
    }
}

/// Puts a head to the workspace as one of HTTP/1.1.
fn read_head(client: &Client, parts: &http::request::Parts, work: &mut Workspace) -> Result<(), Answer> {
    let shared = &client.worker.shared;
    let (head, fields) = (shared.options.limits.head_size, shared.options.limits.header_count);
    let limits = Limits { head, fields, ..Limits::default() };
    work.version = Version::Http2;
    work.connect = Connect::No;
    work.request.give_buffer(buffers::small);
    let over = http2_heads::over_limit(parts, head, fields);
    let read = http2_heads::request_of(parts, &mut work.request, &limits);
    if let Some(limit) = over {
        shared.metrics.limits.inc(limit);
        return Err(Answer::page(431, "The head of the request is too large, or has too many fields."));
    }
    work.connect = read.map_err(|unwritable| {
        Answer::page(
            400,
            match unwritable {
                Unwritable::Line => "The request's method or path cannot be read.",
                Unwritable::Fields => "The request has a field that cannot be passed on.",
                Unwritable::Host => "The request names no host, or more than one, or one that is none.",
            },
        )
    })?;
    Ok(())
}

/// Joins both sides. The tunnel's task is spawned anew, so that nothing of HTTP stays in memory but the stream.
fn tunnel_begins(client: &Client, side: Side<ClientStream>, switched: Switched) {
    let (Side::Http2(stream), Switched { upstream: Side::Http1(upstream), websocket, idle, record }) = (side, switched) else {
        return;
    };
    let Some(stream) = stream.into_duplex() else {
        return record.tunnel_ended(0, 0, &tunnel::End::HandOver);
    };
    let (mut upstream, from_upstream) = upstream.into_parts();
    upstream.lift_limits();
    let client_side = (tunnel::Side::Stream(Box::new(stream)), Bytes::new());
    let upstream_side = (tunnel::Side::Upstream(upstream), from_upstream);
    tokio::task::spawn_local(tunnel::run(client.worker.clone(), client_side, upstream_side, websocket, idle, record));
}
