//! The ways to the members that entries go to in one walk: batches, receipts, and what follows from
//! them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{HandoffParts, Moved, Pace};
use crate::{
    error::{Error, ErrorKind},
    group::Group,
    membership::{IdHash, Member},
    ports::{HandoffStream, Parcel, PeerError, TRANSFER_TIMEOUT, Timestamp},
    store::Found,
};

/// A batch goes when it has so many bytes: enough that its message costs little, so few that its
/// receiver's thread isn't held up (a hundred entries of a kilobyte take it a fraction of a
/// millisecond).
const BATCH_BYTES: usize = 128 * 1024;
/// What an entry takes beside key and value, about.
const FRAME_BYTES: usize = 64;
/// Batches without a receipt on one stream. In the background there is one, so that its receipt
/// tells how busy the receiver is.
const WINDOW: usize = 8;
/// And bytes: values may be large, and each is copied into its message.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// A receipt that takes longer tells that the receiver is busy: the background waits this many
/// times as long.
const BUSY: Duration = Duration::from_millis(20);
const BUSY_FACTOR: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Shorter rests are saved up: timers are no finer than a millisecond.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// The streams of one walk.
pub(super) struct Streams<'a> {
    parts: &'a HandoffParts,
    groups: &'a [Arc<Group>],
    pace: Pace,
    /// By member id; `None`: that member could not be reached in this walk.
    streams: HashMap<Arc<str>, Option<Loading>>,
    moved: Moved,
    /// Entries that are known to go after those under way.
    left: usize,
    /// The rest that is due for what went out.
    owed: Duration,
    /// When something went out last.
    sent_at: Timestamp,
}

/// A stream, the batch that is filled, and those that wait for their receipts.
struct Loading {
    stream: Box<dyn HandoffStream>,
    member: IdHash,
    batch: Vec<Going>,
    bytes: usize,
    unanswered: VecDeque<Unanswered>,
}

impl Loading {
    /// Bytes without a receipt.
    fn under_way(&self) -> usize {
        self.unanswered.iter().map(|it| it.bytes).sum()
    }
}

struct Going {
    found: Found,
    copy: bool,
}

struct Unanswered {
    entries: Vec<Going>,
    bytes: usize,
}

impl<'a> Streams<'a> {
    pub(super) fn new(parts: &'a HandoffParts, groups: &'a [Arc<Group>], pace: Pace) -> Self {
        Self {
            parts,
            groups,
            pace,
            streams: HashMap::new(),
            moved: Moved::default(),
            left: 0,
            owed: Duration::ZERO,
            sent_at: parts.clock.now(),
        }
    }

    pub(super) fn moved(&self) -> Moved {
        self.moved
    }

    /// Whether there is time to rest.
    pub(super) fn is_patient(&self) -> bool {
        self.pace.patient
    }

    /// So many entries are left for the next walk.
    pub(super) fn left_to_go(&mut self, entries: usize) {
        self.left = entries;
    }

    /// Puts an entry on the way to `to`.
    pub(super) async fn add(&mut self, to: &Member, found: Found, copy: bool) {
        if !self.streams.contains_key(&to.id) {
            let opened = self.open(to).await;
            self.streams.insert(to.id.clone(), opened);
        }
        let Some(Some(loading)) = self.streams.get_mut(&to.id) else {
            self.failed(1);
            return;
        };
        loading.bytes += FRAME_BYTES + found.key.len() + found.entry.record.value_bytes();
        loading.batch.push(Going { found, copy });
        if loading.bytes >= BATCH_BYTES {
            self.drive(&to.id.clone(), Until::Sent).await;
        }
    }

    /// Sends what is left, and waits for all receipts.
    pub(super) async fn finish(&mut self) {
        let ids: Vec<Arc<str>> = self.streams.keys().cloned().collect();
        for id in ids {
            self.drive(&id, Until::Answered).await;
        }
    }

    async fn open(&mut self, to: &Member) -> Option<Loading> {
        if !self.parts.peers.usable(to) {
            return None;
        }
        let opened = timeout(TRANSFER_TIMEOUT, self.parts.peers.handoff(to)).await;
        let stream = opened.ok()?.ok()?;
        Some(Loading {
            stream,
            member: to.incarnation(),
            batch: Vec::new(),
            bytes: 0,
            unanswered: VecDeque::new(),
        })
    }

