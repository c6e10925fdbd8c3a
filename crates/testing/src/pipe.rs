//! A named pipe without a writer.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Command,
};

/// A named pipe. Opening it blocks until this is dropped.
pub struct NamedPipe(PathBuf);

impl NamedPipe {
    /// Makes it.
    pub fn at(path: &Path) -> Self {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.expect("mkfifo runs").success());
        Self(path.to_owned())
    }
}

impl Drop for NamedPipe {
    /// Releases those that wait: a thread that hangs would keep the test's runtime from ending.
    fn drop(&mut self) {
        // Opened both ways, it doesn't block.
        drop(OpenOptions::new().read(true).write(true).open(&self.0));
    }
}
