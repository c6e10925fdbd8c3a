//! What is known of a key, in whatever shape it is held, handed over or answered.
//!
//! A record must never get younger by travelling: clocks are not compared, so a record that arrives
//! is dated back to the earliest moment at which its sender can have read it.

use std::time::Duration;

use bytes::Bytes;

use crate::ports::Timestamp;

/// The value of a key, how long it may be served, and its validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value; `None` if the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// From this moment on, by this node's clock, it is not served.
    pub expires_at: Timestamp,
    /// A strong validator: xxh3 of the value, computed when it was loaded.
    pub entity_tag: u64,
}

impl Record {
    /// The size of the value in bytes; 0 if there is none.
    pub fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }

    /// Whether it may be served at `now`.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// The life that is left at `now`; `None` if it does not expire.
    pub fn life_left(&self, now: Timestamp) -> Option<Duration> {
        (self.expires_at != Timestamp::NEVER).then(|| self.expires_at.since(now))
    }

    /// The same with a value in a buffer of exactly its size: a slice of a network buffer would pin
    /// the whole buffer.
    #[must_use]
    pub fn detached(&self) -> Self {
        let value = self.value.as_deref();
        Self {
            value: value.map(|value| Bytes::from(Box::<[u8]>::from(value))),
            ..*self
        }
    }
}

/// When something that came from another node expires: `left` after the moment `read_at`, the
/// earliest by this node's clock at which its sender can have read it.
pub fn expiry(left: Option<Duration>, read_at: Timestamp) -> Timestamp {
    left.map_or(Timestamp::NEVER, |left| read_at.after(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_keeps_its_age_whatever_the_clocks_show() {
        let sent = Record {
            value: Some("v".into()),
            expires_at: Timestamp(1_000_000),
            entity_tag: 1,
        };
        // Read by its sender at 996,000 of its clock, which is not before 500 of the receiver's.
        let left = sent.life_left(Timestamp(996_000));
        assert_eq!(expiry(left, Timestamp(500)), Timestamp(4_500));
        let forever = Record {
            expires_at: Timestamp::NEVER,
            ..sent
        };
        let left = forever.life_left(Timestamp(996_000));
        assert_eq!(expiry(left, Timestamp(500)), Timestamp::NEVER);
    }

    #[test]
    fn a_detached_value_pins_no_larger_buffer() {
        let network_buffer = Bytes::from(vec![7u8; 8192]);
        let value = network_buffer.slice(100..200);
        let record = Record {
            value: Some(value.clone()),
            expires_at: Timestamp::NEVER,
            entity_tag: 0,
        };
        let kept = record.detached();
        assert_eq!(kept, record);
        drop((value, record));
        // Only a unique handle to the whole buffer can be turned back: nothing kept refers to it
        // any more.
        assert!(network_buffer.is_unique());
    }
}
