//! What is known of one endpoint: requests in flight, how fast it answers, how it failed. Atomics, written by all workers.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use penstock_model::Ejection;
use sha2::{Digest, Sha256};

use super::{StableHash, places::Place};
use crate::clock;

/// In which time a latency falls to a third while nothing slow comes (Finagle's, linkerd's and ingress-nginx's `ewma` have the same).
const DECAY_MILLIS: f32 = 10_000.0;
/// Below it, differences are those of the scheduler and not of endpoints.
const NOISE_MICROS: f32 = 1_000.0;
/// What a failure counts as: an endpoint that fails fast must not look like a fast one.
const FAILURE: Duration = Duration::from_secs(1);
/// More doublings than any time has bits to spare for.
const MOST_DOUBLINGS: u32 = 20;
/// An endpoint that is let in again has one request for so long, until it answers.
pub(super) const PROBE_MILLIS: u64 = 1_000;
/// Hexadecimal digits of an endpoint's name in cookies: too many to hit one by chance.
const NAME_DIGITS: usize = 32;

/// One endpoint of one backend. On lines of its own: it is written with each request.
#[repr(align(64))]
pub(crate) struct Endpoint {
    in_flight: AtomicU32,
    /// Failures since it answered last.
    failures: AtomicU32,
    /// How often it was passed over since then.
    ejections: AtomicU32,
    /// It is passed over until then; zero: it is not. What lies in the past was not answered yet.
    out_until: AtomicU64,
    /// The time of the last change in milliseconds (32 bits), and microseconds. Zero: nothing is known.
    latency: AtomicU64,
    address: SocketAddr,
    /// What keys are held against.
    id: u64,
    /// When it came to others that were there before. Zero: it came with them.
    since: u64,
    /// Its name in cookies, made when it is first needed.
    name: OnceLock<Box<str>>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, since: u64) -> Self {
        let mut id = StableHash::new();
        match address.ip() {
            std::net::IpAddr::V4(ip) => id.write(&ip.octets()),
            std::net::IpAddr::V6(ip) => id.write(&ip.octets()),
        }
        id.write(&address.port().to_be_bytes());
        Self {
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            address,
            id: id.finish(),
            since,
            name: OnceLock::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// What stands for it in cookies. It tells nothing to whoever does not know the addresses already.
    pub(super) fn name(&self, backend: &str) -> &str {
        self.name.get_or_init(|| opaque(&[backend.as_bytes(), self.address.to_string().as_bytes()]))
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn is_out(&self, now: u64) -> bool {
        self.out_until.load(Relaxed) > now
    }

    /// From 0 for one that came just now to 1.
    pub(super) fn warmth(&self, now: u64, window: Duration) -> f32 {
        if self.since == 0 {
            return 1.0;
        }
        let window = clock::millis(window).max(1);
        (now.saturating_sub(self.since) as f32 / window as f32).min(1.0)
    }

    /// The latency as of now in microseconds. None: it was never measured.
    pub(super) fn latency(&self, now: u64) -> Option<f32> {
        let packed = self.latency.load(Relaxed);
        (packed != 0).then(|| (micros(packed) * kept(packed, now)).max(NOISE_MICROS))
    }

    /// Takes a measurement in: upwards by half the difference at once, so that a few slow answers show and a single one does not weigh too much;
    /// downwards with the time since the last. Two at once may lose one of them, which is no harm.
    fn measure(&self, now: u64, sample: Duration) {
        let sample = (sample.as_micros().min(u128::from(u32::MAX)) as f32).max(1.0);
        let packed = self.latency.load(Relaxed);
        let value = if packed == 0 {
            sample
        } else {
            let (before, kept) = (micros(packed), kept(packed, now));
            if sample > before { before.midpoint(sample) } else { before * kept + sample * (1.0 - kept) }
        };
        self.latency.store(u64::from(now as u32) << 32 | u64::from(value as u32).max(1), Relaxed);
    }

    /// It did not answer for so long, and now nobody waits any more. What hangs must not look idle.
    fn waited(&self, now: u64, span: Duration) {
        if self.latency(now).is_none_or(|latency| span.as_micros() as f32 > latency) {
            self.measure(now, span);
        }
    }

    /// It answered, and so after this.
    fn answered(&self, now: u64, after: Duration) {
        self.measure(now, after);
        // Loads first: what is well mostly stays so, and a store would take the line from the other workers.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.out_until.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
            self.out_until.store(0, Relaxed);
        }
    }

    /// It failed. Some: it is passed over until then, which it was not before.
    fn failed(&self, now: u64, rule: &Ejection, at_once: bool, probe: bool) -> Option<u64> {
        self.measure(now, FAILURE);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let before = self.out_until.load(Relaxed);
        // One that was let in again and fails, failed all the time. Of one that is out, requests of before say nothing new.
        let enough = at_once || probe || failures >= rule.failures.max(1);
        if !enough || before > now && !probe {
            return None;
        }
        let doublings = self.ejections.load(Relaxed).min(MOST_DOUBLINGS);
        let span = clock::millis(rule.time).max(1).saturating_mul(1 << doublings).min(clock::millis(rule.longest).max(1));
        let until = now.saturating_add(span);
        self.out_until.compare_exchange(before, until, Relaxed, Relaxed).ok()?;
        self.ejections.fetch_add(1, Relaxed);
        Some(until)
    }

    /// Whether this request is the one by which it is seen whether an endpoint that was passed over is well again. Others go elsewhere meanwhile.
    fn probes(&self, now: u64) -> bool {
        let until = self.out_until.load(Relaxed);
        until != 0 && until <= now && self.out_until.compare_exchange(until, now + PROBE_MILLIS, Relaxed, Relaxed).is_ok()
    }

    #[cfg(test)]
    pub(super) fn sample(port: u16, in_flight: u32, micros: u32, out_until: u64, since: u64) -> Arc<Self> {
        let endpoint = Self::new(SocketAddr::from(([192, 0, 2, 1], port)), since);
        endpoint.in_flight.store(in_flight, Relaxed);
        endpoint.latency.store(u64::from(micros), Relaxed);
        endpoint.out_until.store(out_until, Relaxed);
        Arc::new(endpoint)
    }

    #[cfg(test)]
    pub(super) fn set_in_flight(&self, count: u32) {
        self.in_flight.store(count, Relaxed);
    }
}

fn micros(packed: u64) -> f32 {
    packed as u32 as f32
}

/// What is left of a value after the time since it was written. Clocks of two threads may differ a little.
fn kept(packed: u64, now: u64) -> f32 {
    let age = (now as u32).wrapping_sub((packed >> 32) as u32);
    if age > u32::MAX / 2 { 1.0 } else { (-(age as f32) / DECAY_MILLIS).exp() }
}

/// A name that says nothing.
pub(super) fn opaque(parts: &[&[u8]]) -> Box<str> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digits = hash.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 15]).take(NAME_DIGITS);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect::<String>().into()
}

