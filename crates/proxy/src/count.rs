//! What is open now, counted so that no way out of a task, a panic included, leaves it counted.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    metrics::Listener,
    worker::{Shared, Worker},
};

/// One open connection or tunnel; no longer counted once dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    shared: Arc<Shared>,
    what: What,
}

#[derive(Debug)]
enum What {
    Connection(Listener),
    Tunnel,
}

impl Counted {
    pub(crate) fn connection(worker: &Rc<Worker>, listener: Listener) -> Self {
        worker.shared.connections.fetch_add(1, Ordering::AcqRel);
        worker.shared.metrics.connections_open.inc(listener);
        Self { shared: worker.shared.clone(), what: What::Connection(listener) }
    }

    pub(crate) fn tunnel(worker: &Rc<Worker>) -> Self {
        worker.shared.tunnels.fetch_add(1, Ordering::AcqRel);
        worker.shared.metrics.tunnels_opened.inc();
        worker.shared.metrics.tunnels_open.inc();
        Self { shared: worker.shared.clone(), what: What::Tunnel }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        match self.what {
            What::Connection(listener) => {
                self.shared.connections.fetch_sub(1, Ordering::AcqRel);
                self.shared.metrics.connections_open.dec(listener);
            }
            What::Tunnel => {
                self.shared.tunnels.fetch_sub(1, Ordering::AcqRel);
                self.shared.metrics.tunnels_open.dec();
            }
        }
        if std::thread::panicking() {
            self.shared.metrics.panics.inc();
        }
    }
}
