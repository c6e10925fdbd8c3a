//! What an entry is charged, and how the capacity is divided.

use super::entry::{Entry, allocated};

/// The largest value that an entry can have: it counts its bytes, key included, in 32 bits.
pub const MOST_VALUE_BYTES: u64 = u32::MAX as u64 - u16::MAX as u64;

/// What an entry takes beside its allocation: its place in a slab, sixteen bytes; in the hash
/// table, five bytes of which a third to a half is slack; and half of a ghost.
pub(super) const PLACE_BYTES: u64 = 28;

/// What the allocator takes for so many bytes: like mimalloc and jemalloc, it has four sizes
/// between a power of two and the next, none closer than sixteen bytes. What is left over in large
/// ones is never touched, so only whole pages count.
const fn rounded(bytes: u64) -> u64 {
    let step = match bytes {
        0..=128 => 16,
        _ => 1 << ((bytes - 1).ilog2() - 2),
    };
    let page = 4096;
    bytes.next_multiple_of(if step < page { step } else { page })
}

/// What an entry of such a key and value is charged: what it takes of resident memory, give or take
/// a tenth; `tests/memory.rs` measures it. What its origin said of it comes on top.
pub const fn charge(key_bytes: usize, value_bytes: u64) -> u64 {
    // A size past that is compared with a capacity, no more.
    let value_bytes = if value_bytes > MOST_VALUE_BYTES {
        u64::MAX / 2
    } else {
        value_bytes
    };
    rounded(allocated(key_bytes) as u64 + value_bytes) + PLACE_BYTES
}

pub(super) fn weight(entry: &Entry) -> u64 {
    rounded(entry.allocated() as u64) + PLACE_BYTES + entry.metadata().bytes() as u64
}

/// The number of shards. A shard takes no entry that exceeds its share of the capacity, so there
/// are enough shards to avoid contention, but each is large enough for several of the largest
/// values.
pub(super) fn shards(capacity: u64, largest_value: u64) -> usize {
    let wanted = std::thread::available_parallelism().map_or(32, |cores| cores.get() * 16);
    let possible = capacity / charge(0, largest_value).saturating_mul(4);
    let bounded = wanted
        .min(usize::try_from(possible).unwrap_or(usize::MAX))
        .max(1);
    1 << bounded.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_allocators_do() {
        for (bytes, wanted) in [
            (1, 16),
            (32, 32),
            (33, 48),
            (128, 128),
            (129, 160),
            (160, 160),
            (256, 256),
            (257, 320),
            (1_200, 1_280),
            (65_600, 69_632),
        ] {
            assert_eq!(rounded(bytes), wanted, "{bytes}");
        }
        assert!(charge(0, u64::MAX) > u64::MAX / 2, "no overflow");
    }
}
