//! Handshakes take turns with everything else that a thread does: one step of one handshake, then
//! all other tasks that are ready. A step costs as much as dozens of hits, so a flood of handshakes
//! would hold up all of them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

thread_local! {
    /// Whose turn it is on this thread.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// A handshake that takes turns. It stays on the thread on which it began.
pub(super) struct Paced<F> {
    handshake: Pin<Box<F>>,
    turn: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
}

impl<F> Paced<F> {
    pub(super) fn new(handshake: F) -> Self {
        Self {
            handshake: Box::pin(handshake),
            turn: None,
        }
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let turn = self.turn.get_or_insert_with(|| {
            let turn = TURN.with(Arc::clone);
            Box::pin(turn.acquire_owned())
        });
        let turn = ready!(turn.as_mut().poll(cx));
        self.turn = None;
        let step = self.handshake.as_mut().poll(cx);
        // It ends after the tasks that are ready by now.
        tokio::spawn(async move { drop(turn) });
        step
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn between_two_steps_of_handshakes_all_others_have_their_turn() {
        let told = Rc::new(RefCell::new(String::new()));
        let local = LocalSet::new();
        for what in ['h', 'h', 'h', 'o'] {
            let told = told.clone();
            let steps = async move {
                for _ in 0..4 {
                    told.borrow_mut().push(what);
                    yield_now().await;
                }
            };
            match what {
                'h' => local.spawn_local(Paced::new(steps)),
                _ => local.spawn_local(steps),
            };
        }
        local.await;
        let told = told.borrow();
        let early = told.find('o').zip(told.rfind('o'));
        let (first, last) = early.expect("the other has run");
        let between = told[first..last].matches('h').count();
        assert_eq!(told.len(), 16);
        assert!(
            between <= 4,
            "at most one between two of the other's: {told}"
        );
    }
}
