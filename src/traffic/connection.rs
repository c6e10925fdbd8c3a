//! One connection: how many requests it has open, and whether its client reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::budget::Budget;
use crate::fairness::{OpenRequests, Permit};
use gaocache_core::error::Result;

/// The write time limit is measured in so many steps, so that no answer needs a timer of its own.
const STEPS: usize = 4;
/// Number of distinct steps; a power of two, so that the number of a step may wrap.
const KNOWN_STEPS: usize = 8;
/// A request under way, and one that began, in [`Traffic::requests`].
const OPEN: u64 = 1;
const BEGUN: u64 = 1 << 32;

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the connect to the HTTP/2 preface.
    pub handshake: Duration,
    /// Without any request.
    pub idle: Duration,
    /// Without progress of an answer.
    pub write: Duration,
    /// After what the client has proven has ceased to count.
    pub untrusted: Duration,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client did not greet in time.
    Handshake,
    /// The client has not sent a request for a long time. It can be closed gently.
    Idle,
    /// The client does not read an answer.
    Stalled,
    /// The client sends too many control frames without data.
    Flood,
    /// It had not proven who it is, and newer connections needed its place.
    Displaced,
    /// What it has proven doesn't count any more.
    Untrusted,
}

impl Cut {
    /// For labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Flood => "flood",
            Self::Displaced => "displaced",
            Self::Untrusted => "untrusted",
        }
    }
}

/// What goes over one connection. It is written by one thread, so the atomics are never contended.
#[derive(Debug)]
pub struct Traffic {
    budget: Arc<Budget>,
    /// Who is at the other end, as far as its address shows; `None`: somebody without a quota.
    client: Option<OpenRequests>,
    /// Requests that began, above those under way; see [`BEGUN`] and [`OPEN`].
    requests: AtomicU64,
    greeted: AtomicBool,
    /// All that the client has sent has been read.
    is_read: AtomicBool,
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
        Self::with(budget, None)
    }

    /// A connection of this client.
    pub(crate) fn of_client(budget: Arc<Budget>, client: OpenRequests) -> Arc<Self> {
        Self::with(budget, Some(client))
    }

    fn with(budget: Arc<Budget>, client: Option<OpenRequests>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            client,
            requests: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            is_read: AtomicBool::new(false),
            floods: AtomicBool::new(false),
            step: AtomicUsize::new(0),
            sending: Default::default(),
            blocked: AtomicUsize::new(0),
        })
    }

    /// The client, if its requests are counted.
    pub(super) fn client(&self) -> Option<&OpenRequests> {
        self.client.as_ref()
    }

    /// A request has to be waited for.
    pub(super) fn arrives(&self) -> Result<Option<Permit>> {
        let arrives = self.client.as_ref().map(OpenRequests::arrives);
        Ok(arrives.transpose()?)
    }

    /// What the node holds for its clients.
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// A request is under way from now on.
    pub(super) fn request_begins(&self) {
        self.requests.fetch_add(BEGUN | OPEN, Ordering::Relaxed);
    }

    /// And no longer.
    pub(super) fn request_ends(&self) {
        self.requests.fetch_sub(OPEN, Ordering::Relaxed);
    }

    /// The number of the current step.
    pub(super) fn step(&self) -> usize {
        self.step.load(Ordering::Relaxed)
    }

    /// How many answers made their last progress in that step.
    pub(super) fn sending(&self, step: usize) -> &AtomicU32 {
        &self.sending[step % KNOWN_STEPS]
    }

    /// Whether a request is under way whose answer the client reads, as far as there is one.
    pub fn is_in_use(&self) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        !requests.is_multiple_of(BEGUN) && self.blocked.load(Ordering::Relaxed) == 0
    }

    /// The socket was read, and has nothing more (`all`) or may have.
    pub fn reads(&self, all: bool) {
        self.is_read.store(all, Ordering::Relaxed);
    }

    /// Whether all that the client has sent has been read.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// The client has greeted.
    pub fn greeted(&self) {
        if !self.greeted.load(Ordering::Relaxed) {
            self.greeted.store(true, Ordering::Relaxed);
        }
    }

    /// The client sends too many control frames without data; its socket fails from now on.
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
        let preface = async {
            sleep(patience.handshake).await;
            if self.greeted.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = preface => Cut::Handshake,
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
        is_blocked || self.sending(overdue).load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Patience = Patience {
        handshake: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        write: Duration::from_secs(20),
        untrusted: Duration::from_secs(10),
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
            // Time goes from step to step.
            sleep(Duration::from_secs(15)).await;
        }
        assert!(!watched.is_finished());
        let mut still = traffic.begin().expect("room");
        still.advances();
        for _ in 0..3 {
            slow.advances();
            sleep(Duration::from_secs(10)).await;
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
}
