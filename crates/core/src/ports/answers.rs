//! What another member answers to a fetch, and the keys that are asked for among others: each has
//! its own answer, and a caller that may give up by itself.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::poll_fn;
use tokio::sync::oneshot;

use crate::{askers::Askers, error::Error, record::Record};

/// Where an answer came from, as the asked node sees it.
///
/// ```
/// # mod gaocache { pub use gaocache_core::ports::Source; }
/// use gaocache::Source;
///
/// assert_eq!(Source::Stale.name(), "stale");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This node's memory.
    Hit,
    /// The owner's memory, or that of a member that held it before.
    Peer,
    /// The origin, asked for this request by this node or by the owner.
    Origin,
    /// The owner's memory, though the value has expired: it is being loaded anew, or the origin
    /// can't answer.
    Stale,
}

impl Source {
    /// As in the header `X-Cache` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Peer => "peer",
            Self::Origin => "origin",
            Self::Stale => "stale",
        }
    }
}

/// How an answer came about, beside its [`Source`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// It waited for a load, or a call to the owner, that another request had begun.
    pub collapsed: bool,
    /// The origin was asked because the life of the value that was kept is over.
    pub stale: bool,
}

/// A peer's answer for a key.
#[derive(Clone, Debug)]
pub struct PeerAnswer {
    /// What it has. Expires by the clock of the node that reads this.
    pub record: Record,
    /// Where the peer had it from: its memory ([`Source::Hit`], [`Source::Stale`]) or the origin.
    pub source: Source,
    /// How it came about.
    pub course: Course,
    /// The receiver must not keep the value.
    pub uncacheable: bool,
}

impl PeerAnswer {
    /// The size of its value.
    pub fn value_bytes(&self) -> usize {
        self.record.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What a member answers to a peek.
#[derive(Clone, Debug, Default)]
pub struct Peeked {
    /// What it has in memory.
    pub entry: Option<PeerAnswer>,
    /// The revision of the newest view by which everything that it holds is its own.
    pub settled: u64,
}

/// Why a call to a peer brought nothing.
#[derive(Clone, Debug)]
pub enum PeerError {
    /// This peer gave no usable answer: the connection was refused or broke, or it runs an
    /// incompatible version. Another member may stand in for it. A load that takes long is no
    /// reason to say so: the stand-in would load the same key beside it.
    Unreachable(Error),
    /// The call ended with this error: the peer said so, or its load took longer than loads may.
    Answered(Error),
}

/// What a peer answers for a key of a batch.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// Its answer.
    Answer(PeerAnswer),
    /// It has the value, which is too large to be sent with others: it has to be fetched alone.
    Large,
}

/// A key of a batch, and where its answer goes.
pub struct KeyAsked {
    key: Box<str>,
    askers: Askers,
    answer: oneshot::Sender<Result<Fetched, PeerError>>,
}

impl KeyAsked {
    /// A key, and where its answer comes.
    pub fn new(key: &str, askers: Askers) -> (Self, oneshot::Receiver<Result<Fetched, PeerError>>) {
        let (answer, answered) = oneshot::channel();
        let asked = Self {
            key: key.into(),
            askers,
            answer,
        };
        (asked, answered)
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Who wants it.
    pub fn askers(&self) -> &Askers {
        &self.askers
    }

    /// Answers for it.
    pub fn answer(self, answer: Result<Fetched, PeerError>) {
        // The caller may have given up.
        let _ = self.answer.send(answer);
    }

    /// Answers with what `fetch` brings, unless the caller gives up before.
    pub async fn answer_from(mut self, fetch: impl Future<Output = Result<PeerAnswer, PeerError>>) {
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            () = poll_fn(|task| self.poll_given_up(task)) => return,
        };
        self.answer(fetched.map(Fetched::Answer));
    }

    /// Whether the caller has given up.
    pub fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    /// Ready once the caller has given up.
    pub fn poll_given_up(&mut self, task: &mut Context<'_>) -> Poll<()> {
        // A task may poll 128 times in a row. Past that all is pending, so that of more keys than
        // that, the first would be polled again and again.
        if self.is_given_up() {
            return Poll::Ready(());
        }
        self.answer.poll_closed(task)
    }
}

/// Returns once the callers of all these keys have given up.
pub async fn all_given_up<'a>(asked: impl IntoIterator<Item = &'a mut KeyAsked>) {
    for one in asked {
        poll_fn(|task| one.poll_given_up(task)).await;
    }
}
