use proptest::prelude::*;

use super::*;

/// A member, as the reconciler sees it: a key and some value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    id: Arc<str>,
    address: String,
}

fn member(id: &str, address: &str) -> Member {
    Member {
        id: id.into(),
        address: address.into(),
    }
}

fn ids(reconciler: &Reconciler<Member>) -> Vec<&str> {
    reconciler.members().keys().map(|id| &**id).collect()
}

fn list(members: impl IntoIterator<Item = Member>) -> BTreeMap<Arc<str>, Member> {
    let by_id = members
        .into_iter()
        .map(|member| (member.id.clone(), member));
    by_id.collect()
}

fn put(member: Member) -> Event<Member> {
    Event::Put(member.id.clone(), member)
}

#[test]
fn a_snapshot_replaces_and_leaves_no_ghosts() {
    let mut reconciler = Reconciler::new(10_000);
    reconciler.replace(
        0,
        5,
        list([member("a", "h:1"), member("b", "h:2")]),
        History::Kept,
    );
    reconciler.replace(
        1,
        9,
        list([member("b", "h:3"), member("c", "h:4")]),
        History::Kept,
    );
    assert_eq!(ids(&reconciler), ["b", "c"]);
    assert_eq!(reconciler.revision(), 9);
    assert_eq!(&*reconciler.members()["b"].address, "h:3");
}

#[test]
fn an_empty_list_never_wipes_the_ring_but_the_dead_go_after_the_grace() {
    let mut reconciler = Reconciler::new(10_000);
    reconciler.replace(
        0,
        5,
        list([member("a", "h:1"), member("b", "h:2")]),
        History::Kept,
    );
    reconciler.replace(1_000, 6, list([]), History::Kept);
    assert_eq!(ids(&reconciler), ["a", "b"]);
    reconciler.apply(7, put(member("a", "h:1")));
    assert!(!reconciler.release(10_999));
    assert_eq!(reconciler.next_release_ms(), Some(11_000));
    assert!(reconciler.release(11_000));
    assert_eq!(ids(&reconciler), ["a"]);
}

#[test]
fn a_registry_that_forgot_is_believed_only_after_the_grace_however_often_it_is_listed() {
    let mut reconciler = Reconciler::new(10_000);
    let three = list([member("a", "h:1"), member("b", "h:2"), member("c", "h:3")]);
    reconciler.replace(0, 500, three, History::Kept);
    reconciler.replace(1_000, 3, list([member("a", "h:1")]), History::Lost);
    assert_eq!(
        reconciler.revision(),
        3,
        "the new history counts from its own revisions"
    );
    assert_eq!(ids(&reconciler), ["a", "b", "c"]);
    reconciler.replace(
        9_000,
        4,
        list([member("a", "h:1"), member("b", "h:2")]),
        History::Lost,
    );
    assert_eq!(
        reconciler.next_release_ms(),
        Some(11_000),
        "a second list doesn't extend it"
    );
    reconciler.release(11_000);
    assert_eq!(ids(&reconciler), ["a", "b"]);
}

#[test]
fn a_grace_that_ended_while_cut_off_begins_anew() {
    let mut reconciler = Reconciler::new(10_000);
    reconciler.replace(0, 5, list([member("a", "h:1")]), History::Kept);
    reconciler.replace(1_000, 6, list([]), History::Lost);
    // Cut off until long after the grace.
    reconciler.replace(50_000, 7, list([]), History::Kept);
    assert!(!reconciler.release(50_000));
    assert_eq!(ids(&reconciler), ["a"]);
    assert!(reconciler.release(60_000));
}

#[test]
fn changes_of_several_prefixes_need_not_come_in_order() {
    let mut reconciler = Reconciler::new(10_000);
    reconciler.replace(0, 5, list([member("a", "h:1")]), History::Kept);
    reconciler.apply(8, put(member("b", "h:2")));
    reconciler.apply(7, Event::Delete("a".into()));
    reconciler.apply(6, put(member("c", "h:3")));
    assert_eq!(ids(&reconciler), ["b", "c"]);
    assert_eq!(reconciler.revision(), 8);
    reconciler.apply(4, put(member("a", "h:1")));
    assert_eq!(ids(&reconciler), ["b", "c"], "older than the listing");
}

#[test]
fn a_held_member_that_is_deleted_goes_at_once() {
    let mut reconciler = Reconciler::new(10_000);
    reconciler.replace(0, 5, list([member("a", "h:1")]), History::Kept);
    reconciler.replace(1, 6, list([]), History::Kept);
    reconciler.apply(7, Event::Delete("a".into()));
    assert!(ids(&reconciler).is_empty());
    assert_eq!(reconciler.next_release_ms(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// The watch breaks for this many steps; then a listing follows.
    Blind(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, 0..4u8).prop_map(|(id, address)| Step::Put(id, address)),
        2 => (0..6u8).prop_map(Step::Delete),
        1 => (1..6u8).prop_map(Step::Blind),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Regardless of what is missed while the watch is broken, the view equals the registry after
    /// the next listing.
    #[test]
    fn a_watcher_with_gaps_ends_with_what_the_registry_holds(steps in steps()) {
        let mut registry: BTreeMap<String, Member> = BTreeMap::new();
        let mut revision = 1;
        let mut reconciler = Reconciler::new(1_000);
        let mut blind = 0;
        for (now, step) in steps.into_iter().enumerate() {
            let event = match step {
                Step::Put(id, address) => {
                    let put = member(&format!("n{id}"), &format!("h:{address}"));
                    registry.insert(put.id.to_string(), put.clone());
                    Some(Event::Put(put.id.clone(), put))
                }
                Step::Delete(id) => {
                    let id = format!("n{id}");
                    registry.remove(&id).map(|_| Event::Delete(id.as_str().into()))
                }
                Step::Blind(steps) => {
                    blind = blind.max(steps);
                    None
                }
            };
            revision += u64::from(event.is_some());
            if blind > 0 {
                blind -= 1;
                if blind == 0 {
                    reconciler.replace(
                        now as u64,
                        revision,
                        list(registry.values().cloned()),
                        History::Kept,
                    );
                }
            } else if let Some(event) = event {
                reconciler.apply(revision, event);
            }
        }
        if blind > 0 {
            reconciler.replace(0, revision, list(registry.values().cloned()), History::Kept);
        }
        reconciler.release(u64::MAX);
        prop_assert_eq!(reconciler.members(), &list(registry.into_values()));
    }
}
