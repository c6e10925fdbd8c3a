//! How a node registers, joins, vouches, is expelled, crashes and comes back.

use super::effects::{drop_everything, fence_broke, is_running, only};
use crate::{
    bounds::Nodes,
    decisions,
    protocol::Protocol,
    rule::Rule,
    state::{Entry, Expulsion, List, Lives, NODES, Phase, State},
};

impl Protocol {
    pub(super) fn granted(&self, state: &mut State, node: usize) -> Option<()> {
        let it = &mut state.nodes[node];
        only(!self.keeps(Rule::LeaseWithKey))?;
        only(it.phase == Phase::Serving && state.leases[node] == 0)?;
        it.fence = self.bounds.lease;
        Some(())
    }

    pub(super) fn register(&self, state: &mut State, node: usize) -> Option<()> {
        let it = state.nodes[node];
        only(matches!(it.phase, Phase::Joining | Phase::Serving))?;
        let resumes = self.resumes(state, node);
        let seen = |state: &State| it.phase == Phase::Serving && self.sees_itself(state, node);
        match &mut state.etcd[node] {
            Some(entry) if entry.life == it.life => {
                only(entry.vanished && entry.revision <= self.bounds.returns)?;
                entry.vanished = false;
                entry.revision += 1;
                state.leases[node] = self.bounds.lease;
                if seen(state) {
                    state.nodes[node].fence = self.bounds.lease;
                }
            }
            None if resumes => {
                self.mark_history(state);
                state.etcd[node] = it.view[node].map(|me| Entry { held: false, ..me });
                state.leases[node] = self.bounds.lease;
                state.nodes[node].from_before = false;
                if seen(state) {
                    state.nodes[node].fence = self.bounds.lease;
                }
            }
            _ => {
                let it = &mut state.nodes[node];
                it.phase = Phase::Out;
                it.fence = 0;
                it.from_before = false;
                fence_broke(state, node);
                if self.keeps(Rule::DropAll) {
                    drop_everything(state, node);
                }
                let it = &mut state.nodes[node];
                if it.life + 1 == self.bounds.lives {
                    // It does nothing any more.
                    it.view = [None; NODES];
                    it.promised = Lives::default();
                }
            }
        }
        Some(())
    }

    /// Whether that node finds out that etcd lost its data, and goes on there.
    fn resumes(&self, state: &State, node: usize) -> bool {
        let it = &state.nodes[node];
        let member = it.phase == Phase::Serving && it.view[node].is_some();
        let in_time = state.since_loss.is_some_and(|it| it < self.bounds.lease);
        it.from_before && member && (in_time || !self.keeps(Rule::ResumedInTime))
    }

    /// The first to register marks the history as young.
    fn mark_history(&self, state: &mut State) {
        state.young.get_or_insert(self.doubt());
    }

    pub(super) fn rejoin(&self, state: &mut State, node: usize) -> Option<()> {
        only(state.nodes[node].phase == Phase::Out)?;
        self.begin_life(state, node)
    }

    /// Registers the next incarnation of that node.
    fn begin_life(&self, state: &mut State, node: usize) -> Option<()> {
        only(state.nodes[node].life + 1 < self.bounds.lives)?;
        let restarted = |entry: Entry| entry.serving || entry.restarted;
        let it = &mut state.nodes[node];
        it.life += 1;
        it.phase = Phase::Joining;
        it.from_before = false;
        state.etcd[node] = Some(Entry {
            life: it.life,
            serving: false,
            vanished: false,
            held: false,
            restarted: state.etcd[node].is_some_and(restarted),
            revision: 0,
        });
        state.leases[node] = self.bounds.lease;
        self.mark_history(state);
        self.see(state, node);
        Some(())
    }

    pub(super) fn join(&self, state: &mut State, node: usize) -> Option<()> {
        let it = state.nodes[node];
        only(it.phase == Phase::Joining && is_registered(state, node))?;
        let unseen = (0..NODES).any(|other| {
            let other_sees = &state.nodes[other];
            let seen = other_sees.view[node].is_some_and(|me| me.life == it.life);
            // It tells a revision, which may be of what etcd lost.
            it.view[other].is_some() && !seen && !other_sees.view_from_before
        });
        only(!unseen || !self.keeps(Rule::SeenByAll))?;
        only(!it.sees_young || !self.keeps(Rule::YoungHistory))?;
        if self.keeps(Rule::DropAll) {
            drop_everything(state, node);
        }
        let entry = state.etcd[node].as_mut()?;
        entry.serving = true;
        entry.revision += 1;
        let it = &mut state.nodes[node];
        it.phase = Phase::Serving;
        it.fence = state.leases[node];
        Some(())
    }

