//! The tries of one request: which endpoint is next, what became of the one before, and whether there is another.
//!
//! The engine asks for an endpoint, connects and sends, and tells what came of it. A failure counts against the endpoint, an answer for it; how that
//! is told apart stands here, and so does when a request goes to another endpoint. What the message allows (was it written, can it be copied)
//! the engine knows.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use penstock_model::{Balancing, Policies, Retries};

use super::{Wish, endpoint::Flight, places::Place};
use crate::{
    clock,
    metrics::{LimitHit, Metrics},
    upstream::{Backend, ConnectError, Connector},
};

/// Without a number of the route's own: the first and one more, as much as it takes to get over a connection that was closed by chance.
const SENT_AT_MOST: u32 = 2;
/// What a backend answers that cannot do its work, or whose own backend cannot: of these, and not of an error in one request (500).
const FAILING: [u16; 3] = [502, 503, 504];

/// Why a request has no endpoint at all.
#[derive(Debug)]
pub(crate) enum BeginError {
    NoEndpoints,
    /// The limits of the route.
    Full,
    Resolve(ConnectError),
}

/// Why there is no response on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It broke. `reused`: it had carried a request before, and its endpoint may have closed it in the meantime.
    Broken { reused: bool },
    /// What came is no response.
    Unreadable,
    /// It did not come in time.
    Late,
    /// Nothing to do with the endpoint.
    NotTheirs,
}

pub(crate) struct Tries<'a> {
    backend: &'a Arc<Backend>,
    balancing: &'a Balancing,
    retries: &'a Retries,
    wish: &'a Wish,
    metrics: &'a Metrics,
    /// How many endpoints the operator lets be tried if none can be connected.
    most_connects: u32,
    began: Instant,
    deadline: Option<Instant>,
    tried: Vec<SocketAddr>,
    flight: Option<Flight>,
    place: Option<Place>,
    made: u32,
    sent: u32,
    /// The same endpoint again, over a new connection.
    stay: bool,
    /// A response is waited for, since `now`.
    waiting: bool,
    /// When the last thing happened that takes time: the clock is read no more often than that.
    now: Instant,
    /// When this try began, with choosing its endpoint.
    try_began: Instant,
}

