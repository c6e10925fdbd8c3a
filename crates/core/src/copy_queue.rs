//! From groups to the handoff: keys of new entries that may want a copy at another member.
//!
//! It must never hold up a get: what comes past its bound is found by the handoff's next sweep.

use tokio::sync::mpsc;

use crate::key::GroupId;

/// Keys that wait to be copied.
pub const WAITING_COPIES: usize = 65_536;

/// Keys of entries that may want a copy.
pub type QueuedKeys = mpsc::Receiver<(GroupId, Box<str>)>;

/// Where groups announce entries that may want a copy.
#[derive(Clone, Debug, Default)]
pub struct CopyQueue(Option<mpsc::Sender<(GroupId, Box<str>)>>);

impl CopyQueue {
    /// And where they are read.
    pub fn channel() -> (Self, QueuedKeys) {
        let (sender, receiver) = mpsc::channel(WAITING_COPIES);
        (Self(Some(sender)), receiver)
    }

    /// A queue that discards everything: no copies are made.
    pub fn nobody() -> (Self, QueuedKeys) {
        (Self(None), mpsc::channel(1).1)
    }

    /// This entry is new. Never waits: past the bound the next sweep finds it.
    pub fn wanted(&self, group: GroupId, key: &str) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send((group, key.into()));
        }
    }
}