/// A request at an endpoint: counted there for as long as this lives, which is until its response, or its tunnel, is over. It holds nothing of a
/// table, nor its backend.
#[derive(Debug)]
pub(crate) struct Flight {
    endpoint: Arc<Endpoint>,
    probe: bool,
    /// Where the route limits how many there are.
    pub(super) place: Option<Place>,
}

impl Flight {
    /// `may_probe`: whether the route passes over endpoints that fail.
    pub(super) fn begin(endpoint: &Arc<Endpoint>, now: u64, may_probe: bool) -> Self {
        endpoint.in_flight.fetch_add(1, Relaxed);
        Self { endpoint: endpoint.clone(), probe: may_probe && endpoint.probes(now), place: None }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether by it is seen if an endpoint that was passed over is well again.
    pub(super) fn is_probe(&self) -> bool {
        self.probe
    }

    pub(super) fn waited(&self, now: u64, span: Duration) {
        self.endpoint.waited(now, span);
    }

    pub(super) fn answered(&self, now: u64, after: Duration) {
        self.endpoint.answered(now, after);
    }

    pub(super) fn failed(&self, now: u64, rule: &Ejection, at_once: bool) -> Option<u64> {
        self.endpoint.failed(now, rule, at_once, self.probe)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Ejection =
        Ejection { failures: 3, time: Duration::from_secs(2), longest: Duration::from_secs(10), panic_percent: 50 };

    fn endpoint() -> Arc<Endpoint> {
        Endpoint::sample(1, 0, 0, 0, 0)
    }

    #[test]
    fn the_third_failure_in_a_row_puts_an_endpoint_out_and_an_answer_in_between_starts_anew() {
        let endpoint = endpoint();
        for _ in 0..2 {
            assert_eq!(endpoint.failed(100, &RULE, false, false), None);
        }
        endpoint.answered(100, Duration::ZERO);
        for _ in 0..2 {
            assert_eq!(endpoint.failed(100, &RULE, false, false), None);
        }
        assert_eq!(endpoint.failed(100, &RULE, false, false), Some(2_100));
        assert!(endpoint.is_out(2_099) && !endpoint.is_out(2_100));
        assert_eq!(endpoint.failed(200, &RULE, false, false), None, "requests of before say nothing new");
    }

    #[test]
    fn one_that_cannot_be_connected_is_out_at_once() {
        assert_eq!(endpoint().failed(100, &RULE, true, false), Some(2_100));
    }

    #[test]
    fn each_time_is_twice_as_long_up_to_the_longest_until_it_answers() {
        let endpoint = endpoint();
        let mut now = 1_000;
        let mut spans = Vec::new();
        for _ in 0..5 {
            let flight = Flight::begin(&endpoint, now, true);
            let until = flight.failed(now, &RULE, true).unwrap();
            spans.push(until - now);
            now = until;
        }
        assert_eq!(spans, [2_000, 4_000, 8_000, 10_000, 10_000]);
        endpoint.answered(now, Duration::ZERO);
        assert_eq!(endpoint.failed(now, &RULE, true, false), Some(now + 2_000));
    }

    #[test]
    fn one_that_was_out_is_probed_by_one_request_and_comes_back_when_that_is_answered() {
        let endpoint = endpoint();
        assert_eq!(endpoint.failed(100, &RULE, true, false), Some(2_100));
        let probe = Flight::begin(&endpoint, 2_100, true);
        assert!(probe.probe && endpoint.is_out(2_100), "others go elsewhere");
        assert!(!Flight::begin(&endpoint, 2_101, true).probe);
        assert!(!endpoint.is_out(2_100 + PROBE_MILLIS), "a probe that is never answered keeps it out for a while only");
        probe.answered(2_200, Duration::ZERO);
        assert!(!endpoint.is_out(2_200));
        assert_eq!(endpoint.failed(2_300, &RULE, true, false), Some(4_300), "the back-off begins anew");
    }

    #[test]
    fn a_failing_probe_needs_no_two_others() {
        let endpoint = endpoint();
        assert_eq!(endpoint.failed(100, &RULE, true, false), Some(2_100));
        let probe = Flight::begin(&endpoint, 2_100, true);
        assert_eq!(probe.failed(2_200, &RULE, false), Some(6_200));
    }

    #[test]
    fn latency_rises_at_once_and_falls_with_time() {
        let endpoint = endpoint();
        assert_eq!(endpoint.latency(1), None);
        endpoint.answered(1_000, Duration::from_millis(10));
        endpoint.answered(1_000, Duration::from_millis(30));
        assert_eq!(endpoint.latency(1_000), Some(20_000.0));
        endpoint.answered(1_000, Duration::from_millis(2));
        assert_eq!(endpoint.latency(1_000), Some(20_000.0), "nothing has passed yet");
        let later = endpoint.latency(11_000).unwrap();
        assert!((7_000.0..8_000.0).contains(&later), "one that nobody asks any more is given another chance: {later}");
        endpoint.answered(11_000, Duration::from_millis(2));
        let measured = endpoint.latency(11_000).unwrap();
        assert!((8_000.0..9_000.0).contains(&measured), "{measured}");
        assert_eq!(endpoint.latency(1_000_000), Some(NOISE_MICROS));
    }

    #[test]
    fn an_endpoint_that_fails_fast_does_not_look_fast() {
        let endpoint = endpoint();
        endpoint.answered(1_000, Duration::from_millis(10));
        endpoint.failed(1_000, &RULE, false, false);
        assert!(endpoint.latency(1_000).unwrap() > 500_000.0);
    }

    #[test]
    fn an_endpoint_that_hangs_does_not_look_fast() {
        let endpoint = endpoint();
        endpoint.answered(1_000, Duration::from_millis(10));
        endpoint.waited(1_000, Duration::from_millis(5));
        assert_eq!(endpoint.latency(1_000), Some(10_000.0), "it was not late yet");
        endpoint.waited(1_000, Duration::from_millis(30));
        assert_eq!(endpoint.latency(1_000), Some(20_000.0));
    }

    #[test]
    fn a_request_counts_for_as_long_as_it_flies() {
        let endpoint = endpoint();
        let (one, two) = (Flight::begin(&endpoint, 0, false), Flight::begin(&endpoint, 0, false));
        assert_eq!(endpoint.in_flight(), 2);
        drop((one, two));
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn names_and_ids_are_the_same_in_every_process() {
        let endpoint = endpoint();
        assert_eq!(endpoint.name("http://ns/web:80"), Endpoint::sample(1, 0, 0, 0, 5).name("http://ns/web:80"));
        assert_ne!(endpoint.name("http://ns/web:80"), Endpoint::sample(2, 0, 0, 0, 0).name("http://ns/web:80"));
        assert_eq!(endpoint.name("").len(), NAME_DIGITS);
        assert_eq!(endpoint.id(), Endpoint::sample(1, 3, 4, 5, 6).id());
    }
}
