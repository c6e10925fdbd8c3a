//! The ring in force, which has one owner: it puts a new view in force and tells who waits for it.
//!
//! Readers take a snapshot without a lock, whoever has to wait for a ring follows
//! [`Cluster::rings`], and writers take turns. The rings before it are remembered for a while: who
//! owned a key in one of them may still hold its value.

mod topology;

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::watch;

pub use topology::{Owner, Topology};

use crate::{
    membership::{Member, MemberState, View},
    ports::Timestamp,
    ring::KeyHash,
};

/// How long after a change previous owners are asked for entries that they may still hold. Handoff
/// is normally finished by then; what is left is loaded again.
const MEMORY: Duration = Duration::from_secs(120);
/// Maximum number of remembered rings, however fast they change.
const REMEMBERED: usize = 8;
/// Maximum number of members that are asked for a key before its origin is: two that joined at the
/// same time, and the one that has it.
const ASKED: usize = 3;

/// A ring that was in force.
#[derive(Debug)]
struct Past {
    topology: Arc<Topology>,
    /// When to forget it.
    until: Timestamp,
}

/// Another ring has come in force.
#[derive(Clone, Debug)]
pub struct Change {
    /// The ring until now.
    pub before: Arc<Topology>,
    /// The ring from now on.
    pub after: Arc<Topology>,
}

/// Holds the topology in force.
#[derive(Debug)]
pub struct Cluster {
    my_id: Arc<str>,
    /// For whoever reads it: that takes no lock.
    topology: ArcSwap<Topology>,
    /// For whoever waits for another. The same topology, a moment later.
    rings: watch::Sender<Arc<Topology>>,
    /// Newest first.
    past: ArcSwap<Vec<Arc<Past>>>,
    /// Held by whoever puts a view in force.
    turn: Mutex<()>,
}

impl Cluster {
    /// A cluster in which the node `my_id` is alone.
    pub fn new(my_id: impl Into<Arc<str>>) -> Self {
        Self {
            my_id: my_id.into(),
            topology: ArcSwap::default(),
            rings: watch::Sender::default(),
            past: ArcSwap::default(),
            turn: Mutex::default(),
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

    /// Each topology as it comes in force.
    pub fn rings(&self) -> watch::Receiver<Arc<Topology>> {
        self.rings.subscribe()
    }

    /// Puts `view` in force, unless it tells nothing new or is empty: an empty list means that
    /// nothing is known yet or that a registry lost everything, and never wipes the ring.
    pub fn install(&self, view: View, now: Timestamp) -> Option<Change> {
        let _turn = self.turn.lock();
        self.replace(view, now)
    }

    /// Takes this node out of the ring, as a view would that tells that it is draining. For a node
    /// that leaves while the registry can't tell anybody so.
    pub fn leave(&self, now: Timestamp) -> Option<Change> {
        let _turn = self.turn.lock();
        let current = self.topology.load_full();
        let members = current.view.members.iter().cloned().map(|mut member| {
            if member.id == self.my_id {
                member.state = MemberState::Draining;
            }
            member
        });
        self.replace(View::new(current.view.revision, members), now)
    }

    /// What [`Cluster::install`] does in its turn.
    fn replace(&self, view: View, now: Timestamp) -> Option<Change> {
        let before = self.topology.load_full();
        if view.members.is_empty() || view == before.view {
            return None;
        }
        let after = Arc::new(Topology::new(&self.my_id, view));
        let former = if before.view.members.is_empty() {
            // The first ring that a node sees may already contain it. The previous ring was the
            // same without it.
            let others = after.others().cloned();
            Arc::new(Topology::new(
                &self.my_id,
                View::new(after.view.revision, others),
            ))
        } else {
            before.clone()
        };
        self.remember(former, now);
        self.topology.store(after.clone());
        self.rings.send_replace(after.clone());
        Some(Change { before, after })
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
    fn every_ring_in_force_is_published_and_an_empty_list_wipes_none() {
        let cluster = Cluster::new("a");
        let rings = cluster.rings();
        assert!(cluster.install(View::default(), Timestamp(0)).is_none());
        let change = cluster.install(view(&["a", "b"]), Timestamp(0));
        let change = change.expect("a first ring");
        assert_eq!((change.before.ring_len(), change.after.ring_len()), (0, 2));
        assert!(Arc::ptr_eq(&rings.borrow(), &cluster.snapshot()));
        assert!(cluster.install(view(&["a", "b"]), Timestamp(0)).is_none());
        assert!(cluster.install(View::new(2, []), Timestamp(0)).is_none());
        assert_eq!(cluster.topology().ring_len(), 2);
    }

    #[test]
    fn who_leaves_by_its_own_decision_is_known_but_owns_nothing() {
        let cluster = Cluster::new("a");
        cluster.install(view(&["a", "b"]), Timestamp(0));
        let rings = cluster.rings();
        assert!(cluster.leave(Timestamp(0)).is_some());
        let seen = rings.borrow();
        assert!(!seen.in_ring());
        assert!(seen.me().is_some());
    }

    #[test]
    fn writers_take_turns() {
        let cluster = Cluster::new("a");
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let cluster = &cluster;
                scope.spawn(move || {
                    for step in 0..50 {
                        let view = View::new(writer * 50 + step, [Member::new("a", "h:1")]);
                        cluster.install(view, Timestamp(0));
                    }
                });
            }
        });
        assert!(Arc::ptr_eq(&cluster.rings().borrow(), &cluster.snapshot()));
    }
}
