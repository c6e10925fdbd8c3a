//! The pace of the background, in virtual time.

use futures::FutureExt;
use tokio::time::{Instant, sleep};

use super::{growth_tests::Counting, *};
use crate::{
    harness_tests::{Plan as Nodes, TestNet, entry, group_rules, simulation::VirtualClock},
    key::GroupId,
    key::HashedKey,
    membership::{Member, MemberState, View},
    ports::{Clock, Timestamp},
};

/// What a background walk of ten thousand entries of a kilobyte from a to b takes, in virtual
/// seconds, when each message takes so long.
async fn background_walk(bytes_per_second: u64, message_takes: Duration) -> f64 {
    const ENTRIES: usize = 10_000;
    let clock = Arc::new(VirtualClock::shared());
    let net = Arc::<TestNet>::default();
    *net.passing.lock() = Some(Arc::new(Box::new(move |_, _| {
        async move {
            sleep(message_takes).await;
            true
        }
        .boxed()
    })));
    let plan = Nodes {
        rules: group_rules(),
        replicas: 1,
        capacity: 64 << 20,
        bytes_per_second: 1 << 40,
        lease: None,
        clock: clock.clone(),
        origin: Arc::<Counting>::default(),
        net,
    };
    let nodes = [plan.node("a"), plan.node("b")];
    for number in 0..ENTRIES {
        let key = format!("k{number}");
        let key = HashedKey::new(GroupId(0), &key);
        let entry = entry(&key, 1000, Timestamp::NEVER);
        nodes[0].store.offer(entry, clock.now());
    }
    let leaving = Member {
        state: MemberState::Draining,
        ..Member::new("a", "a:1")
    };
    let only_b = View::new(2, [Member::new("b", "b:1"), leaving]);
    nodes.iter().for_each(|node| node.install(&only_b));
    let began = Instant::now();
    let pace = Pace {
        bytes_per_second,
        patient: true,
    };
    let moved = nodes[0].handoff.walk(pace).await;
    assert_eq!(moved.sent, ENTRIES);
    began.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn the_background_keeps_to_its_rate() {
    let took = background_walk(1 << 20, Duration::ZERO).await;
    assert!(
        (10.0..13.0).contains(&took),
        "10 MB at 1 MiB a second in {took} s"
    );
}

#[tokio::test(start_paused = true)]
async fn the_background_rests_while_its_receiver_is_busy() {
    let quick = background_walk(1 << 40, Duration::from_millis(1)).await;
    // There and back: 60 ms for a receipt, three times as long as from an idle receiver at most;
    // then four times that of rest.
    let busy = background_walk(1 << 40, Duration::from_millis(30)).await;
    let batches = 10_000_000.0 / 131_072.0;
    assert!(
        busy > batches * 0.06 * 4.0,
        "{busy} s, {quick} s when it is idle"
    );
    assert!(quick < 1.0, "{quick} s");
}
