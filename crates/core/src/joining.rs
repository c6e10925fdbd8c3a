//! What a node has to wait for before it serves: the list shows its registration, and every other
//! member has confirmed that it has seen it.
//!
//! Until then the others may not notify this node of removals, so it must never serve earlier.

use std::collections::{HashMap, HashSet};

use crate::{
    cluster::Topology,
    membership::{IdHash, Member},
    ports::RegistryHealth,
};

/// What is known of the registration of one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The node has not seen it yet.
    Awaited,
    /// The ring shows it.
    Listed(Listed),
    /// The others took it off the list before the node saw it.
    Ended,
}

impl Listing {
    /// What the ring and the registry show of `incarnation`.
    pub fn of(incarnation: &str, ring: &Topology, registry: &RegistryHealth) -> Self {
        // What was reported may still be about the previous incarnation.
        let written = registry.written.as_ref();
        let lease = written.and_then(|(of, lease)| (**of == *incarnation).then_some(*lease));
        match Listed::find(incarnation, ring, lease) {
            Some(listed) => Self::Listed(listed),
            None if registry.expelled && lease.is_some() => Self::Ended,
            None => Self::Awaited,
        }
    }
}

/// A registration that the ring shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The revision that the others have to reach.
    pub revision: u64,
    lease: i64,
}

impl Listed {
    /// The registration that was written under `lease`, in a registry that knows all members.
    ///
    /// Being in the ring is not enough. The answer to a registration may be lost, the others may
    /// have seen it and have taken this node off the list since, and then it is written once more,
    /// under another lease: members that saw the first don't notify this node of removals until
    /// they see the second. And a registry that lost its data knows the others only after they had
    /// a lease's time to register again, or else their leases have ended.
    fn find(incarnation: &str, ring: &Topology, lease: Option<i64>) -> Option<Self> {
        let me = ring.me().filter(|me| !me.vanished && !me.held)?;
        let known = *me.instance == *incarnation && lease == Some(me.lease);
        (known && !ring.view.young).then_some(Self {
            revision: ring.view.revision,
            lease: me.lease,
        })
    }

    /// Whether the ring still shows this registration. If not, the join begins anew: the others may
    /// have acted on the registration before, and a registry that lost its data counts its
    /// revisions anew.
    pub fn holds_in(&self, ring: &Topology) -> bool {
        let holds = |me: &Member| !me.held && me.lease == self.lease;
        ring.me().is_some_and(holds)
    }
}

/// The members that have confirmed so far, by incarnation.
#[derive(Debug, Default)]
pub struct Confirmations {
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
    pub fn follow(&mut self, topology: &Topology) -> Vec<Member> {
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
    pub fn confirmed(&mut self, member: IdHash) {
        self.missing.remove(&member);
        self.seen.insert(member);
    }

    /// Whether that member has yet to confirm.
    pub fn lack(&self, member: IdHash) -> bool {
        self.missing.contains_key(&member)
    }

    /// Whether everybody has confirmed.
    pub fn are_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether only vanished members are missing.
    pub fn lack_only_vanished(&self) -> bool {
        self.missing.values().all(|vanished| *vanished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::View;

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
        assert!(!confirmations.lack(asked[0].incarnation()));
        assert!(confirmations.lack(asked[1].incarnation()));
        let asked = confirmations.follow(&topology(&[("me", false), ("a", false), ("c", true)]));
        assert!(asked.is_empty());
        assert!(confirmations.lack_only_vanished() && !confirmations.are_complete());
        confirmations.follow(&topology(&[("me", false), ("a", false)]));
        assert!(confirmations.are_complete());
    }

    #[test]
    fn a_life_is_listed_only_by_a_registration_that_is_known_to_stand() {
        let three = ["a", "b", "c"].map(|id| Member {
            instance: "1".into(),
            lease: 5,
            ..Member::new(id, "h:1")
        });
        let listed_in = |young, members: &[Member], written| {
            let view = View::new(1, members.iter().cloned());
            let ring = Topology::new("a", View { young, ..view });
            let health = RegistryHealth {
                written,
                ..RegistryHealth::default()
            };
            matches!(
                Listing::of("1", &ring, &health),
                Listing::Listed(it) if it.lease == 5
            )
        };
        let listed = |members: &[Member], written| listed_in(false, members, written);
        let written = || Some(("1".into(), 5));
        assert!(listed(&three, written()));
        // Its answer was lost, or it was written once more since: the others may have acted on what
        // is seen here.
        assert!(!listed(&three, None));
        assert!(!listed(&three, Some(("1".into(), 6))));
        assert!(!listed(&three, Some(("0".into(), 5))), "the life before");
        assert!(!listed(&three[1..], written()));
        let mut changed = three.clone();
        changed[0].vanished = true;
        assert!(!listed(&changed, written()));
        let mut changed = three.clone();
        changed[0].held = true;
        assert!(!listed(&changed, written()), "etcd lost it");
        let young = listed_in(true, &three, written());
        assert!(!young, "others may rely on leases that etcd lost");
    }

    #[test]
    fn a_join_begins_anew_when_its_registration_is_no_longer_the_one_on_the_list() {
        let me = |lease, held| Member {
            lease,
            held,
            instance: "1".into(),
            ..Member::new("me", "h:1")
        };
        let ring = |members: &[Member]| Topology::new("me", View::new(1, members.iter().cloned()));
        let registry = |incarnation: &str, expelled| RegistryHealth {
            written: Some((incarnation.into(), 5)),
            expelled,
            ..RegistryHealth::default()
        };
        let listed = Listing::of("1", &ring(&[me(5, false)]), &registry("1", false));
        let Listing::Listed(listed) = listed else {
            panic!("{listed:?}")
        };
        assert!(listed.holds_in(&ring(&[me(5, false)])));
        for other in [&[me(6, false)][..], &[me(5, true)], &[]] {
            assert!(!listed.holds_in(&ring(other)), "{other:?}");
        }
        let unseen = |registry| Listing::of("1", &ring(&[]), &registry);
        assert_eq!(unseen(registry("1", true)), Listing::Ended);
        assert_eq!(unseen(registry("1", false)), Listing::Awaited);
        assert_eq!(
            unseen(registry("0", true)),
            Listing::Awaited,
            "that was the incarnation before"
        );
    }
}
