//! How long is waited for something. A timer is a thing of the thread's that is lent while somebody waits: to begin with, and to give up, costs
//! neither memory nor a place in the runtime's wheel.

use std::{
    fmt,
    pin::{Pin, pin},
    task::{Context, Waker},
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep},
};

use super::spares::Spares;

/// Timers that a thread keeps at most.
const KEPT: usize = 256;

thread_local! {
    static FREE: Spares<Pin<Box<Sleep>>> = const { Spares::new() };
}

/// Runs while something is waited for.
#[derive(Default)]
pub(super) struct Patience(Option<Pin<Box<Sleep>>>);

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Patience").field(&self.0.is_some()).finish()
    }
}

impl Patience {
    /// Whether this time has come. If not, the task is woken then.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>, due: Instant) -> bool {
        let sleep =
            self.0.get_or_insert_with(|| FREE.with(Spares::take).unwrap_or_else(|| Box::pin(tokio::time::sleep_until(due))));
        // One that stands in the wheel already is only put off, which takes no lock: most limits are equal, and later than the one before.
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx).is_ready()
    }

    /// Nothing is waited for any more.
    pub(super) fn rest(&mut self) {
        if let Some(mut sleep) = self.0.take() {
            // Else it would hold on to the task that waited, until its time comes or another is lent it: that memory is free when the task is over.
            let _ = pin!(unconstrained(sleep.as_mut())).poll(&mut Context::from_waker(Waker::noop()));
            FREE.with(|spares| spares.keep(sleep, KEPT));
        }
    }
}

pub(super) fn trim() {
    FREE.with(Spares::trim);
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Wake, time::Duration};

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test]
    async fn a_timer_that_is_given_back_holds_no_task() {
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let mut patience = Patience::default();
        assert!(!patience.is_over(&mut Context::from_waker(&waker), Instant::now() + Duration::from_secs(60)));
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 2, "it would not be woken");
        drop(patience);
        assert_eq!(FREE.with(Spares::len), 1);
        assert_eq!(Arc::strong_count(&task), 1);
    }
}
