//! The decisions of the protocol, made by the core's own code for the situations of the model.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, LazyLock},
    time::Duration,
};

use gaocache_core::{
    cluster::Cluster,
    membership::{IdHash, Member, MemberState, View},
    ports::{Reading, Timestamp, Voucher},
    standing::Standing,
};

use crate::state::{Entry, LIVES, List, Lives, NODES};

const IDS: [&str; NODES] = ["a", "b", "c"];
const LEASE: Duration = Duration::from_secs(9);

fn member(node: usize, entry: &Entry) -> Member {
    Member {
        state: if entry.serving {
            MemberState::Serving
        } else {
            MemberState::Joining
        },
        vanished: entry.vanished,
        held: entry.held,
        restarted: entry.restarted,
        instance: entry.life.to_string().into(),
        ..Member::new(IDS[node], "h:1")
    }
}

fn view(list: &List) -> View {
    let listed = (0..NODES).filter_map(|node| Some(member(node, list[node].as_ref()?)));
    View::new(1, listed)
}

/// What the core calls each incarnation of each node.
static INCARNATIONS: LazyLock<[[IdHash; LIVES as usize]; NODES]> = LazyLock::new(|| {
    std::array::from_fn(|node| {
        std::array::from_fn(|life| {
            let instance = life.to_string().into();
            let named = Member::new(IDS[node], "h:1");
            Member { instance, ..named }.incarnation()
        })
    })
});

fn incarnation(node: usize, life: u8) -> IdHash {
    INCARNATIONS[node][usize::from(life)]
}

fn all_lives() -> impl Iterator<Item = (usize, u8)> {
    (0..NODES).flat_map(|node| (0..LIVES).map(move |life| (node, life)))
}

/// A node's standing as the core has it.
fn standing(node: usize, list: &List, promised: Lives) -> Standing {
    let cluster = Arc::new(Cluster::new(IDS[node]));
    cluster.install(view(list));
    let standing = Standing::new(cluster, Some(LEASE));
    for (other, life) in all_lives().filter(|(other, life)| promised.has(*other, *life)) {
        standing.promise(incarnation(other, life));
    }
    standing
}

/// Each situation is decided once a thread: there are few, and many states that have them.
fn once<K: Hash + Eq, V: Copy>(
    known: &'static std::thread::LocalKey<RefCell<HashMap<K, V>>>,
    situation: K,
    decide: impl FnOnce(&K) -> V,
) -> V {
    if let Some(decided) = known.with_borrow(|known| known.get(&situation).copied()) {
        return decided;
    }
    let decided = decide(&situation);
    known.with_borrow_mut(|known| known.insert(situation, decided));
    decided
}

type Asked = (usize, List, Lives, (usize, u8), List);

/// The word of `giver` for an incarnation of another node that counts on the members of `counted`:
/// which of them it excludes, if it gives its word.
pub fn vouch(giver: (usize, List, Lives), asker: (usize, u8), counted: List) -> Option<Lives> {
    thread_local!(static KNOWN: RefCell<HashMap<Asked, Option<Lives>>> = RefCell::default());
    let (giver, list, promised) = giver;
    let situation = (giver, list, promised, asker, counted);
    once(
        &KNOWN,
        situation,
        |(giver, list, promised, asker, counted)| {
            let counted = view(counted);
            let counted: Vec<IdHash> = counted.members.iter().map(Member::incarnation).collect();
            let asker = incarnation(asker.0, asker.1);
            let word = standing(*giver, list, *promised).vouch(asker, &counted, Timestamp(0));
            let excluded = all_lives()
                .filter(|(node, life)| word.excluded.contains(&incarnation(*node, *life)))
                .fold(Lives::default(), |all, (node, life)| all.with(node, life));
            word.yes.then_some(excluded)
        },
    )
}

type Given = (usize, List, Lives, [Option<Lives>; NODES]);

/// Whether these words keep that node on the list.
pub fn is_backed(node: usize, list: List, promised: Lives, words: [Option<Lives>; NODES]) -> bool {
    thread_local!(static KNOWN: RefCell<HashMap<Given, bool>> = RefCell::default());
    once(
        &KNOWN,
        (node, list, promised, words),
        |(node, list, promised, words)| {
            let standing = standing(*node, list, *promised);
            let given: Vec<(IdHash, Voucher)> = (0..NODES)
                .filter_map(|giver| {
                    let (life, excluded) = (list[giver]?.life, words[giver]?);
                    let excluded = all_lives().filter(|(node, life)| excluded.has(*node, *life));
                    let word = Voucher {
                        yes: true,
                        excluded: excluded
                            .map(|(node, life)| incarnation(node, life))
                            .collect(),
                    };
                    Some((incarnation(giver, life), word))
                })
                .collect();
            standing.is_backed(&standing.cluster().snapshot(), &given)
        },
    )
}

type Offered = (usize, List, (usize, u8), bool);

/// Whether that node, whose fence is open, takes what that incarnation of another sends. `fenced`:
/// its fence has been open since it was sent.
pub fn may_accept(node: usize, list: List, sender: (usize, u8), fenced: bool) -> bool {
    thread_local!(static KNOWN: RefCell<HashMap<Offered, bool>> = RefCell::default());
    once(
        &KNOWN,
        (node, list, sender, fenced),
        |(node, list, sender, fenced)| {
            let standing = standing(*node, list, Lives::default());
            let opened = Timestamp(1_000);
            standing.fence.extend(opened, Timestamp(3_000));
            let reading = Reading {
                read_at: if *fenced { opened } else { Timestamp(999) },
                now: Timestamp(2_000),
            };
            let sender = incarnation(sender.0, sender.1);
            standing.may_accept(sender, reading).is_ok()
        },
    )
}

/// Whether so many promises are enough.
pub fn is_half(promises: usize, list: List) -> bool {
    thread_local!(static KNOWN: RefCell<HashMap<List, usize>> = RefCell::default());
    2 * promises >= once(&KNOWN, list, |list| view(list).admitted())
}

/// Whether that member's promise counts.
pub fn can_promise(node: usize, entry: Entry) -> bool {
    member(node, &entry).can_promise()
}
