//! Requests of an HTTP/2 connection: those that come at the same moment begin in one task, one
//! after the other, and each gets a task of its own only if it has to wait. A hit never does.
//!
//! They must not begin within the task of the connection: h2 writes to the socket before it looks
//! for the next request, so each answer would be a write of its own. And a request's panic must
//! end nothing but that request.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::future::BoxFuture;
use hyper::rt::Executor;
use parking_lot::Mutex;

/// Runs the futures of one connection as far as they come without waiting, and the rest of them as
/// tasks.
#[derive(Clone, Default)]
pub(super) struct AtOnce {
    /// What is to begin.
    come: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
}

impl<F> Executor<F> for AtOnce
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let is_first = {
            let mut come = self.come.lock();
            come.push(Box::pin(future));
            come.len() == 1
        };
        if is_first {
            let come = self.come.clone();
            tokio::spawn(async move { begin_all(mem::take(&mut *come.lock())) });
        }
    }
}

fn begin_all(futures: Vec<BoxFuture<'static, ()>>) {
    for mut future in futures {
        if begin(future.as_mut()).is_pending() {
            // Its first poll as a task tells whom to wake; who was told before wakes nobody.
            tokio::spawn(future);
        }
    }
}

/// Polls once. After a panic there is nothing left to do: it has been reported, and the stream is
/// reset when the future is dropped.
fn begin(future: Pin<&mut (dyn Future<Output = ()> + Send)>) -> Poll<()> {
    let mut cx = Context::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx))).unwrap_or(Poll::Ready(()))
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::Handle,
        sync::{mpsc, oneshot},
    };

    use super::*;

    #[tokio::test]
    async fn what_comes_at_once_begins_in_one_task_and_only_what_waits_gets_its_own() {
        let executor = AtOnce::default();
        let (tell, mut told) = mpsc::channel(3);
        let (go, gone) = oneshot::channel::<()>();
        let tells = |number: u32| {
            let tell = tell.clone();
            async move { tell.try_send((number, tokio::task::id())).expect("heard") }
        };
        let (first, third, waits) = (tells(1), tells(3), tells(2));
        executor.execute(first);
        executor.execute(async {
            gone.await.expect("sent");
            waits.await;
        });
        executor.execute(third);
        let (one, three) = (told.recv().await, told.recv().await);
        let ((one, task), (three, same)) = (one.expect("told"), three.expect("told"));
        assert_eq!((one, three), (1, 3));
        assert_eq!(task, same);
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            1,
            "that waits"
        );
        go.send(()).expect("it waits");
        let (two, own) = told.recv().await.expect("told");
        assert_eq!(two, 2);
        assert_ne!(own, task);
    }

    #[tokio::test]
    async fn a_panic_ends_nothing_else() {
        let executor = AtOnce::default();
        let (tell, told) = oneshot::channel();
        executor.execute(async { panic!("a bug") });
        executor.execute(async { tell.send(1).expect("heard") });
        assert_eq!(told.await, Ok(1));
    }
}
