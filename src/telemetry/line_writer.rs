//! Lines on their way to a stream: those of the log, and those of the audit.
//!
//! A reader that stalls (a full pipe, a container runtime under pressure) must not block anything
//! else: a thread of its own does the writing. Beyond a number of lines, or [`MAX_BYTES`], that
//! wait for it, lines are dropped and counted. No other thread ever writes; with
//! `tracing-appender`, one does when the process ends with a full queue, and then hangs.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use gaocache_core::error::{Error, ErrorKind, Result};

/// Bytes of lines that may wait.
const MAX_BYTES: usize = 4 << 20;
/// Time limit for writing what still waits at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts a line that was not written.
type OnDrop = Arc<dyn Fn() + Send + Sync>;

enum Step {
    Line(Box<[u8]>),
    /// A flush marker: it is dropped once everything before it has been written.
    Flush(#[expect(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

/// A queue of lines that a thread writes. Clones share both.
#[derive(Clone)]
pub(crate) struct LineWriter {
    steps: SyncSender<Step>,
    queued: Arc<AtomicUsize>,
    on_drop: OnDrop,
}

impl LineWriter {
    /// Starts a thread of this name, which writes to `to`. At most `max_lines` wait for it.
    ///
    /// # Errors
    /// The thread can't be started.
    pub(crate) fn start(
        thread: &str,
        max_lines: usize,
        to: impl Write + Send + 'static,
        on_drop: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        let (writer, waiting) = Self::new(max_lines, on_drop);
        std::thread::Builder::new()
            .name(thread.into())
            .spawn(move || waiting.write_all(to))
            .map_err(|error| {
                let what = format!("can't start the thread {thread:?}: {error}");
                Error::new(ErrorKind::Internal, what).with_source(error)
            })?;
        Ok(writer)
    }

    /// A queue, and what waits in it to be written.
    pub(crate) fn new(
        max_lines: usize,
        on_drop: impl Fn() + Send + Sync + 'static,
    ) -> (Self, QueuedLines) {
        let (steps, waiting) = sync_channel(max_lines);
        let writer = Self {
            steps,
            queued: Arc::default(),
            on_drop: Arc::new(on_drop),
        };
        let waiting = QueuedLines {
            steps: waiting,
            queued: writer.queued.clone(),
            on_drop: writer.on_drop.clone(),
        };
        (writer, waiting)
    }

    /// Takes a whole line, or drops it. Never waits.
    pub(crate) fn send(&self, line: impl Into<Box<[u8]>>) {
        let line = line.into();
        let bytes = line.len();
        let before = self.queued.fetch_add(bytes, Ordering::AcqRel);
        let sent = before + bytes <= MAX_BYTES && self.steps.try_send(Step::Line(line)).is_ok();
        if !sent {
            self.queued.fetch_sub(bytes, Ordering::AcqRel);
            (self.on_drop)();
        }
    }

    /// Waits until everything so far is written, within [`FLUSH_TIMEOUT`]. Blocks.
    pub(crate) fn flush(&self) {
        let (written, hung_up) = sync_channel(1);
        // A queue that is full belongs to a reader that stalls.
        if self.steps.try_send(Step::Flush(written)).is_ok() {
            let _ = hung_up.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// What waits to be written.
pub(crate) struct QueuedLines {
    steps: Receiver<Step>,
    queued: Arc<AtomicUsize>,
    on_drop: OnDrop,
}

impl QueuedLines {
    /// Writes lines for as long as there may be any.
    fn write_all(self, mut to: impl Write) {
        while let Ok(step) = self.steps.recv() {
            if let Step::Line(line) = step {
                // In one piece, so that no other line comes between.
                let written = to.write_all(&line).and_then(|()| to.flush());
                // Nobody reads any more.
                if written.is_err() {
                    (self.on_drop)();
                }
                self.queued.fetch_sub(line.len(), Ordering::AcqRel);
            }
        }
    }

    /// Takes what waits without writing it. Returns the number of lines.
    #[cfg(test)]
    pub(crate) fn take(&self) -> usize {
        let is_line = |step: &Step| matches!(step, Step::Line(_));
        self.steps.try_iter().filter(is_line).count()
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc};

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

    fn counted() -> (Arc<AtomicUsize>, impl Fn() + Send + Sync + 'static) {
        let dropped = Arc::<AtomicUsize>::default();
        let count = dropped.clone();
        (dropped, move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn a_reader_that_stalls_holds_up_nobody_and_costs_no_more_than_the_bound() {
        let (go, may_write) = mpsc::channel();
        let (write, written) = mpsc::channel();
        let (dropped, count) = counted();
        let to = Stalled(may_write, write);
        let lines = LineWriter::start("test", 8192, to, count).expect("starts");
        let line = [b'x'; 1024];
        for _ in 0..2 * MAX_BYTES / line.len() {
            lines.send(line);
        }
        assert!(lines.queued.load(Ordering::Acquire) <= MAX_BYTES);
        assert_eq!(dropped.load(Ordering::Relaxed), MAX_BYTES / line.len());
        for _ in 0..MAX_BYTES / line.len() {
            go.send(()).expect("writes");
            assert_eq!(written.recv().expect("a line"), line);
        }
        // There is room again, and a reader that stalls doesn't hold up the end either.
        lines.send(*b"last");
        lines.flush();
        go.send(()).expect("writes");
        assert_eq!(written.recv().expect("a line"), b"last");
    }

    #[test]
    fn short_lines_are_bounded_by_their_number() {
        let (dropped, count) = counted();
        let (lines, waiting) = LineWriter::new(3, count);
        for _ in 0..5 {
            lines.send(*b"x");
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        assert_eq!(waiting.take(), 3);
    }

    #[test]
    fn a_line_that_a_stream_does_not_take_is_counted() {
        let (dropped, count) = counted();
        let (lines, waiting) = LineWriter::new(3, count);
        lines.send(*b"x");
        drop(lines);
        let full: &mut [u8] = &mut [];
        waiting.write_all(full);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
