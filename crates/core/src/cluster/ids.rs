//! The ids of members as answers carry them: a counted reference, of which threads that answer at
//! the same time have different copies. They would wait for each other at a common count.

use std::sync::{Arc, OnceLock};

use crate::per_thread::{own_place, places};

/// Copies of an id, at most.
const MOST_COPIES: usize = 16;

/// The ids of all members of a view, by index.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Of each member as many as `each`, made when they are first needed.
    copies: Box<[OnceLock<Arc<str>>]>,
    /// As many as there are places for threads.
    each: usize,
}

impl Ids {
    pub(super) fn of(members: usize) -> Self {
        let each = places(MOST_COPIES);
        Self {
            copies: (0..members * each).map(|_| OnceLock::new()).collect(),
            each,
        }
    }

    /// This thread's copy of the id of a member.
    pub(super) fn copy(&self, index: usize, id: &Arc<str>) -> Arc<str> {
        let at = index * self.each + own_place(self.each);
        match self.copies.get(at) {
            Some(copy) => copy.get_or_init(|| Arc::from(&**id)).clone(),
            None => id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_its_own_id_whoever_asks() {
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        let ids = Ids::of(names.len());
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    for (index, name) in names.iter().enumerate() {
                        let copy = ids.copy(index, name);
                        assert_eq!(copy, *name);
                        assert!(Arc::ptr_eq(&copy, &ids.copy(index, name)), "no new one");
                    }
                });
            }
        });
        assert_eq!(&*Ids::default().copy(7, &names[0]), "a");
    }
}
