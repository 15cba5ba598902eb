//! The streams of a client's HTTP/2 connection, each a task of its own, and the limit on how long a client may leave one's window closed.
//!
//! Over HTTP/1.1 a client that takes nothing blocks its socket, which the stream below notices. Here its socket goes on and only the window of
//! a stream is closed: hyper holds the piece that does not fit and asks the body for nothing. Then the task is ended, and h2 resets the stream.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

use crate::{
    metrics::{LimitHit, Metrics},
    worker::PanicCount,
};

tokio::task_local! {
    static CURRENT: Rc<Taking>;
}

/// Whether a stream's client takes what it is sent: between the response's body, who knows, and the task that waits.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// A piece was handed over, and nothing asked for since.
    waits: Cell<bool>,
    /// It was another piece than at the last look.
    moved: Cell<bool>,
    stalled: Cell<bool>,
}

impl Taking {
    /// That of the stream whose task this is. None over HTTP/1.1.
    pub(super) fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(Rc::clone).ok()
    }

    /// The next piece is asked for.
    pub(super) fn asks(&self) {
        self.waits.set(false);
    }

    /// It gets a piece.
    pub(super) fn gets(&self) {
        self.waits.set(true);
        self.moved.set(true);
    }

    pub(super) fn has_stalled(&self) -> bool {
        self.stalled.get()
    }
}

/// Runs the streams of one connection on the worker's own thread.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor {
    pub(super) metrics: Arc<Metrics>,
    pub(super) write_time: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let Self { metrics, write_time } = self.clone();
        let panics = PanicCount(metrics.clone());
        tokio::task::spawn_local(async move {
            let _panics = panics;
            let taking = Rc::new(Taking::default());
            let mut future = pin!(CURRENT.scope(taking.clone(), future));
            let mut patience: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|cx| {
                if future.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if taking.moved.replace(false) || !taking.waits.get() {
                    patience = None;
                }
                if !taking.waits.get() {
                    return Poll::Pending;
                }
                let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(write_time)));
                ready!(patience.as_mut().poll(cx));
                taking.stalled.set(true);
                metrics.limits.inc(LimitHit::WriteTime);
                Poll::Ready(())
            })
            .await;
        });
    }
}
