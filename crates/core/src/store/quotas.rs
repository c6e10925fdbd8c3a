//! What each group may count on of a store's capacity: a share that others can't take from it, and
//! a limit.
//!
//! A group with either is a part of the store of its own; all others are one part together. While
//! no group has any, there is one part, and nothing is compared.

use super::stats::StoreStats;
use crate::key::GroupId;

/// The memory of one group, as ratios of the capacity (0 to 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryQuota {
    /// What the group keeps when others want room.
    pub share: f64,
    /// What it never exceeds.
    pub limit: f64,
}

impl MemoryQuota {
    /// Nothing is guaranteed, and nothing is limited.
    pub const NONE: Self = Self {
        share: 0.0,
        limit: 1.0,
    };

    /// Whether a group can have it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self) -> Result<(), &'static str> {
        if !(0.0..=1.0).contains(&self.share) || !(0.0..=1.0).contains(&self.limit) {
            return Err("a share and a limit of memory are ratios from 0 to 1");
        }
        if self.limit == 0.0 {
            return Err("a limit of memory must be more than 0");
        }
        if self.share > self.limit {
            return Err("a share of memory must not be larger than the limit");
        }
        Ok(())
    }

    /// Whether several groups can have theirs at once.
    ///
    /// # Errors
    /// Why not.
    pub fn check_all(quotas: impl Iterator<Item = Self>) -> Result<(), String> {
        let sum: f64 = quotas.map(|it| it.share).sum();
        // What ten tenths add up to.
        let fits = sum <= 1.0 + 1e-9;
        let why = || format!("the shares of memory of all groups add up to {sum:.3}, more than 1");
        fits.then_some(()).ok_or_else(why)
    }
}

/// The number of a part; 0 for the groups that have no quota.
pub(super) type PartNumber = usize;

/// One part of the store.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    /// Whose it is; `None` for the one of all others.
    group: Option<GroupId>,
    share: u64,
    limit: u64,
    /// How many groups it is for.
    groups: u64,
}

/// The parts of a store.
#[derive(Clone, Debug)]
pub(super) struct Quotas {
    /// Which part a group is, by its number; those after the last one are part 0.
    index: Vec<u16>,
    parts: Vec<Part>,
    /// How many shards the store has.
    shards: u64,
}

impl Quotas {
    /// One part for all groups.
    pub(super) fn none(shards: usize) -> Self {
        Self::new(&[], 0, shards)
    }

    /// The quotas of these groups in a store of so many bytes in so many shards.
    pub(super) fn new(groups: &[(GroupId, MemoryQuota)], capacity: u64, shards: usize) -> Self {
        let (mut own, others): (Vec<_>, Vec<_>) = groups
            .iter()
            .partition(|(_, quota)| *quota != MemoryQuota::NONE);
        // A part keeps its number whatever the order in which groups are named, or all entries
        // would be sorted anew for nothing.
        own.sort_unstable_by_key(|(group, _)| group.0);
        let mut quotas = Self {
            index: Vec::new(),
            parts: vec![Part {
                group: None,
                share: 0,
                limit: u64::MAX,
                groups: (others.len() as u64).max(1),
            }],
            shards: shards as u64,
        };
        let bytes = |ratio: f64| (capacity as f64 * ratio) as u64;
        for (group, quota) in own {
            let at = usize::from(group.0);
            quotas.index.resize(quotas.index.len().max(at + 1), 0);
            // There are no more groups than numbers.
            quotas.index[at] = u16::try_from(quotas.parts.len()).unwrap_or(0);
            quotas.parts.push(Part {
                group: Some(group),
                share: bytes(quota.share),
                limit: match quota.limit {
                    1.0.. => u64::MAX,
                    limit => bytes(limit),
                },
                groups: 1,
            });
        }
        quotas
    }

    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// How many shards the store has.
    pub(super) fn shards(&self) -> u64 {
        self.shards
    }

    /// Whether groups are in the same parts as with the other quotas.
    pub(super) fn divide_like(&self, other: &Self) -> bool {
        self.index == other.index
    }

    /// The part of a group.
    pub(super) fn part_of(&self, group: GroupId) -> PartNumber {
        let part = self.index.get(usize::from(group.0));
        part.copied().map_or(0, usize::from)
    }

    /// What the group of a part is guaranteed, in bytes.
    pub(super) fn share(&self, part: PartNumber) -> u64 {
        self.parts[part].share
    }

    /// What the group of a part must not exceed, in bytes.
    pub(super) fn limit(&self, part: PartNumber) -> u64 {
        self.parts[part].limit
    }

    /// How many groups are in a part, at least one.
    pub(super) fn groups(&self, part: PartNumber) -> u64 {
        self.parts[part].groups
    }

    /// Whether a part holds no more than its group is guaranteed.
    pub(super) fn guarantee(&self, part: PartNumber, stats: &StoreStats) -> bool {
        let Part { group, share, .. } = &self.parts[part];
        group.is_some_and(|group| stats.bytes(group) <= *share)
    }

    /// Whether with so many bytes more, a part would exceed its limit.
    pub(super) fn forbid(&self, part: PartNumber, more: u64, stats: &StoreStats) -> bool {
        let Part { group, limit, .. } = &self.parts[part];
        group.is_some_and(|group| stats.bytes(group).saturating_add(more) > *limit)
    }
}
