//! How far the model goes, and from where.

use crate::state::NODES;

/// A set of nodes.
pub type Nodes = [bool; NODES];

/// How far the model goes. Times are in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A lease's time to live.
    pub lease: u8,
    /// For how long a word is good.
    pub word: u8,
    /// Bound on a removal.
    pub removal: u8,
    /// For how long something may be on its way and still be taken.
    pub transfer: u8,
    /// How often an incarnation may come back after its key went.
    pub returns: u8,
    /// Crashes and keys deleted by hand.
    pub faults: u8,
    /// Values on their way at the same time.
    pub ways: usize,
    /// Lives that a node may have.
    pub lives: u8,
    /// Nodes that etcd always hears from.
    pub steady: Nodes,
    /// A removal takes no time: it reaches all members at the same moment.
    pub at_once: bool,
    /// How it begins.
    pub begin: Begin,
    /// Steps of a history at most; 0: any number.
    pub steps: usize,
}

/// How a history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Three members that know each other.
    Calm,
    /// The last was expelled, which all have seen, and the first one's lease has just ended.
    OneOut,
    /// The second has just been restarted, which no other has seen.
    OneRestarted,
    /// etcd has just lost its data, which they don't know.
    Emptied,
    /// The same, and the first is down.
    EmptiedAndOneDown,
    /// The same, and the last is no member yet.
    EmptiedAndOneNew,
}

impl Bounds {
    /// Everything as small as can be; nothing is in transit, and no node joins again.
    pub const LISTS: Self = Self {
        lease: 1,
        word: 1,
        removal: 1,
        transfer: 1,
        returns: 0,
        faults: 0,
        ways: 0,
        lives: 1,
        steady: [true, false, false],
        at_once: true,
        begin: Begin::Calm,
        steps: 0,
    };

    /// A value is on its way, and one node may be expelled and join again meanwhile.
    pub const TRANSFERS: Self = Self {
        ways: 1,
        lives: 2,
        steady: [true, true, false],
        at_once: false,
        ..Self::LISTS
    };

    /// The node that is asked to remove may be expelled while another joins again.
    pub const LOST_COORDINATOR: Self = Self {
        ways: 1,
        lives: 2,
        steady: [false, true, false],
        begin: Begin::OneOut,
        steps: 10,
        ..Self::LISTS
    };

    /// A process was restarted while another node is cut off.
    pub const RESTARTED: Self = Self {
        lives: 2,
        begin: Begin::OneRestarted,
        steps: 13,
        ..Self::LISTS
    };

    /// etcd lost its data, and those who relied on it find out at any time. But after a lease's
    /// time, no more than half of them don't know it yet: nobody could tell the others.
    pub const EMPTIED: Self = Self {
        lives: 2,
        begin: Begin::EmptiedAndOneDown,
        steady: [false; NODES],
        steps: 11,
        ..Self::LISTS
    };

    /// The same; all of them run, and one may be expelled.
    pub const EMPTIED_AND_ONE_EXPELLED: Self = Self {
        lives: 1,
        begin: Begin::Emptied,
        steps: 11,
        ..Self::EMPTIED
    };

    /// The same; another joins, and takes a value.
    pub const EMPTIED_AND_ONE_NEW: Self = Self {
        ways: 1,
        begin: Begin::EmptiedAndOneNew,
        steps: 9,
        ..Self::EMPTIED
    };

    /// How long a tombstone lasts.
    pub fn tombstone(&self) -> u8 {
        self.removal + self.transfer
    }
}
