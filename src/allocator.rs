//! The program's allocator: mimalloc, which its crate asks for an alignment each time.
//!
//! mimalloc 3 then gives a block whose size is no power of two 16 to 64 bytes more than it needs,
//! by a slower path, even where every block is aligned to a word anyway
//! (`mi_malloc_is_naturally_aligned`). So what needs no more than that asks for none.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{mi_malloc, mi_realloc, mi_zalloc};
use mimalloc::MiMalloc;

/// The alignment that every block has.
const ALWAYS: usize = size_of::<usize>();

/// The program's allocator.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: all calls go to the same allocator; those without an alignment are for layouts that any
// block of it fits, and blocks are freed in the same way whichever call they came from.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of `GlobalAlloc`.
        unsafe {
            match layout.align() {
                ..=ALWAYS => mi_malloc(layout.size()).cast(),
                _ => MiMalloc.alloc(layout),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            match layout.align() {
                ..=ALWAYS => mi_zalloc(layout.size()).cast(),
                _ => MiMalloc.alloc_zeroed(layout),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            match layout.align() {
                ..=ALWAYS => mi_realloc(block.cast(), size).cast(),
                _ => MiMalloc.realloc(block, layout, size),
            }
        }
    }
}
