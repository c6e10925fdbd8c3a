//! Streams to the members that receive entries in one walk: batches, receipts, and what follows
//! from them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    parts::{HandoffParts, Moved, Pace},
    receipts::{Done, Going, How, conclude},
};
use crate::{
    cluster::Topology,
    error::{Error, ErrorKind},
    membership::{IdHash, Member},
    ports::{Fate, Handed, HandoffStream, Parcel, PeerError, Receipt, TRANSFER_TIMEOUT, Timestamp},
    store::Entry,
};

/// A batch goes when it has so many bytes: enough that its message costs little, so few that its
/// receiver's thread isn't held up (a hundred entries of a kilobyte take it a fraction of a
/// millisecond).
const BATCH_BYTES: usize = 128 * 1024;
/// What an entry takes beside key and value, about.
const FRAME_BYTES: usize = 64;
/// So a batch has at most so many entries; a receiver refuses one of more before it decodes it.
pub const MAX_BATCH_ENTRIES: usize = BATCH_BYTES / FRAME_BYTES + 1;
/// Batches without a receipt on one stream. In the background there is one, so that its receipt
/// shows how busy the receiver is.
const WINDOW: usize = 8;
/// And bytes: values may be large, and each is copied into its message.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// A receipt that takes longer shows that the receiver is busy: the background waits this many
/// times as long.
const BUSY: Duration = Duration::from_millis(20);
const BUSY_FACTOR: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// So many copies that receivers want are gathered before they go.
const WANTED: usize = 1024;
/// Shorter rests are saved up: timers are no finer than a millisecond.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// The streams of one walk.
pub(super) struct Streams<'a> {
    parts: &'a HandoffParts,
    pace: Pace,
    /// That of the ring by which entries go.
    revision: u64,
    /// By member id; `None`: that member could not be reached in this walk.
    streams: BTreeMap<Arc<str>, Option<Loading>>,
    moved: Moved,
    /// Copies that receivers want.
    wanted: Vec<(Member, Entry)>,
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
    member: Member,
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

struct Unanswered {
    entries: Vec<Going>,
    bytes: usize,
}

impl<'a> Streams<'a> {
    pub(super) fn new(parts: &'a HandoffParts, pace: Pace, ring: &Topology) -> Self {
        Self {
            parts,
            pace,
            revision: ring.view.revision,
            streams: BTreeMap::new(),
            moved: Moved::default(),
            wanted: Vec::new(),
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
    pub(super) async fn add(&mut self, to: &Member, entry: Entry, how: How) {
        self.put(to, entry, how).await;
        if self.wanted.len() >= WANTED {
            self.copy_wanted().await;
        }
    }

    /// Copies what receivers want of the entries that were announced.
    async fn copy_wanted(&mut self) {
        for (to, entry) in std::mem::take(&mut self.wanted) {
            self.put(&to, entry, How::Copied).await;
        }
    }

    async fn put(&mut self, to: &Member, entry: Entry, how: How) {
        if !self.streams.contains_key(&to.id) {
            let opened = self.open(to).await;
            self.streams.insert(to.id.clone(), opened);
        }
        let Some(Some(loading)) = self.streams.get_mut(&to.id) else {
            self.failed(1);
            return;
        };
        let bytes = entry.value_bytes() as u64;
        let largest = loading.stream.largest_value();
        if how != How::Announced && largest.is_some_and(|largest| bytes > largest) {
            let receiver = loading.member.incarnation();
            self.give_up(&Going { entry, how }, receiver);
            return;
        }
        loading.bytes += FRAME_BYTES + entry.key().len();
        if how != How::Announced {
            loading.bytes += entry.bytes();
        }
        loading.batch.push(Going { entry, how });
        if loading.bytes >= BATCH_BYTES {
            self.drive(&to.id.clone(), Until::Sent).await;
        }
    }

    /// Does as if the receiver had refused that entry, which it would. In a batch it could end the
    /// stream, together with what goes well, and would be tried again in every walk.
    fn give_up(&mut self, going: &Going, receiver: IdHash) {
        let (store, fate) = (&self.parts.store, Fate::Refused);
        let _done = conclude(store, self.pace.patient, going, fate, receiver);
        self.moved.sent += 1;
        let receipt = Receipt { fates: vec![fate] };
        self.parts.observer.sent(0, &receipt);
    }

    /// Flushes the remaining batches, and waits for all receipts.
    pub(super) async fn finish(&mut self) {
        self.drive_all().await;
        if !self.wanted.is_empty() {
            self.copy_wanted().await;
            self.drive_all().await;
        }
    }

    async fn drive_all(&mut self) {
        let ids: Vec<Arc<str>> = self.streams.keys().cloned().collect();
        for id in ids {
            self.drive(&id, Until::Answered).await;
        }
    }

    async fn open(&mut self, to: &Member) -> Option<Loading> {
        if !self.parts.peers.usable(to) {
            return None;
        }
        let opened = timeout(
            TRANSFER_TIMEOUT,
            self.parts.peers.handoff(to, self.revision),
        )
        .await;
        let stream = opened.ok()?.ok()?;
        Some(Loading {
            stream,
            member: to.clone(),
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
        // Read again: what was removed since the walk met it must not go, or it could arrive after
        // its tombstone has expired.
        entries.retain(|going| {
            let kept = self.parts.store.peek_usable(&going.entry.hashed(), now);
            kept.is_some_and(|kept| kept.is(&going.entry))
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
        let entry = &going.entry;
        let what = match going.how {
            How::Announced => Handed::Announced {
                value_bytes: entry.value_bytes() as u64,
            },
            How::Moved | How::Copied => Handed::Over(entry.record()),
        };
        Some(Parcel {
            group: self.parts.groups.numbered(entry.group())?.name().clone(),
            key: entry.key().into(),
            what,
            use_count: entry.use_count(),
            copy: going.how != How::Moved,
        })
    }

    /// Waits for the oldest receipt, and does with each entry of its batch what follows.
    async fn settle_one(&mut self, loading: &mut Loading) -> Result<(), PeerError> {
        let asked_at = self.parts.clock.now();
        let receipt = timeout(TRANSFER_TIMEOUT, loading.stream.receipt())
            .await
            .unwrap_or_else(|_| Err(too_slow()))?;
        let took = self.parts.clock.now().since(asked_at);
        let Some(answered) = loading.unanswered.front() else {
            return Ok(());
        };
        if receipt.fates.len() != answered.entries.len() {
            return Err(unfit());
        }
        for (going, fate) in answered.entries.iter().zip(&receipt.fates) {
            match conclude(
                &self.parts.store,
                self.pace.patient,
                going,
                *fate,
                loading.member.incarnation(),
            ) {
                Done::Yes => self.moved.sent += 1,
                Done::Later => self.moved.failed += 1,
                Done::Wanted => {
                    let entry = going.entry.clone();
                    self.wanted.push((loading.member.clone(), entry));
                }
            }
        }
        self.parts.observer.sent(answered.bytes, &receipt);
        self.parts.observer.waiting(self.left);
        loading.unanswered.pop_front();
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

fn unfit() -> PeerError {
    PeerError::Unreachable(Error::new(
        ErrorKind::PeerUnreachable,
        "a receipt that doesn't fit its batch",
    ))
}
