//! Interleavings are explored with shuttle: the lock of the flight table is replaced by one whose
//! every step shuttle schedules.

use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::sync::atomic::{AtomicBool as ShuttleBool, Ordering as ShuttleOrdering};

use super::{callers::end_unless_wanted, *};
use crate::key::GroupId;

/// A spin lock that yields to shuttle's scheduler at every attempt.
struct Explored(ShuttleBool);

// SAFETY: `locked` is set by exactly one holder between lock and unlock, by compare-exchange.
#[allow(unsafe_code)]
unsafe impl LockKind for Explored {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(ShuttleBool::new(false));
    type GuardMarker = parking_lot::lock_api::GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            shuttle::thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(
                false,
                true,
                ShuttleOrdering::SeqCst,
                ShuttleOrdering::SeqCst,
            )
            .is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, ShuttleOrdering::SeqCst);
    }
}

fn key(text: &str) -> HashedKey<'_> {
    HashedKey::new(GroupId(0), text)
}

type ExploredFlights = Flights<u32, Explored>;

/// A store of one key, as far as flights care.
#[derive(Default)]
struct OneKey {
    kept: parking_lot::Mutex<Option<u32>>,
    origin: AtomicUsize,
    loads: AtomicUsize,
}

/// A get as the group does it: look, join, look again, load, land.
fn get(flights: &ExploredFlights, store: &OneKey) -> u32 {
    if let Some(value) = *store.kept.lock() {
        return value;
    }
    let joined = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    if let Some(leader) = joined.leader {
        let second_look = *store.kept.lock();
        let (value, load) = match second_look {
            Some(value) => (value, false),
            None => {
                store.loads.fetch_add(1, Ordering::SeqCst);
                let value = store.origin.load(Ordering::SeqCst) as u32;
                shuttle::thread::yield_now();
                (value, true)
            }
        };
        let again = leader.land(value, || {
            if load {
                *store.kept.lock() = Some(value);
            }
        });
        assert!(again.is_none());
    }
    shuttle::future::block_on(joined.waiter).expect("landed")
}

#[test]
fn however_many_ask_at_once_there_is_one_load() {
    shuttle::check_random(
        || {
            let flights = ExploredFlights::new();
            let store = Arc::new(OneKey::default());
            let askers: Vec<_> = (0..4)
                .map(|_| {
                    let (flights, store) = (flights.clone(), store.clone());
                    shuttle::thread::spawn(move || get(&flights, &store))
                })
                .collect();
            for asker in askers {
                assert_eq!(asker.join().expect("no panic"), 0);
            }
            assert_eq!(store.loads.load(Ordering::SeqCst), 1);
            assert!(flights.is_empty());
        },
        2_000,
    );
}

#[test]
fn after_a_removal_nobody_gets_the_old_value_and_no_flight_brings_it_back() {
    shuttle::check_random(
        || {
            let flights = ExploredFlights::new();
            let store = Arc::new(OneKey::default());
            let early: Vec<_> = (0..2)
                .map(|_| {
                    let (flights, store) = (flights.clone(), store.clone());
                    shuttle::thread::spawn(move || get(&flights, &store))
                })
                .collect();
            let remover = {
                let (flights, store) = (flights.clone(), store.clone());
                shuttle::thread::spawn(move || {
                    store.origin.store(1, Ordering::SeqCst);
                    flights.ground(&key("key"), || *store.kept.lock() = None);
                    get(&flights, &store)
                })
            };
            assert_eq!(
                remover.join().expect("no panic"),
                1,
                "asked after the removal"
            );
            for asker in early {
                asker.join().expect("who asked before still gets an answer");
            }
            assert_eq!(*store.kept.lock(), Some(1));
            assert!(flights.is_empty());
        },
        3_000,
    );
}

#[test]
fn grounding_everything_is_like_grounding_each() {
    let flights: Flights<u32> = Flights::new();
    let old = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    flights.ground_all();
    let new = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let mut kept = Vec::new();
    let old_leader = old.leader.expect("first");
    assert!(old_leader.land(1, || kept.push(1)).is_none());
    let new_leader = new.leader.expect("opens a new flight");
    assert!(new_leader.land(2, || kept.push(2)).is_none());
    assert_eq!(kept, [2]);
    assert_eq!(old.waiter.blocking_recv(), Ok(1));
    assert_eq!(new.waiter.blocking_recv(), Ok(2));
}

