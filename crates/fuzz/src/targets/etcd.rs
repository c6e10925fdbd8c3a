//! What stands in etcd: members, their records, and notices.

use std::{collections::BTreeSet, sync::Arc};

use gaocache::fuzzing::registry::{Stored, member, notice, notices, view};
use gaocache_core::ports::NoticeId;
use gaocache_discovery::Endpoint;
use serde_json::Value;

use crate::{memory::bounded, text};

/// Each line is a key and, behind a blank, its value. A key that begins with `!` is one that etcd
/// has forgotten.
pub fn values(input: &[u8]) {
    let (mut stored, mut held) = (Stored::new(), BTreeSet::new());
    for line in text::lines(input) {
        let at = line.iter().position(|byte| *byte == b' ');
        let (key, value) = line.split_at(at.unwrap_or(line.len()));
        let Ok(key) = std::str::from_utf8(key) else {
            continue;
        };
        let bare: Arc<str> = key.trim_start_matches('!').into();
        let value = value.trim_ascii();
        let read = bounded(value.len(), 80, 16 << 10, || Endpoint::from_stored(value));
        if let Some(endpoint) = read {
            let again = Endpoint::from_stored(&endpoint.to_json());
            // A fraction may change in its last digit, and nobody looks at any.
            if !endpoint.metadata.values().any(has_fraction) {
                assert_eq!(again.as_ref(), Some(&endpoint), "it comes back the same");
            }
            if bare.len() < key.len() {
                held.insert(bare.clone());
            }
            stored.insert(bare, endpoint);
        }
    }
    members(&stored, held);
    let found = notices(&stored);
    for (NoticeId(id), found) in found.standing {
        let key: Arc<str> = format!("svc-notices/posted/{id:016x}").into();
        let again = notices(&Stored::from([(key, notice(&found))]));
        assert_eq!(again.standing.get(&NoticeId(id)), Some(&found));
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(all) => all.iter().any(has_fraction),
        Value::Object(all) => all.values().any(has_fraction),
        _ => false,
    }
}

fn members(stored: &Stored, held: BTreeSet<Arc<str>>) {
    let listed = view(stored.clone(), held);
    assert!(listed.members.is_sorted_by(|one, two| one.id < two.id));
    for found in &*listed.members {
        let registered = stored.contains_key(&*format!("svc/{}", found.id));
        assert_eq!(found.vanished, !registered, "{}", found.id);
        assert!(found.weight > 0);
        // Another node's registration is read as it was written.
        let key: Arc<str> = format!("svc/{}", found.id).into();
        let again = view(Stored::from([(key, member(found))]), BTreeSet::new());
        let again = again.member(&found.id).expect("it is listed");
        let of = |it: &gaocache_core::membership::Member| {
            let (address, contact) = (it.address.clone(), it.contact.clone());
            (
                address,
                contact,
                it.zone.clone(),
                it.weight,
                it.state,
                it.tls,
            )
        };
        assert_eq!(of(again), of(found));
        assert_eq!(
            (again.admin_port, &again.version),
            (found.admin_port, &found.version)
        );
        assert_eq!(again.instance, found.instance);
    }
}
