//! What is known about a key, in every form in which it is held, handed over or answered.
//!
//! A record must never get younger in transit: clocks are not compared, so a record that arrives
//! is dated back to the earliest moment at which its sender can have read it.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    absence::{MAX_NOT_FOUND_BODY, NotFoundBody},
    metadata::Metadata,
    time::Timestamp,
};

/// The value of a key, how long it may be served, its validator, and what its origin said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value; `None` if the origin said that there is no such key, and nothing else. See
    /// [`Record::is_absent`].
    pub value: Option<Bytes>,
    /// From this moment on, by this node's clock, it is served only as stale.
    pub expires_at: Timestamp,
    /// Until when it may be served as stale.
    pub stale: Stale,
    /// A strong validator: xxh3 of the value, computed when it was loaded.
    pub entity_tag: u64,
    /// What its origin said of it.
    pub metadata: Metadata,
}

/// Until when a value that has expired may still be served, by this node's clock.
///
/// Both are kept, rather than one and the group's rules: what comes from another node has been
/// judged by that node's rules, and does not say how long ago it expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// At once, while it is loaded anew.
    pub while_revalidating: Timestamp,
    /// In place of an error of the origin.
    pub if_error: Timestamp,
}

impl Stale {
    /// Not at all.
    pub const NEVER: Self = Self {
        while_revalidating: Timestamp(0),
        if_error: Timestamp(0),
    };

    /// When neither is allowed any more.
    pub(crate) fn until(self) -> Timestamp {
        self.while_revalidating.max(self.if_error)
    }
}

impl Record {
    /// Whether there is no such key. If it has a value then, that is what the origin said in place
    /// of one.
    pub fn is_absent(&self) -> bool {
        self.value.is_none() || self.metadata.is_of_absence()
    }

    /// The same, if the origin said this in place of a value.
    #[must_use]
    pub fn with_absence(self, body: &NotFoundBody) -> Self {
        Self {
            value: Some(body.bytes().clone()),
            metadata: body.metadata().of_absence(),
            ..self
        }
    }

    /// The same without what was said in place of a value, if that is more than `most` bytes.
    #[must_use]
    pub(crate) fn with_little_absence(self, most: u64) -> Self {
        let most = most.min(MAX_NOT_FOUND_BODY as u64);
        if !self.metadata.is_of_absence() || self.value_bytes() as u64 <= most {
            return self;
        }
        Self {
            value: None,
            metadata: Metadata::NONE,
            ..self
        }
    }

    /// The size of the value in bytes; 0 if there is none.
    pub fn value_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }

    /// The size of the value and of its metadata in bytes.
    pub fn bytes(&self) -> usize {
        self.value_bytes() + self.metadata.bytes()
    }

    /// Whether it may be served at `now`.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Whether it may be served at `now`, perhaps as a stale one.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.is_fresh(now) || now < self.stale.until()
    }

    /// The remaining lifetime at `now`; `None` if it does not expire.
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
            metadata: self.metadata.clone(),
            ..*self
        }
    }
}

/// What is left of a record's times: so it travels, since clocks are not compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Of its lifetime; `None`: it does not expire.
    pub life: Option<Duration>,
    /// Of [`Stale::while_revalidating`].
    pub while_revalidating: Duration,
    /// Of [`Stale::if_error`].
    pub if_error: Duration,
    /// Not what is left, but what has passed: [`Metadata::age`].
    pub age: Duration,
}

impl Record {
    /// What is left of its times at `now`.
    pub fn left(&self, now: Timestamp) -> Left {
        Left {
            life: self.life_left(now),
            while_revalidating: self.stale.while_revalidating.since(now),
            if_error: self.stale.if_error.since(now),
            age: self.metadata.age(now).unwrap_or_default(),
        }
    }

    /// Dates it by what was `left` at `read_at`, the earliest moment by this node's clock at which
    /// its sender can have read it.
    #[must_use]
    pub fn dated(self, left: Left, read_at: Timestamp) -> Self {
        let until = |left: Duration| match left {
            Duration::ZERO => Timestamp(0),
            left => read_at.after(left),
        };
        Self {
            expires_at: expiry(left.life, read_at),
            stale: Stale {
                while_revalidating: until(left.while_revalidating),
                if_error: until(left.if_error),
            },
            metadata: self.metadata.seen(left.age, read_at),
            ..self
        }
    }
}

/// When something that came from another node expires: `left` after the moment `read_at`, the
/// earliest by this node's clock at which its sender can have read it.
fn expiry(left: Option<Duration>, read_at: Timestamp) -> Timestamp {
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
            stale: Stale {
                while_revalidating: Timestamp(1_002_000),
                if_error: Timestamp(1_060_000),
            },
            entity_tag: 1,
            metadata: Metadata::new([("cache-control", "max-age=9")]).expect("good"),
        };
        // Read by its sender at that time of its clock, which is not before 500 of the receiver's.
        let received = |sent: &Record, read_at| {
            let left = sent.left(Timestamp(read_at));
            sent.clone().dated(left, Timestamp(500))
        };
        let fresh = received(&sent, 996_000);
        assert_eq!(fresh.expires_at, Timestamp(4_500));
        assert_eq!(fresh.stale.while_revalidating, Timestamp(6_500));
        assert_eq!(fresh.stale.if_error, Timestamp(64_500));
        let age = fresh.metadata.age(Timestamp(700));
        assert_eq!(
            age,
            Some(Duration::from_millis(996_200)),
            "it was 996 s old"
        );
        // It had expired, but not knowing when must not prolong its windows.
        let stale = received(&sent, 1_001_500);
        assert!(!stale.is_fresh(Timestamp(500)));
        assert_eq!(stale.stale.while_revalidating, Timestamp(1_000));
        assert_eq!(stale.stale.if_error, Timestamp(59_000));
        assert!(!received(&sent, 1_060_000).is_usable(Timestamp(500)));
        let forever = Record {
            expires_at: Timestamp::NEVER,
            ..sent
        };
        assert_eq!(received(&forever, 996_000).expires_at, Timestamp::NEVER);
    }

    #[test]
    fn a_detached_value_pins_no_larger_buffer() {
        let network_buffer = Bytes::from(vec![7u8; 8192]);
        let value = network_buffer.slice(100..200);
        let record = Record {
            value: Some(value.clone()),
            expires_at: Timestamp::NEVER,
            stale: Stale::NEVER,
            entity_tag: 0,
            metadata: Metadata::NONE,
        };
        let kept = record.detached();
        assert_eq!(kept, record);
        drop((value, record));
        // Only a unique handle to the whole buffer can be turned back: nothing kept refers to it
        // any more.
        assert!(network_buffer.is_unique());
    }
}
