//! One connection: how many requests it has open, and whether its client reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;

use super::budget::{Budget, Held, Pinned};
use gaocache_core::error::Result;

/// What an open request is counted with: the state of its stream, and its task.
const REQUEST_BYTES: u64 = 1024;
/// The write time limit is measured in so many steps, so that no answer needs a timer of its own.
const STEPS: usize = 4;
/// Steps that are told apart; a power of two, so that the number of a step may wrap.
const KNOWN_STEPS: usize = 8;
/// A request under way, and one that began, in [`Traffic::requests`].
const OPEN: u64 = 1;
const BEGUN: u64 = 1 << 32;

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the connect to the protocol's greeting.
    pub handshake: Duration,
    /// Without any request.
    pub idle: Duration,
    /// Without progress of an answer.
    pub write: Duration,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client did not greet in time.
    Handshake,
    /// The client has not sent a request for long. It need not be told harshly.
    Idle,
    /// The client does not read an answer.
    Stalled,
    /// The client sends too many frames that carry nothing.
    Flood,
}

impl Cut {
    /// For labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Flood => "flood",
        }
    }
}

/// What goes over one connection. It is written by one thread, so the atomics are never contended.
#[derive(Debug)]
pub struct Traffic {
    budget: Arc<Budget>,
    /// Requests that began, above those under way; see [`BEGUN`] and [`OPEN`].
    requests: AtomicU64,
    greeted: AtomicBool,
    floods: AtomicBool,
    /// The number of the current step.
    step: AtomicUsize,
    /// Answers by the step in which they last made progress.
    sending: [AtomicU32; KNOWN_STEPS],
    /// One more than the step since which the socket takes no bytes; 0: it does.
    blocked: AtomicUsize,
}

impl Traffic {
    /// A connection of a node with this budget.
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            requests: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            floods: AtomicBool::new(false),
            step: AtomicUsize::new(0),
            sending: Default::default(),
            blocked: AtomicUsize::new(0),
        })
    }

    /// A request begins.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if too much is under way at this node.
    pub fn begin(self: &Arc<Self>) -> Result<Ticket> {
        self.budget.take(REQUEST_BYTES)?;
        Ok(self.ticket())
    }

    /// A request begins that must be heard however much is under way.
    pub fn begin_anyway(self: &Arc<Self>) -> Ticket {
        self.budget.take_anyway(REQUEST_BYTES);
        self.ticket()
    }

    fn ticket(self: &Arc<Self>) -> Ticket {
        self.requests.fetch_add(BEGUN | OPEN, Ordering::Relaxed);
        let mut ticket = Ticket::part(self);
        ticket.request = true;
        ticket.charged = REQUEST_BYTES;
        ticket
    }

    /// The value, counted until its last clone is dropped.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for it.
    pub fn hold(self: &Arc<Self>, value: Bytes) -> Result<Bytes> {
        if value.is_empty() {
            return Ok(value);
        }
        let mut part = Ticket::part(self);
        part.pin(&value)?;
        Ok(part.hold(value))
    }

    /// The client has greeted.
    pub fn greeted(&self) {
        if !self.greeted.load(Ordering::Relaxed) {
            self.greeted.store(true, Ordering::Relaxed);
        }
    }

    /// The client sends too many frames that carry nothing; its socket fails from now on.
    pub fn floods(&self) {
        self.floods.store(true, Ordering::Relaxed);
    }

    /// Whether it did.
    pub fn is_flood(&self) -> bool {
        self.floods.load(Ordering::Relaxed)
    }

    /// The socket takes no bytes, because the client doesn't read.
    pub fn blocked(&self) {
        if self.blocked.load(Ordering::Relaxed) == 0 {
            let since = self.step.load(Ordering::Relaxed).wrapping_add(1);
            self.blocked.store(since, Ordering::Relaxed);
        }
    }

    /// The socket takes bytes.
    pub fn unblocked(&self) {
        if self.blocked.load(Ordering::Relaxed) != 0 {
            self.blocked.store(0, Ordering::Relaxed);
        }
    }

    /// Resolves when the connection is to be cut.
    pub async fn overstays(&self, patience: &Patience) -> Cut {
        let greeting = async {
            sleep(patience.handshake).await;
            if self.greeted.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = greeting => Cut::Handshake,
            cut = self.stands_still(patience) => cut,
        }
    }

    async fn stands_still(&self, patience: &Patience) -> Cut {
        let pause = patience.write / STEPS as u32;
        let mut begun = self.requests.load(Ordering::Relaxed) / BEGUN;
        let mut idle = Duration::ZERO;
        loop {
            sleep(pause).await;
            if self.next_step() {
                return Cut::Stalled;
            }
            let requests = self.requests.load(Ordering::Relaxed);
            let seen = std::mem::replace(&mut begun, requests / BEGUN);
            if !requests.is_multiple_of(BEGUN) || begun != seen {
                idle = Duration::ZERO;
                continue;
            }
            idle += pause;
            if idle >= patience.idle {
                return Cut::Idle;
            }
        }
    }

    /// Whether an answer has made no progress for all of the time limit.
    fn next_step(&self) -> bool {
        let step = self.step.load(Ordering::Relaxed).wrapping_add(1);
        self.step.store(step, Ordering::Relaxed);
        // An answer may have begun at the end of its step: one step more makes the limit whole.
        let overdue = step.wrapping_sub(STEPS + 1);
        let blocked = self.blocked.load(Ordering::Relaxed);
        let is_blocked = blocked != 0 && step.wrapping_sub(blocked.wrapping_sub(1)) > STEPS;
        is_blocked || self.sending[overdue % KNOWN_STEPS].load(Ordering::Relaxed) > 0
    }
}

