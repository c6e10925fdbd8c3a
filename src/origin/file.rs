//! A directory as an origin: a key is the path of a file below it.
//!
//! cap-std opens every path relative to the directory's handle, and rejects any path that leads
//! outside: `..`, absolute paths and symbolic links, including links that change between a check
//! and the open.
//!
//! Files block, so they are read on threads of their own. A read that hangs (a dead network mount)
//! can't be cancelled, so at most as many threads as loads may run are ever used: the runtime's
//! threads for such work also resolve the host names of all other origins.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use cap_std::{
    ambient_authority,
    fs::{Dir, File, OpenOptions},
};
use tokio::sync::Semaphore;

use crate::traffic::{Budget, Charge};
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result},
    ports::{Loaded, Origin},
};

/// A directory.
pub struct FileOrigin {
    folder: Arc<Dir>,
    max_value: u64,
    budget: Arc<Budget>,
    threads: Arc<Semaphore>,
}

impl FileOrigin {
    /// The directory at `path`. Files larger than `max_value` bytes are rejected without being read
    /// in full. `budget` counts what is read until it is kept. At most `max_threads` block on files
    /// at once.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if it can't be opened.
    pub fn open(
        path: &Path,
        max_value: u64,
        budget: Arc<Budget>,
        max_threads: usize,
    ) -> Result<Self> {
        let folder = Dir::open_ambient_dir(path, ambient_authority()).map_err(|error| {
            let message = format!("directory {}: {error}", path.display());
            Error::new(ErrorKind::Configuration, message).with_source(error)
        })?;
        Ok(Self {
            folder: Arc::new(folder),
            max_value,
            budget,
            threads: Arc::new(Semaphore::new(max_threads.min(Semaphore::MAX_PERMITS))),
        })
    }

    /// Runs the closure on a blocking thread. The thread keeps its place even if its caller has
    /// given up any more.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.threads.clone().acquire_owned().await;
        let place = place.map_err(|error| internal("the origin was closed", error))?;
        let worked = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        let died = |error| internal("the task that reads a file panicked", error);
        worked.await.map_err(died)?
    }
}

#[async_trait]
impl Origin for FileOrigin {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let (folder, key, max_value) = (self.folder.clone(), key.to_owned(), self.max_value);
        let found = self.blocking(move || find(&folder, &key, max_value));
        let (file, length) = found.await?;
        let charge = Charge::in_turn(&self.budget, length).await?;
        let read = self.blocking(move || read(file, length, max_value));
        let value = read.await?;
        Ok(charge.hold(value).into())
    }
}

fn internal(what: &'static str, error: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Internal, what).with_source(error)
}

fn too_large(max_value: u64) -> Error {
    let what = format!("the file is larger than {max_value} bytes (max_value)");
    Error::value_too_large(what, max_value)
}

/// Opening a named pipe otherwise waits until somebody writes to it, perhaps for ever.
#[cfg(unix)]
fn without_waiting(options: &mut OpenOptions) {
    use cap_std::fs::OpenOptionsExt;
    use rustix::fs::OFlags;

    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.custom_flags(flags.bits().cast_signed());
}

/// Sockets can't be opened.
#[cfg(unix)]
fn is_socket(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
}

#[cfg(not(unix))]
fn is_socket(_error: &io::Error) -> bool {
    false
}

#[cfg(not(unix))]
fn without_waiting(_options: &mut OpenOptions) {}

/// The file of a key, and its length.
fn find(folder: &Dir, key: &str, max_value: u64) -> Result<(File, u64)> {
    if key.contains('\0') {
        return Err(Error::not_found("a file name can't contain NUL"));
    }
    let mut options = OpenOptions::new();
    options.read(true);
    without_waiting(&mut options);
    let file = folder.open_with(key, &options).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::not_found("not a file"));
    }
    if metadata.len() > max_value {
        return Err(too_large(max_value));
    }
    Ok((file, metadata.len()))
}

