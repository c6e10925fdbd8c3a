//! The ring over one view: what the view makes of the members, and whose keys are whose.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{former_owners::FormerOwners, ids::Ids};
use crate::{
    membership::{IdHash, Member, MemberState, View},
    ring::{KeyHash, Ring},
};

/// Numbers topologies from 1 on.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A view and the ring over it.
#[derive(Debug, Default)]
pub struct Topology {
    /// Tells it from all others of this process; see [`Topology::number`].
    number: u64,
    /// All members, including draining ones.
    pub view: View,
    ring: Ring,
    /// Indices of the ring's members in `view.members`, ascending.
    ring_members: Vec<u32>,
    /// Whether the ring's members are known to be in different zones.
    zoned: bool,
    /// Index of this node in `view.members`.
    me: Option<usize>,
    /// Incarnations and indices in `view.members`, by incarnation. Computed once a view, since it
    /// is looked up for every batch that another member sends.
    incarnations: Vec<(IdHash, u32)>,
    /// Made when it is first needed.
    former: OnceLock<FormerOwners>,
    ids: Ids,
}

/// The owner of a key, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This node. Also if there is no ring, since a node without a ring serves alone.
    Me,
    /// Another member.
    Other(&'a Member),
}

impl Topology {
    /// The topology as seen by the member `my_id`.
    pub fn new(my_id: &str, view: View) -> Self {
        let serving = |member: &Member| member.state == MemberState::Serving && !member.vanished;
        // When all are draining (the whole cluster goes down) the ring stays as it was: better than
        // owning nothing.
        let any_serving = view.members.iter().any(serving);
        let ring_members: Vec<u32> = (0..view.members.len())
            .filter(|&at| {
                let member = &view.members[at];
                serving(member) || (!any_serving && member.is_admitted())
            })
            .map(|at| at as u32)
            .collect();
        let ring = view.ring(&ring_members);
        let zones = ring_members
            .iter()
            .map(|&at| &*view.members[at as usize].zone);
        let mut zones = zones.filter(|zone| !zone.is_empty());
        let first = zones.next();
        let zoned = zones.any(|zone| Some(zone) != first);
        let me = view.place(my_id);
        let mut incarnations: Vec<(IdHash, u32)> = (0..)
            .zip(view.members.iter())
            .map(|(at, member)| (member.incarnation(), at))
            .collect();
        incarnations.sort_unstable();
        let ids = Ids::of(view.members.len());
        Self {
            number: MADE.fetch_add(1, Ordering::Relaxed) + 1,
            view,
            ring,
            ring_members,
            zoned,
            me,
            incarnations,
            former: OnceLock::new(),
            ids,
        }
    }

    /// Who may have owned the key at any time, as far as the present members tell; see
    /// [`FormerOwners`].
    pub(super) fn former(&self) -> &FormerOwners {
        self.former.get_or_init(|| {
            FormerOwners::of(&self.view, self.me, |at| self.is_in_ring(at as usize))
        })
    }

