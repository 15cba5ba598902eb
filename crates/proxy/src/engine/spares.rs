//! What a thread lends to one exchange after another, and keeps in between: as many as were lent at once lately, so that a burst's are not kept for
//! good.

use std::cell::{Cell, RefCell};

/// Things of a thread that nobody uses now.
#[derive(Debug)]
pub(super) struct Spares<T> {
    free: RefCell<Vec<T>>,
    /// How many lay here at all times since the last look: so many were not needed.
    unneeded: Cell<usize>,
}

impl<T> Spares<T> {
    pub(super) const fn new() -> Self {
        Self { free: RefCell::new(Vec::new()), unneeded: Cell::new(0) }
    }

    pub(super) fn take(&self) -> Option<T> {
        let mut free = self.free.borrow_mut();
        let taken = free.pop();
        self.unneeded.set(self.unneeded.get().min(free.len()));
        taken
    }

    /// Keeps it, if there are fewer than so many.
    pub(super) fn keep(&self, spare: T, most: usize) {
        let mut free = self.free.borrow_mut();
        if free.len() < most {
            free.push(spare);
        }
    }

    /// Gives up half of what was not needed since the last time.
    pub(super) fn trim(&self) {
        let mut free = self.free.borrow_mut();
        let count = self.unneeded.get().div_ceil(2).min(free.len());
        let given_up: Vec<T> = free.drain(..count).collect();
        self.unneeded.set(free.len());
        if free.is_empty() {
            free.shrink_to_fit();
        }
        // Whoever is dropped may give back something.
        drop(free);
        drop(given_up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Spares<T> {
        pub(crate) fn len(&self) -> usize {
            self.free.borrow().len()
        }
    }

    #[test]
    fn what_a_burst_needed_is_given_up_bit_by_bit_and_what_is_in_use_stays() {
        let spares = Spares::new();
        (0..100).for_each(|number| spares.keep(number, 64));
        assert_eq!(spares.len(), 64);
        // The first look only begins to count.
        spares.trim();
        let sizes: Vec<usize> = (0..8)
            .map(|_| {
                let lent: Vec<_> = (0..3).filter_map(|_| spares.take()).collect();
                for spare in lent {
                    spares.keep(spare, 64);
                }
                spares.trim();
                spares.len()
            })
            .collect();
        assert_eq!(sizes, [33, 18, 10, 6, 4, 3, 3, 3]);
        (0..4).for_each(|_| spares.trim());
        assert_eq!(spares.take(), None);
    }
}
