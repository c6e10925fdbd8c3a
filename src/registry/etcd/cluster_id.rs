//! The id of a cluster: what its nodes have in common, whatever etcd and name they share with
//! others.
//!
//! The first node that serves draws it, unless a setting has it, and writes it beside the members'
//! keys; each member names it in what it registers. Who has joined a cluster, or is configured for
//! one, takes no part in another: not even if the addresses of etcd lead elsewhere one day.
//!
//! An etcd that lost its data has no id. That stops nobody: a member from before that registers
//! again writes it back, and nodes that start wait until those have had the time to.

use std::sync::{Arc, OnceLock};

use super::{
    error::registry_error,
    keys::{Keys, id},
};
use gaocache_core::error::{Error, ErrorKind, Result};
use gaocache_discovery::{
    Endpoint, Snapshot,
    expulsion::{CLUSTER, Records},
};

/// The id of this node's cluster, and where it stands in etcd.
pub(super) struct ClusterId {
    key: Arc<str>,
    /// What the keys of members begin with.
    members: Box<str>,
    records: Records,
    /// Never changes once it is known.
    ours: OnceLock<Arc<str>>,
}

impl ClusterId {
    /// The id that is configured; empty if the node is to join whatever cluster is there.
    pub(super) fn new(keys: &Keys, records: Records, configured: &str) -> Self {
        let ours = OnceLock::new();
        if !configured.is_empty() {
            let _ = ours.set(configured.into());
        }
        Self {
            key: keys.cluster.as_str().into(),
            members: keys.members.as_str().into(),
            records,
            ours,
        }
    }

    /// Ours, if it is known.
    pub(super) fn known(&self) -> Option<&Arc<str>> {
        self.ours.get()
    }

    /// Why this node takes no part in what the snapshot shows, if that is another cluster.
    pub(super) fn conflict(&self, snapshot: &Snapshot) -> Option<String> {
        let theirs = &snapshot.endpoints.get(&self.key)?.address;
        let ours = self.ours.get()?;
        (ours != theirs).then(|| self.refusal(ours, theirs))
    }

    fn refusal(&self, ours: &str, theirs: &str) -> String {
        format!(
            "etcd has another cluster under this name: its id is '{theirs}' ({}), and this node \
             belongs to '{ours}'; check registry.service, registry.cluster_id and \
             registry.etcd.endpoints, and restart the node if it is to join that cluster",
            self.key
        )
    }

    /// Joins the cluster whose id stands in etcd; where there is none, gives it the one that the
    /// members in `seen` have registered, or else a new one.
    ///
    /// # Errors
    /// If this node belongs to another cluster, or etcd can't be reached.
    pub(super) async fn join(&self, seen: &Snapshot) -> Result<Arc<str>> {
        // Members live on if somebody deletes the key by hand; it is written back only when one of
        // them next writes or checks its own key.
        let of_members = || {
            let members = seen.endpoints.iter();
            let members = members.filter(|(key, _)| id(&self.members, key).is_some());
            let mut ids = members.filter_map(|(_, it)| it.text(CLUSTER));
            ids.next().map(Arc::from)
        };
        let drawn = || format!("{:016x}", fastrand::u64(..)).into();
        let ours = self.ours.get().cloned();
        let wanted: Arc<str> = ours.or_else(of_members).unwrap_or_else(drawn);
        let wanted = Endpoint::new(wanted);
        let created = self.records.create(&self.key, &wanted).await;
        let theirs = created.map_err(registry_error)?.address;
        let ours = self.ours.get_or_init(|| {
            tracing::info!(cluster = %theirs, "joined the cluster");
            theirs.clone()
        });
        if *ours == theirs {
            Ok(theirs)
        } else {
            let why = self.refusal(ours, &theirs);
            Err(Error::new(ErrorKind::Registry, why))
        }
    }
}
