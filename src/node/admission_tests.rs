//! Whose connections are taken, and whose make room.

use super::*;

fn admission(limits: &ClientLimits, files: Option<usize>) -> Arc<Admission> {
    Admission::new(limits, files, Metrics::new().expect("metrics"))
}

fn limits(most: usize, per_address: usize) -> ClientLimits {
    ClientLimits {
        max_connections: most,
        max_connections_per_address: per_address,
        ..ClientLimits::default()
    }
}

fn from(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), 1)
}

#[test]
fn connections_are_limited_in_all_and_by_address_and_free_their_place() {
    let admission = admission(&limits(3, 2), None);
    let admit = |address| admission.admit(from(address), Listener::Grpc);
    let one = admit("10.0.0.7").expect("room");
    let _two = admit("::ffff:10.0.0.7").expect("room");
    assert!(admit("10.0.0.7").is_none(), "the address");
    let _three = admit("10.0.0.8").expect("room");
    assert!(admit("10.0.0.9").is_none(), "the total");
    drop(one);
    assert!(admit("10.0.0.7").is_some());
    let open = admission.open.lock();
    assert_eq!((open.total, open.by_address.len()), (2, 2));
}

#[test]
fn clients_don_t_shut_members_out() {
    let admission = admission(&limits(1, 1), None);
    let admit = |listener| admission.admit(from("10.0.0.7"), listener);
    let _client = admit(Listener::Grpc).expect("room");
    let member = admit(Listener::Peer).expect("room");
    member.is_of_member();
    assert_eq!(admission.open.lock().total, 2);
    assert!(admit(Listener::Grpc).is_none());
    drop(member);
    assert_eq!(admission.open.lock().total, 1);
}

#[test]
fn strangers_take_no_places_from_clients_and_none_from_each_other_s_addresses() {
    let admission = admission(&limits(1, 1), None);
    let peer = |address| admission.admit(from(address), Listener::Peer);
    let before = [peer("10.0.0.2"), peer("10.0.0.3")].map(|it| it.expect("room"));
    let mut flood = Vec::new();
    for _ in 0..2 * STRANGERS {
        flood.push(peer("10.0.0.9").expect("room"));
    }
    assert!(before.iter().all(|it| !it.displaced().is_cancelled()));
    let gone = |it: &&Permit| it.displaced().is_cancelled();
    assert_eq!(flood.iter().filter(gone).count(), STRANGERS + 2);
    assert!(
        gone(&&flood[0]) && !gone(&&flood[2 * STRANGERS - 1]),
        "by age"
    );
    assert!(admission.admit(from("10.0.0.9"), Listener::Grpc).is_some());
    drop(flood);
    assert_eq!(admission.open.lock().strangers.len(), 2);
}

#[test]
fn a_member_is_displaced_by_nobody_and_a_displaced_one_becomes_no_member() {
    let admission = admission(&limits(9, 9), None);
    let peer = || {
        admission
            .admit(from("10.0.0.9"), Listener::Peer)
            .expect("room")
    };
    let (member, late) = (peer(), peer());
    member.is_of_member();
    let _flood: Vec<_> = (0..2 * STRANGERS).map(|_| peer()).collect();
    assert!(!member.displaced().is_cancelled());
    assert!(late.displaced().is_cancelled());
    late.is_of_member();
    assert_eq!(admission.open.lock().total, 1);
    drop((late, member));
    assert_eq!(admission.open.lock().total, 0);
}

#[test]
fn descriptors_are_kept_for_what_is_not_a_client() {
    let of = |files| admission(&limits(10_000, 1), Some(files)).most();
    assert_eq!(of(1 << 20), 10_000);
    assert_eq!(of(4_096), 4_096 - 512 - STRANGERS);
    assert_eq!(of(256), 128 - 32);
}
