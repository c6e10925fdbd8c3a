//! The current ring, which has one owner: it installs a new view and notifies those waiting
//! for it.
//!
//! Readers take a snapshot without a lock; a task that has to wait for a ring follows
//! [`Cluster::rings`], and writers take turns. Former rings are not remembered: who owned a key in
//! one of them follows from the members' order of joining (`former_owners`), and who still holds
//! something from then each member says itself (`settled`).

mod former_members;
mod former_owners;
mod ids;
mod settled;
mod topology;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::watch;

use former_members::FormerMembers;
use settled::SettledMembers;
pub use topology::{Owner, Topology};

use crate::{
    membership::{Member, MemberState, View},
    ring::KeyHash,
};

/// Another ring took effect.
#[derive(Clone, Debug)]
pub struct Change {
    /// The ring until now.
    pub before: Arc<Topology>,
    /// The ring from now on.
    pub after: Arc<Topology>,
}

/// Holds the current topology.
#[derive(Debug)]
pub struct Cluster {
    my_id: Arc<str>,
    /// For readers, without a lock.
    topology: ArcSwap<Topology>,
    /// For those that wait for another one. The same topology, a moment later.
    rings: watch::Sender<Arc<Topology>>,
    /// How far each member, this one included, has got in giving away entries that it no longer
    /// owns.
    settled: SettledMembers,
    /// Former members that may still run.
    former_members: FormerMembers,
    /// Held while a view is installed.
    turn: Mutex<()>,
}

impl Cluster {
    /// A cluster in which the node `my_id` is alone.
    pub fn new(my_id: impl Into<Arc<str>>) -> Self {
        Self {
            my_id: my_id.into(),
            topology: ArcSwap::default(),
            rings: watch::Sender::default(),
            settled: SettledMembers::default(),
            former_members: FormerMembers::default(),
            turn: Mutex::default(),
        }
    }

    /// This node's id.
    pub fn my_id(&self) -> &Arc<str> {
        &self.my_id
    }