    /// The number by which an entry notes its owner in this topology; 0 only before there is a
    /// view.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The key's owner.
    pub fn owner(&self, key: KeyHash) -> Owner<'_> {
        match self.ring.owner(key) {
            Some(at) => self.place(at),
            None => Owner::Me,
        }
    }

    /// The key's owner, followed by its stand-ins in order. The cost grows with how many are taken.
    ///
    /// The first stand-in, which may hold a copy, is the first in another zone than the owner's if
    /// there is one. The others are in ring order. So whoever owns the key after the owner's zone
    /// is lost had its copy; after the owner alone is lost, that may be another, which
    /// `copy_elsewhere` names the holder for.
    pub fn ranked(&self, key: KeyHash) -> impl Iterator<Item = Owner<'_>> {
        let mut ranked = self.ring.ranked(key);
        let mut first = Vec::new();
        if self.zoned {
            let owner = ranked.next();
            first.extend(owner);
            let zone = owner.map_or("", |at| self.zone(at));
            while !zone.is_empty() {
                let Some(at) = ranked.next() else { break };
                if ![zone, ""].contains(&self.zone(at)) {
                    first.insert(1, at);
                    break;
                }
                first.push(at);
            }
        }
        let ranked = first.into_iter().chain(ranked);
        ranked.map(|at| self.place(at))
    }

    /// If this node owns the key: the member that holds its copy for the sake of its zone, and so
    /// may have it from another that owned the key before.
    pub(super) fn copy_elsewhere(&self, key: KeyHash) -> Option<&Member> {
        if !self.zoned {
            return None;
        }
        let mut ranked = self.ranked(key);
        match (ranked.next()?, ranked.next()?) {
            (Owner::Me, Owner::Other(member)) => Some(member),
            _ => None,
        }
    }

    fn zone(&self, ring_index: usize) -> &str {
        &self.view.members[self.ring_members[ring_index] as usize].zone
    }

    /// The index in the view of the key's owner; `None` if there is no ring yet.
    pub fn owner_index(&self, key: KeyHash) -> Option<usize> {
        let at = self.ring.owner(key)?;
        Some(self.ring_members[at] as usize)
    }

    /// Whether this node is the member at that index in the view.
    pub fn is_me(&self, index: usize) -> bool {
        self.me == Some(index)
    }

    /// The id of the member at that index in the view, for an answer.
    pub fn id_for_answer(&self, index: usize) -> Option<Arc<str>> {
        let member = self.view.members.get(index)?;
        Some(self.ids.copy(index, &member.id))
    }

    /// The id of the key's owner; `None` if there is no ring yet.
    pub fn owner_id(&self, key: KeyHash) -> Option<&Arc<str>> {
        Some(&self.view.members[self.owner_index(key)?].id)
    }

    /// The number of members that own keys.
    pub fn ring_len(&self) -> usize {
        self.ring.len()
    }

    /// Whether the same members own the same keys in both, regardless of addresses and other data.
    /// A restarted member counts as a different one, since it holds nothing.
    pub fn same_ring(&self, other: &Self) -> bool {
        let slots = |topology: &Self| -> Vec<(IdHash, u32)> {
            let members = topology.ring_members.iter();
            members
                .map(|&at| &topology.view.members[at as usize])
                .map(|member| (member.incarnation(), member.weight))
                .collect()
        };
        slots(self) == slots(other)
    }

    /// The member of that incarnation.
    pub fn by_incarnation(&self, incarnation: IdHash) -> Option<&Member> {
        let found = &self.incarnations;
        let at = found
            .binary_search_by_key(&incarnation, |(it, _)| *it)
            .ok()?;
        Some(&self.view.members[found[at].1 as usize])
    }

    /// Whether its view has reached that revision and lists that incarnation;
    /// [`IdHash::NONE`] asks for the revision alone. In a registry that went back to an earlier
    /// state, revisions count anew, so a high one doesn't show that a registration was seen.
    pub fn has_seen(&self, revision: u64, listed: IdHash) -> bool {
        let lists = |it: &Member| !it.vanished && !it.held;
        let listed = listed == IdHash::NONE || self.by_incarnation(listed).is_some_and(lists);
        listed && self.view.revision >= revision
    }

    /// Whether this node owns keys.
    pub fn in_ring(&self) -> bool {
        self.me.is_some_and(|me| self.is_in_ring(me))
    }

    fn is_in_ring(&self, at: usize) -> bool {
        self.ring_members.binary_search(&(at as u32)).is_ok()
    }

    /// This node, as registered.
    pub fn me(&self) -> Option<&Member> {
        self.me.map(|me| &self.view.members[me])
    }

    /// The others, whatever their state, including those that vanished: all that may hold an entry.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.view
            .members
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != self.me)
            .map(|(_, member)| member)
    }

    /// The share of all keys, from 0 to 1, that the member at index `at` of the view owns.
    pub fn share(&self, at: usize) -> f64 {
        if self.is_in_ring(at) {
            self.ring.share(self.view.members[at].weight)
        } else {
            0.0
        }
    }

    fn place(&self, ring_index: usize) -> Owner<'_> {
        let at = self.ring_members[ring_index] as usize;
        if Some(at) == self.me {
            Owner::Me
        } else {
            Owner::Other(&self.view.members[at])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::hash_key;

    fn draining(id: &str) -> Member {
        Member {
            state: MemberState::Draining,
            ..Member::new(id, "h:1")
        }
    }

    fn view(ids: &[&str]) -> View {
        View::new(1, ids.iter().map(|id| Member::new(*id, "h:1")))
    }

    #[test]
    fn a_draining_member_is_known_but_owns_nothing() {
        let topology = Topology::new("a", View::new(1, [Member::new("a", "h:1"), draining("b")]));
        assert_eq!(topology.ring_len(), 1);
        assert_eq!(topology.others().count(), 1);
        for key in 0..100 {
            assert_eq!(topology.owner(hash_key(0, &key.to_string())), Owner::Me);
        }
        assert_eq!((topology.share(0), topology.share(1)), (1.0, 0.0));
    }

    #[test]
    fn when_all_drain_the_ring_stays() {
        let topology = Topology::new("a", View::new(1, [draining("a"), draining("b")]));
        assert_eq!(topology.ring_len(), 2);
    }

    #[test]
    fn without_a_ring_a_node_answers_itself() {
        let topology = Topology::default();
        assert_eq!(topology.owner(hash_key(0, "k")), Owner::Me);
        assert!(!topology.in_ring());
    }

    #[test]
    fn ranked_starts_with_the_owner_and_names_everyone_once() {
        let members = (0..7).map(|n| Member::new(format!("n{n}"), format!("h:{n}")));
        let topology = Topology::new("n3", View::new(1, members));
        for key in 0..100 {
            let hash = hash_key(0, &key.to_string());
            let ranked: Vec<_> = topology.ranked(hash).collect();
            assert_eq!(ranked[0], topology.owner(hash));
            assert_eq!(ranked.len(), 7);
            assert_eq!(
                ranked.iter().filter(|owner| **owner == Owner::Me).count(),
                1
            );
        }
    }

    #[test]
    fn the_first_stand_in_is_in_another_zone_and_the_owner_once_that_of_the_owner_is_lost() {
        let members = (0..9).map(|n| Member {
            // One doesn't know its zone.
            zone: ["a", "b", "c"].get(n / 2).copied().unwrap_or("").into(),
            ..Member::new(format!("n{n}"), format!("h:{n}"))
        });
        let members: Vec<Member> = members.filter(|it| *it.id != *"n8").collect();
        let plain = members.iter().cloned().map(|it| Member {
            zone: "".into(),
            ..it
        });
        let plain = Topology::new("outside", View::new(1, plain));
        let zoned = Topology::new("outside", View::new(1, members.iter().cloned()));
        let ids = |topology: &Topology, key| -> Vec<Arc<str>> {
            let ranked = topology.ranked(key).map(|it| match it {
                Owner::Other(member) => member.id.clone(),
                Owner::Me => unreachable!("outside is no member"),
            });
            ranked.collect()
        };
        let zone_of = |id: &Arc<str>| &zoned.view.member(id).expect("a member").zone;
        let mut moved = 0;
        for key in (0..200).map(|n| hash_key(0, &n.to_string())) {
            let (plain, ranked) = (ids(&plain, key), ids(&zoned, key));
            assert_eq!(ranked[0], plain[0], "the owner is the ring's");
            let zone = zone_of(&ranked[0]);
            if zone.is_empty() {
                assert_eq!(ranked, plain);
                continue;
            }
            let elsewhere = |id: &&Arc<str>| !zone_of(id).is_empty() && zone_of(id) != zone;
            let second = plain.iter().find(elsewhere).expect("other zones");
            assert_eq!(ranked[1], *second);
            let rest = plain[1..].iter().filter(|id| *id != second);
            assert!(ranked[2..].iter().eq(rest), "the others in ring order");
            moved += usize::from(plain[1] != *second);
            let left = members.iter().filter(|it| it.zone != *zone);
            let left = left.filter(|it| !it.zone.is_empty()).cloned();
            let left = Topology::new("outside", View::new(2, left));
            assert_eq!(left.owner_id(key), Some(second));
        }
        assert!(moved > 20, "{moved}");
    }

    #[test]
    fn a_ring_is_the_same_when_only_a_leaving_member_goes() {
        let with = Topology::new("a", View::new(1, [Member::new("a", "h:1"), draining("b")]));
        assert!(with.same_ring(&Topology::new("c", view(&["a"]))));
        assert!(!with.same_ring(&Topology::new("a", view(&["a", "b"]))));
    }
}
