//! A response on its way to the client, while the rest of the request's body may still go to the upstream; and what is left of that body when
//! the response is over.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    fault::{BodyError, WriteError},
    patience::Patience,
    record::Record,
    side::{Fault, Side, Waits, poll_pass},
    upload::Upload,
};
use crate::{
    io::{ClientStream, UpstreamStream},
    metrics::{LimitHit, Metrics},
};

/// What is read of a body that nobody wants any more: a client that sends on after the answer for longer than this is not reading it.
const MOST_LEFTOVER: usize = 1 << 20;
const LEFTOVER_TIME: Duration = Duration::from_secs(2);

/// Why a response ended before its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The upstream's part did not come.
    Response(BodyError),
    /// The client is gone, or takes nothing.
    Client(Option<WriteError>),
    /// The request's body was not in order.
    Request(BodyError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(error) => error.fmt(f),
            Self::Client(Some(error)) if error.is_stall() => f.write_str("the client took nothing for too long"),
            Self::Client(Some(error)) => error.fmt(f),
            Self::Client(None) => f.write_str("the client went away"),
            Self::Request(error) => write!(f, "the request's body: {error}"),
        }
    }
}

/// Both ways at once.
pub(super) struct Relay<'a> {
    pub(super) client: &'a mut Side<ClientStream>,
    pub(super) upstream: &'a mut Side<UpstreamStream>,
    pub(super) upload: &'a mut Upload,
    pub(super) record: &'a mut Record,
    /// How long the upstream may be silent.
    pub(super) read_limit: Option<Duration>,
}

impl Relay<'_> {
    /// Passes the response on to its end.
    pub(super) async fn response(&mut self) -> Result<(), Broken> {
        let mut patience = Patience::default();
        let mut since = None;
        let mut sent = 0;
        poll_fn(|cx| self.poll(cx, &mut sent, &mut since, &mut patience)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sent: &mut u64,
        since: &mut Option<Instant>,
        patience: &mut Patience,
    ) -> Poll<Result<(), Broken>> {
        let before = *sent;
        let mut waits = Waits::Reader;
        let passed = poll_pass(cx, self.upstream, self.client, &mut waits, |data| {
            *sent += data.len() as u64;
            Ok(())
        });
        self.record.sent(*sent);
        match passed {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Fault::Reader(error))) => return Poll::Ready(Err(Broken::Response(error))),
            Poll::Ready(Err(Fault::Writer(error))) => return Poll::Ready(Err(Broken::Client(Some(error)))),
            Poll::Pending => {}
        }
        if !self.upload.is_over() {
            let passed = self.upload.poll(cx, self.client, self.upstream, false);
            self.record.received(self.upload.received());
            match passed {
                Poll::Ready(Err(Fault::Reader(error))) => return Poll::Ready(Err(Broken::Request(error))),
                // An endpoint that takes no more may have good reason, and says what it has to say.
                Poll::Ready(Err(Fault::Writer(_))) => self.upload.refuse(),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Broken::Client(None)));
        }
        let Some(limit) = self.read_limit.filter(|_| waits == Waits::Reader) else {
            *since = None;
            patience.rest();
            return Poll::Pending;
        };
        if *sent > before {
            *since = None;
        }
        let since = *since.get_or_insert_with(Instant::now);
        if since.checked_add(limit).is_some_and(|due| patience.is_over(cx, due)) {
            return Poll::Ready(Err(Broken::Response(BodyError::Idle)));
        }
        Poll::Pending
    }
}

/// Passes on what is left of the request's body when the response is over. Whoever is silent for too long, or fails, ends it.
pub(super) async fn rest_of_upload(
    client: &mut Side<ClientStream>,
    upstream: &mut Side<UpstreamStream>,
    upload: &mut Upload,
    body_time: Duration,
    metrics: &Metrics,
) {
    let mut patience = Patience::default();
    upload.outlives_response(body_time);
    upload.begins(std::time::Instant::now());
    poll_fn(|cx| {
        match upload.poll(cx, client, upstream, false) {
            Poll::Ready(Ok(())) => return Poll::Ready(()),
            Poll::Ready(Err(_)) => {
                upload.refuse();
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        // A client of HTTP/1.1 that has sent all of it may go: what it wanted done is done.
        let left = matches!(client, Side::Http2(_)) && client.poll_gone(cx).is_ready();
        // More than a response is the end of all agreement; read it is not, and so an end behind it would not be seen.
        let said_too_much = matches!(upstream, Side::Http1(http1) if !http1.unread().is_empty());
        if left || said_too_much || upstream.poll_gone(cx).is_ready() {
            upload.refuse();
            return Poll::Ready(());
        }
        if let Some(due) = upload.due()
            && patience.is_over(cx, due)
        {
            // Nobody is left to be told.
            metrics.limits.inc(LimitHit::BodyTime);
            upload.refuse();
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Reads out a body that nobody wants, for a moment: a connection that is closed with bytes unread is reset by the kernel, and the client may
/// lose the answer. Says whether it came to its end.
pub(super) async fn read_out(client: &mut Side<ClientStream>) -> bool {
    let Side::Http1(client) = client else { return true };
    let mut patience = Patience::default();
    let due = Instant::now() + LEFTOVER_TIME;
    let mut left = MOST_LEFTOVER;
    poll_fn(|cx| {
        loop {
            match client.poll_piece(cx) {
                Poll::Ready(Ok(true)) => {
                    let length = client.data().len();
                    client.consume(length);
                    left = left.saturating_sub(length);
                    if left == 0 {
                        return Poll::Ready(false);
                    }
                }
                Poll::Ready(Ok(false)) => return Poll::Ready(true),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending if patience.is_over(cx, due) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
