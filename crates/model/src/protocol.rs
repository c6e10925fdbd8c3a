//! The protocol as stateright explores it: which steps there are, and what must hold.

use stateright::{Model, Property};

use crate::state::{Kind, NODES, Phase, Removal, State, Way};

/// What makes a removal final. Each can be left out, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Memory is served only while the fence is open.
    Fence,
    /// A lease counts from when its renewal was sent.
    LeaseFromSending,
    /// A lease counts only once the key is stored under it.
    LeaseWithKey,
    /// Words keep a node on the list only if more than half of all members back it.
    Majority,
    /// Members that are excluded by those that give their word don't count.
    ExcludedByGivers,
    /// Nor does whom the asker promised not to vouch for.
    ExcludedByAsker,
    /// A word counts from the question.
    WordFromAsking,
    /// A promise not to vouch is kept.
    Promises,
    /// An expulsion takes promises of half of all members.
    Half,
    /// It waits until the words given before have run out.
    PromiseWait,
    /// It takes etcd's word that the lease has ended.
    LeaseEnded,
    /// It fails if the record has changed.
    RecordUnchanged,
    /// A member that vanished stays known by its record.
    Record,
    /// A member that vanished has to confirm a removal, too.
    TellVanished,
    /// A joining node keeps nothing until all others have seen it.
    SeenByAll,
    /// An expelled member drops everything before it joins again.
    DropAll,
    /// A member that joins again is another one, which has confirmed nothing.
    Incarnation,
    /// A removal is coordinated only inside the fence.
    CoordinatorFence,
    /// It is acknowledged within its bound or not at all.
    Deadline,
    /// A key that was removed is taken from no other member for a while.
    Tombstone,
    /// What was under way for long is not kept.
    TransferTimeout,
    /// Nor is what was sent before the receiver's fence opened.
    FenceSinceSending,
    /// A flight keeps nothing if the fence was not open all the time.
    Pass,
    /// A removal grounds the flights under way.
    Grounding,
    /// Other members' memory is read only inside their fences.
    SenderFence,
    /// Under a tombstone, and outside the fence, a get shares no flight that is under way.
    NextFlight,
    /// Nor one that is old.
    YoungFlight,
    /// No node joins in a history that is younger than a lease: etcd may have lost its data.
    YoungHistory,
    /// A member that registers again in it goes on only if its lease would still be alive.
    ResumedInTime,
    /// Whom it doesn't know stays on the lists for a while.
    Held,
    /// But nobody gives it a word.
    NoWordForHeld,
    /// And its words don't count.
    NoWordFromHeld,
    /// All this until the words that were given in the lease's time have run out.
    DoubtOutlastsWords,
    /// Who stands in etcd otherwise than it sees gives no word.
    GiverSeesItself,
    /// Nor does it rely on its lease or on words.
    AskerSeesItself,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 35] = [
        Self::Fence,
        Self::LeaseFromSending,
        Self::LeaseWithKey,
        Self::Majority,
        Self::ExcludedByGivers,
        Self::ExcludedByAsker,
        Self::WordFromAsking,
        Self::Promises,
        Self::Half,
        Self::PromiseWait,
        Self::LeaseEnded,
        Self::RecordUnchanged,
        Self::Record,
        Self::TellVanished,
        Self::SeenByAll,
        Self::DropAll,
        Self::Incarnation,
        Self::CoordinatorFence,
        Self::Deadline,
        Self::Tombstone,
        Self::TransferTimeout,
        Self::FenceSinceSending,
        Self::Pass,
        Self::Grounding,
        Self::SenderFence,
        Self::NextFlight,
        Self::YoungFlight,
        Self::YoungHistory,
        Self::ResumedInTime,
        Self::Held,
        Self::NoWordForHeld,
        Self::NoWordFromHeld,
        Self::DoubtOutlastsWords,
        Self::GiverSeesItself,
        Self::AskerSeesItself,
    ];
}

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

/// The protocol, perhaps without one of its rules.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How far to go.
    pub bounds: Bounds,
    /// The rule that is left out.
    pub without: Option<Rule>,
}

impl Protocol {
    /// Whether that rule is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// For how long an etcd that lost its data is doubted.
    pub fn doubt(&self) -> u8 {
        let words = self.keeps(Rule::DoubtOutlastsWords);
        self.bounds.lease + if words { self.bounds.word } else { 0 }
    }

    /// Whether a get that begins now may bring the old value, at any node.
    pub fn may_serve_old(&self, state: &State) -> bool {
        let running = |node: usize| state.nodes[node].phase != Phase::Down;
        let in_memory = (0..NODES).filter(|node| running(*node)).any(|node| {
            let node = &state.nodes[node];
            node.holds_old && (node.fence > 0 || !self.keeps(Rule::Fence))
        });
        in_memory
            || state
                .ways
                .iter()
                .flatten()
                .any(|way| self.is_shared(state, way))
    }

