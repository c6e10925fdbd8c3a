//! How much memory something takes: an allocator that counts.
#![expect(
    unsafe_code,
    reason = "an allocator can't be written without; it only counts"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that are allocated, and the most there have been.
    static BYTES: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // Not there any more while the thread ends.
    let _ = BYTES.try_with(|it| {
        let (now, peak) = it.get();
        it.set((now + bytes, peak.max(now + bytes)));
    });
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller has it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller has it.
        unsafe { System.dealloc(pointer, layout) }
    }

    // The default of `alloc_zeroed` would touch all of a large block, and that of `realloc` copies.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller has it.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller has it.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Does something, and fails if it takes more memory at any moment, beyond what there was, than
/// `per_byte` for each byte of the input, and `fixed`.
pub fn bounded<R>(input: usize, per_byte: usize, fixed: usize, work: impl FnOnce() -> R) -> R {
    let before = BYTES.with(|it| {
        let (now, _) = it.get();
        it.set((now, now));
        now
    });
    let done = work();
    let taken = BYTES.with(|it| it.get().1 - before);
    let most = input * per_byte + fixed;
    assert!(
        taken <= most as isize,
        "{taken} bytes of memory for {input} bytes, and at most {most} are right"
    );
    done
}
