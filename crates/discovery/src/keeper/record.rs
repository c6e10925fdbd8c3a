//! The record of a registration: the copy of the endpoint that outlives the lease. By it, others
//! take a member that vanished off the list; one that finds its record gone was expelled.

use etcd_client::KeyValue;
use tokio::time::Instant;

use super::Keeper;
use crate::{
    endpoint::{Endpoint, IDENTITY, PREDECESSOR},
    events::RegistrationEvent,
};

/// The copy of the endpoint that outlives the lease.
pub(crate) struct Record {
    pub(super) key: String,
    /// Its last change as we know it; 0: not yet written.
    pub(super) revision: i64,
    /// What the record of an earlier life, which this one replaced, said of its state.
    pub(super) predecessor: Option<String>,
}

impl Record {
    pub(crate) fn new(key: String) -> Self {
        Self {
            key,
            revision: 0,
            predecessor: None,
        }
    }
}

/// What a record says of its state; one that never got further than joining hands on what it had
/// itself from before.
fn predecessor(record: &Endpoint) -> Option<String> {
    match record.text("state") {
        Some("joining") | None => record.text(PREDECESSOR).map(str::to_owned),
        Some(state) => Some(state.to_owned()),
    }
}

impl Keeper {
    /// Whether etcd lost its data, while nobody can have taken the record away before: our lease
    /// would have lived on. Then everything is written anew.
    pub(super) fn has_forgotten(&mut self, revision: i64) -> bool {
        let lives = self
            .registered_until
            .is_some_and(|until| Instant::now() < until);
        match &mut self.record {
            Some(record) if lives && revision < record.revision => {
                record.revision = 0;
                true
            }
            _ => false,
        }
    }

    /// Whether the record that we wrote is gone or another's. Notes where it stands otherwise: a
    /// write whose answer was lost may have changed it.
    pub(super) fn is_expelled(&mut self, wanted: &Endpoint, standing: Option<&KeyValue>) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        let stored = standing.and_then(|it| Endpoint::from_stored(it.value()));
        let identity = stored.as_ref().and_then(|it| it.text(IDENTITY));
        let ours = identity.is_some() && identity == wanted.text(IDENTITY);
        if ours {
            record.revision = standing.map_or(0, KeyValue::mod_revision);
            return false;
        }
        // Written before, and not of a life that the caller has given up meanwhile.
        let registered = self.status.borrow().registered.clone();
        let same_life = registered.is_some_and(|it| it.text(IDENTITY) == wanted.text(IDENTITY));
        if !same_life {
            record.revision = 0;
            record.predecessor = stored.as_ref().and_then(predecessor);
            self.written_under = None;
        }
        same_life
    }

    pub(super) fn expelled(&self) {
        let known = self.status.borrow().expelled;
        if known {
            return;
        }
        self.status.send_modify(|status| {
            status.expelled = true;
            status.problem = "others took this node off the list".into();
        });
        self.tell(&RegistrationEvent::Expelled);
    }
}
