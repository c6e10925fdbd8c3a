use super::*;
use crate::{
    membership::{Member, MemberState, View},
    ports::RegistryHealth,
};

const LEASE: Duration = Duration::from_secs(9);
const NOW: Timestamp = Timestamp(1_000);

fn member(id: &str) -> Member {
    Member::new(id, format!("{id}:1"))
}

fn standing(id: &str, members: &[Member]) -> Standing {
    let cluster = Arc::new(Cluster::new(id));
    cluster.install(View::new(1, members.iter().cloned()));
    Standing::new(cluster, Some(LEASE))
}

fn incarnations(members: &[Member]) -> Vec<IdHash> {
    members.iter().map(Member::incarnation).collect()
}

/// Whether `me` is backed when it asks `others` over `members`.
fn backed(me: &str, members: &[Member], others: &[&Standing]) -> bool {
    let asking = standing(me, members);
    let topology = asking.cluster.snapshot();
    let mine = topology.me().expect("listed").incarnation();
    let counted = incarnations(members);
    let vouchers: Vec<_> = others
        .iter()
        .map(|it| {
            (
                it.incarnation().expect("listed"),
                it.vouch(mine, &counted, NOW),
            )
        })
        .collect();
    asking.is_backed(&topology, &vouchers)
}

#[test]
fn more_than_half_of_all_members_have_to_vouch() {
    let three = ["a", "b", "c"].map(member);
    let b = standing("b", &three);
    assert!(backed("a", &three, &[&b]), "two of three");
    assert!(!backed("a", &three, &[]));
    let two = ["a", "b"].map(member);
    assert!(!backed("a", &two, &[]), "one of two is not more than half");
    assert!(backed("a", &two, &[&standing("b", &two)]));
}

#[test]
fn a_promise_is_kept_and_a_vanished_member_is_not_vouched_for() {
    let three = ["a", "b", "c"].map(member);
    let b = standing("b", &three);
    b.promise(three[0].incarnation());
    assert!(!backed("a", &three, &[&b]));
    let mut vanished = three.clone();
    vanished[0].vanished = true;
    assert!(!backed("a", &three, &[&standing("b", &vanished)]));
}

#[test]
fn whom_a_giver_excludes_does_not_count() {
    // b was taken off the list, which a has not seen; then c saw a vanish. b would keep a.
    let five = ["a", "b", "c", "d", "e"].map(member);
    let b = standing("b", &five);
    let d = standing("d", &five);
    assert!(backed("a", &five, &[&b, &d]));
    d.promise(five[1].incarnation());
    assert!(!backed("a", &five, &[&b, &d]), "d would not vouch for b");
}

#[test]
fn whom_this_node_promised_against_does_not_count() {
    // a and b lose etcd alone. c takes b off the list with a's promise, then a by itself: one of
    // the two that are left. What a and b see is old, so b still vouches for a.
    let three = ["a", "b", "c"].map(member);
    let (a, b) = (standing("a", &three), standing("b", &three));
    let mine = three[0].incarnation();
    let vouchers = [(
        three[1].incarnation(),
        b.vouch(mine, &incarnations(&three), NOW),
    )];
    let topology = a.cluster.snapshot();
    assert!(a.is_backed(&topology, &vouchers), "two of three");
    a.promise(three[1].incarnation());
    assert!(!a.is_backed(&topology, &vouchers));
}

#[test]
fn joining_members_are_counted_but_their_vouchers_are_not() {
    let mut three = ["a", "b", "c"].map(member);
    three[1].state = MemberState::Joining;
    assert!(!backed("a", &three, &[&standing("b", &three)]));
    three[1].state = MemberState::Draining;
    assert!(backed("a", &three, &[&standing("b", &three)]));
}

#[test]
fn who_leaves_vouches_no_more_and_says_until_when_its_last_voucher_runs() {
    let three = ["a", "b", "c"].map(member);
    let b = standing("b", &three);
    assert_eq!(b.stop_vouching(), Timestamp(0), "it vouched for nobody");
    let b = standing("b", &three);
    assert!(b.vouch(three[0].incarnation(), &[], NOW).yes);
    let until = b.stop_vouching();
    assert_eq!(until, NOW.after(b.promise_wait()));
    assert!(!b.vouch(three[0].incarnation(), &[], NOW).yes);
}

