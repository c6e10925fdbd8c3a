//! The groups of a node, by name.

use std::{collections::HashMap, sync::Arc};

use super::Group;
use crate::{
    error::{Error, ErrorKind, Result},
    ports::{Fate, Parcel, Receipt, Sender, TRANSFER_TIMEOUT, Timestamp},
    standing::Standing,
};

/// The groups of a node, by name.
#[derive(Clone, Default)]
pub struct Groups {
    by_name: Arc<HashMap<Arc<str>, Arc<Group>>>,
}

impl Groups {
    /// These groups.
    pub fn new(groups: impl IntoIterator<Item = Group>) -> Self {
        let by_name = groups
            .into_iter()
            .map(|group| (group.name().clone(), Arc::new(group)))
            .collect();
        Self {
            by_name: Arc::new(by_name),
        }
    }

    /// One group that is made already.
    #[cfg(test)]
    pub(crate) fn of(group: &Arc<Group>) -> Self {
        Self {
            by_name: Arc::new(HashMap::from([(group.name().clone(), group.clone())])),
        }
    }

    /// The group of that name.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn get(&self, name: &str) -> Result<&Arc<Group>> {
        self.by_name.get(name).ok_or_else(|| {
            // The name comes from outside: cut, or an attacker fills the log with it.
            let shown: String = name.chars().take(64).collect();
            Error::new(
                ErrorKind::UnknownGroup,
                format!("no group '{shown}' is configured here"),
            )
        })
    }

    /// Drops all entries of all of them; returns how many went.
    pub fn drop_everything(&self) -> u64 {
        self.iter().map(|group| group.drop_everything()).sum()
    }

    /// Takes entries that another member hands over; `read_at` is the earliest moment at which it
    /// can have read them.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] if this node is leaving itself or is not sure to be a member, if the
    /// sender is no member as seen here, or if the entries were under way for so long that they may
    /// have outlasted the tombstone of a removal.
    pub fn accept(
        &self,
        standing: &Standing,
        parcels: &[Parcel],
        sender: Sender,
        (read_at, now): (Timestamp, Timestamp),
    ) -> Result<Receipt> {
        standing.may_accept(sender.member, (read_at, now))?;
        if now.since(read_at) >= TRANSFER_TIMEOUT {
            let why = "the entries were under way for too long";
            return Err(Error::new(ErrorKind::NotReady, why));
        }
        let mut receipt = Receipt::default();
        for parcel in parcels {
            receipt.fates.push(match self.get(&parcel.group) {
                Ok(group) if group.is_leaving() => {
                    let why = "this node is leaving itself";
                    return Err(Error::new(ErrorKind::NotReady, why));
                }
                Ok(group) => group.accept(parcel, sender),
                Err(_) => Fate::UnknownGroup,
            });
        }
        Ok(receipt)
    }

    /// Lets none of them take anything over any more; see [`Group::leave`].
    pub fn leave(&self) {
        self.iter().for_each(|group| group.leave());
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.by_name.values()
    }
}
