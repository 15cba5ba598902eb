//! A request's body on its way to the upstream, within its limits, and what is kept of it in case that it has to be sent again.
//!
//! Promises that no more than [`REPLAYED`] is kept, only while no byte of a response came, and of a method that is not idempotent only while
//! nothing was written; and that while the upstream takes nothing a client whose connection failed is noticed, though nothing is read of it.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    buffers,
    fault::{BodyError, WriteError},
    patience::Patience,
    side::{Fault, Side, Waits, poll_pass},
};
use crate::io::{ClientStream, UpstreamStream};

/// Of a request's body, what is kept to be sent again: forms and calls fit, as in linkerd; more would cost each upload its memory.
pub(super) const REPLAYED: usize = 64 * 1024;

/// What the client is told that waits with its body (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How often a client is looked at of which nothing is read since the upstream takes nothing. It costs no system call.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of a request's body.
#[derive(Debug)]
pub(super) struct Upload {
    /// It went to the upstream as a whole.
    sent: bool,
    /// The upstream takes no more of it.
    refused: bool,
    received: u64,
    limit: Option<u64>,
    /// Between two pieces.
    idle: Option<Duration>,
    /// The client sends nothing before it is told to.
    waits_for_continue: bool,
    /// What came so far, while it may have to be sent again.
    replay: Vec<u8>,
    /// It is not whole.
    lost: bool,
    /// How much of it the upstream got.
    resent: usize,
    waits: Waits,
    /// When a piece went by last.
    progress: Instant,
    /// The client has its whole response.
    answered: bool,
    /// When the client is looked at next, while the upstream takes nothing.
    look: Option<Instant>,
    patience: Patience,
}

impl Upload {
    pub(super) fn new(limit: Option<u64>, idle: Option<Duration>, waits_for_continue: bool, began: Instant) -> Self {
        Self {
            sent: false,
            refused: false,
            received: 0,
            limit,
            idle,
            waits_for_continue,
            replay: Vec::new(),
            lost: false,
            resent: 0,
            waits: Waits::Reader,
            progress: began,
            answered: false,
            look: None,
            patience: Patience::default(),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn progress(&self) -> Instant {
        self.progress
    }

    /// It went to the upstream as a whole.
    pub(super) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Nothing more goes to the upstream.
    pub(super) fn is_over(&self) -> bool {
        self.sent || self.refused
    }

    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    /// Whether the client was not told yet to send it.
    pub(super) fn waits_for_continue(&self) -> bool {
        self.waits_for_continue
    }

    /// Whether the next thing to happen is up to the client.
    pub(super) fn waits_for_client(&self) -> bool {
        !self.is_over() && self.waits == Waits::Reader
    }

    /// When a client that says nothing has said nothing for too long.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.waits_for_client() {
            return None;
        }
        self.progress.checked_add(self.idle?)
    }

    /// All of it that came can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost
    }

    /// It begins anew, to another connection.
    pub(super) fn again(&mut self) {
        self.sent = false;
        self.refused = false;
        self.resent = 0;
    }

    /// It can be sent since then: there is a connection for it.
    pub(super) fn begins(&mut self, at: std::time::Instant) {
        self.progress = at.into();
    }

    /// The client has its whole response. A body that came whole goes to its end, whether or not the client waits for that; of what is yet to
    /// come, each piece has this time, whatever it had before.
    pub(super) fn outlives_response(&mut self, idle: Duration) {
        self.answered = true;
        self.idle.get_or_insert(idle);
    }

    /// It will not be sent again. What the upstream has not got of what was kept goes to it first.
    pub(super) fn forget(&mut self) {
        self.lost = true;
        if self.resent >= self.replay.len() {
            buffers::give_back(&mut self.replay);
            self.resent = 0;
        }
    }

    /// Passes it on. `keeps`: it may have to be sent again. Ready: it went as a whole.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Side<ClientStream>,
        upstream: &mut Side<UpstreamStream>,
        keeps: bool,
    ) -> Poll<Result<(), Fault>> {
        let passed = self.poll_on(cx, client, upstream, keeps);
        if passed.is_ready() || self.waits == Waits::Reader {
            self.look = None;
            self.patience.rest();
        } else if self.has_failed(cx, client) {
            return Poll::Ready(Err(Fault::Reader(BodyError::Io(io::ErrorKind::ConnectionReset.into()))));
        }
        passed
    }

    /// Looks at a client of which nothing is read. If its connection did not fail the task is woken for another look.
    ///
    /// That it ended its side says nothing: what is unread may be the rest of its body. Whoever is gone does not answer the probes for
    /// a peer that is quiet, or answers with a reset.
    fn has_failed(&mut self, cx: &mut Context<'_>, client: &mut Side<ClientStream>) -> bool {
        // Of HTTP/2 the connection is read all the while.
        let Side::Http1(client) = client else { return false };
        let came_whole = client.is_read() || client.is_last_piece();
        if self.answered && came_whole {
            return false;
        }
        if client.stream().has_failed() {
            return true;
        }
        loop {
            let look = *self.look.get_or_insert_with(|| Instant::now() + LOOK);
            if !self.patience.is_over(cx, look) {
                return false;
            }
            self.look = None;
        }
    }

    fn poll_on(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Side<ClientStream>,
        upstream: &mut Side<UpstreamStream>,
        keeps: bool,
    ) -> Poll<Result<(), Fault>> {
        while let Some(rest @ [_, ..]) = self.replay.get(self.resent..) {
            let Poll::Ready(room) = upstream.poll_room(cx, rest.len()) else {
                self.waits = Waits::Writer;
                return Poll::Pending;
            };
            let room = room.map_err(Fault::Writer)?;
            upstream.put(cx, rest.get(..room).unwrap_or_default()).map_err(Fault::Writer)?;
            self.resent += room;
        }
        if !keeps || self.lost {
            self.forget();
        }
        if std::mem::take(&mut self.waits_for_continue) && !client.is_read() {
            match client {
                Side::Http1(client) => {
                    client.put_raw(CONTINUE);
                    // If it takes none now, it goes with what follows.
                    if let Poll::Ready(Err(error)) = client.poll_out(cx) {
                        return Poll::Ready(Err(Fault::Reader(match error {
                            WriteError::Io(error) => BodyError::Io(error),
                            _ => BodyError::Idle,
                        })));
                    }
                }
                Side::Http2(client) => client.put_interim(100, &penstock_http1::Fields::new()),
            }
        }
        let before = self.received;
        let is_empty = before == 0 && client.is_read();
        let Self { received, limit, replay, lost, resent, waits, .. } = self;
        let passed = poll_pass(cx, client, upstream, waits, |data| {
            *received += data.len() as u64;
            if limit.is_some_and(|limit| *received > limit) {
                return Err(BodyError::TooLarge);
            }
            if !*lost && replay.len() + data.len() <= REPLAYED {
                if replay.capacity() == 0 {
                    *replay = buffers::large();
                }
                replay.extend_from_slice(data);
                *resent = replay.len();
            } else {
                *lost = true;
                buffers::give_back(replay);
                *resent = 0;
            }
            Ok(())
        });
        // Of a request without a body nothing comes, and the time it began is near enough.
        if self.received > before || passed.is_ready() && !is_empty {
            self.progress = Instant::now();
        }
        self.sent = matches!(passed, Poll::Ready(Ok(())));
        passed
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        buffers::give_back(&mut self.replay);
    }
}