impl<'a> Tries<'a> {
    /// Takes a place, if the route limits how many there are, and learns which endpoints there are.
    pub(crate) async fn begin(
        connector: &'a Connector,
        backend: &'a Arc<Backend>,
        policies: &'a Policies,
        wish: &'a Wish,
        most_connects: usize,
        (began, deadline): (Instant, Option<Instant>),
    ) -> Result<Self, BeginError> {
        let limits = policies.balancing.limits;
        let mut now = began;
        let mut place = None;
        if limits.requests.is_some() {
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(began));
            place = backend.balance.places.take(limits, policies.timeouts.connect.min(left)).await;
            if place.is_none() {
                connector.metrics.limits.inc(LimitHit::BackendRequests);
                return Err(BeginError::Full);
            }
            now = Instant::now();
        }
        if connector.refresh(backend).await.map_err(BeginError::Resolve)? {
            now = Instant::now();
        }
        if backend.balance.is_empty() {
            return Err(BeginError::NoEndpoints);
        }
        Ok(Self {
            backend,
            balancing: &policies.balancing,
            retries: &policies.retries,
            wish,
            metrics: &connector.metrics,
            most_connects: u32::try_from(most_connects).unwrap_or(u32::MAX),
            began,
            deadline,
            tried: Vec::new(),
            flight: None,
            place,
            made: 0,
            sent: 0,
            stay: false,
            waiting: false,
            now,
            try_began: now,
        })
    }

    /// The endpoint to go to now. None: they are all gone.
    pub(crate) fn endpoint(&mut self) -> Option<SocketAddr> {
        self.try_began = self.now;
        if !std::mem::take(&mut self.stay) || self.flight.is_none() {
            // Before the next is chosen, so that it does not weigh on the choice.
            self.flight = None;
            let choose = |tried: &[SocketAddr]| {
                self.backend.balance.choose(self.backend.name(), self.balancing, self.wish, tried, clock::at(self.now))
            };
            // Whoever may try on after all were tried begins anew.
            let chosen = choose(&self.tried).or_else(|| choose(&[]));
            self.flight = chosen;
        }
        self.flight.as_ref().map(|flight| flight.endpoint().address())
    }

    /// How many were tried.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// It was sent in vain: now it goes over a connection that nobody can have closed in the meantime.
    pub(crate) fn needs_fresh_connection(&self) -> bool {
        self.sent > 0
    }

    /// When the request has to be answered, and when this try, if it waits for nothing but its endpoint.
    pub(crate) fn deadlines(&self) -> (Option<Instant>, Option<Instant>) {
        (self.deadline, self.retries.per_try.and_then(|limit| self.try_began.checked_add(limit)))
    }

    /// How long connecting may take, of so much that the route allows, and whether that is all of it. None: the request's time is over.
    pub(crate) fn connect_limit(&self, allowed: Duration) -> Option<(Duration, bool)> {
        let allowed = self.retries.per_try.map_or(allowed, |limit| limit.min(allowed));
        let Some(deadline) = self.deadline else { return Some((allowed, true)) };
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some((left.min(allowed), left >= allowed))
    }

    /// The endpoint could not be connected: nothing was sent. Whether to go to another. `in_full`: it had all the time that it may take.
    pub(crate) fn not_connected(&mut self, error: &ConnectError, in_full: bool) -> bool {
        self.made += 1;
        self.now = Instant::now();
        if !error.concerns_endpoint() {
            return false;
        }
        if !error.is_local() && (in_full || !error.is_timeout()) {
            self.blame(true);
        }
        let most = self.retries.attempts.unwrap_or(self.most_connects);
        let endpoints = u32::try_from(self.backend.balance.len()).unwrap_or(u32::MAX);
        let again = self.retries.on.connect_failure && self.made < most.min(endpoints) && self.has_time();
        again && self.again(false)
    }

    /// The request goes out; when, [`Tries::sent_at`] says. `waited`: a connection had to be made, or waited for; `idempotent`: the request is safe
    /// to repeat by its method. Says whether a copy should be kept for a next try, if that can be had.
    pub(crate) fn sends(&mut self, waited: bool, idempotent: bool) -> bool {
        self.made += 1;
        self.sent += 1;
        self.waiting = true;
        if waited {
            self.now = Instant::now();
        }
        (idempotent || self.retries.non_idempotent) && (self.sent < SENT_AT_MOST || self.has_tries())
    }

    pub(crate) fn sent_at(&self) -> Instant {
        self.now
    }

    /// There is no response. Whether to send again, if that is safe.
    pub(crate) fn lost(&mut self, loss: Loss, can_be_repeated: bool) -> bool {
        self.waiting = false;
        self.now = Instant::now();
        let wanted = match loss {
            Loss::NotTheirs => return false,
            // Closed while it was idle: no fault, and no more than a try that nobody counts. Whoever wants no other endpoint gets this one.
            Loss::Broken { reused: true } => self.sent < SENT_AT_MOST || self.retries.on.reset && self.has_tries(),
            Loss::Broken { reused: false } => {
                self.blame(false);
                self.retries.on.reset && self.has_tries()
            }
            Loss::Unreadable => {
                self.blame(false);
                self.retries.on.unreadable && self.has_tries()
            }
            Loss::Late => {
                self.blame(false);
                self.retries.on.timeout && self.has_tries()
            }
        };
        can_be_repeated && wanted && self.has_time() && self.again(loss == Loss::Broken { reused: true })
    }

    /// There is a response. How long after the request, and whether to send again nevertheless, if that is safe.
    pub(crate) fn answered(&mut self, status: u16, can_be_repeated: bool) -> (Duration, bool) {
        self.waiting = false;
        let sent = std::mem::replace(&mut self.now, Instant::now());
        let after = self.now.saturating_duration_since(sent);
        if FAILING.contains(&status) {
            self.blame(false);
        } else if let Some(flight) = &self.flight {
            flight.answered(clock::at(self.now), after);
        }
        let wanted = self.retries.on.statuses.contains(&status) && self.has_tries();
        (after, can_be_repeated && wanted && self.has_time() && self.again(false))
    }

    /// What counts the request at its endpoint, to be held until it is over.
    pub(crate) fn finish(mut self) -> Option<Flight> {
        let mut flight = self.flight.take()?;
        flight.place = self.place.take();
        Some(flight)
    }

    fn has_tries(&self) -> bool {
        match self.retries.attempts {
            Some(most) => self.made < most,
            None => self.sent < SENT_AT_MOST,
        }
    }

    fn has_time(&self) -> bool {
        let within = self.retries.within.and_then(|within| self.began.checked_add(within));
        within.into_iter().chain(self.deadline).all(|end| self.now < end)
    }

    fn again(&mut self, stay: bool) -> bool {
        self.stay = stay;
        if let (false, Some(flight)) = (stay, &self.flight) {
            self.tried.push(flight.endpoint().address());
        }
        self.metrics.upstream_retries.inc();
        true
    }

    fn blame(&self, at_once: bool) {
        let (Some(flight), Some(rule)) = (&self.flight, &self.balancing.ejection) else { return };
        let now = clock::at(self.now);
        if let Some(until) = flight.failed(now, rule, at_once) {
            self.backend.balance.out(until);
            self.metrics.upstream_ejections.inc();
            let millis = until.saturating_sub(now);
            tracing::debug!(backend = %self.backend.name(), endpoint = %flight.endpoint().address(), millis, "an endpoint is passed over");
        }
    }
}

impl Drop for Tries<'_> {
    /// The client went while it waited.
    fn drop(&mut self) {
        if let (true, Some(flight)) = (self.waiting, &self.flight) {
            let now = Instant::now();
            flight.waited(clock::at(now), now.saturating_duration_since(self.now));
        }
    }
}