fn read(file: File, length: u64, max_value: u64) -> Result<Vec<u8>> {
    let mut value = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // Reading one byte more than allowed detects a file that grew after its size was read.
    let mut bounded = file.take(max_value.saturating_add(1));
    bounded.read_to_end(&mut value).map_err(failed)?;
    if value.len() as u64 > max_value {
        return Err(too_large(max_value));
    }
    Ok(value)
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        _ if is_socket(&error) => Error::not_found("not a file").with_source(error),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Error::not_found("no such file").with_source(error)
        }
        // The path leads outside the directory. For the caller, it does not exist.
        io::ErrorKind::PermissionDenied => {
            Error::not_found("no such file, or no permission to read it").with_source(error)
        }
        _ => Error::origin_failed(format!("could not read the file: {error}")).with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use bytes::Bytes;
    use gaocache_testing::NamedPipe;

    use super::*;

    async fn load(folder: &Path, key: &str) -> Result<Bytes> {
        let origin = FileOrigin::open(folder, 10, Budget::new(1 << 20), 1).expect("a folder");
        let loaded = origin.load(key).await.map_err(Error::from_loader);
        loaded.map(|loaded| loaded.value)
    }

    #[tokio::test]
    async fn reads_files_below_the_folder_and_none_outside() {
        let outside = tempfile::tempdir().expect("a folder");
        let folder = outside.path().join("origin");
        fs::create_dir_all(folder.join("a")).expect("made");
        fs::write(outside.path().join("secret"), "secret").expect("written");
        fs::write(folder.join("a/b"), "value").expect("written");
        symlink(outside.path().join("secret"), folder.join("link")).expect("linked");
        symlink("a/b", folder.join("inner-link")).expect("linked");
        symlink("..", folder.join("up")).expect("linked");

        assert_eq!(load(&folder, "a/b").await.expect("there"), "value");
        assert_eq!(load(&folder, "inner-link").await.expect("there"), "value");
        let absolute = outside.path().join("secret").display().to_string();
        for key in [
            "../secret",
            "a/../../secret",
            "link",
            "up/secret",
            &absolute,
            "missing",
            "a",
            "a/b/c",
            "nul\0",
        ] {
            let error = load(&folder, key).await.expect_err(key);
            assert_eq!(error.kind(), ErrorKind::NotFound, "{key}: {error}");
        }
    }

    /// A named pipe without a writer, and a socket.
    #[tokio::test]
    async fn what_is_no_regular_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        let _pipe = NamedPipe::at(&pipe);
        let _bound = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        for key in ["pipe", "socket"] {
            let load = load(folder.path(), key);
            let error = gaocache_testing::within(key, load).await.expect_err(key);
            assert_eq!(error.kind(), ErrorKind::NotFound, "{key}: {error}");
        }
    }

    #[tokio::test]
    async fn reads_that_hang_take_no_more_threads_than_loads_may_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = FileOrigin::open(folder.path(), 10, Budget::new(1 << 20), 1).expect("one");
        let (release, held) = std::sync::mpsc::channel::<()>();
        let mut hangs = Box::pin(origin.blocking(move || {
            let _ = held.recv();
            Ok(())
        }));
        assert!(futures::poll!(hangs.as_mut()).is_pending());
        // As if its load had timed out: the thread is still there.
        drop(hangs);
        assert_eq!(origin.threads.available_permits(), 0);
        let next = origin.blocking(|| Ok(1));
        drop(release);
        assert_eq!(next.await.expect("runs"), 1);
    }

    #[tokio::test]
    async fn a_file_over_the_bound_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("large"), "12345678901").expect("written");
        fs::write(folder.path().join("fits"), "1234567890").expect("written");
        let error = load(folder.path(), "large").await.expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::ValueTooLarge);
        assert_eq!(load(folder.path(), "fits").await.expect("fits").len(), 10);
    }
}
