//! What many objects come to alike, each once: of thousands of routes most want the same policies, hold the same paths and are told the same.

use std::{borrow::Borrow, collections::HashSet, hash::Hash};

use penstock_model::{Action, Match, Policies, Shared};

use crate::Finding;

/// So many that nobody has any more may be kept.
const FEW: usize = 64;

/// A pool for each of the parts that are worth it.
#[derive(Default)]
pub(crate) struct Pools {
    pub(crate) policies: Pool<Policies>,
    pub(crate) matches: Pool<Match>,
    pub(crate) actions: Pool<Action>,
    pub(crate) findings: Pool<[Finding]>,
}

impl Pools {
    /// Forgets those that nobody has any more, when there are many.
    pub(crate) fn clean(&mut self) {
        self.policies.clean();
        self.matches.clean();
        self.actions.clean();
        self.findings.clean();
    }
}

pub(crate) struct Pool<T: ?Sized> {
    known: HashSet<Shared<T>>,
    /// How many stayed when those that nobody has were last looked for.
    stayed: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), stayed: 0 }
    }
}

impl<T: Eq + Hash + ?Sized> Pool<T> {
    /// This value, shared with whoever has an equal one.
    pub(crate) fn share(&mut self, value: impl Borrow<T> + Into<Shared<T>>) -> Shared<T> {
        if let Some(known) = self.known.get(value.borrow()) {
            return known.clone();
        }
        let shared = value.into();
        self.known.insert(shared.clone());
        shared
    }

    /// It looks at all, and so only when there may be as many to forget as stay.
    fn clean(&mut self) {
        if self.known.len() > 2 * self.stayed + FEW {
            self.known.retain(|shared| !shared.is_alone());
            self.stayed = self.known.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::NATIVE;

    fn policies(size: u64) -> Policies {
        Policies { max_body_size: Some(size), ..NATIVE.policies() }
    }

    #[test]
    fn equal_policies_are_held_once_and_those_that_nobody_has_go() {
        let mut pool = Pool::default();
        let place = |held: &Shared<Policies>| std::ptr::from_ref::<Policies>(held);
        let held = pool.share(policies(0));
        assert_eq!(place(&held), place(&pool.share(policies(0))));
        for size in 1..=2 * FEW as u64 {
            pool.share(policies(size));
            pool.clean();
        }
        assert!(pool.known.len() <= FEW + 3, "{} are kept", pool.known.len());
        assert_eq!(place(&held), place(&pool.share(policies(0))));
    }
}
