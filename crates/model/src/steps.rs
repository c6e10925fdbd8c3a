//! What each step does, as the nodes do it. A step that can't be taken is `None`.

use crate::{
    decisions,
    protocol::{Nodes, Protocol, Rule, Step},
    state::{Entry, Expulsion, Kind, Lives, NODES, Phase, Removal, State, Way},
};

/// The node that is asked to remove: the nodes are alike.
const COORDINATOR: usize = 0;

/// Goes on only if this holds.
fn only(holds: bool) -> Option<()> {
    holds.then_some(())
}

impl Protocol {
    pub(crate) fn step(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Tick(renewing) => self.tick(state, renewing),
            Step::Granted(node) => self.granted(state, node),
            Step::Register(node) => self.register(state, node),
            Step::Rejoin(node) => self.rejoin(state, node),
            Step::See(node) => {
                let it = &mut state.nodes[node];
                let ended = it.phase == Phase::Out && it.life + 1 == self.bounds.lives;
                only(it.phase != Phase::Down && !ended)?;
                it.view = state.etcd;
                it.sees_young = state.young.is_some_and(|left| left > 0);
                Some(())
            }
            Step::Join(node) => self.join(state, node),
            Step::Words(node, giver) => self.words(state, node, giver),
            Step::Expel(by, of, promising) => self.expel(state, by, of, promising),
            Step::Expelled => self.expelled(state),
            Step::Remove => self.remove(state),
            Step::Tell(node) => self.tell(state, node),
            Step::Acknowledge => self.acknowledge(state),
            Step::Send(from, to) => self.send(state, from, to),
            Step::Fetch(to, from) => self.fetch(state, to, from),
            Step::Load(to) => self.load(state, to),
            Step::Arrive(way) => self.arrive(state, way),
            Step::Crash(node) => crash(state, node),
            Step::Restart(node) => self.restart(state, node),
            Step::DeleteKey(node) => delete_key(state, node),
        }
    }

    fn tick(&self, state: &mut State, renewing: Nodes) -> Option<()> {
        only((0..NODES).all(|node| renewing[node] || !self.bounds.steady[node]))?;
        let may_renew = |node: usize| is_running(state, node) && state.leases[node] > 0;
        only((0..NODES).all(|node| !renewing[node] || may_renew(node)))?;
        for (node, renews) in renewing.into_iter().enumerate() {
            if renews {
                self.renew(state, node);
            }
            self.tick_node(state, node);
        }
        for way in state.ways.iter_mut().flatten() {
            way.age = (way.age + 1).min(self.bounds.transfer);
        }
        if let Some(young) = &mut state.young {
            *young = young.saturating_sub(1);
        }
        if let Some(expulsion) = &mut state.expulsion {
            expulsion.wait = expulsion.wait.saturating_sub(1);
        }
        if let Removal::Running { left, .. } = &mut state.removal {
            *left = left.saturating_sub(1);
            if *left == 0 && self.keeps(Rule::Deadline) {
                state.removal = Removal::Refused;
            }
        }
        Some(())
    }

    /// A renewal that was sent, and answered, just before the tick.
    fn renew(&self, state: &mut State, node: usize) {
        // One tick more, of which the tick takes one.
        state.leases[node] = self.bounds.lease + 1;
        let it = &mut state.nodes[node];
        if it.phase == Phase::Serving {
            // Its answer may have come as late as that.
            let early = if self.keeps(Rule::LeaseFromSending) {
                0
            } else {
                self.bounds.lease + 1
            };
            it.fence = it.fence.max(self.bounds.lease + 1 + early);
        }
    }

    fn tick_node(&self, state: &mut State, node: usize) {
        if state.leases[node] > 0 {
            state.leases[node] -= 1;
            if state.leases[node] == 0 {
                self.key_goes(state, node);
            }
        }
        let it = &mut state.nodes[node];
        it.tombstone = it.tombstone.saturating_sub(1);
        if it.fence > 0 {
            it.fence -= 1;
            if it.fence == 0 {
                fence_broke(state, node);
            }
        }
    }

    /// etcd takes away a key whose lease has ended.
    fn key_goes(&self, state: &mut State, node: usize) {
        let record = self.keeps(Rule::Record);
        let vanished = |it: Entry| Entry {
            vanished: true,
            ..it
        };
        state.etcd[node] = state.etcd[node].map(vanished).filter(|_| record);
    }

    fn granted(&self, state: &mut State, node: usize) -> Option<()> {
        let it = &mut state.nodes[node];
        only(!self.keeps(Rule::LeaseWithKey))?;
        only(it.phase == Phase::Serving && state.leases[node] == 0)?;
        it.fence = self.bounds.lease;
        Some(())
    }

    fn register(&self, state: &mut State, node: usize) -> Option<()> {
        let it = state.nodes[node];
        only(matches!(it.phase, Phase::Joining | Phase::Serving))?;
        let resumes = self.resumes(state, node);
        match &mut state.etcd[node] {
            Some(entry) if entry.life == it.life => {
                only(entry.vanished && entry.revision <= self.bounds.returns)?;
                entry.vanished = false;
                entry.revision += 1;
                state.leases[node] = self.bounds.lease;
                if it.phase == Phase::Serving {
                    state.nodes[node].fence = self.bounds.lease;
                }
            }
            None if resumes => {
                self.mark_history(state);
                state.etcd[node] = it.view[node];
                state.leases[node] = self.bounds.lease;
                let it = &mut state.nodes[node];
                it.fence = self.bounds.lease;
                it.from_before = false;
            }
            _ => {
                let it = &mut state.nodes[node];
                it.phase = Phase::Out;
                it.fence = 0;
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
        it.from_before && member && (it.fence > 0 || !self.keeps(Rule::ResumedInTime))
    }

    /// Who registers first marks the history as young.
    fn mark_history(&self, state: &mut State) {
        state.young.get_or_insert(self.bounds.lease);
    }

    fn rejoin(&self, state: &mut State, node: usize) -> Option<()> {
        only(state.nodes[node].phase == Phase::Out)?;
        self.begin_life(state, node)
    }

    /// Registers the next life of that node.
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
            restarted: state.etcd[node].is_some_and(restarted),
            revision: 0,
        });
        state.leases[node] = self.bounds.lease;
        self.mark_history(state);
        // It has seen itself.
        let it = &mut state.nodes[node];
        it.view = state.etcd;
        it.sees_young = state.young.is_some_and(|left| left > 0);
        Some(())
    }

    fn join(&self, state: &mut State, node: usize) -> Option<()> {
        let it = state.nodes[node];
        only(it.phase == Phase::Joining && is_registered(state, node))?;
        let unseen = (0..NODES).any(|other| {
            let seen = state.nodes[other].view[node].is_some_and(|me| me.life == it.life);
            it.view[other].is_some() && !seen
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

    fn words(&self, state: &mut State, node: usize, giver: usize) -> Option<()> {
        let it = state.nodes[node];
        only(self.bounds.words)?;
        only(it.phase == Phase::Serving && it.fence < self.bounds.word)?;
        let mut words = [None; NODES];
        words[giver] = Some(self.word(state, node, giver)?);
        let asker = self.keeps(Rule::ExcludedByAsker);
        let promised = if asker { it.promised } else { Lives::default() };
        let backed = decisions::is_backed(node, it.view, promised, words);
        only(backed || !self.keeps(Rule::Majority))?;
        let late = u8::from(!self.keeps(Rule::WordFromAsking));
        state.nodes[node].fence = self.bounds.word + late;
        Some(())
    }

    /// The word of `giver` for `node`: whom it excludes.
    fn word(&self, state: &State, node: usize, giver: usize) -> Option<Lives> {
        let (asker, it) = (&state.nodes[node], &state.nodes[giver]);
        only(is_running(state, giver) && asker.view[giver].is_some_and(|entry| !entry.vanished))?;
        let kept = self.keeps(Rule::Promises);
        let promised = if kept { it.promised } else { Lives::default() };
        let as_listed = (node, asker.view[node]?.life);
        let excluded = decisions::vouch((giver, it.view, promised), as_listed, asker.view)?;
        let counts = self.keeps(Rule::ExcludedByGivers);
        Some(if counts { excluded } else { Lives::default() })
    }

    fn expel(&self, state: &mut State, by: usize, of: usize, promising: Nodes) -> Option<()> {
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

    fn expelled(&self, state: &mut State) -> Option<()> {
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

    fn remove(&self, state: &mut State) -> Option<()> {
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

    fn tell(&self, state: &mut State, node: usize) -> Option<()> {
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

    fn acknowledge(&self, state: &mut State) -> Option<()> {
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

    fn send(&self, state: &mut State, from: usize, to: usize) -> Option<()> {
        only(state.nodes[from].view[to].is_some_and(|it| it.serving && !it.vanished))?;
        self.read(state, from)?;
        let life = state.nodes[from].view[from]?.life;
        self.put_on_its_way(state, Kind::Handoff, (from, life), to)
    }

    fn fetch(&self, state: &mut State, to: usize, from: usize) -> Option<()> {
        only(state.nodes[to].view[from].is_some())?;
        self.read(state, from)?;
        self.put_on_its_way(state, Kind::Fetch, (from, 0), to)
    }

    fn load(&self, state: &mut State, to: usize) -> Option<()> {
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

    fn arrive(&self, state: &mut State, way: usize) -> Option<()> {
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

    fn restart(&self, state: &mut State, node: usize) -> Option<()> {
        only(state.nodes[node].phase == Phase::Down)?;
        self.begin_life(state, node)
    }
}

fn is_running(state: &State, node: usize) -> bool {
    state.nodes[node].phase != Phase::Down
}

/// Whether this life of the node stands in etcd with its key.
fn is_registered(state: &State, node: usize) -> bool {
    let life = state.nodes[node].life;
    is_running(state, node) && state.etcd[node].is_some_and(|it| it.life == life && !it.vanished)
}

fn crash(state: &mut State, node: usize) -> Option<()> {
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

fn delete_key(state: &mut State, node: usize) -> Option<()> {
    only(state.faults > 0)?;
    let entry = state.etcd[node].as_mut().filter(|it| !it.vanished)?;
    entry.vanished = true;
    state.faults -= 1;
    Some(())
}

/// The node's fence is closed: what is on its way to it notices.
fn fence_broke(state: &mut State, node: usize) {
    let to_it = state.ways.iter_mut().flatten().filter(|way| way.to == node);
    to_it.for_each(|way| way.fenced = false);
}

fn drop_everything(state: &mut State, node: usize) {
    state.nodes[node].holds_old = false;
    ground(state, node);
}

fn ground(state: &mut State, node: usize) {
    let to_it = state.ways.iter_mut().flatten().filter(|way| way.to == node);
    to_it.for_each(|way| way.grounded = true);
}