    /// Sends the stream's batch; a stream that fails is closed for this walk, and its entries stay
    /// where they are.
    async fn drive(&mut self, id: &Arc<str>, until: Until) {
        let Some(Some(mut loading)) = self.streams.insert(id.clone(), None) else {
            return;
        };
        let driven = self.try_drive(&mut loading, until).await;
        match driven {
            Ok(()) => {
                self.streams.insert(id.clone(), Some(loading));
            }
            Err(error) => {
                let unanswered: usize = loading.unanswered.iter().map(|it| it.entries.len()).sum();
                let entries = unanswered + loading.batch.len();
                let (PeerError::Answered(error) | PeerError::Unreachable(error)) = error;
                tracing::debug!(peer = %id, entries, %error, "entries could not be handed over");
                self.failed(entries);
            }
        }
    }

    async fn try_drive(&mut self, loading: &mut Loading, until: Until) -> Result<(), PeerError> {
        let window = if self.pace.patient { 1 } else { WINDOW };
        while loading.unanswered.len() >= window || loading.under_way() >= WINDOW_BYTES {
            self.settle_one(loading).await?;
        }
        self.send(loading).await?;
        let open = match until {
            Until::Sent if !self.pace.patient => WINDOW,
            Until::Sent | Until::Answered => 0,
        };
        while loading.unanswered.len() > open {
            self.settle_one(loading).await?;
        }
        Ok(())
    }

    async fn send(&mut self, loading: &mut Loading) -> Result<(), PeerError> {
        let now = self.parts.clock.now();
        let mut entries = std::mem::take(&mut loading.batch);
        loading.bytes = 0;
        // Read again: what was removed since the walk met it must not go, or its way would be
        // longer than tombstones last.
        entries.retain(|going| {
            let kept = self.parts.store.peek(&going.found.key(), now);
            kept.is_some_and(|kept| Arc::ptr_eq(&kept, &going.found.entry))
        });
        let batch: Vec<Parcel> = entries.iter().filter_map(|it| self.parcel(it)).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.iter().map(Parcel::bytes).sum();
        loading.unanswered.push_back(Unanswered { entries, bytes });
        timeout(TRANSFER_TIMEOUT, loading.stream.send(batch, now))
            .await
            .unwrap_or_else(|_| Err(too_slow()))?;
        self.rest(bytes).await;
        Ok(())
    }

    /// Rests as long as the rate asks for after so many bytes.
    async fn rest(&mut self, bytes: usize) {
        let now = self.parts.clock.now();
        let passed = now.since(self.sent_at);
        self.sent_at = now;
        self.owed = self.owed.saturating_sub(passed) + due(bytes, self.pace.bytes_per_second);
        if self.owed >= SHORTEST_PAUSE {
            sleep(self.owed.min(LONGEST_PAUSE)).await;
            self.owed = Duration::ZERO;
            self.sent_at = self.parts.clock.now();
        }
    }

    fn parcel(&self, going: &Going) -> Option<Parcel> {
        let Found { group, key, entry } = &going.found;
        Some(Parcel {
            group: self.groups.get(usize::from(group.0))?.name().clone(),
            key: key.clone(),
            record: entry.record.clone(),
            use_count: entry.use_count(),
            copy: going.copy,
        })
    }

    /// Waits for the oldest receipt. Whatever it says, the entries of its batch are done with:
    /// taken, or not to be had there.
    async fn settle_one(&mut self, loading: &mut Loading) -> Result<(), PeerError> {
        let asked_at = self.parts.clock.now();
        let receipt = timeout(TRANSFER_TIMEOUT, loading.stream.receipt())
            .await
            .unwrap_or_else(|_| Err(too_slow()))?;
        let took = self.parts.clock.now().since(asked_at);
        let Some(answered) = loading.unanswered.pop_front() else {
            return Ok(());
        };
        for going in &answered.entries {
            if going.copy {
                going.found.entry.set_replica_at(loading.member);
            } else {
                self.parts.store.remove_exactly(&going.found);
            }
        }
        self.moved.sent += answered.entries.len();
        self.parts.observer.sent(answered.bytes, receipt);
        self.parts.observer.waiting(self.left);
        if self.pace.patient && took > BUSY {
            sleep((took * BUSY_FACTOR).min(LONGEST_PAUSE)).await;
        }
        Ok(())
    }

    fn failed(&mut self, entries: usize) {
        self.moved.failed += entries;
        self.parts.observer.failed(entries);
    }
}

/// How far to go with a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The batch is on its way; if there is time, it is answered, too.
    Sent,
    /// Everything is answered.
    Answered,
}

/// The time that so many bytes may take.
fn due(bytes: usize, bytes_per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64)
}

fn too_slow() -> PeerError {
    PeerError::Unreachable(Error::new(
        ErrorKind::PeerUnreachable,
        "no receipt in time for entries handed over",
    ))
}
