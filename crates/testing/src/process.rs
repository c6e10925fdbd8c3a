//! A process that a test kills, freezes and thaws.

use std::process::Child;

use crate::signal;

/// A process that doesn't outlive its test.
#[derive(Default)]
pub struct Process(Option<Child>);

impl Process {
    /// This one.
    pub fn of(child: Child) -> Self {
        Self(Some(child))
    }

    fn running(&self) -> &Child {
        self.0.as_ref().expect("it runs")
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.running().id()
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Freezes it (SIGSTOP); its connections stay open.
    pub fn freeze(&self) {
        signal(self.running(), "-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.running(), "-CONT");
    }

    /// SIGTERM; the caller waits for its end.
    pub fn terminate(&mut self) -> Child {
        let child = self.0.take().expect("it runs");
        signal(&child, "-TERM");
        child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
