//! Values in fewer bytes: zstd (RFC 8878), where that pays.
//!
//! Whatever the bytes say, it must never write more than it was told that there are: they may come
//! from another node.

use std::sync::{Arc, LazyLock};

use gaocache_core::error::{BoxError, Error, ErrorKind, Result};
use tokio::sync::Semaphore;

/// Further levels take far more time than they save bytes.
const LEVEL: i32 = 3;
/// What tells whether a value is worth it.
const SAMPLE_BYTES: usize = 16 << 10;
/// Work on so many bytes would hold up what else its thread has to do.
pub(crate) const LARGE: usize = 128 << 10;

/// Work on many bytes that may run at a time: more of it than cores would only take memory.
static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism();
    Arc::new(Semaphore::new(cores.map_or(1, usize::from)))
});

/// Does work on so many bytes: on this thread, or on another one if they are many.
///
/// # Errors
/// [`ErrorKind::Internal`] if that thread was lost.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes < LARGE {
        return Ok(work());
    }
    let lost = |error: BoxError| {
        let what = "the thread that compresses values was lost";
        Error::new(ErrorKind::Internal, what).with_source(error)
    };
    let place = PLACES.clone().acquire_owned().await;
    let place = place.map_err(|error| lost(error.into()))?;
    // It goes on although nobody waits any more, so it keeps its place.
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    working.await.map_err(|error| lost(error.into()))
}

/// The value in one frame; `None` if that saves less than a tenth of it, as its beginning tells.
pub(crate) fn compressed(value: &[u8]) -> Option<Vec<u8>> {
    let packed = |bytes: &[u8]| {
        let packed = zstd::bulk::compress(bytes, LEVEL).ok()?;
        (packed.len() / 9 < bytes.len() / 10).then_some(packed)
    };
    if let Some(sample) = value.get(..SAMPLE_BYTES) {
        packed(sample)?;
    }
    packed(value)
}

/// The value of `length` bytes of which these are the frame.
///
/// # Errors
/// [`ErrorKind::Internal`] if they are not.
pub(crate) fn decompressed(packed: &[u8], length: usize) -> Result<Vec<u8>> {
    let value = zstd::bulk::decompress(packed, length);
    let value = value.map_err(|error| broken().with_source(error))?;
    if value.len() == length {
        Ok(value)
    } else {
        Err(broken())
    }
}

fn broken() -> Error {
    let what = "a compressed value is not what was said of it; remove its key";
    Error::new(ErrorKind::Internal, what)
}

#[cfg(test)]
mod tests {
    use std::{
        error::Error as _,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn work_on_many_bytes_is_done_by_other_threads_and_by_few_at_a_time() {
        let (here, thread) = (std::thread::current().id(), || std::thread::current().id());
        assert_eq!(aside(LARGE - 1, thread).await.expect("done"), here);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Arc::new((running, most));
        let works = (0..100).map(|_| {
            let counts = counts.clone();
            aside(LARGE, move || {
                let running = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
                counts.1.fetch_max(running, Ordering::SeqCst);
                compressed(&vec![0; 1 << 20]).expect("shrinks");
                counts.0.fetch_sub(1, Ordering::SeqCst);
                std::thread::current().id()
            })
        });
        for thread in futures::future::join_all(works).await {
            assert_ne!(thread.expect("done"), here);
        }
        let cores = std::thread::available_parallelism().expect("known");
        assert!(counts.1.load(Ordering::SeqCst) <= cores.get());
    }

    #[test]
    fn what_comes_out_is_what_went_in_and_what_does_not_shrink_is_left_alone() {
        for size in [100, SAMPLE_BYTES, SAMPLE_BYTES + 1, 1 << 20] {
            let text: Vec<u8> = b"all work and no play "
                .iter()
                .copied()
                .cycle()
                .take(size)
                .collect();
            let packed = compressed(&text).expect("shrinks");
            assert!(packed.len() < size / 2);
            assert_eq!(decompressed(&packed, size).expect("whole"), text);
        }
        let mut dice = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| dice.u8(..))
            .take(1 << 17)
            .collect();
        assert_eq!(compressed(&noise), None);
        let mut late = noise[..SAMPLE_BYTES].to_vec();
        late.resize(1 << 20, 0);
        assert_eq!(compressed(&late), None, "its beginning tells");
        assert_eq!(compressed(b""), None);
        assert_eq!(compressed(b"short"), None);
    }

    #[test]
    fn a_bomb_and_garbage_are_refused_without_more_room_than_was_said() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).expect("packed");
        assert!(bomb.len() < 1 << 14);
        for (packed, length) in [
            (&bomb[..], 1 << 20),
            (&bomb[..], (64 << 20) + 1),
            (&bomb[..100], 64 << 20),
            (b"garbage", 9),
            (b"", 9),
        ] {
            let refused = decompressed(packed, length).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::Internal);
        }
        // Not found out behind the whole of it.
        let refused = decompressed(&bomb, 1 << 20).expect_err("refused");
        assert!(refused.source().is_some(), "by the decoder");
    }
}