#[test]
fn nobody_vouches_for_whom_a_registry_that_lost_its_data_does_not_know() {
    let three = ["a", "b", "c"].map(member);
    let seen_by_b = three.clone().map(|it| Member {
        held: *it.id != *"b",
        ..it
    });
    let b = standing("b", &seen_by_b);
    assert!(!backed("a", &three, &[&b]), "a is held");
    // b has registered again. c, which has not, would vouch for it.
    let c = standing("c", &three);
    assert!(backed("b", &three, &[&c]));
    assert!(!backed("b", &seen_by_b, &[&c]), "c is held");
}

/// Stands in a registry under a lease.
struct Stands(Option<HeldLease>);

#[async_trait::async_trait]
impl Session for Stands {
    fn views(&self) -> watch::Receiver<View> {
        watch::Sender::new(View::default()).subscribe()
    }

    fn lease(&self) -> Option<HeldLease> {
        self.0
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        watch::Sender::new(RegistryHealth::default()).subscribe()
    }

    async fn announce(&self, _: MemberState) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn leave(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[test]
fn who_stands_otherwise_than_it_sees_vouches_for_nobody() {
    let three = ["a", "b", "c"].map(|id| Member {
        lease: 5,
        ..member(id)
    });
    let backs = |lease: Option<i64>| {
        let b = standing("b", &three);
        let lease = lease.map(|id| HeldLease { id, end: NOW });
        b.joined(Arc::new(Stands(lease)));
        backed("a", &three, &[&b])
    };
    assert!(backs(Some(5)), "also once the lease has ended");
    assert!(!backs(Some(6)), "it has registered anew, perhaps elsewhere");
    assert!(!backs(None), "others took it off the list");
}

#[test]
fn entries_are_taken_from_present_members_only_and_while_the_fence_is_open() {
    let mut three = ["a", "b", "c"].map(member);
    three[2].vanished = true;
    let a = standing("a", &three);
    let at = |read_at| Reading { read_at, now: NOW };
    assert!(
        a.may_accept(three[1].incarnation(), at(NOW)).is_err(),
        "closed"
    );
    a.fence.extend(NOW, NOW.after(LEASE));
    assert!(a.may_accept(three[1].incarnation(), at(NOW)).is_ok());
    assert!(a.may_accept(three[2].incarnation(), at(NOW)).is_err());
    let mut restarted = three[1].clone();
    restarted.instance = "2".into();
    assert!(a.may_accept(restarted.incarnation(), at(NOW)).is_err());
    // What was sent before this node was a member may have been removed since.
    let earlier = Timestamp(NOW.0 - 1);
    let sender = three[1].incarnation();
    assert!(a.may_accept(sender, at(earlier)).is_err());
}

#[test]
fn a_lease_holds_the_fence_open_for_less_than_it_lives_and_says_when_renewals_fail() {
    let a = standing("a", &[member("a")]);
    let end = NOW.after(LEASE);
    let lease = |id| Some(HeldLease { id, end });
    assert!(!a.rely_on_lease(lease(1), NOW), "the ring shows another");
    assert!(!a.rely_on_lease(None, NOW), "there is none");
    assert!(!a.fence.is_open(NOW));
    assert!(!a.rely_on_lease(lease(0), NOW), "fresh");
    // Two per cent of nine seconds are not relied on.
    assert!(a.fence.is_open(Timestamp(end.0 - 181)));
    assert!(!a.fence.is_open(Timestamp(end.0 - 180)));
    assert!(a.rely_on_lease(lease(0), NOW.after(LEASE / 2)));
}

/// It may have been taken off the list, and then the registry may have gone back to a backup that
/// lists it again.
#[test]
fn a_lease_that_is_found_alive_after_the_fence_lapsed_opens_it_no_more() {
    let a = standing("a", &[member("a")]);
    let until = |end: Timestamp, now| a.rely_on_lease(Some(HeldLease { id: 0, end }), now);
    until(NOW.after(LEASE), NOW);
    let late = NOW.after(LEASE);
    assert!(a.fence.has_lapsed(late));
    until(late.after(LEASE), late);
    assert!(!a.fence.is_open(late));
    // All is dropped, and another incarnation begins.
    a.fence.close();
    until(late.after(LEASE), late);
    assert!(a.fence.is_open(late));
}
