//! The groups of a node, by name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{Answer, Group, parts::Wanted};
use crate::{
    error::{Error, ErrorKind, Result},
    key::GroupId,
    ports::{Fate, Parcel, Reading, Receipt, Sender, TRANSFER_TIMEOUT, Timestamp},
    standing::Standing,
};

/// The groups of a node, by name. Clones are the same groups: the current ones.
///
/// A group that is taken out stays known by its number, since what is under way may still hold it;
/// it comes back as the same one, with the tombstones and flights that it had. Meanwhile it is
/// notified of removals ([`Groups::current_or_former`]): what is asked for at that time may be
/// kept.
#[derive(Clone, Default)]
pub struct Groups(Arc<Inner>);

#[derive(Default)]
struct Inner {
    table: ArcSwap<Table>,
    /// Held while the table is changed.
    turn: Mutex<()>,
}

#[derive(Clone, Default)]
struct Table {
    /// Looked up at each hit; their names come from the settings alone.
    in_force: HashMap<Arc<str>, Arc<Group>, foldhash::fast::RandomState>,
    /// All that there ever were, by number.
    numbered: Vec<Arc<Group>>,
}

impl Table {
    fn has_room<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) -> Result<()> {
        let known: HashSet<&Arc<str>> = self.numbered.iter().map(|group| group.name()).collect();
        let new = names.filter(|name| !known.contains(name)).count();
        if self.numbered.len() + new > usize::from(u16::MAX) {
            let what = "too many different groups since the start; restart the node";
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        Ok(())
    }
}

impl Table {
    /// Tells the stores what each group may have of them.
    fn share_memory(&self) {
        let groups = self.in_force.values();
        let quotas = groups.map(|group| (group.id(), group.now.load().rules.memory));
        let quotas: Vec<_> = quotas.collect();
        if let Some(group) = self.numbered.first() {
            // All groups share them.
            group.shared.owned.set_quotas(&quotas);
            group.shared.hot.set_quotas(&quotas);
        }
    }
}

/// Which groups new settings added and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChanges {
    /// Names of the new ones.
    pub added: Vec<Arc<str>>,
    /// Names of those that are not wanted any more.
    pub removed: Vec<Arc<str>>,
}

impl Groups {
    /// These groups, numbered from 0 on.
    pub fn new(groups: impl IntoIterator<Item = Group>) -> Self {
        Self::made(groups.into_iter().map(Arc::new))
    }

    fn made(groups: impl Iterator<Item = Arc<Group>>) -> Self {
        let mut numbered: Vec<Arc<Group>> = groups.collect();
        numbered.sort_by_key(|group| group.id().0);
        let named = numbered.iter().map(|it| (it.name().clone(), it.clone()));
        let table = Table {
            in_force: named.collect(),
            numbered,
        };
        Self(Arc::new(Inner {
            table: ArcSwap::from_pointee(table),
            turn: Mutex::default(),
        }))
    }

