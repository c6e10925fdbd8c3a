//! Which notices a member still has to act on. Pure.
//!
//! What was confirmed counts for one incarnation only: a member that comes back has forgotten what
//! it did before.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    membership::IdHash,
    ports::{Notice, NoticeId},
};

/// What a member has confirmed.
#[derive(Debug, Default)]
pub struct Heeded {
    me: IdHash,
    confirmed: BTreeSet<NoticeId>,
}

impl Heeded {
    /// Does what the posted notices ask the incarnation `me` for, each once; one for which `heed`
    /// returns false has to wait. Returns all that is to be confirmed, if it is more than before.
    pub fn heed(
        &mut self,
        me: IdHash,
        standing: &BTreeMap<NoticeId, Notice>,
        mut heed: impl FnMut(&Notice) -> bool,
    ) -> Option<BTreeSet<NoticeId>> {
        if self.me != me {
            *self = Self {
                me,
                ..Self::default()
            };
        }
        let done = standing
            .iter()
            .filter(|(id, notice)| self.confirmed.contains(*id) || heed(notice));
        let done: BTreeSet<NoticeId> = done.map(|(id, _)| *id).collect();
        let is_more = !done.is_subset(&self.confirmed);
        self.confirmed.clone_from(&done);
        is_more.then_some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notice_is_heeded_once_by_each_incarnation_and_one_that_waits_again() {
        let notice = |revision| (NoticeId(revision), Notice::Seen { revision });
        let standing = BTreeMap::from([notice(1), notice(2)]);
        let mut heeded = Heeded::default();
        let mut heed = |me, reached| {
            let mut asked = 0;
            let done = heeded.heed(IdHash(me), &standing, |notice| {
                asked += 1;
                matches!(notice, Notice::Seen { revision } if *revision <= reached)
            });
            (asked, done.map(|it| it.len()))
        };
        assert_eq!(heed(1, 1), (2, Some(1)));
        assert_eq!(heed(1, 1), (1, None), "nothing new");
        assert_eq!(heed(1, 2), (1, Some(2)));
        assert_eq!(heed(1, 2), (0, None));
        assert_eq!(heed(2, 2), (2, Some(2)), "another life");
    }
}
