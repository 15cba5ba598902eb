//! Which replica writes: leader election over a Lease (coordination.k8s.io/v1).
//!
//! A leader knows by its own clock until when it surely is one: from the moment before it sent its last successful renewal. A process that stood
//! still past that has lost, whatever it believed before. Another's claim is held against the local time since it was last seen to
//! change, not against its own clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use crate::{KubernetesMetrics, clock::Moment};

/// The least time to live of a Lease: its duration is written in whole seconds, and a renewal must have time for a second try.
pub const SHORTEST_TTL: Duration = Duration::from_secs(2);
/// After a failed try.
const RETRY: Duration = Duration::from_secs(1);
/// A try that takes longer has failed, so that there is time for others before the Lease runs out.
const LONGEST_TRY: Duration = Duration::from_secs(5);

/// Who stands for election, and where.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    pub namespace: String,
    pub name: String,
    pub identity: String,
    /// How long a leader that is not heard of stays leader.
    pub ttl: Duration,
}

/// Why a time to live cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    #[error("it must be at least {SHORTEST_TTL:?}")]
    Short,
    #[error("it must be a whole number of seconds, as a Lease has it")]
    Fraction,
    #[error("it is too long")]
    Long,
}

/// A time to live that a Lease can have.
pub fn check_ttl(ttl: Duration) -> Result<(), TtlError> {
    match ttl {
        _ if ttl < SHORTEST_TTL => Err(TtlError::Short),
        _ if ttl.subsec_nanos() != 0 => Err(TtlError::Fraction),
        _ if i32::try_from(ttl.as_secs()).is_err() => Err(TtlError::Long),
        _ => Ok(()),
    }
}

/// Whether this process leads, at any moment.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Moment>>>);

impl Leadership {
    /// For how long it is sure to lead still; None: it does not.
    pub fn valid_for(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(until?.since(Moment::now())).filter(|left| !left.is_zero())
    }

    pub fn is_leader(&self) -> bool {
        self.valid_for().is_some()
    }

    fn set(&self, until: Option<Moment>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// What is known of another's claim: which version of the Lease, since when, and for how long it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    version: String,
    since: Moment,
    ttl: Duration,
}

impl Claim {
    /// How much of it is left, by our own clock.
    fn left(&self, now: Moment) -> Duration {
        self.ttl.saturating_sub(now.since(self.since))
    }

    /// What is known once the Lease is seen again: a version that is known counts from when it was first seen.
    fn seen(before: Option<Self>, version: String, ttl: Duration, now: Moment) -> Self {
        let since = before.filter(|before| before.version == version).map_or(now, |before| before.since);
        Self { version, since, ttl }
    }
}

/// What came of a try.
enum Tried {
    Ours,
    /// Somebody else's.
    Theirs,
    Failed,
}

/// How long to wait before the next try. A leader renews three times in its time to live. A challenger looks often, since another's claim
/// counts from when it was seen, and at the moment when it has run out.
fn wait(tried: &Tried, ttl: Duration, claim: Option<&Claim>, now: Moment) -> Duration {
    match tried {
        Tried::Ours => ttl / 3,
        Tried::Theirs => claim.map_or(ttl / 10, |claim| claim.left(now).min(ttl / 10)).max(Duration::from_millis(50)),
        Tried::Failed => RETRY.min(ttl / 6),
    }
}

/// Stands for election, for ever.
pub async fn run(client: Client, options: LeaseOptions, leadership: Leadership, metrics: KubernetesMetrics) {
    let api = Api::<Lease>::namespaced(client, &options.namespace);
    let mut claim: Option<Claim> = None;
    let mut led = false;
    let mut troubled = false;
    loop {
        let asked = Moment::now();
        let answer = tokio::time::timeout((options.ttl / 4).min(LONGEST_TRY), attempt(&api, &options, &mut claim)).await;
        let tried = match answer {
            Ok(Ok(true)) => {
                leadership.set(Some(asked + options.ttl));
                Tried::Ours
            }
            Ok(Ok(false)) => {
                leadership.set(None);
                Tried::Theirs
            }
            Ok(Err(_)) | Err(_) => Tried::Failed,
        };
        let failed = matches!(tried, Tried::Failed);
        if failed && !troubled {
            let error = match answer {
                Ok(Err(error)) => error.to_string(),
                _ => "no answer in time".to_owned(),
            };
            tracing::warn!(lease = options.name, namespace = options.namespace, error, "the Lease cannot be taken or renewed");
        }
        troubled = failed;
        let leads = leadership.is_leader();
        if leads != led {
            led = leads;
            metrics.leader.set(i64::from(leads));
            tracing::info!(identity = options.identity, "{}", if leads { "leader: writes status" } else { "no longer leader" });
        }
        tokio::time::sleep(wait(&tried, options.ttl, claim.as_ref(), Moment::now())).await;
    }
}

/// True: the Lease is ours now.
async fn attempt(api: &Api<Lease>, options: &LeaseOptions, claim: &mut Option<Claim>) -> Result<bool, kube::Error> {
    let Some(mut lease) = api.get_opt(&options.name).await? else {
        let mut lease = Lease::default();
        lease.metadata.name = Some(options.name.clone());
        lease.spec = Some(spec(options, None));
        return match api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        };
    };
    let before = lease.spec.clone().unwrap_or_default();
    let holder = before.holder_identity.clone().unwrap_or_default();
    if !holder.is_empty() && holder != options.identity {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let ttl =
            before.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(options.ttl, Duration::from_secs);
        let now = Moment::now();
        let known = claim.take();
        let theirs = claim.insert(Claim::seen(known, version, ttl, now));
        if !theirs.left(now).is_zero() {
            return Ok(false);
        }
    }
    lease.spec = Some(spec(options, Some(&before)));
    match api.replace(&options.name, &PostParams::default(), &lease).await {
        Ok(_) => {
            *claim = None;
            Ok(true)
        }
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

fn spec(options: &LeaseOptions, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&options.identity));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(options.identity.clone()),
        lease_duration_seconds: i32::try_from(options.ttl.as_secs()).ok(),
        acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
        ..LeaseSpec::default()
    }
}

