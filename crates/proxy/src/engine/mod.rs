//! HTTP on both sides, by hyper's low-level connections. Types of hyper and `http` stay below this module: what is outside sees
//! [`crate::head::RequestHead`], answers and compiled edits, so that the HTTP/1.1 engine can be exchanged.
//!
//! What hyper leaves to a proxy is done here: the checks of a request's head (`intake`), hop-by-hop fields (`headers`), upgrades and extended
//! CONNECT (`upgrade`), translation between the versions.
//!
//! What hyper decides by itself until then stands in ARCHITECTURE.md.

mod answer;
mod body;
mod exchange;
mod forward;
mod headers;
mod intake;
mod outgoing;
mod record;
mod serve;
mod streams;
mod upgrade;

use std::sync::Arc;

use crate::{metrics::Metrics, worker::PanicCount};

pub(crate) use body::Leftovers;
use body::RequestBody;
pub(crate) use headers::HeaderPlan;
pub(crate) use outgoing::{BeginError, Http1Sender, Http2Sender};
pub(crate) use record::Record;
pub(crate) use serve::serve;

/// Spawns on the worker's own thread, and counts what panics.
#[derive(Clone, Debug)]
pub(crate) struct LocalExecutor(Arc<Metrics>);

impl LocalExecutor {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self(metrics.clone())
    }
}

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let panics = PanicCount(self.0.clone());
        tokio::task::spawn_local(async move {
            let _panics = panics;
            future.await
        });
    }
}
