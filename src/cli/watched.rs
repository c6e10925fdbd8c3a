//! Files whose content is compared with what the node tried last, whether it was good or refused:
//! a file that is corrected after a refusal is a change, even if it is then what it was before.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

/// How often files are read. A ConfigMap is a link to a link, so there is no one file to watch.
const POLL: Duration = Duration::from_secs(1);

/// The content of each file; `None` for one that can't be read.
type Contents = Vec<Option<Vec<u8>>>;

/// The files of the settings.
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    /// As they were when the node read them last.
    tried: Contents,
    /// Another content, which the last look found for the first time.
    new: Option<Contents>,
}

impl Watched {
    /// The node has read these files just now.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let tried = read(&paths);
        Self {
            paths,
            tried,
            new: None,
        }
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The node is about to read the files. What changes after this is a change.
    pub(super) async fn are_tried(&mut self) {
        if let Some(contents) = self.look().await {
            self.tried = contents;
            self.new = None;
        }
    }

    /// Returns when a file has another content, or is gone.
    pub(super) async fn changed(&mut self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(POLL).await;
            if let Some(contents) = self.look().await
                && self.have_settled(contents)
            {
                return;
            }
        }
    }

    async fn look(&self) -> Option<Contents> {
        let paths = self.paths.clone();
        let read = tokio::task::spawn_blocking(move || read(&paths));
        read.await.ok()
    }

    /// Whether two looks in a row found the same change: an editor writes a file piece by piece,
    /// and its first half may be valid; and a file may be gone for a moment while it is replaced.
    fn have_settled(&mut self, contents: Contents) -> bool {
        if self.tried == contents {
            self.new = None;
            false
        } else if self.new.as_ref() == Some(&contents) {
            self.tried = contents;
            self.new = None;
            true
        } else {
            self.new = Some(contents);
            false
        }
    }
}

fn read(paths: &[impl AsRef<Path>]) -> Contents {
    paths.iter().map(|path| std::fs::read(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_that_two_looks_find() {
        let content = |text: Option<&str>| vec![text.map(|text| text.as_bytes().to_vec())];
        let mut files = Watched {
            paths: Vec::new(),
            tried: content(Some("good")),
            new: None,
        };
        for (found, is_change) in [
            (Some("good"), false),
            // Gone while it is replaced.
            (None, false),
            (Some("good"), false),
            (None, false),
            (None, true),
            // Told once.
            (None, false),
            // Half of it is written.
            (Some("go"), false),
            (Some("good"), false),
            (Some("good"), true),
            (Some("good"), false),
        ] {
            assert_eq!(files.have_settled(content(found)), is_change, "{found:?}");
        }
    }
}
