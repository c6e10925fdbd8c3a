//! The protocol keeps its promise in all states of a small cluster, and with any of its rules left
//! out it doesn't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gaocache_model::{Bounds, Protocol, Rule, reads::Reads};
use stateright::{Checker, HasDiscoveries, Model};

/// `make model-test` goes further than every test run.
const DEEP: bool = cfg!(feature = "deep");
const PROMISE: &str = "removed is removed";
/// Rules that another covers as well: the checker finds nothing without them.
const COVERED: [Rule; 1] = [Rule::Pass];

fn check(bounds: Bounds, without: Option<Rule>) -> impl Checker<Protocol> {
    let checker = Protocol { bounds, without }.checker();
    let checker = match bounds.steps {
        0 => checker.threads(2),
        // Two threads don't go strictly by depth, and would leave out some of what is near the
        // bound. The state at the beginning counts, too.
        steps => checker.target_max_depth(steps + 1),
    };
    checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join()
}

/// The promise holds in all states.
fn holds(name: &str, bounds: Bounds) {
    let checker = check(bounds, None);
    println!("{name}: {} states", checker.unique_state_count());
    if let Some(path) = checker.discovery(PROMISE) {
        panic!(
            "{name}: the old value comes back: {:?}",
            path.into_actions()
        );
    }
    let seen = checker.discoveries();
    let expelled = "a removal is acknowledged without an expelled member";
    assert!(seen.contains_key(expelled), "{name}: nothing much happened");
    let again = "a member joins again while it is";
    assert!(
        bounds.lives == 1 || seen.contains_key(again),
        "{name}: nobody joined again"
    );
}

/// Bounds within which that rule is needed.
fn bounds_for(rule: Rule) -> Bounds {
    match rule {
        Rule::LeaseEnded => Bounds {
            faults: 1,
            ..Bounds::LISTS
        },
        Rule::ExcludedByGivers => Bounds::RESTARTED,
        Rule::YoungHistory
        | Rule::ResumedInTime
        | Rule::NoWordForHeld
        | Rule::DoubtOutlastsWords
        | Rule::GiverSeesItself => Bounds::EMPTIED,
        Rule::Held | Rule::NoWordFromHeld => Bounds::EMPTIED_AND_ONE_EXPELLED,
        Rule::AskerSeesItself => Bounds::EMPTIED_AND_ONE_NEW,
        Rule::CoordinatorFence => Bounds::LOST_COORDINATOR,
        Rule::Incarnation => Bounds {
            faults: 1,
            steady: [true; 3],
            ..Bounds::TRANSFERS
        },
        Rule::TellVanished
        | Rule::SeenByAll
        | Rule::DropAll
        | Rule::Deadline
        | Rule::Tombstone
        | Rule::TransferTimeout
        | Rule::FenceSinceSending
        | Rule::Pass
        | Rule::Grounding
        | Rule::SenderFence
        | Rule::NextFlight
        | Rule::YoungFlight => Bounds::TRANSFERS,
        _ => Bounds::LISTS,
    }
}

#[test]
fn a_removal_is_final_whoever_is_cut_off() {
    let returns = u8::from(DEEP);
    holds(
        "lists",
        Bounds {
            returns,
            ..Bounds::LISTS
        },
    );
}

#[test]
fn a_removal_is_final_whatever_is_on_its_way() {
    let transfer = if DEEP { 2 } else { 1 };
    holds(
        "transfers",
        Bounds {
            transfer,
            ..Bounds::TRANSFERS
        },
    );
}

#[test]
fn a_removal_is_final_whoever_coordinates_it() {
    let steps = if DEEP { 12 } else { 10 };
    holds(
        "lost coordinator",
        Bounds {
            steps,
            ..Bounds::LOST_COORDINATOR
        },
    );
}

#[test]
fn a_removal_is_final_while_a_node_restarts() {
    let steps = if DEEP { 17 } else { 13 };
    holds(
        "restarted",
        Bounds {
            steps,
            ..Bounds::RESTARTED
        },
    );
}

#[test]
fn a_removal_is_final_after_etcd_lost_its_data() {
    let further = if DEEP { 2 } else { 0 };
    let emptied = [
        ("emptied", Bounds::EMPTIED),
        ("and one expelled", Bounds::EMPTIED_AND_ONE_EXPELLED),
        ("and one new", Bounds::EMPTIED_AND_ONE_NEW),
    ];
    for (name, bounds) in emptied {
        let steps = bounds.steps + further;
        let checker = check(Bounds { steps, ..bounds }, None);
        println!("{name}: {} states", checker.unique_state_count());
        if let Some(path) = checker.discovery(PROMISE) {
            panic!(
                "{name}: the old value comes back: {:?}",
                path.into_actions()
            );
        }
        let joined = checker.discovery("a member joins again while it is");
        assert!(
            bounds.lives == 1 || joined.is_some(),
            "{name}: nobody joined, or no removal ended"
        );
    }
}

#[test]
fn losing_etcd_and_a_minority_closes_nobody_s_fence() {
    let reads_go_on = |asking, crashes| {
        let checker = Reads { asking, crashes }.checker().spawn_bfs().join();
        checker.discovery("reads go on").is_none()
    };
    assert!(reads_go_on(true, 0) && reads_go_on(true, 1));
    assert!(!reads_go_on(true, 2), "one of three goes on by itself");
    assert!(!reads_go_on(false, 0), "a fence stays open without a word");
}

#[test]
fn without_any_of_the_rules_the_old_value_comes_back() {
    for rule in Rule::ALL.into_iter().filter(|rule| !COVERED.contains(rule)) {
        // It ends when something is found.
        let bounds = Bounds {
            steps: 0,
            ..bounds_for(rule)
        };
        let checker = check(bounds, Some(rule));
        let states = checker.unique_state_count();
        let found = checker.discovery(PROMISE);
        let found = found.unwrap_or_else(|| panic!("nothing in {states} states without {rule:?}"));
        println!(
            "without {rule:?}, after {states} states: {:?}",
            found.into_actions()
        );
    }
}
