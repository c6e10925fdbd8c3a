//! Which of the other members have confirmed that they have seen this node. Pure.

use std::collections::{HashMap, HashSet};

use gaocache_core::{
    cluster::Topology,
    membership::{IdHash, Member},
};

/// The members that have confirmed so far, by incarnation.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    asked: HashSet<IdHash>,
    seen: HashSet<IdHash>,
    /// The members that have not confirmed, and whether they vanished.
    missing: HashMap<IdHash, bool>,
}

impl Confirmations {
    /// Counts on the members of this topology from now on. Returns those that have not been asked.
    ///
    /// Call it once for each ring: among a thousand members, it would be too much to look at all
    /// whenever one confirms.
    pub(super) fn follow(&mut self, topology: &Topology) -> Vec<Member> {
        self.missing.clear();
        let mut to_ask = Vec::new();
        for member in topology.others() {
            let incarnation = member.incarnation();
            if !member.vanished && self.asked.insert(incarnation) {
                to_ask.push(member.clone());
            }
            if !self.seen.contains(&incarnation) {
                self.missing.insert(incarnation, member.vanished);
            }
        }
        to_ask
    }

    /// That member has confirmed.
    pub(super) fn confirmed(&mut self, member: IdHash) {
        self.missing.remove(&member);
        self.seen.insert(member);
    }

    /// Whether everybody has confirmed.
    pub(super) fn are_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether only vanished members are missing.
    pub(super) fn lack_only_vanished(&self) -> bool {
        self.missing.values().all(|vanished| *vanished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaocache_core::membership::View;

    fn topology(ids: &[(&str, bool)]) -> Topology {
        let member = |&(id, vanished): &(&str, bool)| Member {
            vanished,
            ..Member::new(id, "h:1")
        };
        Topology::new("me", View::new(1, ids.iter().map(member)))
    }

    #[test]
    fn each_is_asked_once_and_one_that_is_off_the_list_is_not_waited_for() {
        let mut confirmations = Confirmations::default();
        let ids = |members: Vec<Member>| -> Vec<String> {
            members.iter().map(|it| it.id.to_string()).collect()
        };
        let first = topology(&[("me", false), ("a", false), ("b", false), ("c", true)]);
        let asked = confirmations.follow(&first);
        assert_eq!(ids(asked.clone()), ["a", "b"]);
        confirmations.confirmed(asked[0].incarnation());
        assert!(!confirmations.lack_only_vanished());
        let asked = confirmations.follow(&topology(&[("me", false), ("a", false), ("c", true)]));
        assert!(asked.is_empty());
        assert!(confirmations.lack_only_vanished() && !confirmations.are_complete());
        confirmations.follow(&topology(&[("me", false), ("a", false)]));
        assert!(confirmations.are_complete());
    }
}
