//! Which replica writes: leader election over a Lease (coordination.k8s.io/v1).
//!
//! A leader knows by its own clock until when it surely is one: from the moment before it sent its last successful renewal. A process that stood
//! still past that has lost, whatever it believed before. Another's claim is held against the local time since it was last seen to
//! change, not against its own clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use crate::KubernetesMetrics;

/// Who stands for election, and where.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    pub namespace: String,
    pub name: String,
    pub identity: String,
    /// How long a leader that is not heard of stays leader.
    pub ttl: Duration,
}

/// Whether this process leads, at any moment.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// For how long it is sure to lead still; None: it does not.
    pub fn valid_for(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    pub fn is_leader(&self) -> bool {
        self.valid_for().is_some()
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Stands for election, for ever.
pub async fn run(client: Client, options: LeaseOptions, leadership: Leadership, metrics: KubernetesMetrics) {
    let api = Api::<Lease>::namespaced(client, &options.namespace);
    let mut seen: Option<(String, Instant)> = None;
    let mut led = false;
    let mut troubled = false;
    loop {
        let asked = Instant::now();
        // Half the time to live: an answer that comes later could not be used in time.
        match tokio::time::timeout(options.ttl / 2, attempt(&api, &options, &mut seen)).await {
            Ok(Ok(true)) => {
                leadership.set(Some(asked + options.ttl));
                troubled = false;
            }
            Ok(Ok(false)) => {
                leadership.set(None);
                troubled = false;
            }
            Ok(Err(error)) if !troubled => {
                troubled = true;
                tracing::warn!(lease = options.name, namespace = options.namespace, %error, "the Lease cannot be taken or renewed");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        let leads = leadership.is_leader();
        if leads != led {
            led = leads;
            metrics.leader.set(i64::from(leads));
            tracing::info!(identity = options.identity, "{}", if leads { "leader: writes status" } else { "no longer leader" });
        }
        tokio::time::sleep(options.ttl / 3).await;
    }
}

/// True: the Lease is ours now.
async fn attempt(api: &Api<Lease>, options: &LeaseOptions, seen: &mut Option<(String, Instant)>) -> Result<bool, kube::Error> {
    let Some(mut lease) = api.get_opt(&options.name).await? else {
        let mut lease = Lease::default();
        lease.metadata.name = Some(options.name.clone());
        lease.spec = Some(claim(options, None));
        return match api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        };
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.clone().unwrap_or_default();
    if !holder.is_empty() && holder != options.identity {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => seen.insert((version, Instant::now())).1,
        };
        let theirs =
            spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(options.ttl, Duration::from_secs);
        if since.elapsed() < theirs {
            return Ok(false);
        }
    }
    lease.spec = Some(claim(options, Some(&spec)));
    match api.replace(&options.name, &PostParams::default(), &lease).await {
        Ok(_) => Ok(true),
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

fn claim(options: &LeaseOptions, before: Option<&LeaseSpec>) -> LeaseSpec {
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