    /// The current topology. Don't hold it over an await; use [`Cluster::snapshot`] there.
    pub fn topology(&self) -> Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// The current topology, as a shared reference that can be kept.
    pub fn snapshot(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Each topology as it takes effect.
    pub fn rings(&self) -> watch::Receiver<Arc<Topology>> {
        self.rings.subscribe()
    }

    /// Installs `view`, if it [replaces](View::replaces) the one before.
    pub fn install(&self, view: View) -> Option<Change> {
        let _turn = self.turn.lock();
        self.replace(view)
    }

    /// Takes this node out of the ring, as if a view said that it is draining. For a node that
    /// leaves while the registry is unavailable.
    pub fn leave(&self) -> Option<Change> {
        let _turn = self.turn.lock();
        let current = self.topology.load_full();
        let members = current.view.members.iter().cloned().map(|mut member| {
            if member.id == self.my_id {
                member.state = MemberState::Draining;
            }
            member
        });
        self.replace(View {
            young: current.view.young,
            ..View::new(current.view.revision, members)
        })
    }

    /// What [`Cluster::install`] does in its turn.
    fn replace(&self, view: View) -> Option<Change> {
        let before = self.topology.load_full();
        if !view.replaces(&before.view) {
            return None;
        }
        let after = Arc::new(Topology::new(&self.my_id, view));
        self.settled.ring_changed(&before, &after);
        self.former_members.view_changed(&before.view, &after.view);
        self.topology.store(after.clone());
        self.rings.send_replace(after.clone());
        Some(Change { before, after })
    }

    /// Members that may hold the key's value although this node doesn't, most likely first: those
    /// that owned it before and may not have given it away yet, its owner, if that is another, and
    /// who holds its copy in another zone. Empty when the last move has ended and this node owns
    /// the key.
    pub fn may_hold(&self, key: KeyHash) -> Vec<Member> {
        let topology = self.topology.load();
        let copy = topology.copy_elsewhere(key);
        let copy = copy.map(|member| (member, Some(topology.view.revision)));
        let at_rest = self.settled.is_quiet() && topology.owner(key) == Owner::Me;
        let former = match at_rest {
            true => Vec::new(),
            false => topology.former().owners(key),
        };
        let former = former.into_iter().map(|it| {
            let member = &topology.view.members[it.at as usize];
            (member, it.until)
        });
        let mut members: Vec<(&Member, Option<u64>)> = former.collect();
        if let Some(copy) = copy.filter(|it| members.iter().all(|known| known.0.id != it.0.id)) {
            members.push(copy);
        }
        let unsettled = self.settled.unsettled();
        members.retain(|(member, until)| {
            until.is_none_or(|until| unsettled(member.incarnation(), until))
        });
        members.into_iter().map(|it| it.0.clone()).collect()
    }

    /// Whether any member that left the list recently matches.
    pub fn any_former_member(&self, is_so: impl Fn(&Member) -> bool) -> bool {
        self.former_members.any(is_so)
    }

    /// This node has given away everything that is another's in that ring.
    pub fn settled_in(&self, ring: &Topology) {
        self.settled.this_node(ring);
    }

    /// The revision of the newest ring in which everything that this node holds is its own.
    pub fn settled(&self) -> u64 {
        self.settled.of_this_node()
    }

    /// A member reported the revision up to which it is settled.
    pub fn heard(&self, member: &Member, settled: u64) {
        let ring = self.topology.load();
        self.settled.heard(member.incarnation(), settled, &ring);
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

    fn key_of(owner: &str, ids: &[&str]) -> KeyHash {
        let topology = Topology::new(owner, view(ids));
        let keys = (0..).map(|n| hash_key(0, &n.to_string()));
        let mut its = keys.filter(|key| topology.owner(*key) == Owner::Me);
        its.next().expect("a share of the keys")
    }

    #[test]
    fn who_holds_the_copy_in_another_zone_is_asked_until_it_has_settled_in_this_ring() {
        let zoned = [("m", 1, "a"), ("n", 2, "a"), ("c", 3, "b")].map(|(id, since, zone)| Member {
            since,
            zone: zone.into(),
            ..Member::new(id, "h:1")
        });
        let cluster = Cluster::new("m");
        let key = key_of("m", &["m", "n", "c"]);
        // The first that came has nobody before it to ask.
        let plain = zoned.clone().map(|it| Member {
            zone: "".into(),
            ..it
        });
        cluster.install(View::new(4, plain));
        assert!(cluster.may_hold(key).is_empty());
        cluster.install(View::new(5, zoned.iter().cloned()));
        let asked = cluster.may_hold(key);
        assert_eq!(names(&asked), ["c"]);
        cluster.heard(&asked[0], 4);
        assert_eq!(names(&cluster.may_hold(key)), ["c"]);
        cluster.heard(&asked[0], 5);
        assert!(cluster.may_hold(key).is_empty());
        // After a crash, the copy of what another owned may be all that is left.
        let left = zoned.iter().filter(|it| *it.id != *"n").cloned();
        cluster.install(View::new(6, left));
        assert_eq!(names(&cluster.may_hold(key)), ["c"]);
    }

    #[test]
    fn after_a_change_former_owners_are_asked_until_they_say_that_they_gave_everything_away() {
        let cluster = Cluster::new("joined");
        let key = key_of("joined", &["a", "b", "joined"]);
        let former = Topology::new("joined", view(&["a", "b"]));
        let former = former.owner_id(key).expect("a ring").clone();
        let members = [("a", 1), ("b", 2), ("joined", 3)].map(|(id, since)| Member {
            since,
            ..Member::new(id, "h:1")
        });
        let ring = |revision| View::new(revision, members.iter().cloned());
        // As a node that joins may see it: its first ring has it in already.
        cluster.install(ring(3));
        let asked = cluster.may_hold(key);
        assert_eq!(names(&asked)[0], &*former);
        for member in &asked {
            cluster.heard(member, 2);
        }
        assert_eq!(
            names(&cluster.may_hold(key)),
            [&*former],
            "the latest alone"
        );
        cluster.heard(&asked[0], 3);
        assert!(cluster.may_hold(key).is_empty());
        // Whatever else changes.
        cluster.install(ring(9));
        assert!(cluster.may_hold(key).is_empty());
        // In a registry that started over, earlier reports mean nothing.
        cluster.install(ring(4));
        assert!(names(&cluster.may_hold(key)).contains(&&*former));
        // A former owner that is gone can't be asked.
        cluster.install(view(&["joined"]));
        assert!(cluster.may_hold(key).is_empty());
    }

    #[test]
    fn who_gets_a_key_of_another_s_asks_its_owner() {
        let cluster = Cluster::new("a");
        cluster.install(view(&["a", "b"]));
        cluster.heard(&Member::new("b", "h:1"), u64::MAX);
        for key in (0..100).map(|n| hash_key(0, &n.to_string())) {
            let asked = cluster.may_hold(key);
            let mine = cluster.topology().owner(key) == Owner::Me;
            assert_eq!(
                names(&asked),
                if mine { vec![] } else { vec!["b"] },
                "the owner alone"
            );
        }
    }

    #[test]
    fn how_far_a_node_has_come_is_told_with_the_revision_of_its_ring() {
        let cluster = Cluster::new("a");
        cluster.settled_in(&cluster.snapshot());
        cluster.install(view(&["a", "b"]));
        assert_eq!(cluster.settled(), 0);
        cluster.settled_in(&cluster.snapshot());
        assert_eq!(cluster.settled(), 1);
        let fixed = Cluster::new("a");
        fixed.install(View::new(0, [Member::new("a", "h:1")]));
        fixed.settled_in(&fixed.snapshot());
        assert_eq!(fixed.settled(), u64::MAX, "no ring ever comes");
    }

    #[test]
    fn every_ring_in_force_is_published_and_an_empty_list_wipes_none() {
        let cluster = Cluster::new("a");
        let rings = cluster.rings();
        assert!(cluster.install(View::default()).is_none());
        let change = cluster.install(view(&["a", "b"]));
        let change = change.expect("a first ring");
        assert_eq!((change.before.ring_len(), change.after.ring_len()), (0, 2));
        assert!(Arc::ptr_eq(&rings.borrow(), &cluster.snapshot()));
        assert!(cluster.install(view(&["a", "b"])).is_none());
        assert!(cluster.install(View::new(2, [])).is_none());
        assert_eq!(cluster.topology().ring_len(), 2);
    }

    #[test]
    fn who_leaves_by_its_own_decision_is_known_but_owns_nothing() {
        let cluster = Cluster::new("a");
        cluster.install(view(&["a", "b"]));
        let rings = cluster.rings();
        assert!(cluster.leave().is_some());
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
                        cluster.install(view);
                    }
                });
            }
        });
        assert!(Arc::ptr_eq(&cluster.rings().borrow(), &cluster.snapshot()));
    }
}
