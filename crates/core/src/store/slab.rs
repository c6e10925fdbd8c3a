//! The places of a shard's entries, linked to queues in the order in which they came. It grows and
//! shrinks by chunks: a table that doubles would be half empty, and be copied, each time.

use super::entry::Entry;

/// The index of a place.
pub(super) type Place = u32;

/// Places of a chunk: one page of memory.
const CHUNK: usize = 256;

struct Slot {
    /// None if it is free.
    entry: Option<Entry>,
    /// In its queue.
    next: Place,
    previous: Place,
}

/// Places for entries.
pub(super) struct Slab {
    chunks: Vec<Box<[Slot]>>,
    /// Those that are free.
    free: Queue,
    /// Places up to here are taken or free.
    length: Place,
}

impl Slab {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Queue {
                head: None,
                weight: 0,
            },
            length: 0,
        }
    }

    fn slot(&self, place: Place) -> Option<&Slot> {
        let place = place as usize;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    fn slot_mut(&mut self, place: Place) -> &mut Slot {
        let place = place as usize;
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }

    pub(super) fn get(&self, place: Place) -> Option<&Entry> {
        self.slot(place)?.entry.as_ref()
    }

    /// Places up to here may be taken.
    pub(super) fn length(&self) -> Place {
        self.length
    }

    /// A place for the entry, in no queue yet.
    pub(super) fn insert(&mut self, entry: Entry) -> Place {
        let place = self.free.head().unwrap_or(self.length);
        if place == self.length {
            if place as usize == self.chunks.len() * CHUNK {
                let free = || Slot {
                    entry: None,
                    next: 0,
                    previous: 0,
                };
                self.chunks.push((0..CHUNK).map(|_| free()).collect());
            }
            self.length += 1;
        } else {
            self.take_free(place);
        }
        self.slot_mut(place).entry = Some(entry);
        place
    }

    fn take_free(&mut self, place: Place) {
        let mut free = std::mem::take(&mut self.free);
        free.take(self, place);
        self.free = free;
    }

    /// Frees a place that is in no queue any more.
    pub(super) fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.slot_mut(place).entry.take()?;
        let mut free = std::mem::take(&mut self.free);
        free.add(self, place);
        self.free = free;
        Some(entry)
    }

    /// Gives the last place back, of several of which some are free. If it has an entry, that moves
    /// to a free one; then it says from where to where. The entry's neighbours know it, but neither
    /// the head of their queue nor anybody else.
    pub(super) fn give_back(&mut self) -> Option<(Place, Place)> {
        let last = self.length.checked_sub(1)?;
        let moved = if self.get(last).is_none() {
            self.take_free(last);
            None
        } else {
            let to = self.free.head()?;
            self.take_free(to);
            let slot = self.slot_mut(last);
            let (entry, next, previous) = (slot.entry.take(), slot.next, slot.previous);
            self.slot_mut(to).entry = entry;
            let is_alone = next == last;
            let (next, previous) = if is_alone { (to, to) } else { (next, previous) };
            self.slot_mut(next).previous = to;
            self.slot_mut(previous).next = to;
            let slot = self.slot_mut(to);
            (slot.next, slot.previous) = (next, previous);
            Some((last, to))
        };
        self.length = last;
        // A free chunk stays, so that none is freed and asked for by turns.
        if (last as usize).div_ceil(CHUNK) + 1 < self.chunks.len() {
            self.chunks.pop();
        }
        moved
    }
}

/// A queue of places, in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    /// The oldest.
    head: Option<Place>,
    /// What its entries weigh.
    pub(super) weight: u64,
}

impl Queue {
    /// The oldest.
    pub(super) fn head(&self) -> Option<Place> {
        self.head
    }

    /// The oldest is now the youngest.
    pub(super) fn turn(&mut self, slab: &Slab) {
        self.head = self.head.and_then(|head| slab.slot(head)).map(|it| it.next);
    }

    /// A place moved: it may have been the oldest.
    pub(super) fn follow(&mut self, (from, to): (Place, Place)) {
        if self.head == Some(from) {
            self.head = Some(to);
        }
    }

    /// Adds a place, as the youngest.
    pub(super) fn add(&mut self, slab: &mut Slab, place: Place) {
        let Some(head) = self.head else {
            let slot = slab.slot_mut(place);
            (slot.next, slot.previous) = (place, place);
            self.head = Some(place);
            return;
        };
        let last = std::mem::replace(&mut slab.slot_mut(head).previous, place);
        slab.slot_mut(last).next = place;
        let slot = slab.slot_mut(place);
        (slot.next, slot.previous) = (head, last);
    }

    /// Takes one of its places out.
    pub(super) fn take(&mut self, slab: &mut Slab, place: Place) {
        let slot = slab.slot_mut(place);
        let (next, previous) = (slot.next, slot.previous);
        if next == place {
            self.head = None;
            return;
        }
        slab.slot_mut(next).previous = previous;
        slab.slot_mut(previous).next = next;
        if self.head == Some(place) {
            self.head = Some(next);
        }
    }
}
