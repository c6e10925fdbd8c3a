//! Values in fewer bytes: zstd (RFC 8878), where that pays.
//!
//! Whatever the bytes say, it must never write more than it was told that there are: they may come
//! from another node.

use gaocache_core::error::{Error, ErrorKind, Result};

/// Further levels take far more time than they save bytes.
const LEVEL: i32 = 3;
/// What tells whether a value is worth it.
const SAMPLE_BYTES: usize = 16 << 10;

/// The value in one frame; `None` if that saves less than a tenth of it, as its beginning tells.
pub(crate) fn compressed(value: &[u8]) -> Option<Vec<u8>> {
    let packed = |bytes: &[u8]| {
        let packed = zstd::bulk::compress(bytes, LEVEL).ok()?;
        (packed.len() / 9 < bytes.len() / 10).then_some(packed)
    };
    if let Some(sample) = value.get(..SAMPLE_BYTES) {
        packed(sample)?;
    }
    packed(value)
}

/// The value of `length` bytes of which these are the frame.
///
/// # Errors
/// [`ErrorKind::Internal`] if they are not.
pub(crate) fn decompressed(packed: &[u8], length: usize) -> Result<Vec<u8>> {
    let value = zstd::bulk::decompress(packed, length);
    let value = value.map_err(|error| broken().with_source(error))?;
    if value.len() == length {
        Ok(value)
    } else {
        Err(broken())
    }
}

fn broken() -> Error {
    let what = "a compressed value is not what was said of it; remove its key";
    Error::new(ErrorKind::Internal, what)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn what_comes_out_is_what_went_in_and_what_does_not_shrink_is_left_alone() {
        for size in [100, SAMPLE_BYTES, SAMPLE_BYTES + 1, 1 << 20] {
            let text: Vec<u8> = b"all work and no play "
                .iter()
                .copied()
                .cycle()
                .take(size)
                .collect();
            let packed = compressed(&text).expect("shrinks");
            assert!(packed.len() < size / 2);
            assert_eq!(decompressed(&packed, size).expect("whole"), text);
        }
        let mut dice = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| dice.u8(..))
            .take(1 << 17)
            .collect();
        assert_eq!(compressed(&noise), None);
        let mut late = noise[..SAMPLE_BYTES].to_vec();
        late.resize(1 << 20, 0);
        assert_eq!(compressed(&late), None, "its beginning tells");
        assert_eq!(compressed(b""), None);
        assert_eq!(compressed(b"short"), None);
    }

    #[test]
    fn a_bomb_and_garbage_are_refused_without_more_room_than_was_said() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).expect("packed");
        assert!(bomb.len() < 1 << 14);
        for (packed, length) in [
            (&bomb[..], 1 << 20),
            (&bomb[..], (64 << 20) + 1),
            (&bomb[..100], 64 << 20),
            (b"garbage", 9),
            (b"", 9),
        ] {
            let refused = decompressed(packed, length).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::Internal);
        }
        // Not found out behind the whole of it.
        let refused = decompressed(&bomb, 1 << 20).expect_err("refused");
        assert!(refused.source().is_some(), "by the decoder");
    }
}
