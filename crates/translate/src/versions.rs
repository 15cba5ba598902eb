//! A value that is handed out whole and changed a little at a time.
//!
//! Who was given a version may keep it. So the next one is made from the version before the last, if nobody holds that any more, by
//! repeating the last edits and adding the new ones; only if somebody does, or there were many edits, from a copy.

use std::sync::Arc;

/// More edits are not kept: they would take more room than a copy is worth.
const MOST_REPEATED: usize = 256;

/// What can be edited in steps that can be repeated on another copy.
pub(crate) trait Editable: Clone {
    type Edit;
    fn edit(&mut self, edit: &Self::Edit);

    /// Gives back the room that many edits left.
    fn compact(&mut self);
}

pub(crate) struct Versions<T: Editable> {
    now: Arc<T>,
    /// The version before, and the edits that led from it to `now`.
    before: Option<(Arc<T>, Vec<T::Edit>)>,
}

impl<T: Editable + Default> Default for Versions<T> {
    fn default() -> Self {
        Self { now: Arc::default(), before: None }
    }
}

impl<T: Editable> Versions<T> {
    pub(crate) fn now(&self) -> &Arc<T> {
        &self.now
    }

    /// No edits: the same `Arc`.
    pub(crate) fn advance(&mut self, edits: Vec<T::Edit>) {
        if edits.is_empty() {
            return;
        }
        let reused = self.before.take().and_then(|(mut before, missed)| {
            let value = Arc::get_mut(&mut before)?;
            for edit in &missed {
                value.edit(edit);
            }
            Some(before)
        });
        let mut next = reused.unwrap_or_else(|| Arc::new(T::clone(&self.now)));
        let value = Arc::make_mut(&mut next);
        for edit in &edits {
            value.edit(edit);
        }
        let few = edits.len() <= MOST_REPEATED;
        if !few {
            value.compact();
        }
        let last = std::mem::replace(&mut self.now, next);
        self.before = few.then_some((last, edits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default, Debug, PartialEq)]
    struct List(Vec<u32>);

    impl Editable for List {
        type Edit = u32;
        fn edit(&mut self, edit: &u32) {
            self.0.push(*edit);
        }

        fn compact(&mut self) {
            self.0.shrink_to_fit();
        }
    }

    #[test]
    fn versions_that_are_held_stay_as_they_were_and_those_that_are_not_are_used_again() {
        let mut versions = Versions::<List>::default();
        versions.advance(vec![1]);
        let held = Arc::clone(versions.now());
        versions.advance(vec![2]);
        versions.advance(vec![3]);
        assert_eq!((held.0.as_slice(), versions.now().0.as_slice()), (&[1][..], &[1, 2, 3][..]));
        drop(held);
        let two_ago = Arc::as_ptr(versions.now());
        versions.advance(vec![4]);
        versions.advance(vec![5, 6]);
        assert_eq!(versions.now().0, [1, 2, 3, 4, 5, 6]);
        assert_eq!(Arc::as_ptr(versions.now()), two_ago, "the memory was not used again");
        versions.advance(Vec::new());
        assert_eq!(Arc::as_ptr(versions.now()), two_ago);
    }
}