#[test]
fn a_load_that_dies_frees_its_key_and_tells_who_waits() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let second = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    assert!(second.leader.is_none());
    drop(first.leader);
    assert!(first.waiter.blocking_recv().is_err());
    assert!(second.waiter.blocking_recv().is_err());
    assert!(
        flights
            .join(&key("key"), Sharing::UnderWay, Vec::new())
            .leader
            .is_some()
    );
}

#[test]
fn callers_that_give_up_leave_the_flight_alone() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let second = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    drop(first.waiter);
    assert!(first.leader.expect("first").land(7, || {}).is_none());
    assert_eq!(second.waiter.blocking_recv(), Ok(7));
}

#[test]
fn who_may_not_share_what_is_under_way_waits_for_the_next_and_all_of_them_share_that() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let late = [0, 1].map(|_| flights.join(&key("key"), Sharing::Next, Vec::new()));
    assert!(late.iter().all(|it| it.leader.is_none()));
    let again = first.leader.expect("first").land(1, || {});
    let again = again.expect("somebody waits for the next");
    assert!(again.land(2, || {}).is_none());
    assert_eq!(first.waiter.blocking_recv(), Ok(1));
    for late in late {
        assert_eq!(late.waiter.blocking_recv(), Ok(2));
    }
    assert!(flights.is_empty());
}

#[test]
fn each_flight_is_for_those_who_wait_for_it() {
    let of = |leader: &Leader<u32>| leader.askers().follow().take();
    let flights: Flights<u32> = Flights::new();
    let join = |sharing, asker| flights.join(&key("key"), sharing, vec![Asker(asker)]);
    let first = join(Sharing::UnderWay, 1);
    let _joined = join(Sharing::UnderWay, 2);
    let _next = join(Sharing::Next, 3);
    assert!(flights.also_wanted(&key("key"), &[Asker(4)]));
    assert!(!flights.also_wanted(&key("other"), &[Asker(5)]));
    let first = first.leader.expect("first");
    assert_eq!(of(&first), [1, 2, 4].map(Asker));
    let second = first.land(1, || {}).expect("somebody waits for the next");
    assert_eq!(of(&second), [Asker(3)]);
    let _next = join(Sharing::Next, 6);
    flights.ground(&key("key"), || ());
    let newer = join(Sharing::UnderWay, 7).leader.expect("new");
    assert!(second.land(2, || {}).is_none());
    assert_eq!(of(&newer), [7, 6].map(Asker));
}

#[test]
fn who_waits_for_the_next_flight_takes_the_one_that_departed_when_theirs_was_grounded() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let late = flights.join(&key("key"), Sharing::Next, Vec::new());
    flights.ground(&key("key"), || ());
    let newer = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    assert!(first.leader.expect("first").land(1, || {}).is_none());
    assert!(newer.leader.expect("new").land(2, || {}).is_none());
    assert_eq!(late.waiter.blocking_recv(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_is_old_is_not_shared_by_who_wants_a_young_one() {
    const AGE: Duration = Duration::from_secs(10);
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::Younger(AGE), Vec::new());
    tokio::time::advance(AGE - Duration::from_millis(1)).await;
    let early = flights.join(&key("key"), Sharing::Younger(AGE), Vec::new());
    tokio::time::advance(Duration::from_millis(1)).await;
    let late = flights.join(&key("key"), Sharing::Younger(AGE), Vec::new());
    let again = first.leader.expect("first").land(1, || {});
    assert_eq!(early.waiter.await, Ok(1));
    assert!(again.expect("one waits").land(2, || {}).is_none());
    assert_eq!(late.waiter.await, Ok(2));
}

#[test]
fn waiters_that_gave_up_are_not_gathered_while_a_load_hangs() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    for _ in 0..10_000 {
        drop(flights.join(&key("key"), Sharing::UnderWay, Vec::new()));
    }
    let mut shard = flights.shard(key("key").hash()).lock();
    let flight = shard.find_mut(key("key").hash(), "key").expect("under way");
    assert!(flight.waiting.len() < 10);
    drop(shard);
    drop(first);
}

