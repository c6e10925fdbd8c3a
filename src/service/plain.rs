//! Values that are kept compressed, as clients get them.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::Service;
use crate::{
    coding,
    traffic::{Budget, Charge},
};
use gaocache_core::{
    error::{Error, Result},
    group::{Answer, Batch},
};

impl Service {
    /// The answers, in one batch but for those that are compressed: they follow one by one, so that
    /// none is decompressed before it can be sent.
    pub(super) fn plain_batches(self, batch: Batch) -> impl Stream<Item = Batch> + Send {
        let is_compressed = |(_, answer): &(usize, Result<Answer>)| {
            let found = answer.as_ref().ok();
            found.is_some_and(|it| it.metadata.plain_bytes().is_some())
        };
        let (compressed, plain): (Batch, Batch) = batch.into_iter().partition(is_compressed);
        let one_by_one = stream::iter(compressed).then(move |(place, answer)| {
            let service = self.clone();
            async move {
                let answer = match answer {
                    Ok(answer) => service.plain(answer).await,
                    failed => failed,
                };
                vec![(place, answer)]
            }
        });
        stream::iter([plain]).chain(one_by_one)
    }

    /// The answer with its value as the origin gave it. Its bytes count against the budget while it
    /// is decompressed; from then on, they are counted by who sends them. A large value is
    /// decompressed on another thread.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for it;
    /// [`ValueTooLarge`](gaocache_core::ErrorKind::ValueTooLarge) and
    /// [`Internal`](gaocache_core::ErrorKind::Internal) if another node said what is not so.
    pub async fn plain(&self, answer: Answer) -> Result<Answer> {
        match self.packed(&answer)? {
            None => Ok(answer),
            Some(packed) => {
                let value = coding::aside(packed.plain_bytes, move || packed.unpacked());
                let (value, _room) = value.await??;
                Ok(with_plain(answer, value))
            }
        }
    }

    /// Whether decompressing it holds up nothing else that its thread has to do.
    pub(super) fn can_be_plain_at_once(answer: &Answer) -> bool {
        let plain = answer.metadata.plain_bytes();
        plain.is_none_or(|bytes| bytes < coding::LARGE as u64)
    }

    /// The same on this thread, of a value of which [that](Self::can_be_plain_at_once) is so.
    pub(super) fn plain_at_once(&self, answer: Answer) -> Result<Answer> {
        match self.packed(&answer)? {
            None => Ok(answer),
            Some(packed) => Ok(with_plain(answer, packed.unpacked()?.0)),
        }
    }

    /// The value, if it is compressed, with room for what is in it.
    fn packed(&self, answer: &Answer) -> Result<Option<Packed>> {
        let Some(length) = answer.metadata.plain_bytes() else {
            return Ok(None);
        };
        // Not by the group's largest value: a reload may lower that, and what is held stays.
        let budget = &self.inner.budget;
        Packed::new(budget, &answer.value, length, budget.limit()).map(Some)
    }
}

fn with_plain(answer: Answer, value: Bytes) -> Answer {
    Answer {
        value,
        metadata: answer.metadata.uncompressed(),
        ..answer
    }
}

/// A compressed value, and room for what is in it: taken for as long as it is worked on, whether
/// anybody waits or not.
struct Packed {
    value: Bytes,
    plain_bytes: usize,
    room: Charge,
}

impl Packed {
    fn new(budget: &Arc<Budget>, value: &Bytes, length: u64, max_value: u64) -> Result<Self> {
        let within = usize::try_from(length).ok().filter(|_| length <= max_value);
        let plain_bytes = within.ok_or_else(|| {
            let what =
                format!("a compressed value has {length} bytes; at most {max_value} are taken");
            Error::value_too_large(what, max_value)
        })?;
        let mut room = Charge::none(budget);
        room.grow(length)?;
        Ok(Self {
            value: value.clone(),
            plain_bytes,
            room,
        })
    }

    fn unpacked(self) -> Result<(Bytes, Charge)> {
        let value = coding::decompressed(&self.value, self.plain_bytes)?;
        Ok((value.into(), self.room))
    }
}

#[cfg(test)]
mod tests {
    use gaocache_core::error::ErrorKind;

    use super::*;

    #[test]
    fn what_another_node_calls_compressed_takes_no_more_than_a_value_may() {
        let zeros = vec![0; 1 << 20];
        let value = Bytes::from(coding::compressed(&zeros).expect("shrinks"));
        let of = |length, max_value, room| {
            let packed = Packed::new(&Budget::new(room), &value, length, max_value);
            let plain = packed.and_then(Packed::unpacked);
            plain.map(|it| it.0 == zeros).map_err(|error| error.kind())
        };
        let (size, room) = (1 << 20, 16 << 20);
        assert_eq!(of(size, size, room), Ok(true));
        assert_eq!(of(size, size - 1, room), Err(ErrorKind::ValueTooLarge));
        assert_eq!(of(size - 1, size, room), Err(ErrorKind::Internal));
        assert_eq!(of(size + 1, u64::MAX, room), Err(ErrorKind::Internal));
        assert_eq!(of(size, size, size - 1), Err(ErrorKind::Overloaded));
        assert_eq!(of(u64::MAX, size, room), Err(ErrorKind::ValueTooLarge));
    }
}
