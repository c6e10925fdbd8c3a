//! What follows from a receipt for each entry of its batch.

use crate::{
    membership::IdHash,
    ports::Fate,
    store::{Entry, Store},
};

/// How an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// This node gives it away.
    Moved,
    /// This node keeps it too.
    Copied,
    /// The receiver learns that it is in use, and gets a copy if it wants one.
    Announced,
}

/// An entry that was sent.
pub(super) struct Going {
    pub(super) entry: Entry,
    pub(super) how: How,
}

/// Whether anything is left to do with an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    /// When one of two rings has caught up.
    Later,
    /// It has to be copied.
    Wanted,
}

/// Does with an entry what its fate at `receiver` asks for. `is_patient`: this node stays, so there
/// will be another walk.
pub(super) fn conclude(
    store: &Store,
    is_patient: bool,
    going: &Going,
    fate: Fate,
    receiver: IdHash,
) -> Done {
    let Going { entry, how } = going;
    match (how, fate) {
        (_, Fate::Misdirected) => Done::Later,
        (How::Announced, Fate::Wanted) => {
            entry.set_replica_at(IdHash::NONE);
            Done::Wanted
        }
        (How::Announced | How::Copied, _) => {
            conclude_copy(entry, fate, receiver);
            Done::Yes
        }
        // Not an answer to what was asked.
        (How::Moved, Fate::Held | Fate::Wanted) => Done::Later,
        // The receiver may have the group soon, and ask for what is here. A node that leaves
        // can't wait.
        (How::Moved, Fate::UnknownGroup) if is_patient => Done::Yes,
        // All else is done with. A full receiver has only entries that are at least as hot, see
        // `Store::offer`: if this one stayed, it would be out of reach when the move has ended.
        (How::Moved, _) => {
            store.remove_exactly(entry);
            Done::Yes
        }
    }
}

/// What follows from a receipt for an entry that stays here: its copy is there only if the receipt
/// says so.
fn conclude_copy(entry: &Entry, fate: Fate, receiver: IdHash) {
    let there = matches!(fate, Fate::Kept | Fate::Known | Fate::Held);
    if there {
        entry.set_replica_at(receiver);
    } else if entry.has_replica_at(receiver) {
        entry.set_replica_at(IdHash::NONE);
    }
    // A recently removed key may be accepted soon, so it is announced again. Anything else is not
    // announced until its next use, so a full receiver isn't asked about cold entries forever.
    if fate != Fate::Refused {
        entry.set_announced();
    }
}
