//! What is counted of each task of a worker: that it is there, and whether it panicked.

use std::{cell::Cell, sync::Arc};

use crate::metrics::Metrics;

thread_local! {
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// Lives as long as its task: of a connection, of a stream, of a tunnel. The runtime keeps a panic from reaching other tasks.
pub(crate) struct Task(Arc<Metrics>);

impl Task {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self(metrics)
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
        if std::thread::panicking() {
            self.0.panics.inc();
        }
    }
}

/// How many tasks this thread has. Other threads have theirs, so that a request needs nothing that threads share.
pub(crate) fn alive() -> i64 {
    ALIVE.get()
}
