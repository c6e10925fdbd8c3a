//! An answer as `gaocache get` shows it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::output::{counted, printable};
use crate::answer::Answer;
use gaocache_core::metadata::Metadata;

/// In one line, without the value.
pub(super) fn summary(answer: &Answer) -> String {
    let left = ttl_remaining_ms(answer);
    let left = left.map_or_else(|| "never".to_owned(), |ms| format!("in {ms} ms"));
    format!(
        "source {}, owner {}, expires {left}, {}",
        answer.source.name(),
        printable(&answer.owner),
        counted(answer.value.len() as u64, "byte", "bytes")
    )
}

/// As `--json` shows it.
pub(super) fn as_json(answer: &Answer, group: &str, key: &str) -> Value {
    let mut json = json!({
        "group": group,
        "key": key,
        "source": answer.source.name(),
        "owner": &*answer.owner,
        "ttl_remaining_ms": ttl_remaining_ms(answer),
        "bytes": answer.value.len(),
        "headers": headers(&answer.metadata),
    });
    match std::str::from_utf8(&answer.value) {
        Ok(text) => json["value"] = text.into(),
        Err(_) => json["value_base64"] = STANDARD.encode(&answer.value).into(),
    }
    json
}

fn ttl_remaining_ms(answer: &Answer) -> Option<u64> {
    let left = answer.ttl_remaining;
    left.and_then(|left| u64::try_from(left.as_millis()).ok())
}

/// By name; several lines of one name are one list, as in HTTP.
fn headers(metadata: &Metadata) -> BTreeMap<&str, String> {
    let mut headers = BTreeMap::<_, String>::new();
    for (name, value) in metadata.iter() {
        let list = headers.entry(name).or_default();
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::answer_of, wire};

    #[test]
    fn json_has_what_the_origin_said_by_name() {
        let said = [("content-type", "a/b"), ("link", "c"), ("link", "d")];
        let header = |(name, value): (&str, &str)| wire::Header {
            name: name.into(),
            value: value.into(),
        };
        let answer = answer_of(wire::GetResponse {
            value: "v".into(),
            headers: said.into_iter().map(header).collect(),
            ..wire::GetResponse::default()
        });
        let wanted = json!({ "content-type": "a/b", "link": "c, d" });
        assert_eq!(as_json(&answer, "g", "k")["headers"], wanted);
    }
}
