//! What several steps ask of a state, and do to it.

use crate::state::{Phase, State};

/// Goes on only if this holds.
pub(super) fn only(holds: bool) -> Option<()> {
    holds.then_some(())
}

pub(super) fn is_running(state: &State, node: usize) -> bool {
    state.nodes[node].phase != Phase::Down
}

/// The node's fence is closed: what is on its way to it notices.
pub(super) fn fence_broke(state: &mut State, node: usize) {
    let to_it = state.ways.iter_mut().flatten().filter(|way| way.to == node);
    to_it.for_each(|way| way.fenced = false);
}

pub(super) fn drop_everything(state: &mut State, node: usize) {
    state.nodes[node].holds_old = false;
    ground(state, node);
}

pub(super) fn ground(state: &mut State, node: usize) {
    let to_it = state.ways.iter_mut().flatten().filter(|way| way.to == node);
    to_it.for_each(|way| way.grounded = true);
}
