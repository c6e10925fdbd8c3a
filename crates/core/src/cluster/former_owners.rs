//! Who owned a key before, by the order in which the members came into the ring. Pure.
//!
//! Members join one after the other, however fast, and each one's registry revision gives the
//! order. So the owners that a key had while the ring grew are those members that rank higher for
//! it than all members that joined before them: of a hundred members about five. That needs no
//! memory of former rings, holds for a node that has just come, and no matter which of the rings
//! in between each node saw.
//!
//! A leaving member may have owned the key, but it no longer hides members that rank lower. A
//! member that has left gave its entries to the owner of that time, which is found in the same way.

use crate::{
    membership::{Member, MemberState, View},
    ring::{KeyHash, Ring},
};

/// Members that hold entries, and since when they are in the ring.
#[derive(Debug)]
pub(super) struct FormerOwners {
    ring: Ring,
    /// By their index in `ring`.
    holders: Vec<Holder>,
}

#[derive(Debug)]
struct Holder {
    /// Its index in the view.
    at: u32,
    /// The revision at which it came into the ring.
    since: u64,
    /// The revision from which on it is not in the ring any more, `u64::MAX` if that is not known;
    /// `None`: it is.
    gone_at: Option<u64>,
    /// It leaves, or vanished: others own what it owned, or will.
    leaves: bool,
    is_me: bool,
}

/// A member that may have owned a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FormerOwner {
    /// Its index in the view.
    pub(super) at: u32,
    /// The revision at which the key became another's, `u64::MAX` if that is not known; `None`: it
    /// owns it now.
    pub(super) until: Option<u64>,
}

impl FormerOwners {
    /// Of the members of the view, where `in_ring` says which of them own keys now.
    pub(super) fn of(view: &View, me: Option<usize>, in_ring: impl Fn(u32) -> bool) -> Self {
        let holds = |at: &u32| view.members[*at as usize].state != MemberState::Joining;
        let members: Vec<u32> = (0..view.members.len() as u32).filter(holds).collect();
        let holder = |&at: &u32| {
            let member = &view.members[at as usize];
            let is_me = me == Some(at as usize);
            Holder {
                at,
                since: since(member, is_me),
                gone_at: (!in_ring(at)).then(|| gone_at(member)),
                leaves: member.state == MemberState::Draining || member.vanished,
                is_me,
            }
        };
        Self {
            ring: view.ring(&members),
            holders: members.iter().map(holder).collect(),
        }
    }

    /// Whether anybody leaves.
    pub(super) fn some_leave(&self) -> bool {
        self.holders.iter().any(|it| it.leaves)
    }

    /// The others that were there when this node came into the ring, and when that was.
    pub(super) fn elders(&self) -> (u64, impl Iterator<Item = u32>) {
        let me = self.holders.iter().find(|it| it.is_me);
        let mine = me.map_or(u64::MAX, |me| me.since);
        let elders = self
            .holders
            .iter()
            .filter(move |it| !it.is_me && it.since < mine);
        (mine, elders.map(|it| it.at))
    }

    /// The others that may have owned the key, the latest first.
    pub(super) fn owners(&self, key: KeyHash) -> Vec<FormerOwner> {
        let mut owners = Vec::new();
        // From this revision on, a member that ranks higher than those still to come is there.
        let mut taken = None;
        for at in self.ring.ranked(key) {
            let holder = &self.holders[at];
            if taken.is_some_and(|taken| holder.since >= taken) {
                continue;
            }
            if !holder.is_me {
                owners.push(FormerOwner {
                    at: holder.at,
                    until: [taken, holder.gone_at].into_iter().flatten().min(),
                });
            }
            if !holder.leaves {
                taken = Some(holder.since);
            }
        }
        owners
    }
}

/// Where a registry doesn't say, the others count as having been there from the beginning, and
/// this node as having come last: it may have been started anew.
fn since(member: &Member, is_me: bool) -> u64 {
    match member.since {
        0 if is_me => u64::MAX,
        since => since,
    }
}