    /// Whether a get that begins now shares that flight.
    fn is_shared(&self, state: &State, way: &Way) -> bool {
        if way.kind == Kind::Handoff || way.grounded {
            return false;
        }
        if !self.keeps(Rule::NextFlight) {
            return true;
        }
        let node = &state.nodes[way.to];
        let sure = node.fence > 0;
        let young = way.age < self.bounds.transfer || !self.keeps(Rule::YoungFlight);
        sure && (way.kind == Kind::Load || (node.tombstone == 0 && young))
    }
}

/// A set of nodes.
pub type Nodes = [bool; NODES];

/// One step of somebody. Where several messages lead to a decision, the step takes them together,
/// at the moment of the last: that is when the least is known of what went before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Time passes, for all alike. These nodes renewed their leases just before; the keys of others
    /// go with theirs.
    Tick(Nodes),
    /// A node gets a new lease, and has not written its key yet.
    Granted(usize),
    /// A node finds out what is in etcd, and writes its key again or learns that it is out.
    Register(usize),
    /// A node that was expelled registers as another.
    Rejoin(usize),
    /// A node's view catches up.
    See(usize),
    /// A node that all others have seen has joined.
    Join(usize),
    /// A node asks for words, and another gives its own. One is enough for more than half of three.
    Words(usize, usize),
    /// A node begins to expel another, and these promise.
    Expel(usize, usize, Nodes),
    /// The record is deleted.
    Expelled,
    /// A removal begins, at the first node.
    Remove,
    /// A removal reaches a member, by whatever way, and the member confirms.
    Tell(usize),
    /// The removal is acknowledged.
    Acknowledge,
    /// A member hands the value over.
    Send(usize, usize),
    /// A node asks another, which reads its memory.
    Fetch(usize, usize),
    /// A node loads the value.
    Load(usize),
    /// A value arrives.
    Arrive(usize),
    /// A process ends without a word.
    Crash(usize),
    /// Another is started in its place.
    Restart(usize),
    /// Somebody deletes a key by hand.
    DeleteKey(usize),
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|a| (0..NODES).filter(move |b| *b != a).map(move |b| (a, b)))
}

fn sets() -> impl Iterator<Item = Nodes> {
    (0..1_usize << NODES).map(|bits| std::array::from_fn(|node| bits & 1 << node != 0))
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let Bounds { lease, faults, .. } = self.bounds;
        vec![match self.bounds.begin {
            Begin::Calm => State::calm(lease, faults),
            Begin::OneOut => State::one_out(lease, faults),
            Begin::OneRestarted => State::one_restarted(lease, faults),
            Begin::Emptied => State::emptied(lease, faults),
            Begin::EmptiedAndOneDown => State::emptied_and_one_down(lease, faults),
            Begin::EmptiedAndOneNew => State::emptied_and_one_new(lease, faults),
        }]
    }

    fn actions(&self, _: &State, steps: &mut Vec<Step>) {
        use Step as S;
        let of_node = [
            S::Granted,
            S::Register,
            S::Rejoin,
            S::See,
            S::Join,
            S::Tell,
            S::Crash,
            S::Restart,
            S::DeleteKey,
        ];
        steps.extend([S::Expelled, S::Remove, S::Acknowledge]);
        for node in 0..NODES {
            steps.extend(of_node.iter().map(|step| step(node)));
        }
        for (by, of) in pairs() {
            let with_it = |set: &Nodes| set[by] && !set[of];
            steps.extend(sets().filter(with_it).map(|set| S::Expel(by, of, set)));
        }
        steps.extend(pairs().map(|(a, b)| S::Words(a, b)));
        steps.extend(sets().map(S::Tick));
        if self.bounds.ways > 0 {
            steps.extend((0..self.bounds.ways).map(S::Arrive));
            steps.extend((0..NODES).map(S::Load));
            steps.extend(pairs().flat_map(|(a, b)| [S::Send(a, b), S::Fetch(a, b)]));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, step)?;
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let final_ = |model: &Self, state: &State| {
            state.removal != Removal::Acknowledged || !model.may_serve_old(state)
        };
        vec![
            Property::always("removed is removed", final_),
            Property::sometimes(
                "a removal is acknowledged without an expelled member",
                |_, it: &State| it.removal == Removal::Acknowledged && it.etcd.contains(&None),
            ),
            Property::sometimes("a member joins again while it is", |_, it: &State| {
                let again = |node: usize| it.nodes[node].life > 0 && it.nodes[node].fence > 0;
                it.removal == Removal::Acknowledged && (0..NODES).any(again)
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        let old =
            state.nodes.iter().any(|node| node.holds_old) || state.ways.iter().any(Option::is_some);
        // Nothing is promised of a removal that was refused, and nothing old can come from nowhere.
        state.removal != Removal::Refused && (old || state.removal == Removal::None)
    }
}
