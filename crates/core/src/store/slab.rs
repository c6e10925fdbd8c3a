//! The places of a shard's entries, linked to two queues in the order in which they came. It grows
//! by chunks: a table that doubles would be half empty, and be copied, each time.

use super::entry::Entry;

/// The index of a place.
pub(super) type Place = u32;

/// Places of a chunk: one page of memory.
const CHUNK: usize = 256;

struct Slot {
    /// None if it is free.
    entry: Option<Entry>,
    /// In its queue; of a free one, the next free one.
    next: Place,
    previous: Place,
}

/// Places for entries.
pub(super) struct Slab {
    chunks: Vec<Box<[Slot]>>,
    /// The first free one; `length` if there is none.
    free: Place,
    /// Places that were ever taken.
    length: Place,
}

impl Slab {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: 0,
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
        let place = self.free;
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
            self.free = self.length;
        } else {
            self.free = self.slot_mut(place).next;
        }
        let slot = self.slot_mut(place);
        slot.entry = Some(entry);
        place
    }

    /// Frees a place that is in no queue any more.
    pub(super) fn remove(&mut self, place: Place) -> Option<Entry> {
        let free = self.free;
        let slot = self.slot_mut(place);
        let entry = slot.entry.take()?;
        slot.next = free;
        self.free = place;
        Some(entry)
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
