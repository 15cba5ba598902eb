//! Policies that routes have, each once: of thousands of routes most want the same.

use std::collections::HashSet;

use penstock_model::{Policies, Shared};

/// So many that nobody has any more may be kept.
const FEW: usize = 64;

#[derive(Default)]
pub(crate) struct PolicyPool {
    known: HashSet<Shared<Policies>>,
    /// How many stayed when those that nobody has were last looked for.
    stayed: usize,
}

impl PolicyPool {
    /// These policies, shared with whoever wants the same.
    pub(crate) fn share(&mut self, policies: Policies) -> Shared<Policies> {
        if let Some(known) = self.known.get(&policies) {
            return known.clone();
        }
        let shared = Shared::from(policies);
        self.known.insert(shared.clone());
        shared
    }

    /// Forgets those that nobody has any more, when there are many: it looks at all.
    pub(crate) fn clean(&mut self) {
        if self.known.len() > 2 * self.stayed + FEW {
            self.known.retain(|policies| !policies.is_alone());
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
        let mut pool = PolicyPool::default();
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
