//! Members that are no longer on the list, but may still run: a node that leaves finishes the
//! requests that it has, and one that was expelled may continue for a long time without knowing it.
//! Neither keeps anything, so both need the others for each get.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::membership::{Member, View};

/// The most that are remembered: as many as may leave at once.
const MOST: usize = 1024;
/// For how long. A node that has not come back by then loads what it needs by itself, and a key
/// that was taken out opens nothing any more.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// The members that left last, the latest incarnation of each.
#[derive(Debug, Default)]
pub(super) struct FormerMembers(Mutex<VecDeque<(Instant, Member)>>);

impl FormerMembers {
    /// Notes who left or came back as another.
    pub(super) fn view_changed(&self, before: &View, after: &View) {
        let gone = |member: &&Member| {
            let now = after.member(&member.id);
            now.is_none_or(|now| now.contact != member.contact)
        };
        for member in before.members.iter().filter(gone) {
            let mut former = self.0.lock();
            former.retain(|(_, it)| it.id != member.id);
            if former.len() == MOST {
                former.pop_front();
            }
            former.push_back((Instant::now(), member.clone()));
        }
    }

    /// Whether any of them matches.
    pub(super) fn any(&self, is_so: impl Fn(&Member) -> bool) -> bool {
        let mut former = self.0.lock();
        while let Some((since, _)) = former.front()
            && since.elapsed() > REMEMBERED
        {
            former.pop_front();
        }
        former.iter().any(|(_, member)| is_so(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_or_came_back_as_another_is_remembered_up_to_a_number() {
        let former = FormerMembers::default();
        let view = |ids: &[usize], port: usize| {
            let member = |id: &usize| Member::new(format!("n{id}"), format!("h:{port}"));
            View::new(1, ids.iter().map(member))
        };
        let knows = |id: &str, at: &str| {
            former.any(|member| *member.id == *id && *member.contact.address == *at)
        };
        former.view_changed(&view(&[1, 2], 1), &view(&[2], 1));
        assert!(knows("n1", "h:1") && !knows("n2", "h:1"));
        former.view_changed(&view(&[1, 2], 2), &view(&[1, 2], 3));
        assert!(knows("n1", "h:2") && knows("n2", "h:2") && !knows("n1", "h:1"));
        let many: Vec<usize> = (10..10 + MOST).collect();
        former.view_changed(&view(&many, 1), &view(&[], 1));
        assert!(knows("n10", "h:1") && !knows("n1", "h:2"));
        assert_eq!(former.0.lock().len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_remembered_for_ever() {
        let former = FormerMembers::default();
        let view = View::new(1, [Member::new("n1", "h:1")]);
        former.view_changed(&view, &View::new(2, []));
        tokio::time::advance(REMEMBERED).await;
        assert!(former.any(|member| *member.id == *"n1"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!former.any(|_| true));
    }
}
