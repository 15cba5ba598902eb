//! What is to be written, in which order, and when to try again.
//!
//! The newest first: what somebody just applied is waited for, and what stands since yesterday is not. What the API server refuses is
//! tried again ever more seldom, each object by itself, and at once when the object changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use penstock_translate::Id;
use tokio::time::Instant;

/// Before the second try of what was refused.
const FIRST: Duration = Duration::from_secs(1);
/// The most that is waited between two tries of what is refused for a reason of its own: permissions, validation, a namespace that ends.
pub(crate) const REFUSED: Duration = Duration::from_secs(300);
/// The most where the API server itself is in trouble, or asks for patience.
pub(crate) const BUSY: Duration = Duration::from_secs(30);
/// The least time between two writes of the same: another controller that writes it too must not draw us into a race.
const EACH: Duration = Duration::from_millis(250);
/// From so many on, moments of writes that are over are looked for and forgotten.
const WRITTEN: usize = 1024;

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    Status,
    Events,
}

/// What is to be written about one object.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) id: Id,
    pub(crate) task: Task,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Ready(u64),
    Later(Instant),
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    places: HashMap<Job, Place>,
    ready: BTreeMap<u64, Job>,
    later: BTreeSet<(Instant, Job)>,
    next: u64,
    /// How long to wait when it is refused once more.
    waits: HashMap<Job, Duration>,
    written: HashMap<Job, Instant>,
}

impl Queue {
    /// An object came, changed or went, or what is said of it.
    pub(crate) fn touch(&mut self, id: &Id, now: Instant) {
        for task in [Task::Status, Task::Events] {
            let job = Job { id: id.clone(), task };
            self.waits.remove(&job);
            match self.written.get(&job).map(|written| *written + EACH).filter(|allowed| *allowed > now) {
                Some(allowed) => self.later(job, allowed),
                None => self.ready(job),
            }
        }
    }

    /// What is to be done now, which is in the queue no more.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Job> {
        while let Some((moment, job)) = self.later.first().cloned() {
            if moment > now {
                break;
            }
            self.ready(job);
        }
        if self.written.len() > WRITTEN {
            self.written.retain(|_, written| *written + EACH > now);
        }
        let (_, job) = self.ready.pop_last()?;
        self.places.remove(&job);
        Some(job)
    }

    /// When there will be something to do, if nothing comes.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.later.first().map(|(moment, _)| *moment)
    }

    /// There was nothing to write.
    pub(crate) fn done(&mut self, job: &Job) {
        self.waits.remove(job);
    }

    pub(crate) fn wrote(&mut self, job: Job, now: Instant) {
        self.waits.remove(&job);
        self.written.insert(job, now);
    }

    /// It was refused. It is tried again after a while of `at_least` and no more than `at_most`.
    pub(crate) fn refused(&mut self, job: Job, now: Instant, at_least: Duration, at_most: Duration) {
        let wait = self.waits.entry(job.clone()).or_insert(FIRST);
        let this = (*wait).min(at_most).max(at_least);
        *wait = (*wait * 2).min(REFUSED);
        self.later(job, now + this);
    }

    /// It is to be done before all else that is in the queue now.
    pub(crate) fn ready(&mut self, job: Job) {
        self.remove(&job);
        self.next += 1;
        self.ready.insert(self.next, job.clone());
        self.places.insert(job, Place::Ready(self.next));
    }

    pub(crate) fn later(&mut self, job: Job, moment: Instant) {
        self.remove(&job);
        self.later.insert((moment, job.clone()));
        self.places.insert(job, Place::Later(moment));
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn remove(&mut self, job: &Job) {
        match self.places.remove(job) {
            Some(Place::Ready(place)) => drop(self.ready.remove(&place)),
            Some(Place::Later(moment)) => drop(self.later.remove(&(moment, job.clone()))),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_translate::Kind;

    use super::*;

    fn id(name: &str) -> Id {
        Id::new(Kind::Ingress, "n", name)
    }

    /// The objects whose status is to be written now, in this order.
    fn all(queue: &mut Queue, now: Instant) -> Vec<String> {
        let jobs = std::iter::from_fn(|| queue.next(now)).filter(|job| job.task == Task::Status);
        jobs.map(|job| job.id.key.name.to_string()).collect()
    }

    #[test]
    fn the_newest_is_written_first_and_each_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["a", "b", "c", "a"] {
            queue.touch(&id(name), now);
        }
        assert_eq!(queue.len(), 6);
        assert_eq!(all(&mut queue, now), ["a", "c", "b"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_is_refused_is_tried_ever_more_seldom_and_at_once_when_it_changes() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.touch(&id("a"), now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let job = queue.next(now).unwrap();
            queue.next(now);
            queue.refused(job, now, Duration::ZERO, REFUSED);
            let until = queue.until().unwrap();
            assert_eq!(queue.next(until - Duration::from_millis(1)), None);
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        queue.touch(&id("a"), now);
        assert_eq!(all(&mut queue, now), ["a"]);
        let job = Job { id: id("a"), task: Task::Status };
        queue.refused(job.clone(), now, Duration::from_secs(20), BUSY);
        assert_eq!(queue.until(), Some(now + Duration::from_secs(20)), "the API server said when");
        queue.refused(job.clone(), now, Duration::ZERO, BUSY);
        assert_eq!(queue.until(), Some(now + Duration::from_secs(2)));
        queue.wrote(job.clone(), now);
        queue.refused(job, now, Duration::ZERO, BUSY);
        assert_eq!(queue.until(), Some(now + FIRST), "a success begins anew");
    }

    #[test]
    fn the_same_is_not_written_twice_in_a_row() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.wrote(Job { id: id("a"), task: Task::Status }, now);
        queue.touch(&id("a"), now);
        assert_eq!(all(&mut queue, now), Vec::<String>::new());
        assert_eq!(all(&mut queue, now + EACH), ["a"]);
    }
}
