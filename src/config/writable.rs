//! Whether a node can write where the settings say. Nothing is written to find out.

use std::{fs::OpenOptions, io::ErrorKind, path::Path};

#[cfg(unix)]
use std::os::unix::fs::FileTypeExt;

/// The most bytes of a socket's path: 107, of which the name under which it is made takes eight
/// more than its own (a dot and the number of the process).
const MAX_SOCKET_BYTES: usize = 107 - 8;

/// A file that lines are appended to.
pub(crate) fn file(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Ok(there) if there.is_dir() => Err("this is a directory, not a file".into()),
        Ok(there) if there.is_file() => {
            let opened = OpenOptions::new().append(true).open(path);
            let opened = opened.map(drop);
            opened.map_err(|error| format!("the file can't be written: {error}"))
        }
        // To open a pipe is to wait for its reader.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => directory_of(path),
        Err(error) => Err(format!("the file can't be written: {error}")),
    }
}

/// A socket that is bound, be it in the place of another one.
pub(crate) fn socket(path: &Path) -> Result<(), String> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_BYTES {
        return Err(format!(
            "the path has {length} bytes; that of a socket has at most {MAX_SOCKET_BYTES}"
        ));
    }
    match path.symlink_metadata() {
        #[cfg(unix)]
        Ok(there) if !there.file_type().is_socket() => {
            Err("there is a file that is not a socket".into())
        }
        _ => directory_of(path),
    }
}

fn directory_of(path: &Path) -> Result<(), String> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    match parent.metadata() {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => Err(format!("{} is not a directory", parent.display())),
        Err(error) => Err(format!(
            "the directory {} can't be used: {error}",
            parent.display()
        )),
    }
}
