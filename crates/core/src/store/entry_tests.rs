use super::*;
use crate::membership::IdHash;

fn record(value: Option<&'static [u8]>) -> Record {
    Record {
        value: value.map(Bytes::from_static),
        expires_at: Timestamp(1_000),
        stale: Stale::NEVER,
        entity_tag: value.map_or(0, xxh3_64),
        metadata: Metadata::NONE,
    }
}

#[test]
fn what_is_kept_is_what_was_put_in_and_what_is_rare_takes_memory_only_where_it_is() {
    let key = HashedKey::new(GroupId(7), "key");
    let plain = record(Some(b"value"));
    let stale = Stale {
        while_revalidating: Timestamp(2_000),
        if_error: Timestamp(3_000),
    };
    let said = Metadata::new([("content-type", "text/plain")]).expect("good");
    let rare = [
        Record {
            stale,
            ..plain.clone()
        },
        Record {
            entity_tag: 5,
            ..plain.clone()
        },
        Record {
            metadata: said,
            ..plain.clone()
        },
        record(Some(&[7; TAG_FROM_BYTES])),
    ];
    let never = Record {
        expires_at: Timestamp::NEVER,
        ..plain.clone()
    };
    for plain in [plain, record(Some(b"")), record(None), never] {
        let entry = Entry::new(&key, &plain);
        assert_eq!(entry.record(), plain);
        assert_eq!(entry.allocated(), 32 + 3 + plain.value_bytes());
    }
    for rare in rare {
        let entry = Entry::new(&key, &rare);
        assert_eq!(entry.record(), rare);
        assert_eq!(entry.allocated(), 72 + 3 + rare.value_bytes());
        assert_eq!((entry.group(), entry.key()), (GroupId(7), "key"));
    }
}

#[test]
fn a_value_outlives_its_entry_and_is_no_copy() {
    let entry = Entry::new(&HashedKey::new(GroupId(0), "k"), &record(Some(b"value")));
    let (one, other) = (entry.value().expect("some"), entry.value().expect("some"));
    assert_eq!(one.as_ptr(), other.as_ptr());
    drop((entry, other));
    assert_eq!(one.slice(1..), "alue");
}

#[test]
fn marks_and_counts_do_not_disturb_each_other() {
    let entry = Entry::new(&HashedKey::new(GroupId(0), "k"), &record(None));
    entry.judge(true, 0);
    (0..300).for_each(|_| entry.used());
    assert_eq!(
        (entry.use_count(), entry.lately()),
        (MAX_USE_COUNT, MAX_LATELY)
    );
    entry.set_told();
    assert!(entry.is_hot() && !entry.is_untold());
    entry.judge(false, 1);
    assert!(!entry.is_hot() && entry.lately() == 1);
    entry.used();
    assert!(entry.is_untold());
    assert!(!entry.has_replica() && !entry.has_replica_at(IdHash::NONE));
    entry.set_replica_at(IdHash(9));
    assert!(entry.has_replica_at(IdHash(9)) && !entry.has_replica_at(IdHash(8)));
}

#[test]
fn an_owner_is_known_in_its_own_topology_alone() {
    let entry = Entry::new(&HashedKey::new(GroupId(0), "k"), &record(None));
    assert_eq!(entry.owner_in(0), None);
    entry.note_owner(3, 0);
    assert_eq!((entry.owner_in(3), entry.owner_in(4)), (Some(0), None));
    entry.note_owner(4, 1_000);
    assert_eq!((entry.owner_in(3), entry.owner_in(4)), (None, Some(1_000)));
    entry.note_owner(5, 5_000);
    assert_eq!(entry.owner_in(5), None, "no room for it");
    assert_eq!(entry.owner_in(4), Some(1_000));
}
