//! How many TLS handshakes a worker has under way at once, and who gives way when there are too many.
//!
//! A handshake that its client does not go on with costs the client a packet or two, and us up to 64 KiB (the longest ClientHello) for
//! as long as a head may take. So each needs a place. Who finds none waits with nothing but its connection: refused clients would be back
//! at once, and cost more. While somebody waits, handshakes that have had [`FAIR_SHARE`] are ended, the oldest first, so that clients which
//! never go on cannot keep out all others; and a place goes to who came last, so that they cannot either by standing in line.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    clock,
    metrics::{LimitHit, Metrics},
};

/// How long a handshake is safe from those that wait. An honest one takes one or two round trips after its first byte: 0.6 s each by a
/// geostationary satellite, less than 0.4 s else.
const FAIR_SHARE: Duration = Duration::from_millis(1500);

/// The handshakes of one worker.
#[derive(Debug)]
pub(crate) struct Handshakes {
    all: Rc<All>,
}

#[derive(Debug)]
struct All {
    free: Cell<usize>,
    numbers: Cell<u64>,
    /// By age. To let the sender go ends the handshake.
    under_way: RefCell<BTreeMap<u64, (u64, oneshot::Sender<Infallible>)>>,
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Place>>>,
    metrics: Arc<Metrics>,
}

/// The right to shake hands.
#[derive(Debug)]
pub(crate) struct Place {
    all: Rc<All>,
    number: u64,
    ended: oneshot::Receiver<Infallible>,
}

/// Somebody waits for as long as this lives.
struct Waiting<'a> {
    all: &'a All,
    number: u64,
}

impl Handshakes {
    pub(crate) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            all: Rc::new(All {
                free: Cell::new(most),
                numbers: Cell::default(),
                under_way: RefCell::default(),
                waiting: RefCell::default(),
                metrics,
            }),
        }
    }

    /// A place, as soon as there is one. None only if the worker is no more.
    pub(crate) async fn enter(&self) -> Option<Place> {
        let all = &self.all;
        if let Some(free) = all.free.get().checked_sub(1) {
            all.free.set(free);
            return Some(Place::new(all));
        }
        all.metrics.limits.inc(LimitHit::Handshakes);
        let (give, given) = oneshot::channel();
        let number = all.number();
        all.waiting.borrow_mut().insert(number, give);
        let _waiting = Waiting { all, number };
        given.await.ok()
    }

    /// Ends handshakes for those that wait. To be called with the clock's ticks.
    pub(crate) fn sweep(&self, now: u64) {
        let mut under_way = self.all.under_way.borrow_mut();
        for _ in 0..self.all.waiting.borrow().len() {
            let Some(oldest) = under_way.first_entry() else { return };
            if now.saturating_sub(oldest.get().0) < clock::millis(FAIR_SHARE) {
                return;
            }
            oldest.remove();
        }
    }
}

impl All {
    fn number(&self) -> u64 {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        number
    }
}

impl Place {
    fn new(all: &Rc<All>) -> Self {
        let (end, ended) = oneshot::channel();
        let number = all.number();
        all.under_way.borrow_mut().insert(number, (clock::now(), end));
        all.metrics.handshakes_in_flight.inc();
        Self { all: all.clone(), number, ended }
    }

    /// Runs a handshake. None: it was ended for others.
    pub(crate) async fn hold<T>(mut self, handshake: impl Future<Output = T> + Unpin) -> Option<T> {
        tokio::select! {
            biased;
            done = handshake => Some(done),
            _ = &mut self.ended => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.under_way.borrow_mut().remove(&self.number);
        self.all.metrics.handshakes_in_flight.dec();
        let last = self.all.waiting.borrow_mut().pop_last();
        match last {
            // If it is gone by now the place comes back, and goes to the next.
            Some((_, give)) => drop(give.send(Place::new(&self.all))),
            None => self.all.free.set(self.all.free.get() + 1),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.waiting.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll};

    use super::*;

    fn handshakes(most: usize) -> Handshakes {
        Handshakes::new(most, Arc::default())
    }

    /// Polls once.
    async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_and_the_last_come_is_the_first_served() {
        let handshakes = handshakes(1);
        let place = handshakes.enter().await.unwrap();
        let (mut first, mut second) = (Box::pin(handshakes.enter()), Box::pin(handshakes.enter()));
        assert!(now(&mut first).await.is_none() && now(&mut second).await.is_none());
        drop(place);
        assert!(now(&mut first).await.is_none());
        let place = now(&mut second).await.expect("the place is lost");
        assert_eq!(handshakes.all.metrics.handshakes_in_flight.get(), 1);
        drop(place);
        drop(now(&mut first).await.expect("the place is lost"));
        assert_eq!(handshakes.all.metrics.handshakes_in_flight.get(), 0);
        assert_eq!(handshakes.all.metrics.limits.get(LimitHit::Handshakes), 2);
    }

    #[tokio::test]
    async fn a_place_that_was_given_to_somebody_who_is_gone_is_not_lost() {
        let handshakes = handshakes(1);
        let place = handshakes.enter().await.unwrap();
        let (mut first, mut second) = (Box::pin(handshakes.enter()), Box::pin(handshakes.enter()));
        assert!(now(&mut first).await.is_none() && now(&mut second).await.is_none());
        drop(place);
        // It has the place, and does not know.
        drop(second);
        drop(now(&mut first).await.expect("the place is lost"));
        assert!(handshakes.all.waiting.borrow().is_empty());
        assert_eq!(handshakes.all.free.get(), 1);
    }

    #[tokio::test]
    async fn an_old_handshake_gives_way_to_one_that_waits_and_to_nobody_else() {
        let handshakes = handshakes(2);
        let never = || Box::pin(std::future::pending::<()>());
        let mut old = Box::pin(handshakes.enter().await.unwrap().hold(never()));
        let mut other = Box::pin(handshakes.enter().await.unwrap().hold(never()));
        let late = clock::now() + clock::millis(FAIR_SHARE);
        handshakes.sweep(late);
        assert!(now(&mut old).await.is_none(), "nobody waits");
        let mut waiting = Box::pin(handshakes.enter());
        assert!(now(&mut waiting).await.is_none());
        handshakes.sweep(late - 1);
        assert!(now(&mut old).await.is_none(), "it had not its share");
        handshakes.sweep(late);
        assert_eq!(now(&mut old).await, Some(None), "the oldest is not ended");
        assert!(now(&mut other).await.is_none(), "more are ended than wait");
        drop(old);
        assert!(now(&mut waiting).await.is_some());
    }
}
