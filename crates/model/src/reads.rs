//! Reads go on: losing etcd, or etcd and a minority of the members, closes no other fence, so it
//! costs no entry and no load. The members that are left are in touch: each gets the words of all
//! others before time passes.

use stateright::{Model, Property};

use crate::{
    decisions,
    state::{Lives, NODES, State},
};

/// Three members that have lost etcd.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// Whether they ask each other for words; left out to see that it is needed.
    pub asking: bool,
    /// How many may crash.
    pub crashes: usize,
}

/// What is known of each member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Touch {
    running: [bool; NODES],
    /// Ticks for which each fence stays open.
    fences: [u8; NODES],
    /// Which nodes have asked since time passed last.
    asked: [bool; NODES],
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// Time passes.
    Tick,
    /// A member asks the others for words.
    Ask(usize),
    /// A member crashes.
    Crash(usize),
}

/// For how long a word is good: it outlasts the tick before the next.
const WORD: u8 = 2;

impl Model for Reads {
    type State = Touch;
    type Action = Happening;

    fn init_states(&self) -> Vec<Touch> {
        vec![Touch {
            running: [true; NODES],
            fences: [WORD; NODES],
            asked: [false; NODES],
        }]
    }

    fn actions(&self, _: &Touch, happenings: &mut Vec<Happening>) {
        happenings.push(Happening::Tick);
        happenings.extend((0..NODES).flat_map(|it| [Happening::Ask(it), Happening::Crash(it)]));
    }

    fn next_state(&self, last: &Touch, happening: Happening) -> Option<Touch> {
        let mut state = last.clone();
        match happening {
            Happening::Tick => {
                let waiting = (0..NODES).any(|it| state.running[it] && !state.asked[it]);
                if self.asking && waiting {
                    return None;
                }
                state.asked = [false; NODES];
                for fence in &mut state.fences {
                    *fence = fence.saturating_sub(1);
                }
            }
            Happening::Ask(node) => {
                if !self.asking || !state.running[node] || state.asked[node] {
                    return None;
                }
                state.asked[node] = true;
                if is_backed_by_the_running(node, &state.running) {
                    state.fences[node] = WORD;
                }
            }
            Happening::Crash(node) => {
                let crashed = state.running.iter().filter(|it| !**it).count();
                if crashed == self.crashes || !state.running[node] {
                    return None;
                }
                state.running[node] = false;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("reads go on", |_, state: &Touch| {
            (0..NODES).all(|node| !state.running[node] || state.fences[node] > 0)
        })]
    }
}

fn is_backed_by_the_running(node: usize, running: &[bool; NODES]) -> bool {
    let list = State::calm(1, 0).etcd;
    let word = |giver: usize| {
        let asked = giver != node && running[giver];
        let given = || decisions::vouch((giver, list, Lives::default()), (node, 0), list);
        asked.then(given).flatten()
    };
    decisions::is_backed(node, list, Lives::default(), std::array::from_fn(word))
}
