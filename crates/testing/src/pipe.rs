//! A named pipe that nobody writes to.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Command,
};

/// A named pipe. Whoever opens it waits, until this is dropped.
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
    /// Lets go whoever waits: a thread that hangs would keep the test's runtime from ending.
    fn drop(&mut self) {
        // Opened both ways, it waits for nobody.
        drop(OpenOptions::new().read(true).write(true).open(&self.0));
    }
}
