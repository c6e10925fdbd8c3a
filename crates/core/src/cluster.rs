//! The topology in force: the newest view, and the ring computed from it.
//!
//! Readers take a snapshot without a lock. One writer, the node's membership task, replaces it.
//! Previous rings are remembered for a while, since a key's previous owners may still hold its
//! value.

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};

use super::{
    membership::{IdHash, Member, MemberState, View},
    ring::{KeyHash, Ring, Slot},
};
use crate::ports::Timestamp;

/// How long after a change previous owners are asked for entries that they may still hold. Handoff
/// is normally finished by then; what is left is loaded again.
const MEMORY: Duration = Duration::from_secs(120);
/// Maximum number of remembered rings, however fast they change.
const REMEMBERED: usize = 8;
/// Maximum number of members that are asked for a key before its origin is: two that joined at the
/// same time, and the one that has it.
const ASKED: usize = 3;

/// A view and the ring over it.
#[derive(Debug, Default)]
pub struct Topology {
    /// All members, including draining ones.
    pub view: View,
    ring: Ring,
    /// Indices of the ring's members in `view.members`.
    ring_members: Vec<u32>,
    /// Index of this node in `view.members`.
    me: Option<usize>,
    /// The id hashes of all members, sorted.
    id_hashes: Vec<IdHash>,
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
        let serving = |member: &Member| member.state == MemberState::Serving;
        // If all members are draining (the whole cluster is shutting down), the ring keeps them
        // all. That is better than a ring without owners.
        let any_serving = view.members.iter().any(serving);
        let ring_members: Vec<u32> = (0..view.members.len())
            .filter(|&at| !any_serving || serving(&view.members[at]))
            .map(|at| at as u32)
            .collect();
        let slots: Vec<Slot<'_>> = ring_members
            .iter()
            .map(|&at| &view.members[at as usize])
            .map(|member| Slot {
                id: &member.id,
                weight: member.weight,
            })
            .collect();
        let ring = Ring::new(&slots);
        let me = view.members.iter().position(|member| *member.id == *my_id);
        let mut id_hashes: Vec<IdHash> = view
            .members
            .iter()
            .map(|member| IdHash::of(&member.id))
            .collect();
        id_hashes.sort_unstable();
        Self {
            view,
            ring,
            ring_members,
            me,
            id_hashes,
        }
    }

    /// Whether a caller with this id is a member. A caller that does not identify itself (an older
    /// release) counts as one.
    pub fn knows(&self, id: IdHash) -> bool {
        id == IdHash::UNTOLD || self.id_hashes.binary_search(&id).is_ok()
    }

    /// The key's owner.
    pub fn owner(&self, key: KeyHash) -> Owner<'_> {
        match self.ring.owner(key) {
            Some(at) => self.place(at),
            None => Owner::Me,
        }
    }

    /// The key's owner, followed by its stand-ins in order.
    pub fn ranked(&self, key: KeyHash) -> impl Iterator<Item = Owner<'_>> {
        self.ring.ranked(key).into_iter().map(|at| self.place(at))
    }

    /// The id of the key's owner; `None` if there is no ring yet.
    pub fn owner_id(&self, key: KeyHash) -> Option<&Arc<str>> {
        let at = self.ring_members[self.ring.owner(key)?] as usize;
        Some(&self.view.members[at].id)
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

    /// The member with this id hash, if any.
    pub fn member(&self, id: IdHash) -> Option<&Member> {
        let mut members = self.view.members.iter();
        members.find(|it| IdHash::of(&it.id) == id)
    }

    /// Whether this node owns keys.
    pub fn in_ring(&self) -> bool {
        self.me
            .is_some_and(|me| self.ring_members.contains(&(me as u32)))
    }

    /// This node, as registered.
    pub fn me(&self) -> Option<&Member> {
        self.me.map(|me| &self.view.members[me])
    }

    /// All other members, including draining ones: every member that may hold an entry.
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
        if self.ring_members.contains(&(at as u32)) {
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

/// A ring that was in force.
#[derive(Debug)]
struct Past {
    topology: Arc<Topology>,
    /// When to forget it.
    until: Timestamp,
}

/// Holds the topology in force.
#[derive(Debug)]
pub struct Cluster {
    my_id: Arc<str>,
    topology: ArcSwap<Topology>,
    /// Newest first.
    past: ArcSwap<Vec<Arc<Past>>>,
}

impl Cluster {
    /// A cluster in which the node `my_id` is alone.
    pub fn new(my_id: impl Into<Arc<str>>) -> Self {
        Self {
            my_id: my_id.into(),
            topology: ArcSwap::default(),
            past: ArcSwap::default(),
        }
    }

    /// This node's id.
    pub fn my_id(&self) -> &Arc<str> {
        &self.my_id
    }

    /// The topology in force. Don't hold it over an await; use [`Cluster::snapshot`] there.
    pub fn topology(&self) -> Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// The topology in force, as a shared reference that can be kept.
    pub fn snapshot(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Puts `view` in force. Returns the previous and the new topology.
    pub fn install(&self, view: View, now: Timestamp) -> (Arc<Topology>, Arc<Topology>) {
        let next = Arc::new(Topology::new(&self.my_id, view));
        let before = self.topology.load_full();
        let former = if before.view.members.is_empty() {
            // The first ring that a node sees may already contain it. The previous ring was the
            // same without it.
            let others = next.others().cloned();
            Arc::new(Topology::new(
                &self.my_id,
                View::new(next.view.revision, others),
            ))
        } else {
            before.clone()
        };
        self.remember(former, now);
        self.topology.store(next.clone());
        (before, next)
    }

    fn remember(&self, topology: Arc<Topology>, now: Timestamp) {
        if topology.ring_len() == 0 {
            return;
        }
        let newest = Arc::new(Past {
            topology,
            until: now.after(MEMORY),
        });
        let past = self.past.load();
        let older = past.iter().filter(|past| now < past.until).cloned();
        let past = std::iter::once(newest).chain(older).take(REMEMBERED);
        self.past.store(Arc::new(past.collect()));
    }

    /// Members that may hold the key's value although this node doesn't, most likely first: the
    /// owners in previous rings, and the first members in ring order. Empty if the ring has not
    /// changed lately and this node owns the key.
    pub fn may_hold(&self, key: KeyHash, now: Timestamp) -> Vec<Member> {
        let current = self.topology.load();
        let past = self.past.load();
        let remembered = past.iter().take_while(|past| now < past.until);
        let mut asked: Vec<Member> = Vec::new();
        let mut add = |member: &Member, most: usize| {
            let known = asked.iter().any(|it| it.id == member.id);
            if *member.id != *self.my_id && !known && asked.len() < most {
                asked.push(member.clone());
            }
        };
        let mut changed = false;
        for past in remembered {
            changed = true;
            let owner = past.topology.owner_id(key);
            // By id, since its address may have changed. One place is reserved for the current
            // owner.
            if let Some(member) = owner.and_then(|id| current.view.member(id)) {
                add(member, ASKED - 1);
            }
        }
        // The current owner comes after the previous ones: by the time it is asked, it has what
        // they handed over in the meantime.
        if changed || current.owner(key) != Owner::Me {
            for owner in current.ranked(key).take(ASKED) {
                if let Owner::Other(member) = owner {
                    add(member, ASKED);
                }
            }
        }
        asked
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

    fn view(ids: &[&str]) -> View {
        View::new(1, ids.iter().map(|id| Member::new(*id, "h:1")))
    }

    fn names(members: &[Member]) -> Vec<&str> {
        members.iter().map(|member| &*member.id).collect()
    }

    #[test]
    fn after_a_change_former_owners_are_asked_for_a_while() {
        let cluster = Cluster::new("joined");
        let key = (0..)
            .map(|n| hash_key(0, &n.to_string()))
            .find(|key| {
                Topology::new("joined", view(&["a", "b", "joined"])).owner(*key) == Owner::Me
            })
            .expect("a share of the keys");
        let former = Topology::new("joined", view(&["a", "b"]));
        let former = former.owner_id(key).expect("a ring").clone();
        // As a node that joins may see it: its first ring has it in already.
        cluster.install(view(&["a", "b", "joined"]), Timestamp(0));
        assert_eq!(names(&cluster.may_hold(key, Timestamp(0)))[0], &*former);
        let later = Timestamp(0).after(MEMORY);
        assert!(cluster.may_hold(key, later).is_empty());
        // A former owner that is gone can't be asked.
        cluster.install(view(&["joined"]), later);
        assert!(cluster.may_hold(key, later).is_empty());
    }

    #[test]
    fn who_gets_a_key_of_another_s_asks_its_owner() {
        let cluster = Cluster::new("a");
        cluster.install(view(&["a", "b"]), Timestamp(0));
        let later = Timestamp(0).after(MEMORY);
        for key in (0..100).map(|n| hash_key(0, &n.to_string())) {
            let asked = cluster.may_hold(key, later);
            let mine = cluster.topology().owner(key) == Owner::Me;
            assert_eq!(
                names(&asked),
                if mine { vec![] } else { vec!["b"] },
                "the owner alone"
            );
        }
    }

    #[test]
    fn a_ring_is_the_same_when_only_a_leaving_member_goes() {
        let with = Topology::new("a", View::new(1, [Member::new("a", "h:1"), draining("b")]));
        assert!(with.same_ring(&Topology::new("c", view(&["a"]))));
        assert!(!with.same_ring(&Topology::new("a", view(&["a", "b"]))));
    }

    #[test]
    fn only_members_are_known() {
        let topology = Topology::new("a", view(&["a", "b"]));
        assert!(topology.knows(IdHash::of("b")));
        assert!(topology.knows(IdHash::UNTOLD));
        assert!(!topology.knows(IdHash::of("c")));
    }
}
