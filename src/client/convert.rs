//! Wire types as the client returns them.

use std::time::Duration;

use crate::{answer::Answer, wire};
use gaocache_core::{group::Source, metadata::Metadata};

/// The answer of a node.
pub(crate) fn answer(response: wire::GetResponse) -> Answer {
    Answer {
        ttl_remaining: response.ttl_remaining_ms.map(Duration::from_millis),
        entity_tag: response.entity_tag,
        source: match response.source() {
            wire::Source::Hit | wire::Source::Unspecified => Source::Hit,
            wire::Source::Peer => Source::Peer,
            wire::Source::Origin => Source::Origin,
            wire::Source::Stale => Source::Stale,
        },
        owner: response.owner.into(),
        metadata: metadata(&response.headers),
        value: response.value,
    }
}

/// What this release knows to be good: a newer node may keep headers that it doesn't.
fn metadata(headers: &[wire::Header]) -> Metadata {
    let headers = headers.iter().map(|it| (&*it.name, &*it.value));
    Metadata::new(headers).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_origin_said_is_in_an_answer_and_what_is_not_valid_is_not() {
        let of = |name: &str, value: &str| {
            let header = wire::Header {
                name: name.into(),
                value: value.into(),
            };
            let answer = answer(wire::GetResponse {
                headers: vec![header],
                ..wire::GetResponse::default()
            });
            answer.metadata.get(name).map(str::to_owned)
        };
        assert_eq!(of("content-type", "a/b").as_deref(), Some("a/b"));
        assert_eq!(of("x", "\x1b[2J"), None);
    }
}
