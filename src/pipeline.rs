//! The way of data: changes -> World -> Translation -> data plane, and who is told of it.
//!
//! Everything here runs on the control side, one change at a time. An equal model is not published again; problems are logged when
//! they appear and when they are gone, not on every change.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use penstock_kubernetes::{ServedReceiver, ServedSender, served};
use penstock_model::{HostPattern, Model, ObjectRef, Touched};
use penstock_proxy::DataPlane;
use penstock_translate::{Change, Id, Report, Settings, Translation, Translator, Verdict, World};
use tokio::sync::watch;

/// What is served now.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// Counts the tables of this process, from 1; zero: none yet.
    pub generation: u64,
    pub translation: Translation,
}

/// Hosts that are named in one log line about a change.
const HOSTS_IN_LOG: usize = 5;
/// Problems that are logged for one change; the rest is counted.
const PROBLEMS_IN_LOG: usize = 20;
/// A translation that takes longer is worth a line.
const SLOW: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Pipeline {
    world: World,
    translator: Translator,
    translation: Translation,
    /// What was translated differently since the last publication: serving and logging it costs what changed, not what there is.
    touched: Touched,
    reports: BTreeSet<ObjectRef>,
    plane: Arc<DataPlane>,
    published: watch::Sender<Arc<Publication>>,
    /// To whoever follows the objects themselves: the writer of status.
    follower: Option<ServedSender>,
}

impl Pipeline {
    pub fn new(settings: Settings, plane: Arc<DataPlane>) -> Self {
        Self {
            world: World::default(),
            translator: Translator::new(settings),
            translation: Translation::default(),
            touched: Touched::default(),
            reports: BTreeSet::new(),
            plane,
            published: watch::Sender::new(Arc::default()),
            follower: None,
        }
    }

    /// Follows what is served.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Publication>> {
        self.published.subscribe()
    }

    /// Follows the objects that are served, and the report of them.
    pub fn follow(&mut self) -> ServedReceiver {
        let (sender, receiver) = served();
        self.follower = Some(sender);
        receiver
    }

    /// Takes changes into the World and translates what they touch. Nothing is served differently before [`Pipeline::publish`].
    pub fn translate(&mut self, changes: Vec<Change>) -> &Translation {
        let started = Instant::now();
        if let Some(follower) = &mut self.follower {
            follower.note(&changes);
        }
        let ids: Vec<Id> = changes.into_iter().filter_map(|change| self.world.take(change)).collect();
        self.translation = self.translator.apply(&self.world, &ids);
        self.touched.extend(&self.translation.changes.touched);
        self.reports.extend(self.translation.changes.reports.iter().cloned());
        // Taken over: whoever keeps the translation keeps no list of all that there is.
        self.translation.changes = Arc::default();
        let took = started.elapsed();
        if took > SLOW {
            tracing::warn!(changes = ids.len(), ?took, "translating took long");
        } else {
            tracing::debug!(changes = ids.len(), ?took, "translated");
        }
        &self.translation
    }

    /// Serves what was translated last. Returns once every worker does, and whoever follows was told.
    pub fn publish(&mut self) {
        self.serve();
        // Also where nothing is served differently: an object may be another although it asks for the same.
        if let Some(follower) = &mut self.follower {
            follower.served(&self.translation.report);
        }
    }

    fn serve(&mut self) {
        let (touched, reports) = (std::mem::take(&mut self.touched), std::mem::take(&mut self.reports));
        let before = self.published.borrow().clone();
        let now = &self.translation;
        if before.generation > 0
            && Arc::ptr_eq(&before.translation.model, &now.model)
            && Arc::ptr_eq(&before.translation.endpoints, &now.endpoints)
            && Arc::ptr_eq(&before.translation.report, &now.report)
        {
            return;
        }
        let started = Instant::now();
        let changed = if Arc::ptr_eq(&before.translation.model, &now.model) && before.generation > 0 {
            self.plane.set_touched_endpoints(&now.endpoints, &touched.endpoints);
            false
        } else {
            self.plane.publish_touched(&now.model, &now.endpoints, &touched).changed
        };
        log_problems(&reports, &before.translation.report, &now.report);
        if changed && before.generation > 0 {
            log_hosts(&touched.hosts, &before.translation.model, &now.model, started.elapsed());
        }
        let generation = before.generation + 1;
        self.published.send_replace(Arc::new(Publication { generation, translation: now.clone() }));
    }
}

fn log_hosts(touched: &BTreeSet<HostPattern>, before: &Model, now: &Model, took: Duration) {
    let changed: Vec<String> = touched
        .iter()
        .filter_map(|name| match (before.hosts.get(name), now.hosts.get(name)) {
            (None, Some(_)) => Some(format!("+{name}")),
            (Some(_), None) => Some(format!("-{name}")),
            (Some(old), Some(new)) if !Arc::ptr_eq(old, new) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let (told, rest) = changed.split_at(changed.len().min(HOSTS_IN_LOG));
    let mut told = told.join(" ");
    if !rest.is_empty() {
        let _ = write!(told, " and {} more", rest.len());
    }
    tracing::info!(hosts = now.hosts.len(), changed = told, took_us = took.as_micros(), "routes changed");
}

fn log_problems(touched: &BTreeSet<ObjectRef>, before: &Report, now: &Report) {
    let mut logged = 0;
    for object in touched {
        let (old, report) = (before.objects.get(object), now.objects.get(object));
        let known = |finding| old.is_some_and(|old| old.findings.contains(finding));
        let news: Vec<_> = report.into_iter().flat_map(|report| report.problems()).filter(|finding| !known(finding)).collect();
        for finding in news {
            logged += 1;
            if logged <= PROBLEMS_IN_LOG {
                tracing::warn!(object = %object, field = finding.field, reason = finding.reason.as_str(), "{}", finding.message);
            }
        }
        let had = old.is_some_and(|old| old.problems().next().is_some());
        if had && report.is_none_or(|report| report.problems().next().is_none()) {
            tracing::info!(object = %object, "no more problems");
        }
    }
    if logged > PROBLEMS_IN_LOG {
        tracing::warn!("and {} more problems; `penstock check` or /debug/model lists all", logged - PROBLEMS_IN_LOG);
    }
}

/// Whether anything in a report was refused.
pub fn has_problems(report: &Report) -> bool {
    report.objects.values().any(|object| object.findings.iter().any(|finding| finding.verdict == Verdict::Refused))
}
