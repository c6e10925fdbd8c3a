//! The kinds of faults.

use clap::ValueEnum;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A node and etcd are cut from each other, both ways or one way.
    EtcdLink,
    /// Most nodes are cut from etcd at once.
    EtcdLinks,
    /// Two nodes are cut from each other.
    PeerLink,
    /// What one node sends to another vanishes.
    PeerLinkOneWay,
    /// A node is cut from all nodes, but not from etcd.
    OffMembers,
    /// A node is cut from nodes and etcd, and sometimes from the origin.
    OffEverything,
    /// Members of etcd are cut from each other.
    EtcdSplit,
    /// A node is paused for less than its lease.
    FreezeShort,
    /// A node is paused for longer than its lease.
    FreezeLong,
    /// A node is killed and starts again under the same id.
    Kill,
    /// A node leaves in order and starts again.
    Roll,
    /// A node more, or a node less.
    Scale,
    /// A member of etcd is killed and starts again.
    EtcdMember,
    /// All of etcd is down for longer than the lease.
    EtcdDown,
    /// All of etcd is down and comes back without its data.
    EtcdEmptied,
    /// All of etcd is down and comes back with the data of a while before.
    EtcdRestored,
    /// A node's key is deleted in etcd by hand.
    KeyDeleted,
    /// A node's wall clock jumps, and later back.
    Clock,
    /// The origin takes longer than `peer.timeout_seconds`.
    SlowOrigin,
    /// The origin accepts requests and doesn't answer.
    HungOrigin,
    /// The origin answers 503.
    FailingOrigin,
    /// Clients ask for big values and don't read them.
    SlowReaders,
}

impl Kind {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its number.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name, as `--only` takes it.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|it| it.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether etcd can't be trusted to answer while this is active.
    pub fn ails_etcd(self) -> bool {
        let down = matches!(self, Self::EtcdSplit | Self::EtcdMember | Self::EtcdDown);
        down || self.loses_history()
    }

    /// Whether nodes can't reach etcd while this is active.
    pub fn keeps_from_etcd(self) -> bool {
        let cut = matches!(self, Self::EtcdLink | Self::EtcdLinks | Self::OffEverything);
        cut || self.ails_etcd()
    }

    /// Whether etcd forgets something by it.
    pub fn loses_history(self) -> bool {
        matches!(self, Self::EtcdEmptied | Self::EtcdRestored)
    }
}
