//! The log's way to standard output.
//!
//! A reader of standard output that stalls (a full pipe, a container runtime under pressure) must
//! not block anything else: a thread of its own does the writing. Beyond [`MAX_LINES`] or
//! [`MAX_BYTES`] that wait for it, lines are dropped and counted. It never writes to standard
//! output from another thread; `tracing-appender` does, when it ends with a full queue, and then
//! hangs.

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

/// Lines that may wait.
const MAX_LINES: usize = 8192;
/// Bytes of lines that may wait.
const MAX_BYTES: usize = 4 << 20;
/// Time limit for writing what still waits when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines of this process that were never written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines of this process' log were never written.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Step {
    Line(Box<[u8]>),
    /// A flush marker: it is dropped once everything before it has been written.
    Flush(#[expect(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

/// A queue of lines, and the thread that writes them. Clones share both.
#[derive(Clone)]
pub(super) struct Output {
    steps: SyncSender<Step>,
    queued: Arc<AtomicUsize>,
}

impl Output {
    /// The one of this process, which writes to standard output.
    ///
    /// # Errors
    /// The thread can't be started.
    pub(super) fn of_the_process() -> io::Result<Self> {
        static OUTPUT: OnceLock<Output> = OnceLock::new();
        if let Some(output) = OUTPUT.get() {
            return Ok(output.clone());
        }
        let output = Self::start(io::stdout())?;
        Ok(OUTPUT.get_or_init(|| output).clone())
    }

    fn start(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (steps, queue) = sync_channel(MAX_LINES);
        let queued = Arc::new(AtomicUsize::new(0));
        let output = Self {
            steps,
            queued: queued.clone(),
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&queue, &queued, writer))?;
        Ok(output)
    }

    /// Waits until everything so far is written, within [`FLUSH_TIMEOUT`]. Blocks.
    pub(super) fn flush(&self) {
        let (written, hung_up) = sync_channel(1);
        // A queue that is full belongs to a reader that stalls.
        if self.steps.try_send(Step::Flush(written)).is_ok() {
            let _ = hung_up.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn send(&self, line: &[u8]) -> bool {
        let before = self.queued.fetch_add(line.len(), Ordering::AcqRel);
        let sent = before + line.len() <= MAX_BYTES
            && self.steps.try_send(Step::Line(line.into())).is_ok();
        if !sent {
            self.queued.fetch_sub(line.len(), Ordering::AcqRel);
        }
        sent
    }
}

/// Takes a whole line at a time, which is how `tracing_subscriber` writes.
impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.send(line) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(queue: &Receiver<Step>, queued: &AtomicUsize, mut writer: impl Write) {
    while let Ok(step) = queue.recv() {
        if let Step::Line(line) = step {
            let written = writer.write_all(&line).and_then(|()| writer.flush());
            // Nobody reads any more.
            if written.is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
            queued.fetch_sub(line.len(), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes a line whenever the test lets it.
    struct Stalled(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Stalled {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(line.into()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_holds_up_nobody_and_costs_no_more_than_the_bound() {
        let (go, may_write) = mpsc::channel();
        let (write, written) = mpsc::channel();
        let mut output = Output::start(Stalled(may_write, write)).expect("starts");
        let before = dropped();
        let line = [b'x'; 1024];
        for _ in 0..2 * MAX_BYTES / line.len() {
            output.write_all(&line).expect("never fails");
        }
        assert!(output.queued.load(Ordering::Acquire) <= MAX_BYTES);
        assert_eq!(dropped() - before, (MAX_BYTES / line.len()) as u64);
        for _ in 0..MAX_BYTES / line.len() {
            go.send(()).expect("writes");
            assert_eq!(written.recv().expect("a line"), line);
        }
        // There is room again, and a reader that stalls doesn't hold up the end either.
        output.write_all(b"last").expect("never fails");
        output.flush();
        go.send(()).expect("writes");
        assert_eq!(written.recv().expect("a line"), b"last");
    }
}
