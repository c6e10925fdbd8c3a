//! Which notices a member still has to act on.
//!
//! What was confirmed counts for one incarnation only: a member that comes back has forgotten what
//! it did before.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::{
    membership::IdHash,
    ports::{Notice, NoticeId, Notices},
};

/// What a member has confirmed.
#[derive(Debug, Default)]
pub struct CarriedOut {
    me: IdHash,
    confirmed: BTreeSet<NoticeId>,
}

impl CarriedOut {
    /// Carries out what the posted notices ask of the incarnation `me`, each once; one for which
    /// `carry_out` returns false has to wait. Returns all that is to be confirmed, if it is more
    /// than before.
    pub fn carry_out(
        &mut self,
        me: IdHash,
        standing: &BTreeMap<NoticeId, Notice>,
        mut carry_out: impl FnMut(&Notice) -> bool,
    ) -> Option<BTreeSet<NoticeId>> {
        if self.me != me {
            *self = Self {
                me,
                ..Self::default()
            };
        }
        let done = standing
            .iter()
            .filter(|(id, notice)| self.confirmed.contains(*id) || carry_out(notice));
        let done: BTreeSet<NoticeId> = done.map(|(id, _)| *id).collect();
        let is_more = !done.is_subset(&self.confirmed);
        self.confirmed.clone_from(&done);
        is_more.then_some(done)
    }
}

/// Resolves when there are new notices; never where there are none at all.
pub async fn changed(notices: &mut Option<watch::Receiver<Notices>>) {
    let Some(notices) = notices else {
        return std::future::pending().await;
    };
    if notices.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notice_is_carried_out_once_by_each_incarnation_and_one_that_waits_again() {
        let notice = |revision| {
            let listed = IdHash::NONE;
            (NoticeId(revision), Notice::Seen { revision, listed })
        };
        let standing = BTreeMap::from([notice(1), notice(2)]);
        let mut carried_out = CarriedOut::default();
        let mut done = |me, reached| {
            let mut asked = 0;
            let done = carried_out.carry_out(IdHash(me), &standing, |notice| {
                asked += 1;
                matches!(notice, Notice::Seen { revision, .. } if *revision <= reached)
            });
            (asked, done.map(|it| it.len()))
        };
        assert_eq!(done(1, 1), (2, Some(1)));
        assert_eq!(done(1, 1), (1, None), "nothing new");
        assert_eq!(done(1, 2), (1, Some(2)));
        assert_eq!(done(1, 2), (0, None));
        assert_eq!(done(2, 2), (2, Some(2)), "another life");
    }
}
