//! How members stand in etcd, and the view of them.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::unix_seconds;
use gaocache_core::membership::{
    Contact, DEFAULT_WEIGHT, KeyFingerprint, Member, MemberState, SpeaksTls, View,
};
use gaocache_discovery::{
    Endpoint, Snapshot,
    expulsion::{CLUSTER, PREDECESSOR},
};

use super::keys::{Keys, id};

/// The name of the metadata with the revision from which on a member has been in the ring, where
/// that is not the key's last change.
pub(super) const SINCE: &str = "since";

/// The names of the metadata that tell whether a member's listeners speak TLS: the one at its
/// address, and the admin listener.
const TLS: &str = "tls";
const ADMIN_TLS: &str = "admin_tls";

/// The name of the metadata with the time at which a member registered, in seconds since the Unix
/// epoch, by its own wall clock. For people alone.
const REGISTERED_AT: &str = "registered_at";

/// The members that a snapshot holds: those that are registered, and those that have a record and
/// vanished.
pub fn view(keys: &Keys, snapshot: &Snapshot) -> View {
    let of = |prefix: &str| {
        let endpoints = snapshot.endpoints.iter();
        let named = endpoints.filter_map(|(key, it)| Some((id(prefix, key)?, it)));
        let held = |id: &str| snapshot.held.contains(&*format!("{prefix}{id}"));
        let member = |(id, it)| Member {
            held: held(id),
            ..member(id, it)
        };
        named.map(member).collect::<Vec<_>>()
    };
    let registered = of(&keys.members);
    let recorded = of(&keys.roster).into_iter().map(|it| Member {
        vanished: true,
        ..it
    });
    // Of two with one id the later stays: a registered member has not vanished.
    View {
        young: snapshot.endpoints.contains_key(keys.young()),
        ..View::new(snapshot.revision, recorded.chain(registered))
    }
}

/// What is registered of this member.
pub(in crate::registry) fn endpoint(me: &Member) -> Endpoint {
    let mut endpoint = Endpoint::new(me.address.clone())
        .with_metadata("id", &*me.id)
        .with_metadata("zone", &*me.zone)
        .with_metadata("version", &*me.version)
        .with_metadata("weight", me.weight)
        .with_metadata("state", me.state.name())
        .with_metadata("admin_port", me.admin_port)
        .with_metadata("instance", &*me.instance)
        .with_metadata("peer_address", &*me.contact.address);
    // Go's clients take the address as it is, and read metadata if they know it.
    for (name, speaks) in [(TLS, me.tls.clients), (ADMIN_TLS, me.tls.admin)] {
        if speaks {
            endpoint = endpoint.with_metadata(name, true);
        }
    }
    match me.contact.key {
        Some(key) => endpoint.with_metadata("peer_key", key.to_string()),
        None => endpoint,
    }
}

/// The same, of a member that registers now.
pub(super) fn registered_now(endpoint: Endpoint) -> Endpoint {
    endpoint.with_metadata(REGISTERED_AT, unix_seconds() as u64)
}

/// When a member registered, in seconds since the Unix epoch; `None`: its release doesn't tell.
#[cfg(feature = "cli")]
pub fn registered_at(keys: &Keys, snapshot: &Snapshot, member: &Member) -> Option<u64> {
    let prefix = match member.vanished {
        true => &keys.roster,
        false => &keys.members,
    };
    let key = format!("{prefix}{}", member.id);
    snapshot.endpoints.get(&*key)?.number(REGISTERED_AT)
}

/// What is registered of a member of that cluster, if it is known.
pub(super) fn of_cluster(endpoint: Endpoint, cluster: Option<&Arc<str>>) -> Endpoint {
    match cluster {
        Some(id) => endpoint.with_metadata(CLUSTER, &**id),
        None => endpoint,
    }
}

