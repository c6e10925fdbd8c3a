//! How the old value gets from node to node, and from the origin to a node.

use super::effects::{is_running, only};
use crate::{
    decisions,
    protocol::Protocol,
    rule::Rule,
    state::{Kind, Phase, Removal, State, Way},
};

impl Protocol {
    pub(super) fn send(&self, state: &mut State, from: usize, to: usize) -> Option<()> {
        only(state.nodes[from].view[to].is_some_and(|it| it.serving && !it.vanished))?;
        self.read(state, from)?;
        let life = state.nodes[from].view[from]?.life;
        self.put_on_its_way(state, Kind::Handoff, (from, life), to)
    }

    pub(super) fn fetch(&self, state: &mut State, to: usize, from: usize) -> Option<()> {
        only(state.nodes[to].view[from].is_some())?;
        self.read(state, from)?;
        self.put_on_its_way(state, Kind::Fetch, (from, 0), to)
    }

    pub(super) fn load(&self, state: &mut State, to: usize) -> Option<()> {
        only(state.removal == Removal::None)?;
        self.put_on_its_way(state, Kind::Load, (to, 0), to)
    }

    /// That node reads the old value from its memory.
    fn read(&self, state: &State, from: usize) -> Option<()> {
        let it = &state.nodes[from];
        only(it.phase != Phase::Down && it.holds_old)?;
        only(it.fence > 0 || !self.keeps(Rule::SenderFence))
    }

    fn put_on_its_way(
        &self,
        state: &mut State,
        kind: Kind,
        from: (usize, u8),
        to: usize,
    ) -> Option<()> {
        only(is_running(state, to))?;
        let free = state
            .ways
            .iter()
            .take(self.bounds.ways)
            .position(Option::is_none)?;
        state.ways[free] = Some(Way {
            kind,
            from,
            to,
            age: 0,
            fenced: state.nodes[to].fence > 0,
            grounded: false,
        });
        Some(())
    }

    pub(super) fn arrive(&self, state: &mut State, way: usize) -> Option<()> {
        let way = state.ways[way].take()?;
        let it = &mut state.nodes[way.to];
        let in_time = way.age < self.bounds.transfer || !self.keeps(Rule::TransferTimeout);
        let no_tombstone = it.tombstone == 0 || !self.keeps(Rule::Tombstone);
        let kept = match way.kind {
            Kind::Handoff => {
                let fenced = way.fenced || !self.keeps(Rule::FenceSinceSending);
                let taken = decisions::may_accept(way.to, it.view, way.from, fenced);
                it.fence > 0 && in_time && no_tombstone && taken
            }
            Kind::Fetch => !way.grounded && self.passes(&way, it.fence) && in_time && no_tombstone,
            Kind::Load => !way.grounded && self.passes(&way, it.fence),
        };
        it.holds_old |= kept;
        Some(())
    }

    fn passes(&self, way: &Way, fence: u8) -> bool {
        fence > 0 && (way.fenced || !self.keeps(Rule::Pass))
    }
}
