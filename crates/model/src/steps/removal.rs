//! How a removal reaches the members and is acknowledged.

use super::effects::{ground, is_running, only};
use crate::{
    protocol::Protocol,
    rule::Rule,
    state::{Lives, NODES, Phase, Removal, State},
};

/// The node that is asked to remove: the nodes are alike.
const COORDINATOR: usize = 0;

impl Protocol {
    pub(super) fn remove(&self, state: &mut State) -> Option<()> {
        let by = COORDINATOR;
        only(state.removal == Removal::None && is_running(state, by))?;
        only(state.nodes[by].fence > 0 || !self.keeps(Rule::CoordinatorFence))?;
        self.remove_here(state, by);
        state.removal = Removal::Running {
            left: self.bounds.removal,
            confirmed: Lives::default(),
        };
        if self.bounds.at_once {
            for node in 0..NODES {
                let _ = self.tell(state, node);
            }
            self.acknowledge(state)?;
        }
        Some(())
    }

    fn remove_here(&self, state: &mut State, node: usize) {
        let it = &mut state.nodes[node];
        it.holds_old = false;
        if self.bounds.ways > 0 {
            it.tombstone = self.bounds.tombstone();
        }
        if self.keeps(Rule::Grounding) {
            ground(state, node);
        }
    }

    pub(super) fn tell(&self, state: &mut State, node: usize) -> Option<()> {
        let by = COORDINATOR;
        let Removal::Running { left, confirmed } = state.removal else {
            return None;
        };
        let listed = state.nodes[by].view[node]?;
        only(node != by && is_running(state, node) && !confirmed.has(node, listed.life))?;
        self.remove_here(state, node);
        // Who it says that it is, as it sees itself on the list.
        let life = state.nodes[node].view[node].map_or(0, |me| me.life);
        let mut confirmed = confirmed.with(node, life);
        if !self.keeps(Rule::Incarnation) {
            confirmed = (0..self.bounds.lives).fold(confirmed, |all, life| all.with(node, life));
        }
        state.removal = Removal::Running { left, confirmed };
        Some(())
    }

    pub(super) fn acknowledge(&self, state: &mut State) -> Option<()> {
        let by = COORDINATOR;
        let Removal::Running { confirmed, .. } = state.removal else {
            return None;
        };
        let it = &state.nodes[by];
        only(it.phase != Phase::Down)?;
        only(it.fence > 0 || !self.keeps(Rule::CoordinatorFence))?;
        let missing = (0..NODES).filter(|other| *other != by).any(|other| {
            it.view[other].is_some_and(|entry| {
                let counts = !entry.vanished || self.keeps(Rule::TellVanished);
                counts && !confirmed.has(other, entry.life)
            })
        });
        only(!missing)?;
        state.removal = Removal::Acknowledged;
        Some(())
    }
}
