//! How long a removal takes while a minority of the members can't be reached: members and links
//! fail at one moment, the removal begins then, and it is acknowledged within the lease and two
//! seconds. Time is virtual, so these are no measurements.

use super::*;
use crate::ports::Timestamp;

/// How often etcd looks for leases that have ended.
const ETCD_SWEEPS: Duration = Duration::from_millis(500);
const BOUND: Duration = Duration::from_secs(2);

/// Each node's process, and its tasks.
type Nodes = Vec<(Arc<TestNode>, JoinSet<()>)>;

/// Five members that serve.
async fn calm(world: &Arc<World>) -> Nodes {
    let nodes: Nodes = IDS.iter().map(|id| world.start(id)).collect();
    let serve = |node: &TestNode| {
        let view = node.cluster.snapshot().view.clone();
        let admitted = view.members.iter().filter(|it| it.is_admitted()).count();
        admitted == IDS.len() && node.standing.fence.is_open(Timestamp(0))
    };
    let all = async {
        while !nodes.iter().all(|(node, _)| serve(node)) {
            sleep(TICK).await;
        }
    };
    timeout(ENDS, all).await.expect("all serve");
    // A removal and the last renewals may come in any order.
    world.dice.pause(3_000).await;
    nodes
}

/// One or two of them fail.
fn fail(world: &World, nodes: &mut Nodes) {
    for _ in 0..1 + world.dice.below(2) {
        let (node, mut tasks) = nodes.remove(world.dice.below(nodes.len()));
        let id = node.id.to_string();
        let others = IDS.iter().copied().filter(|it| **it != *id);
        match world.dice.below(4) {
            0 => {
                tasks.abort_all();
                world.crashed(&node);
            }
            1 => world.links.faults.send_modify(|it| {
                it.still.insert(id);
            }),
            // From everything, or from all but one member, which it asks for vouchers.
            _ => {
                let spared = world.dice.below(IDS.len());
                let ends = others
                    .chain([ETCD])
                    .filter(|it| Some(it) != IDS.get(spared));
                world.links.faults.send_modify(|it| {
                    for end in ends {
                        it.cut.insert((id.clone(), end.to_owned()));
                        it.cut.insert((end.to_owned(), id.clone()));
                    }
                });
            }
        }
        tasks.detach_all();
    }
}

async fn removal(seed: u64) -> Duration {
    let world = World::new(seed, 1, false, [false; 2]);
    tokio::spawn(world.clone().sweep(ETCD_SWEEPS));
    let mut nodes = calm(&world).await;
    fail(&world, &mut nodes);
    let (node, _) = &nodes[world.dice.below(nodes.len())];
    let began = Instant::now();
    let removed = node.group.remove("k").await;
    let took = began.elapsed();
    removed.unwrap_or_else(|error| panic!("seed {seed}: after {took:?}: {error}"));
    took
}

#[test]
fn a_removal_is_acknowledged_within_the_lease_and_two_seconds_whoever_can_not_be_told() {
    let number = number_of_seeds();
    let took = seeds(number).map(|seed| (runtime(seed).block_on(removal(seed)), seed));
    let (slowest, seed) = took.max().expect("many");
    println!("the slowest of {number} took {slowest:?} (seed {seed})");
    assert!(slowest < LEASE + BOUND, "{slowest:?}");
    assert!(slowest > LEASE, "no removal had to wait");
}
