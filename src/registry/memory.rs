//! A registry for nodes in one process: for `gaocache dev`, tests, and programs that embed several
//! nodes.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{Member, MemberState, View},
    ports::{Registry, RegistryHealth, Session},
};

/// The registry. Clones share the same members.
#[derive(Clone, Default)]
pub struct MemoryRegistry {
    hub: Arc<Hub>,
}

#[derive(Default)]
struct Hub {
    members: Mutex<(u64, BTreeMap<Arc<str>, Member>)>,
    views: watch::Sender<View>,
}

impl Hub {
    /// Changes the members and publishes the new view in one step. Also returns the new revision,
    /// which `change` gets, too.
    fn change<R>(
        &self,
        change: impl FnOnce(&mut BTreeMap<Arc<str>, Member>, u64) -> R,
    ) -> (R, u64) {
        let mut guard = self.members.lock();
        let (revision, members) = &mut *guard;
        *revision += 1;
        let result = change(members, *revision);
        let view = View::new(*revision, members.values().cloned());
        self.views.send_replace(view);
        (result, *revision)
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn join(&self, me: Member) -> Result<Box<dyn Session>> {
        let id = me.id.clone();
        let instance = me.instance.clone();
        let (taken, _) = self.hub.change(|members, revision| {
            let taken = members.contains_key(&id);
            if !taken {
                let me = Member {
                    since: revision,
                    ..me
                };
                members.insert(id.clone(), me);
            }
            taken
        });
        if taken {
            return Err(Error::new(
                ErrorKind::Registry,
                format!("another node is registered with the id '{id}'; ids must be distinct"),
            ));
        }
        let (health, _) = watch::channel(RegistryHealth {
            registered: true,
            ..RegistryHealth::default()
        });
        Ok(Box::new(MemorySession {
            hub: self.hub.clone(),
            id,
            instance,
            health,
        }))
    }
}

struct MemorySession {
    hub: Arc<Hub>,
    id: Arc<str>,
    instance: Arc<str>,
    health: watch::Sender<RegistryHealth>,
}

#[async_trait]
impl Session for MemorySession {
    fn views(&self) -> watch::Receiver<View> {
        self.hub.views.subscribe()
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn announce(&self, state: MemberState) -> Result<Option<u64>> {
        let (_, revision) = self.hub.change(|members, revision| {
            if let Some(me) = members.get_mut(&self.id) {
                if me.state == MemberState::Joining {
                    me.since = revision;
                }
                me.state = state;
            }
        });
        Ok(Some(revision))
    }

    async fn leave(&self) -> Result<Option<u64>> {
        Ok(Some(self.forget()))
    }
}

impl MemorySession {
    /// Removes this node, unless a successor has already taken its id.
    fn forget(&self) -> u64 {
        let (_, revision) = self.hub.change(|members, _| {
            if members
                .get(&self.id)
                .is_some_and(|me| me.instance == self.instance)
            {
                members.remove(&self.id);
            }
        });
        revision
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_id_can_be_taken_once_and_again_after_it_left() {
        let registry = MemoryRegistry::default();
        let first = registry.join(Member::new("a", "h:1")).await.expect("free");
        let views = first.views();
        let taken = registry.join(Member::new("a", "h:2")).await;
        let error = taken.err().expect("the id is taken");
        assert_eq!(error.kind(), ErrorKind::Registry);
        first.leave().await.expect("leaves");
        let second = Member {
            instance: "second".into(),
            ..Member::new("a", "h:3")
        };
        let _second = registry.join(second).await.expect("free again");
        drop(first);
        assert_eq!(
            views.borrow().members.len(),
            1,
            "dropping the first session does not remove the second"
        );
    }
}
