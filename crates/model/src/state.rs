//! What a state of the model consists of. Times are ticks that are left or have passed, never
//! moments, so that equal situations are equal states.

/// Nodes of the cluster.
pub const NODES: usize = 3;
/// Lives that a node may have.
pub const LIVES: u8 = 3;

/// A member as it is in etcd, and in the views of it: its key, and the record that outlives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Which incarnation of the node.
    pub life: u8,
    /// It was seen by all others.
    pub serving: bool,
    /// Its key is gone, its record remains.
    pub vanished: bool,
    /// An etcd that lost its data doesn't know it; it is kept in the view for a while.
    pub held: bool,
    /// It replaced an admitted incarnation of itself.
    pub restarted: bool,
    /// Changes of the record, up to a few.
    pub revision: u8,
}

/// A member that never had a fault.
const SERVING: Entry = Entry {
    life: 0,
    serving: true,
    vanished: false,
    held: false,
    restarted: false,
    revision: 0,
};

/// The list, by node.
pub type List = [Option<Entry>; NODES];

/// A set of incarnations of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lives(u16);

impl Lives {
    /// With that incarnation of that node in it.
    #[must_use]
    pub fn with(self, node: usize, life: u8) -> Self {
        Self(self.0 | Self::bit(node, life))
    }

    /// Whether that incarnation of that node is in it.
    pub fn has(self, node: usize, life: u8) -> bool {
        self.0 & Self::bit(node, life) != 0
    }

    fn bit(node: usize, life: u8) -> u16 {
        1 << (node as u16 * u16::from(LIVES) + u16::from(life))
    }
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is none.
    Down,
    /// It was expelled and knows it.
    Out,
    /// It waits until all others have seen it.
    Joining,
    /// It is a member as far as it knows.
    Serving,
}

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What its process does.
    pub phase: Phase,
    /// Its current incarnation.
    pub life: u8,
    /// Whether its memory holds the value that is to be removed.
    pub holds_old: bool,
    /// Ticks for which its fence stays open.
    pub fence: u8,
    /// The list as it sees it.
    pub view: List,
    /// Whether it sees the history marked as young.
    pub sees_young: bool,
    /// It registered before etcd lost its data, and has not tried to since.
    pub from_before: bool,
    /// Its view is of what etcd lost.
    pub view_from_before: bool,
    /// For whom it never vouches again.
    pub promised: Lives,
    /// Ticks for which a tombstone lasts.
    pub tombstone: u8,
}

/// By which way a value goes to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pushed by another member: a handoff, a copy.
    Handoff,
    /// Asked of another member: a fetch, a peek.
    Fetch,
    /// Loaded from the origin.
    Load,
}

/// The old value on its way. It may take any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// By which way it goes.
    pub kind: Kind,
    /// The sender, and its incarnation.
    pub from: (usize, u8),
    /// Where it goes.
    pub to: usize,
    /// Ticks since it was read, up to the time that a transfer may take.
    pub age: u8,
    /// Whether the receiver's fence was open all the time.
    pub fenced: bool,
    /// A removal cut the flight off from memory.
    pub grounded: bool,
}

/// An attempt to take a member off the list, for which enough members have promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expulsion {
    /// Whom.
    pub of: usize,
    /// Which incarnation, and its record's revision.
    pub entry: Entry,
    /// Ticks to wait until the words given before have run out.
    pub wait: u8,
}

/// The removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// Not begun: the origin has the old value.
    None,
    /// Under way.
    Running {
        /// Ticks until it is refused.
        left: u8,
        /// Which members have confirmed.
        confirmed: Lives,
    },
    /// Answered OK.
    Acknowledged,
    /// Refused: nothing was promised.
    Refused,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The nodes.
    pub nodes: [Node; NODES],
    /// What is in etcd.
    pub etcd: List,
    /// Ticks for which each node's lease is alive.
    pub leases: [u8; NODES],
    /// Ticks for which the history is young, once somebody has registered in it.
    pub young: Option<u8>,
    /// Ticks since etcd lost its data, if it did, up to a few.
    pub since_loss: Option<u8>,
    /// Values on their way.
    pub ways: [Option<Way>; 2],
    /// At most one at a time.
    pub expulsion: Option<Expulsion>,
    /// At most one.
    pub removal: Removal,
    /// Faults that are still to come: crashes, keys deleted by hand.
    pub faults: u8,
}

impl State {
    /// Three members, and all of them hold the value.
    pub fn calm(lease: u8, faults: u8) -> Self {
        let list = [Some(SERVING); NODES];
        let node = Node {
            phase: Phase::Serving,
            life: 0,
            holds_old: true,
            fence: lease,
            view: list,
            sees_young: false,
            from_before: false,
            view_from_before: false,
            promised: Lives::default(),
            tombstone: 0,
        };
        Self {
            nodes: [node; NODES],
            etcd: list,
            leases: [lease; NODES],
            young: Some(0),
            since_loss: None,
            ways: [None; 2],
            expulsion: None,
            removal: Removal::None,
            faults,
        }
    }

    /// The same after the last of them was expelled, which all have seen, and when the first one's
    /// lease has just ended.
    pub fn one_out(lease: u8, faults: u8) -> Self {
        let mut state = Self::calm(lease, faults);
        let last = NODES - 1;
        state.etcd[last] = None;
        state.leases[last] = 0;
        for node in &mut state.nodes {
            node.view = state.etcd;
        }
        state.etcd[0] = Some(Entry {
            vanished: true,
            ..SERVING
        });
        state.leases[0] = 0;
        state.nodes[0].fence = 0;
        let out = &mut state.nodes[last];
        out.phase = Phase::Out;
        out.holds_old = false;
        out.fence = 0;
        state
    }

    /// The same when the second of them has crashed and was restarted, which no other has seen.
    pub fn one_restarted(lease: u8, faults: u8) -> Self {
        let mut state = Self::calm(lease, faults);
        let it = &mut state.nodes[1];
        it.phase = Phase::Joining;
        it.life = 1;
        it.holds_old = false;
        it.fence = 0;
        state.etcd[1] = Some(Entry {
            life: 1,
            serving: false,
            vanished: false,
            held: false,
            restarted: true,
            revision: 0,
        });
        it.view = state.etcd;
        state
    }

    /// The same when etcd has lost its data.
    pub fn emptied(lease: u8, faults: u8) -> Self {
        let mut state = Self::calm(lease, faults);
        state.etcd = [None; NODES];
        state.leases = [0; NODES];
        state.young = None;
        state.since_loss = Some(0);
        for node in &mut state.nodes {
            node.from_before = true;
            node.view_from_before = true;
        }
        state
    }

    /// The same when the first of them is down.
    pub fn emptied_and_one_down(lease: u8, faults: u8) -> Self {
        let mut state = Self::emptied(lease, faults);
        state.take_down(0);
        state
    }

    /// The same when the last of them has never been a member, and the value is nowhere yet.
    pub fn emptied_and_one_new(lease: u8, faults: u8) -> Self {
        let mut state = Self::emptied(lease, faults);
        let last = NODES - 1;
        state.take_down(last);
        for node in &mut state.nodes {
            node.view[last] = None;
            node.holds_old = false;
        }
        state
    }

    fn take_down(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.phase = Phase::Down;
        it.holds_old = false;
        it.fence = 0;
        it.from_before = false;
        it.view_from_before = false;
    }
}
