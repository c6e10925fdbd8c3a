//! Members that are no longer on the list, but may still run: a node that leaves finishes the
//! requests that it has, and one that was expelled may go on for long without knowing it. Neither
//! keeps anything, so both need the others for each get.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::membership::{Member, View};

/// The most that are remembered: as many as may leave at once.
const MOST: usize = 1024;

/// The members that left last, the latest incarnation of each.
#[derive(Debug, Default)]
pub(super) struct Departed(Mutex<VecDeque<Member>>);

impl Departed {
    /// Notes who left or came back as another.
    pub(super) fn view_changed(&self, before: &View, after: &View) {
        let gone = |member: &&Member| {
            let now = after.member(&member.id);
            now.is_none_or(|now| now.contact != member.contact)
        };
        for member in before.members.iter().filter(gone) {
            let mut departed = self.0.lock();
            departed.retain(|it| it.id != member.id);
            if departed.len() == MOST {
                departed.pop_front();
            }
            departed.push_back(member.clone());
        }
    }

    /// Whether any of them matches.
    pub(super) fn any(&self, is_so: impl Fn(&Member) -> bool) -> bool {
        self.0.lock().iter().any(is_so)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_or_came_back_as_another_is_remembered_up_to_a_number() {
        let departed = Departed::default();
        let view = |ids: &[usize], port: usize| {
            let member = |id: &usize| Member::new(format!("n{id}"), format!("h:{port}"));
            View::new(1, ids.iter().map(member))
        };
        let knows = |id: &str, at: &str| {
            departed.any(|member| *member.id == *id && *member.contact.address == *at)
        };
        departed.view_changed(&view(&[1, 2], 1), &view(&[2], 1));
        assert!(knows("n1", "h:1") && !knows("n2", "h:1"));
        departed.view_changed(&view(&[1, 2], 2), &view(&[1, 2], 3));
        assert!(knows("n1", "h:2") && knows("n2", "h:2") && !knows("n1", "h:1"));
        let many: Vec<usize> = (10..10 + MOST).collect();
        departed.view_changed(&view(&many, 1), &view(&[], 1));
        assert!(knows("n10", "h:1") && !knows("n1", "h:2"));
        assert_eq!(departed.0.lock().len(), MOST);
    }
}
