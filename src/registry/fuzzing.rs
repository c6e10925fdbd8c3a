//! What fuzzing reaches of the registry: what stands in etcd.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    etcd::{self, Keys},
    notices,
};
use gaocache_core::{
    membership::{Member, View},
    ports::{Notice, Notices},
};
use gaocache_discovery::{Endpoint, Snapshot};

/// What etcd holds, by key.
pub type Stored = BTreeMap<Arc<str>, Endpoint>;

/// The members of the service `svc`.
pub fn view(stored: Stored, held: BTreeSet<Arc<str>>) -> View {
    let mut snapshot = Snapshot::default();
    snapshot.endpoints = Arc::new(stored);
    snapshot.held = Arc::new(held);
    etcd::view(&Keys::of("svc"), &snapshot)
}

/// A member as it is stored.
pub fn member(member: &Member) -> Endpoint {
    etcd::endpoint(member)
}

/// The notices of the service `svc`.
pub fn notices(stored: &Stored) -> Notices {
    notices::read(&Keys::of("svc").notices, stored)
}

/// A notice as it is stored.
pub fn notice(notice: &Notice) -> Endpoint {
    notices::stored(notice)
}
