//! A member's draw for a key, and the race between draws of unequal weights.
//!
//! **What is computed here must never change**: two releases that roll side by side would disagree
//! about owners. Only integers, and floating-point operations whose results IEEE 754 fixes to the
//! last bit, are used; so every platform gets the same.

use crate::key::KeyHash;

/// The parts of a key's hash that its coarse draws are made with; the factor is odd.
#[derive(Clone, Copy)]
pub(crate) struct KeyWords {
    mask: u16,
    factor: u16,
}

impl KeyWords {
    pub(crate) fn of(key: KeyHash) -> Self {
        Self {
            mask: key.0 as u16,
            factor: (key.0 >> 16) as u16 | 1,
        }
    }
}

/// The words of a member's hash that its coarse draws are made with; the second is even.
pub(crate) fn member_words(hash: u64) -> (u16, u16) {
    (hash as u16, (hash >> 16) as u16 & !1)
}

/// The upper 16 bits of a member's draw; the smallest wins.
///
/// 16 bits, because twice as many fit into a vector register as of 32, and because the
/// multiplication is in every processor's oldest vector instructions. Signed, because so is their
/// minimum.
///
/// Key and member are well mixed already (xxh3), so one multiplication of what both have in each
/// factor suffices. Each draw is uniform, for one factor is and the other is odd. Two members are
/// as good as independent, except those that share the first word: of a thousand members a few
/// pairs, of which each stands in for the other at 1.5 % of its keys instead of 0.1 %.
#[inline(always)]
pub(crate) fn coarse(key: KeyWords, first: u16, second: u16) -> i16 {
    (key.mask ^ first).wrapping_mul(key.factor ^ second) as i16
}

/// The lower 32 bits of a member's draw. They decide only between members whose upper ones tie, so
/// one multiplication is enough.
fn fine(key: KeyHash, member_hash: u64) -> u32 {
    // The multiplier of Knuth's MMIX.
    let x = (key.0 ^ member_hash).wrapping_mul(6_364_136_223_846_793_005);
    (x >> 32) as u32
}

/// A member's whole draw for a key, the smallest wins: uniform over 48 bits, independent between
/// members.
pub(crate) fn draw(key: KeyHash, member_hash: u64) -> u64 {
    let (first, second) = member_words(member_hash);
    let upper = from_zero(coarse(KeyWords::of(key), first, second));
    u64::from(upper) << 32 | u64::from(fine(key, member_hash))
}

/// The upper 16 bits of a draw as a number from zero.
#[inline(always)]
pub(crate) fn from_zero(coarse: i16) -> u16 {
    coarse as u16 ^ 0x8000
}

/// The upper 16 bits whose number from zero is this.
pub(crate) fn to_coarse(number: u16) -> i16 {
    (number ^ 0x8000) as i16
}

/// `-ln(1 - u)` for the uniform `u` in (0, 1) of a draw: the time after which a member of weight
/// one arrives in the exponential race. But for rounding, never less than `u`.
///
/// Not the platform's `ln`: its last digits differ between C libraries.
pub(crate) fn arrival(draw: u64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const BIAS: i64 = 1023;
    // 1 - u, which is exact: 48 bits and a half fit into a double. As 2^exponent * m, with m
    // between the roots of 1/2 and of 2.
    let left = (1.0 - (draw as f64 + 0.5) / (1u64 << 48) as f64).to_bits();
    let mut exponent = (left >> 52) as i64 - BIAS;
    let mut m = f64::from_bits(left & MANTISSA | (BIAS as u64) << 52);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    // ln(m) = 2 atanh(s), whose series falls fast: s is at most 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let x = s * s;
    let (x2, low, high) = (x * x, 1.0 + x * (1.0 / 3.0), 1.0 / 5.0 + x * (1.0 / 7.0));
    let series = low + x2 * (high + x2 * (1.0 / 9.0 + x * (1.0 / 11.0)));
    -(exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series)
}
