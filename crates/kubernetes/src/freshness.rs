//! Whether what is known by one watch is what the API server has, and how long the changes that others tell wait until it is again.
//!
//! Waiting keeps half-read states from being served: a Service that came during an outage is known before a route that names it. But one
//! watch that cannot be read must not stop all the others for ever, so it is waited for within bounds, and then left aside: what was known
//! by it stays until it is listed again.

use std::time::Duration;

use tokio::time::Instant;

/// How long changes wait for a watch that is behind. A watch asks again after four seconds at most, and a list takes a few.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the start of the process waits for a list that is refused. An API server that just came up refuses everybody until it has
/// read its roles, and so it may be right after an installation that brings the roles along.
pub(crate) const REFUSED: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never listed whole: without it there is no full state. Since when its list is refused, if it is.
    Unlisted {
        refused: Option<Instant>,
    },
    Current,
    /// Interrupted, or being listed again. Since when changes of others wait for it, if any do.
    Behind {
        awaited: Option<Instant>,
    },
    /// Not waited for: the API server has no such kind, refuses it, or it took too long.
    LeftAside,
}

/// Whether others wait for a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    /// At the latest until then.
    Until(Instant),
    /// However long it takes.
    Endless,
    /// No longer: it was waited for in vain. Said once.
    GivenUp,
}

#[derive(Debug)]
pub(crate) struct Freshness(State);

impl Default for Freshness {
    fn default() -> Self {
        Self(State::Unlisted { refused: None })
    }
}

impl Freshness {
    /// A list was read to its end.
    pub(crate) fn listed(&mut self) {
        self.0 = State::Current;
    }

    /// The watch begins to read its list.
    pub(crate) fn begins(&mut self) {
        if self.0 == State::Current {
            self.0 = State::Behind { awaited: None };
        }
    }

    /// The watch is interrupted.
    pub(crate) fn interrupted(&mut self) {
        self.begins();
        if let State::Unlisted { refused } = &mut self.0 {
            // Another fault than a refusal is waited for.
            *refused = None;
        }
    }

    /// The watch goes on from where it was. Gives whether it was behind.
    pub(crate) fn taken_up(&mut self) -> bool {
        let behind = matches!(self.0, State::Behind { .. } | State::LeftAside);
        if behind {
            self.0 = State::Current;
        }
        behind
    }

    /// There is no such kind.
    pub(crate) fn absent(&mut self) {
        self.0 = State::LeftAside;
    }

    /// The API server refuses it to us.
    pub(crate) fn refused(&mut self, now: Instant) {
        match &mut self.0 {
            State::Unlisted { refused } => drop(refused.get_or_insert(now)),
            _ => self.0 = State::LeftAside,
        }
    }

    /// To be asked when others have something to tell.
    pub(crate) fn wait(&mut self, now: Instant) -> Wait {
        let until = match &mut self.0 {
            State::Current | State::LeftAside => return Wait::No,
            State::Unlisted { refused: None } => return Wait::Endless,
            State::Unlisted { refused: Some(since) } => *since + REFUSED,
            State::Behind { awaited } => *awaited.get_or_insert(now) + PATIENCE,
        };
        if now < until {
            return Wait::Until(until);
        }
        self.0 = State::LeftAside;
        Wait::GivenUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> Freshness {
        let mut watch = Freshness::default();
        watch.listed();
        watch
    }

    #[test]
    fn the_first_list_is_waited_for_however_long_it_takes() {
        let (mut watch, now) = (Freshness::default(), Instant::now());
        watch.begins();
        assert_eq!(watch.wait(now + 100 * PATIENCE), Wait::Endless);
        assert!(!watch.taken_up(), "what was never listed cannot be taken up");
        assert_eq!(watch.wait(now), Wait::Endless);
        watch.listed();
        assert_eq!(watch.wait(now), Wait::No);
    }

    #[test]
    fn a_kind_that_is_not_installed_is_never_waited_for_however_often_its_list_is_tried() {
        let (mut watch, now) = (Freshness::default(), Instant::now());
        for _ in 0..3 {
            watch.absent();
            assert_eq!(watch.wait(now), Wait::No);
            watch.begins();
            assert_eq!(watch.wait(now), Wait::No);
        }
        watch.listed();
        watch.begins();
        assert_eq!(watch.wait(now), Wait::Until(now + PATIENCE), "once it came it is like any other");
    }

    #[test]
    fn changes_wait_for_a_list_that_is_read_again_but_not_for_ever() {
        let (mut watch, now) = (current(), Instant::now());
        watch.begins();
        assert_eq!(watch.wait(now), Wait::Until(now + PATIENCE));
        watch.begins();
        let later = now + PATIENCE / 2;
        assert_eq!(watch.wait(later), Wait::Until(now + PATIENCE), "every try counts into the same time");
        assert_eq!(watch.wait(now + PATIENCE), Wait::GivenUp);
        assert_eq!(watch.wait(now + PATIENCE), Wait::No);
        watch.begins();
        assert_eq!(watch.wait(now + PATIENCE), Wait::No, "it has its time only once");
        assert!(watch.taken_up());
        watch.begins();
        assert_eq!(watch.wait(later), Wait::Until(later + PATIENCE));
    }

    #[test]
    fn a_refused_list_is_left_aside_at_once_and_at_the_start_soon() {
        let (mut watch, now) = (current(), Instant::now());
        watch.begins();
        watch.refused(now);
        assert_eq!(watch.wait(now), Wait::No);
        let mut watch = Freshness::default();
        watch.begins();
        watch.refused(now);
        watch.begins();
        watch.refused(now + REFUSED / 2);
        assert_eq!(watch.wait(now), Wait::Until(now + REFUSED));
        assert_eq!(watch.wait(now + REFUSED), Wait::GivenUp);
        let mut watch = Freshness::default();
        watch.refused(now);
        watch.interrupted();
        assert_eq!(watch.wait(now + REFUSED), Wait::Endless, "the API server went away meanwhile");
    }
}
