//! What is served, for whoever tells the cluster of it: objects and the report that was drawn from them, handed over together.
//!
//! Changes are noted when they are translated, and handed over only once every worker serves what came of them. So whoever follows never
//! speaks of an object by the report of an earlier one. Of each object only the last state is kept until it is taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use penstock_translate::{Change, Id, Kind, Report};
use tokio::sync::Notify;

/// What was served newly since it was last asked for.
#[derive(Debug, Default)]
pub struct News {
    pub(crate) changes: BTreeMap<Id, Change>,
    pub(crate) report: Option<Arc<Report>>,
}

#[derive(Debug, Default)]
struct Shared {
    news: Mutex<News>,
    came: Notify,
}

/// The end that tells. If nobody follows, nothing is kept.
#[derive(Debug)]
pub struct ServedSender {
    shared: Weak<Shared>,
    /// Translated, and not served yet.
    noted: BTreeMap<Id, Change>,
}

/// The end that follows.
#[derive(Debug)]
pub struct ServedReceiver(Arc<Shared>);

/// Both ends.
pub fn served() -> (ServedSender, ServedReceiver) {
    let shared = Arc::<Shared>::default();
    (ServedSender { shared: Arc::downgrade(&shared), noted: BTreeMap::new() }, ServedReceiver(shared))
}

impl ServedSender {
    /// Changes that are being translated. Of other kinds than those that have a status, or an address for it, nobody needs to hear.
    pub fn note(&mut self, changes: &[Change]) {
        if self.shared.strong_count() == 0 {
            return;
        }
        for change in changes {
            let id = match change {
                Change::Put(object) => object.id(),
                Change::Delete(id) => Some(id.clone()),
                Change::Unreadable(_) => None,
            };
            if let Some(id) = id.filter(|id| matches!(id.kind, Kind::Ingress | Kind::ProxyRoute | Kind::Service)) {
                self.noted.insert(id, change.clone());
            }
        }
    }

    /// All that was noted is served, and this is the report of it.
    pub fn served(&mut self, report: &Arc<Report>) {
        let Some(shared) = self.shared.upgrade() else { return };
        {
            let mut news = shared.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.changes.append(&mut self.noted);
            news.report = Some(report.clone());
        }
        shared.came.notify_one();
    }
}

impl ServedReceiver {
    /// What came since the last call.
    pub fn take(&self) -> News {
        std::mem::take(&mut *self.0.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something came. Cancel-safe.
    pub async fn came(&self) {
        self.0.came.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::Ingress;
    use penstock_translate::Object;

    use super::*;

    fn put(name: &str) -> Change {
        let mut ingress = Ingress::default();
        ingress.metadata.name = Some(name.to_owned());
        Change::Put(Object::Ingress(Arc::new(ingress)))
    }

    #[test]
    fn what_is_translated_is_handed_over_with_the_report_and_not_before_it_is_served() {
        let (mut sender, receiver) = served();
        sender.note(&[put("a"), put("a")]);
        let news = receiver.take();
        assert!(news.changes.is_empty() && news.report.is_none());
        let report = Arc::<Report>::default();
        sender.served(&report);
        let news = receiver.take();
        assert_eq!(news.changes.len(), 1, "of each object the last state");
        assert!(Arc::ptr_eq(&news.report.unwrap(), &report));
        assert!(receiver.take().changes.is_empty());
    }

    #[test]
    fn where_nobody_follows_nothing_is_kept() {
        let (mut sender, receiver) = served();
        drop(receiver);
        sender.note(&[put("a")]);
        assert!(sender.noted.is_empty());
    }
}
