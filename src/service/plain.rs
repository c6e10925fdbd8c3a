//! Values that are kept compressed, as clients get them.

use std::sync::Arc;

use super::Service;
use crate::{
    coding,
    traffic::{Budget, Charge},
};
use gaocache_core::{
    error::{Error, Result},
    group::Answer,
};

impl Service {
    /// As [`Service::plain`], in place.
    pub(super) fn unpack(&self, answer: &mut Result<Answer>) {
        if let Ok(found) = answer
            && found.metadata.plain_bytes().is_some()
        {
            *answer = self.plain(found.clone());
        }
    }

    /// The answer with its value as the origin gave it. Its bytes count against the budget for as
    /// long as somebody needs them.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for it;
    /// [`ValueTooLarge`](gaocache_core::ErrorKind::ValueTooLarge) and
    /// [`Internal`](gaocache_core::ErrorKind::Internal) if another node said what is not so.
    pub fn plain(&self, answer: Answer) -> Result<Answer> {
        let Some(length) = answer.metadata.plain_bytes() else {
            return Ok(answer);
        };
        // Not by the group's largest value: a reload may lower that, and what is held stays.
        let budget = &self.inner.budget;
        unpacked(budget, answer, length, budget.limit())
    }
}

fn unpacked(budget: &Arc<Budget>, answer: Answer, length: u64, max_value: u64) -> Result<Answer> {
    let too_large = || {
        let what = format!("a compressed value has {length} bytes; at most {max_value} are taken");
        Error::value_too_large(what, max_value)
    };
    let within = usize::try_from(length).ok().filter(|_| length <= max_value);
    let bytes = within.ok_or_else(too_large)?;
    let mut charge = Charge::none(budget);
    charge.grow(length)?;
    let value = coding::decompressed(&answer.value, bytes)?;
    Ok(Answer {
        value: charge.hold(value),
        metadata: answer.metadata.uncompressed(),
        ..answer
    })
}

#[cfg(test)]
mod tests {
    use gaocache_core::{
        error::ErrorKind,
        group::{Course, Source},
        metadata::Metadata,
        ports::Timestamp,
    };

    use super::*;

    fn answer(value: Vec<u8>, length: u64) -> Answer {
        Answer {
            value: value.into(),
            expires_at: Timestamp::NEVER,
            entity_tag: 1,
            source: Source::Peer,
            owner: "n".into(),
            metadata: Metadata::NONE.compressed(length),
            course: Course::default(),
        }
    }

    #[test]
    fn what_another_node_calls_compressed_takes_no_more_than_a_value_may() {
        let zeros = vec![0; 1 << 20];
        let packed = coding::compressed(&zeros).expect("shrinks");
        let of = |length, max_value, room| {
            let answer = answer(packed.clone(), length);
            let answer = unpacked(&Budget::new(room), answer, length, max_value);
            answer
                .map(|it| it.value == zeros)
                .map_err(|error| error.kind())
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
