//! Answers that wait for a load, or for those before them: they leave in the order of the
//! commands.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::reply::{Protocol, Reply};
use gaocache_core::ports::MANY_AT_ONCE;

/// Answers of one connection that wait.
#[derive(Default)]
pub(super) struct Waiting {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    loads: FuturesUnordered<BoxFuture<'static, (u64, Reply)>>,
    /// The newest one has to be answered before another command begins.
    alone: bool,
}

struct Slot {
    protocol: Protocol,
    reply: Option<Reply>,
}

/// Whether other commands may begin meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    Others,
    /// It takes many places itself, or what comes after it has to see what it does.
    Nothing,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another command may begin.
    pub(super) fn has_room(&self) -> bool {
        !self.alone && self.slots.len() < MANY_AT_ONCE
    }

    /// Whether it is an answer's turn.
    pub(super) fn is_ready(&self) -> bool {
        let first = self.slots.front();
        first.is_some_and(|slot| slot.reply.is_some())
    }

    /// An answer that is known already.
    pub(super) fn known(&mut self, reply: Reply, protocol: Protocol) {
        let reply = Some(reply);
        self.slots.push_back(Slot { protocol, reply });
    }

    /// An answer that comes later.
    pub(super) fn later(
        &mut self,
        load: impl Future<Output = Reply> + Send + 'static,
        protocol: Protocol,
        meanwhile: Meanwhile,
    ) {
        let number = self.first + self.slots.len() as u64;
        let reply = None;
        self.slots.push_back(Slot { protocol, reply });
        self.alone = meanwhile == Meanwhile::Nothing;
        self.loads
            .push(Box::pin(async move { (number, load.await) }));
    }

    /// Takes what the loads have brought.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some((number, reply))) = self.loads.poll_next_unpin(cx) {
            let place = usize::try_from(number - self.first).ok();
            if let Some(slot) = place.and_then(|it| self.slots.get_mut(it)) {
                slot.reply = Some(reply);
            }
        }
    }

    /// The next answer, if it is its turn.
    pub(super) fn next(&mut self) -> Option<(Reply, Protocol)> {
        let slot = self.slots.front_mut()?;
        let answer = (slot.reply.take()?, slot.protocol);
        self.slots.pop_front();
        self.first += 1;
        self.alone &= !self.slots.is_empty();
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    fn load(waiting: &mut Waiting, meanwhile: Meanwhile) -> oneshot::Sender<i64> {
        let (end, ended) = oneshot::channel();
        let load = async { Reply::Integer(ended.await.expect("an end")) };
        waiting.later(load, Protocol::Resp2, meanwhile);
        end
    }

    fn poll(waiting: &mut Waiting) -> Vec<Reply> {
        waiting.poll(&mut Context::from_waker(Waker::noop()));
        std::iter::from_fn(|| waiting.next().map(|it| it.0)).collect()
    }

    #[test]
    fn answers_leave_in_the_order_of_their_commands() {
        let mut waiting = Waiting::default();
        let first = load(&mut waiting, Meanwhile::Others);
        waiting.known(Reply::Nil, Protocol::Resp2);
        let third = load(&mut waiting, Meanwhile::Others);
        assert!(third.send(3).is_ok());
        assert_eq!(poll(&mut waiting), []);
        assert!(first.send(1).is_ok());
        let in_order = [Reply::Integer(1), Reply::Nil, Reply::Integer(3)];
        assert_eq!(poll(&mut waiting), in_order);
        assert!(waiting.is_empty());
        let later = load(&mut waiting, Meanwhile::Others);
        assert!(later.send(4).is_ok());
        assert_eq!(poll(&mut waiting), [Reply::Integer(4)]);
    }

    #[test]
    fn no_more_wait_at_once_than_there_are_places() {
        let mut waiting = Waiting::default();
        let mut ends = Vec::new();
        while waiting.has_room() {
            ends.push(load(&mut waiting, Meanwhile::Others));
        }
        assert_eq!(ends.len(), MANY_AT_ONCE);
        assert!(ends.remove(0).send(0).is_ok());
        assert_eq!(poll(&mut waiting).len(), 1);
        assert!(waiting.has_room());
    }

    #[test]
    fn nothing_begins_beside_one_that_has_to_be_alone() {
        let mut waiting = Waiting::default();
        let before = load(&mut waiting, Meanwhile::Others);
        let alone = load(&mut waiting, Meanwhile::Nothing);
        assert!(!waiting.has_room());
        assert!(before.send(1).is_ok());
        assert_eq!(poll(&mut waiting).len(), 1);
        assert!(!waiting.has_room());
        assert!(alone.send(2).is_ok());
        assert_eq!(poll(&mut waiting).len(), 1);
        assert!(waiting.has_room());
    }
}
