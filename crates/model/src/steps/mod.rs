//! What each step does, as the nodes do it. A step that can't be taken is `None`.

mod effects;
mod membership;
mod removal;
mod transfer;

use self::{
    effects::{fence_broke, is_running, only},
    membership::{crash, delete_key},
};
use crate::{
    bounds::Nodes,
    protocol::{Protocol, Step},
    rule::Rule,
    state::{Entry, NODES, Phase, Removal, State},
};

impl Protocol {
    pub(crate) fn step(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Tick(renewing) => self.tick(state, renewing),
            Step::Granted(node) => self.granted(state, node),
            Step::Register(node) => self.register(state, node),
            Step::Rejoin(node) => self.rejoin(state, node),
            Step::See(node) => {
                let it = &state.nodes[node];
                let ended = it.phase == Phase::Out && it.life + 1 == self.bounds.lives;
                only(it.phase != Phase::Down && !ended)?;
                self.see(state, node);
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
        // Nothing depends on it later.
        let passed = self.bounds.lease + self.bounds.word + 1;
        state.since_loss = state.since_loss.map(|it| (it + 1).min(passed));
        only(!self.too_many_missed_the_loss(state))?;
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

    /// What is assumed of an etcd that loses its data: nobody can help if more than half of the
    /// members are in touch with each other, and don't hear of it for longer than a lease.
    fn too_many_missed_the_loss(&self, state: &State) -> bool {
        let lists = state.nodes.map(|node| node.view.iter().flatten().count());
        let members = lists.into_iter().max().unwrap_or(0);
        let missed = (0..NODES).filter(|node| {
            let it = &state.nodes[*node];
            it.from_before && it.view_from_before && is_running(state, *node)
        });
        let late = state.since_loss.is_some_and(|it| it > self.bounds.lease);
        late && 2 * missed.count() > members
    }

    /// A renewal that was sent, and answered, just before the tick.
    fn renew(&self, state: &mut State, node: usize) {
        // One tick more, of which the tick takes one.
        state.leases[node] = self.bounds.lease + 1;
        let seen = self.sees_itself(state, node);
        let it = &mut state.nodes[node];
        if it.phase == Phase::Serving && seen {
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

    /// The node's view catches up. Those that an etcd which lost its data doesn't know stay in it
    /// as long as they have to.
    fn see(&self, state: &mut State, node: usize) {
        let it = &mut state.nodes[node];
        let doubted = state.since_loss.is_some_and(|it| it < self.doubt());
        let holds = self.keeps(Rule::Held) && doubted;
        for (seen, listed) in it.view.iter_mut().zip(state.etcd) {
            let held = seen.filter(|seen| holds && (it.view_from_before || seen.held));
            let held = held.map(|seen| Entry { held: true, ..seen });
            *seen = listed.or(held);
        }
        it.view_from_before = false;
        it.sees_young = state.young.is_some_and(|left| left > 0);
        let it = state.nodes[node];
        let mine = state.etcd[node].filter(|me| me.life == it.life && !me.vanished);
        if it.phase == Phase::Serving && mine.is_some() {
            state.nodes[node].fence = it.fence.max(state.leases[node]);
        }
    }

    /// Whether that node sees its key under the lease that it has.
    fn sees_itself(&self, state: &State, node: usize) -> bool {
        let it = &state.nodes[node];
        !it.view_from_before || it.from_before || !self.keeps(Rule::AskerSeesItself)
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
}