/// The id is the last part of the key, regardless of the metadata, because etcd keeps keys
/// distinct.
fn member(id: &str, endpoint: &Endpoint) -> Member {
    let text = |name: &str| Arc::from(endpoint.text(name).unwrap_or_default());
    let weight = endpoint
        .number("weight")
        .and_then(|weight| u32::try_from(weight).ok());
    let admin_port = endpoint
        .number("admin_port")
        .and_then(|port| u16::try_from(port).ok());
    let speaks = |name: &str| endpoint.metadata.get(name).and_then(Value::as_bool) == Some(true);
    let contact = Contact {
        address: endpoint
            .text("peer_address")
            .map_or_else(|| endpoint.address.clone(), Arc::from),
        key: endpoint.text("peer_key").and_then(KeyFingerprint::parse),
    };
    Member {
        contact,
        zone: text("zone"),
        weight: weight
            .filter(|weight| *weight > 0)
            .unwrap_or(DEFAULT_WEIGHT),
        state: match endpoint.text("state") {
            Some(state) if state == MemberState::Draining.name() => MemberState::Draining,
            Some(state) if state == MemberState::Joining.name() => MemberState::Joining,
            _ => MemberState::Serving,
        },
        version: text("version"),
        tls: SpeaksTls {
            clients: speaks(TLS),
            admin: speaks(ADMIN_TLS),
        },
        admin_port: admin_port.unwrap_or(0),
        instance: text("instance"),
        // A record has no lease of its own, and names its registration's.
        lease: match endpoint.metadata.get("lease").and_then(Value::as_i64) {
            Some(lease) if endpoint.lease == 0 => lease,
            _ => endpoint.lease,
        },
        recorded_at: endpoint.revision,
        since: endpoint
            .number(SINCE)
            .or_else(|| u64::try_from(endpoint.revision).ok())
            .unwrap_or(0),
        restarted: endpoint.text(PREDECESSOR).is_some(),
        ..Member::new(id, endpoint.address.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_stands_in_etcd_and_comes_back_the_same() {
        let me = Member {
            zone: "b".into(),
            weight: 7,
            state: MemberState::Draining,
            version: "1.2".into(),
            tls: SpeaksTls {
                clients: true,
                admin: false,
            },
            admin_port: 9090,
            instance: "abc".into(),
            contact: Contact {
                address: "10.0.0.7:7071".into(),
                key: Some(KeyFingerprint([7; 32])),
            },
            ..Member::new("gaocache-0", "10.0.0.7:7070")
        };
        let stored = endpoint(&me).to_json();
        let mut read = Endpoint::from_stored(&stored).expect("an endpoint");
        assert_eq!(member("gaocache-0", &read), me);
        // It came into the ring with its last change, unless it says otherwise.
        read.revision = 70;
        assert_eq!(member("gaocache-0", &read).since, 70);
        let read = read.with_metadata(SINCE, 12);
        assert_eq!(member("gaocache-0", &read).since, 12);
        let bare = Endpoint::from_stored(b"10.0.0.8:7070").expect("an endpoint");
        assert_eq!(
            member("other", &bare),
            Member::new("other", "10.0.0.8:7070")
        );
        let odd = Endpoint::new("h:1")
            .with_metadata("weight", 0)
            .with_metadata("zone", 5);
        assert_eq!(member("odd", &odd).weight, DEFAULT_WEIGHT);
    }

    #[test]
    fn a_member_that_etcd_lost_is_told_from_those_that_it_knows() {
        let mut snapshot = Snapshot::default();
        let keys = ["svc/a", "svc/b", "svc.roster/b"].map(Arc::from);
        snapshot.held = Arc::new(keys[1..].iter().cloned().collect());
        let listed = keys.map(|key| (key, Endpoint::new("h:1")));
        snapshot.endpoints = Arc::new(listed.into());
        let view = view(&Keys::of("svc"), &snapshot);
        let held = |id| view.member(id).expect("listed").held;
        assert!(!held("a") && held("b"));
    }
}
