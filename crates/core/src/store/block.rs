//! One counted block of memory for a head, perhaps something beside it, and bytes: what `Arc` and
//! two more allocations would do with sixteen bytes of counts, two pointers and two lengths, this
//! does with eight bytes.
//!
//! All unsafe code of this crate is here; `make miri` runs its tests under Miri. Nothing here may
//! be changed once it is shared: what has to change is an atomic of the head.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU32, Ordering, fence},
};

/// What every block begins with. An `E` may follow, then the bytes.
#[repr(C)]
struct Header<H> {
    /// Twice the number of handles, and [`HAS_BESIDE`].
    count: AtomicU32,
    /// Of the bytes.
    length: u32,
    head: H,
}

/// The bit of the count that tells that there is an `E`.
const HAS_BESIDE: u32 = 1;
const ONE_HANDLE: u32 = 2;

/// A handle to a block, which goes with the last one.
pub(super) struct Block<H, E> {
    front: NonNull<Header<H>>,
    owns: PhantomData<(H, E)>,
}

// SAFETY: like `Arc`: all handles share the head and what is beside it, and any of them may be the
// one that drops both.
unsafe impl<H: Send + Sync, E: Send + Sync> Send for Block<H, E> {}
// SAFETY: the same; a shared handle can be cloned.
unsafe impl<H: Send + Sync, E: Send + Sync> Sync for Block<H, E> {}

impl<H, E> Block<H, E> {
    const BESIDE_AT: usize = size_of::<Header<H>>().next_multiple_of(align_of::<E>());

    const fn bytes_at(has_beside: bool) -> usize {
        match has_beside {
            true => Self::BESIDE_AT + size_of::<E>(),
            false => size_of::<Header<H>>(),
        }
    }

    /// What the allocator is asked for, in bytes.
    pub(super) const fn size(has_beside: bool, length: usize) -> usize {
        Self::bytes_at(has_beside).saturating_add(length)
    }

    fn layout(has_beside: bool, length: usize) -> Layout {
        let align = align_of::<Header<H>>().max(align_of::<E>());
        match Layout::from_size_align(Self::size(has_beside, length), align) {
            Ok(layout) => layout,
            // Nothing is that long, see `MOST_VALUE_BYTES`.
            Err(_) => handle_alloc_error(Layout::new::<Header<H>>()),
        }
    }

    /// A block with these bytes, one part after the other.
    pub(super) fn new(head: H, beside: Option<E>, parts: [&[u8]; 2]) -> Self {
        let length = parts[0].len() + parts[1].len();
        let has_beside = beside.is_some();
        let layout = Self::layout(has_beside, length);
        let Ok(short) = u32::try_from(length) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the layout is not empty, since a front never is.
        let start = unsafe { alloc(layout) };
        let Some(front) = NonNull::new(start.cast::<Header<H>>()) else {
            handle_alloc_error(layout)
        };
        let count = AtomicU32::new(ONE_HANDLE | (u32::from(has_beside) * HAS_BESIDE));
        let length = short;
        // SAFETY: all of it lies within the allocation, which is aligned for both and is nobody
        // else's; the parts can't overlap with it.
        unsafe {
            front.write(Header {
                count,
                length,
                head,
            });
            if let Some(beside) = beside {
                start.add(Self::BESIDE_AT).cast::<E>().write(beside);
            }
            let mut at = start.add(Self::bytes_at(has_beside));
            for part in parts {
                ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
                at = at.add(part.len());
            }
        }
        Self {
            front,
            owns: PhantomData,
        }
    }

    fn count(&self) -> &AtomicU32 {
        // SAFETY: the block lives as long as this handle.
        unsafe { &(*self.front.as_ptr()).count }
    }

    fn has_beside(&self) -> bool {
        self.count().load(Ordering::Relaxed) & HAS_BESIDE != 0
    }

    /// The head.
    pub(super) fn head(&self) -> &H {
        // SAFETY: as above.
        unsafe { &(*self.front.as_ptr()).head }
    }

    /// What is beside it.
    pub(super) fn beside(&self) -> Option<&E> {
        let start = self.front.as_ptr().cast::<u8>();
        // SAFETY: `new` wrote it there, if the bit says so.
        self.has_beside()
            .then(|| unsafe { &*start.add(Self::BESIDE_AT).cast::<E>() })
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let start = self.front.as_ptr().cast::<u8>();
        let at = Self::bytes_at(self.has_beside());
        // SAFETY: `new` wrote so many there, and nobody writes to them again.
        unsafe {
            let length = (*self.front.as_ptr()).length as usize;
            slice::from_raw_parts(start.add(at), length)
        }
    }

    /// Whether both are handles to the same block.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.front == other.front
    }
}

impl<H, E> Clone for Block<H, E> {
    fn clone(&self) -> Self {
        // Relaxed: whoever has a handle can see the block already. As in `Arc`, a count that
        // forgotten handles have driven up must not come round: the process ends.
        if self.count().fetch_add(ONE_HANDLE, Ordering::Relaxed) > u32::MAX / 2 {
            handle_alloc_error(Layout::new::<Header<H>>());
        }
        Self {
            front: self.front,
            owns: PhantomData,
        }
    }
}

impl<H, E> Drop for Block<H, E> {
    fn drop(&mut self) {
        let before = self.count().fetch_sub(ONE_HANDLE, Ordering::Release);
        if before >= 2 * ONE_HANDLE {
            return;
        }
        // What others did with the block comes before its end.
        fence(Ordering::Acquire);
        let has_beside = before & HAS_BESIDE != 0;
        let layout = Self::layout(has_beside, self.bytes().len());
        let start = self.front.as_ptr().cast::<u8>();
        // SAFETY: this was the last handle, so nothing refers to the block any more; both were
        // written by `new`, and the layout is the one that it was allocated with.
        unsafe {
            if has_beside {
                ptr::drop_in_place(start.add(Self::BESIDE_AT).cast::<E>());
            }
            ptr::drop_in_place(&raw mut (*self.front.as_ptr()).head);
            dealloc(start, layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    type Tried = Block<Arc<u8>, (Arc<u8>, u64)>;

    #[test]
    fn what_was_put_in_is_there_and_goes_with_the_last_handle() {
        let (head, beside) = (Arc::new(1), Arc::new(2));
        for with in [None, Some((beside.clone(), 7))] {
            let has = with.is_some();
            let block = Tried::new(head.clone(), with, [b"key", b"value"]);
            let other = block.clone();
            assert!(block.is(&other) && block.has_beside() == has);
            drop(block);
            assert_eq!(**other.head(), 1);
            assert_eq!(other.beside().map(|it| it.1), has.then_some(7));
            assert_eq!(other.bytes(), b"keyvalue");
        }
        assert_eq!(
            (Arc::strong_count(&head), Arc::strong_count(&beside)),
            (1, 1)
        );
    }

    #[test]
    fn it_may_be_empty_and_the_last_handle_may_be_any_thread_s() {
        let head = Arc::new(1);
        let block = Tried::new(head.clone(), None, [b"", b""]);
        assert!(block.bytes().is_empty() && block.beside().is_none());
        thread::scope(|scope| {
            for _ in 0..4 {
                let block = block.clone();
                scope.spawn(move || assert_eq!(**block.clone().head(), 1));
            }
            drop(block);
        });
        assert_eq!(Arc::strong_count(&head), 1);
    }

    #[test]
    fn a_block_of_another_allocation_is_another() {
        let block = || Tried::new(Arc::new(1), None, [b"k", b""]);
        assert!(!block().is(&block()));
    }
}
