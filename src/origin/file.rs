//! A directory as an origin: a key is the path of a file below it.
//!
//! cap-std opens every path relative to the directory's handle, and rejects any path that leads
//! outside: `..`, absolute paths and symbolic links, including links that change between a check
//! and the open.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use cap_std::{
    ambient_authority,
    fs::{Dir, File},
};

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
}

impl FileOrigin {
    /// The directory at `path`. Files larger than `max_value` bytes are rejected without being read
    /// in full. `budget` counts what is read until it is kept.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if it can't be opened.
    pub fn open(path: &Path, max_value: u64, budget: Arc<Budget>) -> Result<Self> {
        let folder = Dir::open_ambient_dir(path, ambient_authority()).map_err(|error| {
            let message = format!("directory {}: {error}", path.display());
            Error::new(ErrorKind::Configuration, message).with_source(error)
        })?;
        Ok(Self {
            folder: Arc::new(folder),
            max_value,
            budget,
        })
    }
}

#[async_trait]
impl Origin for FileOrigin {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let (folder, key, max_value) = (self.folder.clone(), key.to_owned(), self.max_value);
        let (file, length) = blocking(move || find(&folder, &key, max_value)).await?;
        let charge = Charge::in_turn(&self.budget, length).await?;
        let value = blocking(move || read(file, length, max_value)).await?;
        Ok(charge.hold(value).into())
    }
}

/// Files block, so they are read on threads of their own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let died = |error| {
        Error::new(ErrorKind::Internal, "the task that reads a file panicked").with_source(error)
    };
    tokio::task::spawn_blocking(work).await.map_err(died)?
}

fn too_large(max_value: u64) -> Error {
    let what = format!("the file is larger than {max_value} bytes (max_value)");
    Error::value_too_large(what, max_value)
}

/// The file of a key, and its length.
fn find(folder: &Dir, key: &str, max_value: u64) -> Result<(File, u64)> {
    if key.contains('\0') {
        return Err(Error::not_found("a file name can't contain NUL"));
    }
    let file = folder.open(key).map_err(failed)?;
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

    use super::*;

    async fn load(folder: &Path, key: &str) -> Result<Bytes> {
        let origin = FileOrigin::open(folder, 10, Budget::new(1 << 20)).expect("a folder");
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