    /// One group that is made already.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of(group: &Arc<Group>) -> Self {
        Self::made(std::iter::once(group.clone()))
    }

    /// Makes exactly these groups the current ones. Those that stay get new rules and origins, one
    /// after the other; then those that are new, which `make` makes, come and the others go, all at
    /// once. A group that comes back or goes loses all its entries.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for more groups than there are numbers; nothing has changed
    /// then.
    pub fn replace(
        &self,
        wanted: Vec<Wanted>,
        make: impl Fn(GroupId, Wanted) -> Group,
    ) -> Result<GroupChanges> {
        let _turn = self.0.turn.lock();
        let before = self.0.table.load_full();
        let mut after = Table {
            in_force: HashMap::default(),
            numbered: before.numbered.clone(),
        };
        let known = |wanted: &Wanted| {
            let mut all = before.numbered.iter();
            all.find(|group| *group.name() == wanted.rules.name)
                .cloned()
        };
        before.has_room(wanted.iter().map(|it| &it.rules.name))?;
        for wanted in wanted {
            let name = wanted.rules.name.clone();
            let group = if let Some(group) = known(&wanted) {
                group.adjust(wanted);
                if !before.in_force.contains_key(&name) {
                    group.drop_everything();
                }
                group
            } else {
                // Bounded above.
                let number = u16::try_from(after.numbered.len()).unwrap_or(u16::MAX);
                let group = Arc::new(make(GroupId(number), wanted));
                after.numbered.push(group.clone());
                group
            };
            after.in_force.insert(name, group);
        }
        let only_in = |one: &Table, other: &Table| {
            let names = one.in_force.keys();
            let mut names: Vec<Arc<str>> = names
                .filter(|name| !other.in_force.contains_key(*name))
                .cloned()
                .collect();
            names.sort_unstable();
            names
        };
        let changes = GroupChanges {
            added: only_in(&after, &before),
            removed: only_in(&before, &after),
        };
        after.share_memory();
        self.0.table.store(Arc::new(after));
        for name in &changes.removed {
            before.in_force[name].drop_everything();
        }
        Ok(changes)
    }

    /// Whether there are numbers for groups of these names.
    ///
    /// # Errors
    /// As [`Groups::replace`].
    pub fn has_room<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) -> Result<()> {
        self.0.table.load().has_room(names)
    }

    /// The group of that name.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn get(&self, name: &str) -> Result<Arc<Group>> {
        let table = self.0.table.load();
        table.in_force.get(name).cloned().ok_or_else(|| {
            // The name is untrusted; truncate it so that it can't flood the log.
            let shown: String = name.chars().take(64).collect();
            Error::new(
                ErrorKind::UnknownGroup,
                format!("no group '{shown}' is configured here"),
            )
        })
    }

    /// The group of that name, for a removal: also one that was taken out, since it may come back,
    /// and a request that found it before may still ask it for values.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`], if there never was one.
    pub fn current_or_former(&self, name: &str) -> Result<Arc<Group>> {
        self.get(name).or_else(|unknown| {
            let table = self.0.table.load();
            let mut ever = table.numbered.iter();
            ever.find(|it| **it.name() == *name).cloned().ok_or(unknown)
        })
    }

    /// What this node holds of a key in memory. The group itself is not handed out: all threads
    /// that serve would write to its count of references at each hit.
    ///
    /// `now` may be some time ago, but not before the get began: what memory may serve, and what is
    /// fresh, is judged by that moment.
    pub fn held(&self, name: &str, key: &str, now: Timestamp) -> Option<Result<Answer>> {
        self.0.table.load().in_force.get(name)?.held(key, now)
    }

    /// Drops all entries of all of them; returns how many went.
    pub fn drop_everything(&self) -> u64 {
        self.iter().map(|group| group.drop_everything()).sum()
    }

    /// Takes entries that another member hands over.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] if this node is itself leaving or is not sure to be a member, if
    /// this node does not know the sender as a member, or if the entries were under way for so long
    /// that they may have outlasted the tombstone of a removal.
    pub fn accept(
        &self,
        standing: &Standing,
        parcels: &[Parcel],
        sender: Sender,
        reading: Reading,
    ) -> Result<Receipt> {
        standing.may_accept(sender.member, reading)?;
        if reading.now.since(reading.read_at) >= TRANSFER_TIMEOUT {
            let why = "the entries were in transit for too long";
            return Err(Error::new(ErrorKind::NotReady, why));
        }
        let mut receipt = Receipt::default();
        for parcel in parcels {
            receipt.fates.push(match self.get(&parcel.group) {
                Ok(group) if group.is_leaving() => {
                    let why = "this node is itself leaving";
                    return Err(Error::new(ErrorKind::NotReady, why));
                }
                Ok(group) => group.accept(parcel, sender),
                Err(_) => Fate::UnknownGroup,
            });
        }
        Ok(receipt)
    }

    /// Makes all of them refuse handoffs; see [`Group::leave`].
    pub(crate) fn leave(&self) {
        self.iter().for_each(|group| group.leave());
    }

    /// The group of that number, if it is current.
    pub fn numbered(&self, number: GroupId) -> Option<Arc<Group>> {
        let table = self.0.table.load();
        let group = table.numbered.get(usize::from(number.0))?;
        table.in_force.get(group.name()).cloned()
    }

    /// All that there ever were: what they hold may take a moment to go.
    pub fn ever(&self) -> impl Iterator<Item = Arc<Group>> + use<> {
        self.0.table.load().numbered.clone().into_iter()
    }

    /// All current groups.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Group>> + use<> {
        let groups: Vec<Arc<Group>> = self.0.table.load().in_force.values().cloned().collect();
        groups.into_iter()
    }
}