/// A request, from its head to the last byte of its answer; or a part of an answer.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    traffic: Arc<Traffic>,
    /// Whether it is a request, which keeps its connection from being idle.
    request: bool,
    charged: u64,
    pinned: Option<Pinned>,
    /// The step of its last progress, once it is being sent.
    sending: Option<usize>,
}

impl Ticket {
    /// A part of an answer over this connection.
    pub(super) fn part(traffic: &Arc<Traffic>) -> Self {
        Self {
            traffic: traffic.clone(),
            request: false,
            charged: 0,
            pinned: None,
            sending: None,
        }
    }

    /// The connection.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Counts further bytes.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for them.
    pub fn charge(&mut self, bytes: usize) -> Result<()> {
        self.traffic.budget.take(bytes as u64)?;
        self.charged += bytes as u64;
        Ok(())
    }

    /// Gives back what [`Ticket::charge`] took.
    pub(super) fn discharge(&mut self, bytes: usize) {
        self.charged -= bytes as u64;
        self.traffic.budget.give_back(bytes as u64);
    }

    /// Counts the value that the answer pins: a large one once for all answers that share it.
    ///
    /// # Errors
    /// As [`Ticket::charge`].
    pub fn pin(&mut self, value: &Bytes) -> Result<()> {
        debug_assert!(self.pinned.is_none());
        self.pinned = Some(self.traffic.budget.pin(value)?);
        Ok(())
    }

    /// The answer is being sent, and has just made progress: from now on, the client has the write
    /// time limit to take more.
    pub fn advances(&mut self) {
        let step = self.traffic.step.load(Ordering::Relaxed);
        if self.sending == Some(step) {
            return;
        }
        self.rests();
        self.sending = Some(step);
        self.slot(step).fetch_add(1, Ordering::Relaxed);
    }

    /// There is nothing to send at the moment: the client has all that there is.
    pub(super) fn rests(&mut self) {
        if let Some(step) = self.sending.take() {
            self.slot(step).fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn slot(&self, step: usize) -> &AtomicU32 {
        &self.traffic.sending[step % KNOWN_STEPS]
    }

    /// These bytes, which end the ticket when they have been sent or given up. h2 and hyper drop
    /// them only then, long after the body itself.
    pub fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held {
            _counted: self,
            bytes,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.rests();
        if self.request {
            self.traffic.requests.fetch_sub(OPEN, Ordering::Relaxed);
        }
        if self.charged > 0 {
            self.traffic.budget.give_back(self.charged);
        }
        if let Some(pinned) = self.pinned {
            self.traffic.budget.unpin(pinned);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    const PATIENCE: Patience = Patience {
        handshake: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        write: Duration::from_secs(20),
    };

    fn traffic() -> Arc<Traffic> {
        Traffic::new(Budget::new(1 << 20))
    }

    async fn cut(traffic: &Arc<Traffic>) -> (Cut, u64) {
        let began = Instant::now();
        let cut = traffic.overstays(&PATIENCE).await;
        (cut, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_greet_or_never_asks_is_cut() {
        assert_eq!(cut(&traffic()).await, (Cut::Handshake, 10));
        let greeted = traffic();
        greeted.greeted();
        assert_eq!(cut(&greeted).await, (Cut::Idle, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_request_is_not_idle_and_an_answer_that_stands_still_is_cut() {
        let traffic = traffic();
        traffic.greeted();
        let mut ticket = traffic.begin().expect("room");
        let waits = traffic.overstays(&PATIENCE);
        let waited = tokio::time::timeout(Duration::from_secs(600), waits).await;
        assert!(waited.is_err(), "a load takes as long as it takes");
        ticket.advances();
        assert_eq!(cut(&traffic).await, (Cut::Stalled, 25));
        drop(ticket);
        assert_eq!(traffic.budget.used(), 0);
        assert_eq!(cut(&traffic).await, (Cut::Idle, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_goes_on_slowly_is_not_cut_and_does_not_hide_one_that_stands_still() {
        let traffic = traffic();
        traffic.greeted();
        let mut slow = traffic.begin().expect("room");
        let watched = tokio::spawn({
            let traffic = traffic.clone();
            async move { cut(&traffic).await }
        });
        for _ in 0..50 {
            slow.advances();
            advance(Duration::from_secs(15)).await;
            tokio::task::yield_now().await;
        }
        assert!(!watched.is_finished());
        let mut still = traffic.begin().expect("room");
        still.advances();
        for _ in 0..3 {
            slow.advances();
            advance(Duration::from_secs(10)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(watched.await.expect("no panic").0, Cut::Stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_is_cut() {
        let traffic = traffic();
        traffic.greeted();
        traffic.blocked();
        traffic.unblocked();
        traffic.blocked();
        assert_eq!(cut(&traffic).await, (Cut::Stalled, 25));
    }

    #[test]
    fn what_an_answer_pins_is_given_back_with_its_last_byte() {
        let traffic = traffic();
        let mut ticket = traffic.begin().expect("room");
        ticket.charge(100).expect("room");
        ticket.pin(&Bytes::from_static(b"value")).expect("room");
        ticket.advances();
        let bytes = ticket.hold("value");
        let end = bytes.slice(4..);
        drop(bytes);
        assert_eq!(traffic.budget.used(), REQUEST_BYTES + 105);
        drop(end);
        assert_eq!(traffic.budget.used(), 0);
        assert!(traffic.begin().is_ok());
    }
}
