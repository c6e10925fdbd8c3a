//! The Unix socket for local administration: the admin paths and the clients' gRPC calls, for
//! whoever can open its file. The permissions of the file decide, so it must never be open for
//! others, not even for a moment.

use std::{
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use gaocache_core::error::{Error, ErrorKind, Result};

/// Only the owner.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A socket that is bound. Its file goes with it.
pub(super) struct LocalListener {
    pub(super) listener: UnixListener,
    file: OwnFile,
}

/// The file of a socket, which is removed at the end, unless another process has put its own there.
pub(super) struct OwnFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl LocalListener {
    /// Binds the socket at `path`, in the place of one that nobody listens on any more.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if somebody listens there, if the file is none of a socket, or
    /// if it can't be made.
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            let what = format!("admin.socket = {:?}: {why}", path.display().to_string());
            Error::new(ErrorKind::Configuration, what)
        };
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(wrong("there is a file that is not a socket".into()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(wrong("another process listens there".into()));
            }
            Ok(_) | Err(_) => {}
        }
        let listener = bind_aside(path).map_err(|error| {
            let why = format!("{error}; its directory must exist, and be writable");
            wrong(why).with_source(error)
        })?;
        Ok(Self {
            listener,
            file: OwnFile {
                path: path.to_owned(),
                id: id(path),
            },
        })
    }

    /// The socket, and what removes its file.
    pub(super) fn into_parts(self) -> (UnixListener, OwnFile) {
        (self.listener, self.file)
    }
}

/// Binds beside `path`, restricts who may connect, listens, and only then takes the name.
fn bind_aside(path: &Path) -> std::io::Result<UnixListener> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    let _ = std::fs::remove_file(&aside);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&aside)?)?;
    let ready = || -> std::io::Result<()> {
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(MODE))?;
        socket.listen(BACKLOG)?;
        std::fs::rename(&aside, path)
    };
    ready().inspect_err(|_| drop(std::fs::remove_file(&aside)))?;
    Ok(socket.into())
}

/// What tells a file from another of the same name.
fn id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = path.symlink_metadata().ok()?;
    Some((found.dev(), found.ino()))
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.id.is_some() && id(&self.path) == self.id {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_can_open_the_socket_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let first = LocalListener::bind(&path).expect("binds");
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let error = LocalListener::bind(&path).err().expect("somebody listens");
        assert!(error.message().contains("another process"), "{error}");
        let (listener, file) = first.into_parts();
        // As a process leaves it that was killed.
        drop(listener);
        let second = LocalListener::bind(&path).expect("nobody listens");
        // The end of the first takes nothing from the second.
        drop(file);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
        std::fs::write(&path, "mine").expect("written");
        assert!(LocalListener::bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 1, "nothing is left over");
    }
}