    pub(super) fn words(&self, state: &mut State, node: usize, giver: usize) -> Option<()> {
        let it = state.nodes[node];
        only(it.phase == Phase::Serving && it.fence < self.bounds.word)?;
        only(self.sees_itself(state, node))?;
        let mut words = [None; NODES];
        words[giver] = Some(self.word(state, node, giver)?);
        let asker = self.keeps(Rule::ExcludedByAsker);
        let promised = if asker { it.promised } else { Lives::default() };
        let view = self.as_it_counts(it.view, Rule::NoWordFromHeld);
        let backed = decisions::is_backed(node, view, promised, words);
        only(backed || !self.keeps(Rule::Majority))?;
        let late = u8::from(!self.keeps(Rule::WordFromAsking));
        state.nodes[node].fence = self.bounds.word + late;
        Some(())
    }

    /// The word of `giver` for `node`: which members it excludes.
    fn word(&self, state: &State, node: usize, giver: usize) -> Option<Lives> {
        let (asker, it) = (&state.nodes[node], &state.nodes[giver]);
        only(is_running(state, giver) && asker.view[giver].is_some_and(|entry| !entry.vanished))?;
        let sees_itself = it.phase != Phase::Out && (it.from_before || !it.view_from_before);
        only(sees_itself || !self.keeps(Rule::GiverSeesItself))?;
        let kept = self.keeps(Rule::Promises);
        let promised = if kept { it.promised } else { Lives::default() };
        let as_listed = (node, asker.view[node]?.life);
        let view = self.as_it_counts(it.view, Rule::NoWordForHeld);
        let excluded = decisions::vouch((giver, view, promised), as_listed, asker.view)?;
        let counts = self.keeps(Rule::ExcludedByGivers);
        Some(if counts { excluded } else { Lives::default() })
    }

    /// The list with its held members as all others, without that rule.
    fn as_it_counts(&self, list: List, rule: Rule) -> List {
        let kept = self.keeps(rule);
        list.map(|entry| {
            entry.map(|it| Entry {
                held: it.held && kept,
                ..it
            })
        })
    }

    pub(super) fn expel(
        &self,
        state: &mut State,
        by: usize,
        of: usize,
        promising: Nodes,
    ) -> Option<()> {
        only(state.expulsion.is_none())?;
        let list = state.nodes[by].view;
        let entry = list[of].filter(|entry| entry.vanished)?;
        // An attempt that can't succeed any more only keeps words from being given.
        only(state.etcd[of] == Some(entry) || !self.keeps(Rule::RecordUnchanged))?;
        only(state.leases[of] == 0 || !self.keeps(Rule::LeaseEnded))?;
        let mut promises = 0;
        for node in (0..NODES).filter(|node| promising[*node]) {
            let listed = list[node].filter(|it| decisions::can_promise(node, *it))?;
            only(is_running(state, node))?;
            let it = &mut state.nodes[node];
            it.promised = it.promised.with(of, entry.life);
            // It says who it is, as it sees itself on the list.
            let same = it.view[node].is_some_and(|me| me.life == listed.life);
            promises += usize::from(same);
        }
        let half = |promises| decisions::is_half(promises, list) || !self.keeps(Rule::Half);
        // More than needed only keep more members from giving their word.
        only(half(promises) && (promises == 1 || !half(promises - 1)))?;
        let wait = if self.keeps(Rule::PromiseWait) {
            self.bounds.word
        } else {
            0
        };
        state.expulsion = Some(Expulsion { of, entry, wait });
        Some(())
    }

    pub(super) fn expelled(&self, state: &mut State) -> Option<()> {
        let expulsion = state.expulsion.filter(|it| it.wait == 0)?;
        let stands = state.etcd[expulsion.of]?;
        let unchanged =
            stands.life == expulsion.entry.life && stands.revision == expulsion.entry.revision;
        if unchanged || !self.keeps(Rule::RecordUnchanged) {
            state.etcd[expulsion.of] = None;
        }
        state.expulsion = None;
        Some(())
    }

    pub(super) fn restart(&self, state: &mut State, node: usize) -> Option<()> {
        only(state.nodes[node].phase == Phase::Down)?;
        let it = &mut state.nodes[node];
        it.view = [None; NODES];
        it.view_from_before = false;
        self.begin_life(state, node)
    }
}

/// Whether this incarnation of the node is in etcd with its key.
fn is_registered(state: &State, node: usize) -> bool {
    let life = state.nodes[node].life;
    is_running(state, node) && state.etcd[node].is_some_and(|it| it.life == life && !it.vanished)
}

pub(super) fn crash(state: &mut State, node: usize) -> Option<()> {
    only(state.faults > 0 && is_running(state, node))?;
    state.faults -= 1;
    let it = &mut state.nodes[node];
    it.phase = Phase::Down;
    it.holds_old = false;
    it.fence = 0;
    it.promised = Lives::default();
    it.tombstone = 0;
    for way in &mut state.ways {
        // A connection doesn't outlive its process.
        way.take_if(|way| way.to == node);
    }
    Some(())
}

pub(super) fn delete_key(state: &mut State, node: usize) -> Option<()> {
    only(state.faults > 0)?;
    let entry = state.etcd[node].as_mut().filter(|it| !it.vanished)?;
    entry.vanished = true;
    state.faults -= 1;
    Some(())
}