#[test]
fn what_is_taken_over_does_not_slip_in_beside_a_removal() {
    shuttle::check_random(
        || {
            let flights = ExploredFlights::new();
            let store = Arc::new(OneKey::default());
            let removed = Arc::new(shuttle::sync::Mutex::new(false));
            let taker = {
                let (flights, store, removed) = (flights.clone(), store.clone(), removed.clone());
                shuttle::thread::spawn(move || {
                    flights.hold(&key("key"), || {
                        let removed = *removed.lock().expect("no panic");
                        shuttle::thread::yield_now();
                        if !removed {
                            *store.kept.lock() = Some(0);
                        }
                    });
                })
            };
            flights.ground(&key("key"), || {
                *removed.lock().expect("no panic") = true;
                *store.kept.lock() = None;
            });
            taker.join().expect("no panic");
            assert_eq!(*store.kept.lock(), None);
        },
        1_000,
    );
}

/// Whether the flight has been abandoned by now.
fn is_abandoned(leader: &Leader<u32>) -> bool {
    let waker = futures::task::noop_waker();
    let mut context = std::task::Context::from_waker(&waker);
    let mut abandoned = std::pin::pin!(leader.abandoned());
    abandoned.as_mut().poll(&mut context).is_ready()
}

#[test]
fn a_flight_is_abandoned_only_when_all_have_given_up_those_who_wait_for_the_next_too() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let second = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let next = flights.join(&key("key"), Sharing::Next, Vec::new());
    let leader = first.leader.expect("first");
    assert!(!is_abandoned(&leader));
    drop(first.waiter);
    assert!(!is_abandoned(&leader));
    drop(next.waiter);
    assert!(!is_abandoned(&leader));
    let third = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    drop(second.waiter);
    assert!(!is_abandoned(&leader));
    drop(third.waiter);
    assert!(is_abandoned(&leader));
    assert!(flights.is_empty());
}

#[test]
fn who_was_looked_at_to_see_them_give_up_still_gets_the_result() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let next = flights.join(&key("key"), Sharing::Next, Vec::new());
    let leader = first.leader.expect("first");
    assert!(!is_abandoned(&leader));
    flights.ground(&key("key"), || ());
    assert!(!is_abandoned(&leader));
    let again = leader.land(1, || {}).expect("somebody waits for the next");
    assert_eq!(first.waiter.blocking_recv(), Ok(1));
    assert!(again.land(2, || {}).is_none());
    assert_eq!(next.waiter.blocking_recv(), Ok(2));
}

#[test]
fn who_comes_when_a_flight_has_been_abandoned_opens_a_new_one() {
    let flights: Flights<u32> = Flights::new();
    let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let leader = first.leader.expect("first");
    drop(first.waiter);
    assert!(is_abandoned(&leader));
    let second = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
    let newer = second.leader.expect("a new flight");
    assert!(leader.land(1, || panic!("nobody keeps it")).is_none());
    assert!(newer.land(2, || {}).is_none());
    assert_eq!(second.waiter.blocking_recv(), Ok(2));
}

#[test]
fn however_callers_come_and_go_each_gets_an_answer_or_the_flight_is_gone() {
    shuttle::check_random(
        || {
            let flights = ExploredFlights::new();
            let first = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
            let leader = first.leader.expect("first");
            let flying = shuttle::thread::spawn(move || {
                // Looks for somebody, twice, as if it was polled; then it has its turn.
                let of_one = [leader.callers()];
                let looks = |_| of_one[0].watch().is_none() && end_unless_wanted(&of_one);
                let given_up = (0..2).any(looks);
                assert!(leader.land(7, || ()).is_none());
                given_up
            });
            let comes = {
                let flights = flights.clone();
                shuttle::thread::spawn(move || {
                    let joined = flights.join(&key("key"), Sharing::UnderWay, Vec::new());
                    if let Some(leader) = joined.leader {
                        assert!(leader.land(7, || ()).is_none());
                    }
                    assert_eq!(shuttle::future::block_on(joined.waiter), Ok(7));
                })
            };
            drop(first.waiter);
            comes.join().expect("answered");
            flying.join().expect("no panic");
            assert!(flights.is_empty());
        },
        3_000,
    );
}