/// The last change of a member that is leaving is that it leaves. Of one that vanished it is not.
fn gone_at(member: &Member) -> u64 {
    match u64::try_from(member.recorded_at) {
        Ok(revision) if revision > 0 && !member.vanished => revision,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Owner, Topology},
        ring::hash_key,
    };
    use proptest::prelude::*;

    /// A member, and from when to when it is in the ring.
    #[derive(Clone, Debug)]
    struct Stay {
        name: usize,
        from: u64,
        until: Option<u64>,
    }

    impl Stay {
        fn member(&self, at: u64) -> Option<Member> {
            if at < self.from {
                return None;
            }
            let gone = self.until.filter(|until| *until <= at);
            Some(Member {
                state: gone.map_or(MemberState::Serving, |_| MemberState::Draining),
                since: self.from,
                recorded_at: gone.unwrap_or(self.from) as i64,
                ..Member::new(format!("n{}", self.name), "h:1")
            })
        }
    }

    fn view_at(stays: &[Stay], at: u64) -> View {
        View::new(at, stays.iter().filter_map(|it| it.member(at)))
    }

    fn stays() -> impl Strategy<Value = Vec<Stay>> {
        proptest::collection::vec((any::<u64>(), proptest::option::of(1..60_u64)), 1..30).prop_map(
            |all| {
                let mut order: Vec<usize> = (0..all.len()).collect();
                order.sort_by_key(|at| all[*at].0);
                let stay = |(from, name): (usize, usize)| Stay {
                    name,
                    from: from as u64 + 1,
                    until: all[name].1.map(|lasts| from as u64 + 1 + lasts),
                };
                order.into_iter().enumerate().map(stay).collect()
            },
        )
    }

    proptest! {
        /// Whatever the order in which members came and began to leave, everybody who ever owned
        /// the key in some ring is found, with the revision at which that ended.
        #[test]
        fn who_owned_a_key_in_any_ring_is_found(stays in stays(), key in any::<u64>(), now in 1..60_u64) {
            let key = KeyHash(key);
            let view = view_at(&stays, now);
            prop_assume!(!view.members.is_empty());
            let topology = Topology::new("outside", view.clone());
            let found = topology.former().owners(key);
            for at in 1..=now {
                let ring = Topology::new("outside", view_at(&stays, at));
                let Some(owner) = ring.owner_id(key) else { continue };
                // When all are leaving the ring stays as it was.
                if ring.view.members.iter().all(|it| it.state == MemberState::Draining) {
                    continue;
                }
                let known = found.iter().find(|it| view.members[it.at as usize].id == *owner);
                prop_assert!(known.is_some(), "{owner} at {at}");
                prop_assert!(known.expect("some").until.is_none_or(|until| until > at));
            }
        }
    }

    #[test]
    fn of_a_hundred_that_came_one_after_the_other_few_owned_a_key() {
        let members = (0..100_u64).map(|n| Member {
            since: n + 1,
            ..Member::new(format!("n{n}"), "h:1")
        });
        let topology = Topology::new("outside", View::new(100, members));
        let keys = (0..2_000).map(|n| hash_key(0, &n.to_string()));
        let counts: Vec<usize> = keys
            .map(|key| topology.former().owners(key).len())
            .collect();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        println!("{mean} on average, {:?} at most", counts.iter().max());
        // The hundredth harmonic number.
        assert!((5.0..5.4).contains(&mean), "{mean}");
    }

    #[test]
    fn without_an_order_a_node_takes_itself_for_the_last_that_came() {
        let ids = ["a", "b", "c"];
        let view = View::new(0, ids.map(|id| Member::new(id, "h:1")));
        let others = Topology::new(
            "b",
            View::new(0, ["a", "c"].map(|id| Member::new(id, "h:1"))),
        );
        let topology = Topology::new("b", view);
        for key in (0..50).map(|n| hash_key(0, &n.to_string())) {
            let found = topology.former().owners(key);
            let ids = found
                .iter()
                .map(|it| &topology.view.members[it.at as usize].id);
            let stand_in = others.owner_id(key).expect("a ring");
            assert_eq!(ids.collect::<Vec<_>>(), [stand_in]);
            let mine = topology.owner(key) == Owner::Me;
            assert_eq!(found[0].until.is_some(), mine, "else it owns it now");
        }
    }
}
