//! One rendering of the metrics for all scrapes that come at the same time. A scrape never gets one
//! that began before it came.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use gaocache_core::error::Result;

type Rendering = Shared<BoxFuture<'static, Result<Bytes>>>;

/// The rendering that has not begun yet, if any scrape waits for one. Clones share it.
#[derive(Clone, Default)]
pub struct Scrapes(Arc<Mutex<Option<Rendering>>>);

impl Scrapes {
    /// The next rendering; `render` makes it, unless another scrape has brought its own.
    pub(super) fn join(
        &self,
        render: impl FnOnce() -> Result<Bytes> + Send + 'static,
    ) -> Rendering {
        let mut next = self.0.lock();
        if let Some(next) = &*next {
            return next.clone();
        }
        let waiting = self.0.clone();
        let rendering = async move {
            // Scrapes that have arrived by now share this rendering.
            tokio::task::yield_now().await;
            waiting.lock().take();
            render()
        };
        next.insert(rendering.boxed().shared()).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn scrapes_of_one_moment_share_a_rendering_and_a_later_one_gets_its_own() {
        let (scrapes, count) = (Scrapes::default(), Arc::new(AtomicU8::new(0)));
        let scrape = || {
            let count = count.clone();
            scrapes.join(move || Ok(vec![count.fetch_add(1, Ordering::Relaxed)].into()))
        };
        for round in 0..3u8 {
            let all = join_all((0..100).map(|_| scrape())).await;
            for rendering in all {
                assert_eq!(rendering.expect("rendered"), [round].as_slice());
            }
        }
    }

    #[tokio::test]
    async fn a_scraper_that_hangs_up_takes_nobody_with_it() {
        let scrapes = Scrapes::default();
        let gone = scrapes.join(|| Ok(Bytes::from_static(b"its")));
        assert!(gone.clone().now_or_never().is_none());
        drop(gone);
        let next = scrapes.join(|| Ok(Bytes::from_static(b"mine")));
        assert_eq!(next.await.expect("rendered"), "its");
        assert!(scrapes.0.lock().is_none());
    }
}
