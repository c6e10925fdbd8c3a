//! The file of the audit.
//!
//! It follows a rotation: once the file has been renamed or removed, lines go to a new one under
//! the configured path. It must never keep a line back from the file in place to wait for another.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::telemetry::throttle::Throttle;
use gaocache_core::error::{Error, ErrorKind, Result};

/// A file that is appended to. It is blocked by a full disk or a stalled mount, so only a thread
/// that nobody waits for may write to it.
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// The last line in it is one of which only the beginning could be written.
    is_torn: bool,
    failures: Throttle,
}

impl AuditFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It can't be opened for writing.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = open(path).map_err(|error| {
            let what = format!(
                "log.audit: the file {} can't be written: {error}",
                path.display()
            );
            Error::new(ErrorKind::Configuration, what).with_source(error)
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            is_torn: false,
            failures: Throttle::default(),
        })
    }

    /// Whether the open file is still the one under the path.
    #[cfg(unix)]
    fn is_in_place(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let opened = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (opened.dev(), opened.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Other systems don't let an open file be renamed.
    #[cfg(not(unix))]
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn write_to_the_one_in_place(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.is_in_place()? {
            self.file = open(&self.path)?;
            self.is_torn = false;
        }
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let begun = self.file.write(line)?;
        self.is_torn = true;
        self.file.write_all(&line[begun..])?;
        self.is_torn = false;
        Ok(())
    }
}

impl Write for AuditFile {
    /// Takes a whole line or none of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.write_to_the_one_in_place(line) {
            Ok(()) => Ok(line.len()),
            Err(error) => {
                if let Some(suppressed) = self.failures.due("audit") {
                    tracing::error!(
                        file = %self.path.display(), %error, suppressed,
                        "can't write the audit; lines are lost",
                    );
                }
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // It names keys.
        options.mode(0o600);
        // A named pipe without a reader is an error, instead of a start that waits for one.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_renamed_or_removed_is_followed_by_a_new_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, rotated) = (directory.path().join("a"), directory.path().join("a.1"));
        let mut audit = AuditFile::open(&path).expect("opens");
        audit.write_all(b"1\n").expect("writes");
        std::fs::rename(&path, &rotated).expect("renames");
        audit.write_all(b"2\n").expect("writes");
        audit.write_all(b"3\n").expect("writes");
        let read = |path: &Path| std::fs::read_to_string(path).expect("reads");
        assert_eq!((&*read(&rotated), &*read(&path)), ("1\n", "2\n3\n"));
        std::fs::remove_file(&path).expect("removes");
        audit.write_all(b"4\n").expect("writes");
        assert_eq!(read(&path), "4\n");
    }

    /// A device that takes nothing, in place of a full disk.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_line_that_can_not_be_written_is_an_error_and_the_next_one_is_tried() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        std::os::unix::fs::symlink("/dev/full", &path).expect("links");
        let mut audit = AuditFile::open(&path).expect("opens");
        assert!(audit.write_all(b"1\n").is_err());
        std::fs::remove_file(&path).expect("removes");
        audit.write_all(b"2\n").expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "2\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let mut audit = AuditFile::open(&path).expect("opens");
        audit.file.write_all(b"beg").expect("writes");
        audit.is_torn = true;
        audit.write_all(b"2\n").expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "beg\n2\n");
    }
}
