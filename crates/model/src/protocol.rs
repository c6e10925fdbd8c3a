//! The protocol as stateright explores it: which steps there are, and what must hold.

use stateright::{Model, Property};

use crate::{
    bounds::{Begin, Bounds, Nodes},
    rule::Rule,
    state::{Kind, NODES, Phase, Removal, State, Way},
};

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