/// Gives the Lease up, so that the next leader need not wait. For the end of the process.
pub async fn release(client: Client, options: &LeaseOptions, leadership: &Leadership) {
    let Some(left) = leadership.valid_for() else { return };
    leadership.set(None);
    let api = Api::<Lease>::namespaced(client, &options.namespace);
    let giving_up = async {
        let mut lease = api.get(&options.name).await?;
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&options.identity)) {
            spec.holder_identity = Some(String::new());
            api.replace(&options.name, &PostParams::default(), &lease).await?;
        }
        Ok::<_, kube::Error>(())
    };
    let _ = tokio::time::timeout(left.min(Duration::from_secs(2)), giving_up).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[test]
    fn a_time_to_live_is_a_whole_number_of_seconds_and_not_too_short() {
        for (ttl, expected) in [
            (Duration::ZERO, Err(TtlError::Short)),
            (Duration::from_millis(1900), Err(TtlError::Short)),
            (Duration::from_millis(2500), Err(TtlError::Fraction)),
            (Duration::from_secs(1 << 40), Err(TtlError::Long)),
            (Duration::from_secs(2), Ok(())),
            (TTL, Ok(())),
        ] {
            assert_eq!(check_ttl(ttl), expected, "{ttl:?}");
        }
    }

    #[test]
    fn leadership_ends_by_the_clock_alone() {
        let leadership = Leadership::default();
        assert!(!leadership.is_leader());
        let now = Moment::now();
        leadership.set(Some(now + TTL));
        assert!(leadership.valid_for().is_some_and(|left| left <= TTL));
        // As it finds it who stood still past the end.
        leadership.set(Some(now));
        assert_eq!(leadership.valid_for(), None);
    }

    #[test]
    fn anothers_claim_counts_from_when_it_was_seen_to_change() {
        let now = Moment::now();
        let first = Claim::seen(None, "1".to_owned(), TTL, now);
        let again = Claim::seen(Some(first.clone()), "1".to_owned(), TTL, now + Duration::from_secs(20));
        assert_eq!(again, first);
        assert_eq!(again.left(now + Duration::from_secs(20)), Duration::from_secs(10));
        assert_eq!(again.left(now + TTL), Duration::ZERO);
        let renewed = Claim::seen(Some(again), "2".to_owned(), TTL, now + Duration::from_secs(20));
        assert_eq!(renewed.left(now + Duration::from_secs(20)), TTL);
    }

    #[test]
    fn a_challenger_looks_when_the_claim_has_run_out_and_a_failure_is_tried_again_soon() {
        let now = Moment::now();
        let claim = Claim::seen(None, "1".to_owned(), TTL, now);
        let wait = |tried, now| super::wait(&tried, TTL, Some(&claim), now);
        assert_eq!(wait(Tried::Ours, now), TTL / 3);
        assert_eq!(wait(Tried::Theirs, now), TTL / 10);
        assert_eq!(wait(Tried::Theirs, now + Duration::from_secs(29)), Duration::from_secs(1));
        assert_eq!(wait(Tried::Failed, now), Duration::from_secs(1));
        // One renewal that fails, and its repetition, take less than what is left then.
        assert!(TTL / 3 + LONGEST_TRY + RETRY + LONGEST_TRY < TTL);
        assert!(SHORTEST_TTL / 3 + SHORTEST_TTL / 4 + SHORTEST_TTL / 6 + SHORTEST_TTL / 4 <= SHORTEST_TTL);
    }
}
