//! Registration and discovery against a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod members;
mod reach;
mod records;

use etcd_client::Client;
use gaocache_discovery::{
    Discovery, EtcdConfig, RegistrationStatus, Snapshot, expulsion::RecordKeys,
};
use gaocache_testing::{TTL, within};
use tokio::sync::watch;

fn config(urls: &[&str]) -> EtcdConfig {
    EtcdConfig::new(urls.iter().copied()).with_lease_ttl(TTL)
}

fn records(id: &str) -> RecordKeys {
    RecordKeys {
        record: format!("svc.roster/{id}"),
        history: "svc.history".into(),
        young: "svc.young".into(),
        cluster: "svc.cluster".into(),
    }
}

async fn registered(status: &mut watch::Receiver<RegistrationStatus>) -> RegistrationStatus {
    let until = status.wait_for(|it| it.registered.is_some());
    within("registration", until)
        .await
        .expect("running")
        .clone()
}

async fn until(
    discovery: &Discovery,
    what: &str,
    wanted: impl FnMut(&Snapshot) -> bool,
) -> Snapshot {
    let mut changes = discovery.changes();
    let snapshot = within(what, changes.wait_for(wanted))
        .await
        .expect("running");
    snapshot.clone()
}

fn keys(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.endpoints.keys().map(|key| &**key).collect()
}

/// The lease of a key.
async fn lease_of(client: &mut Client, key: &str) -> i64 {
    client
        .get(key, None)
        .await
        .unwrap()
        .kvs()
        .first()
        .map_or(0, |kv| kv.lease())
}
