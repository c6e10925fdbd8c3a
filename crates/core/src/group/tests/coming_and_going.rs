//! Groups that come and go while a node runs.

use super::*;
use crate::store::MemoryQuota;

fn wanted(group: &Group, ttl: Option<u64>) -> Vec<Wanted> {
    let rules = GroupRules {
        ttl: ttl.map(std::time::Duration::from_millis),
        ..group.rules()
    };
    let origin = group.origin();
    vec![Wanted { rules, origin }]
}

fn none_is_made(_: GroupId, wanted: Wanted) -> Group {
    panic!("'{}' is known", wanted.rules.name)
}

#[tokio::test]
async fn a_group_that_was_out_knows_nothing_from_before_or_meanwhile() {
    let test = cluster(1);
    let group = test.groups[0].clone();
    let groups = Groups::of(&group);
    let name = group.name().clone();
    group.get("before").await.expect("loads");

    let gone = groups.replace(Vec::new(), none_is_made).expect("changed");
    assert_eq!((gone.added, gone.removed), (vec![], vec![name.clone()]));
    let unknown = groups.get(&name).err().expect("not in force");
    assert_eq!(unknown.kind(), ErrorKind::UnknownGroup);
    assert!(groups.numbered(group.id()).is_none());
    // A caller that found the group before may still ask it, also for what is removed meanwhile.
    group.get("meanwhile").await.expect("loads");
    test.hold_origin();
    let late = tokio::spawn({
        let group = group.clone();
        async move { group.get("late").await.map(|it| it.value) }
    });
    test.until_loads(3).await;

    let back = groups.replace(wanted(&group, None), none_is_made);
    let back = back.expect("changed");
    assert_eq!((back.added, back.removed), (vec![name.clone()], vec![]));
    test.origin.permits.add_permits(100);
    late.await.expect("no panic").expect("its own load");
    let group = groups.get(&name).expect("in force again");
    for (key, loads) in [("before", 4), ("meanwhile", 5), ("late", 6)] {
        group.get(key).await.expect("loads");
        assert_eq!(test.loads(), loads, "{key}");
    }
}

#[tokio::test]
async fn the_memory_of_a_group_is_that_of_its_current_rules() {
    let test = cluster(1);
    let group = test.groups[0].clone();
    let groups = Groups::of(&group);
    let parts_of = |quota: MemoryQuota| {
        let mut wanted = wanted(&group, None);
        wanted[0].rules.memory = quota;
        groups.replace(wanted, none_is_made).expect("changed");
        [&group.shared.owned, &group.shared.hot].map(|store| {
            let stats = store.stats(group.id());
            let part = |bytes: u64| bytes as f64 / store.capacity() as f64;
            (part(stats.share), part(stats.limit))
        })
    };
    let quarters = MemoryQuota {
        share: 0.25,
        limit: 0.75,
    };
    assert_eq!(parts_of(quarters), [(0.25, 0.75); 2]);
    assert_eq!(parts_of(MemoryQuota::NONE), [(0.0, 1.0); 2]);
}

#[tokio::test]
async fn a_group_that_is_out_is_told_of_removals() {
    let test = cluster(1);
    let group = test.groups[0].clone();
    let groups = Groups::of(&group);
    let name = group.name().clone();
    let mut back = wanted(&group, None);
    let rules = GroupRules {
        name: "new".into(),
        ..group.rules()
    };
    let origin = group.origin();
    back.push(Wanted { rules, origin });
    groups.replace(Vec::new(), none_is_made).expect("changed");

    // The other group is made when this one has been looked at, and before it takes effect.
    let mut gets = ["early", "removed"].map(|key| Box::pin(group.get(key)));
    let asked = parking_lot::Mutex::new(&mut gets);
    let shared = group.shared.clone();
    let make = |number, Wanted { rules, origin }| {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for get in asked.lock().iter_mut() {
            assert!(get.as_mut().poll(&mut context).is_pending());
        }
        assert!(groups.get(&name).is_err(), "not in force");
        let told = groups.current_or_former(&name).expect("known");
        told.remove_here(&Removal::Key("removed".into()));
        let (observer, shared) = (group.observer.clone(), shared.clone());
        Group::new(number, rules, origin, observer, shared)
    };
    groups.replace(back, make).expect("changed");
    for get in gets {
        get.await.expect("its own load");
    }
    assert_eq!(test.loads(), 2);
    group.get("early").await.expect("kept");
    assert_eq!(test.loads(), 2);
    group.get("removed").await.expect("loads");
    assert_eq!(test.loads(), 3);
    assert!(groups.current_or_former("never").is_err());
}

#[tokio::test]
async fn new_rules_hold_for_what_is_loaded_from_then_on() {
    let test = cluster(1);
    let groups = Groups::of(&test.groups[0]);
    let group = test.groups[0].clone();
    let life = async |key: &str| group.get(key).await.expect("loads").expires_at;
    let before = life("a").await;
    groups
        .replace(wanted(&group, Some(7)), none_is_made)
        .expect("changed");
    assert_eq!(life("a").await, before, "what is held stays as it is");
    assert_eq!(life("b").await, Timestamp(7));
    assert_eq!(test.loads(), 2);
}

#[tokio::test]
async fn there_are_numbers_for_so_many_groups_and_a_known_one_keeps_its_own() {
    let test = cluster(1);
    let groups = Groups::of(&test.groups[0]);
    let known = test.groups[0].name().clone();
    let names = |number: u16| (1..=number).map(|it| Arc::from(it.to_string()));
    let has_room = |number| {
        let names: Vec<Arc<str>> = names(number).chain([known.clone()]).collect();
        groups.has_room(names.iter())
    };
    assert!(has_room(u16::MAX - 1).is_ok());
    let refused = has_room(u16::MAX).expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::Configuration);
}
