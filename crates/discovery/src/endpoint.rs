//! An endpoint as stored in etcd: the JSON of Go's endpoints manager.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of the metadata that distinguishes one incarnation of an endpoint from the next.
pub const IDENTITY: &str = "instance";

/// The name of the metadata with the `state` of the incarnation that this one replaced.
pub const PREDECESSOR: &str = "predecessor";

/// The name of the metadata with the id of the cluster that an endpoint belongs to.
pub const CLUSTER: &str = "cluster";

/// The address of a service, and metadata about it.
///
/// ```
/// use gaocache_discovery::Endpoint;
///
/// let endpoint = Endpoint::new("10.0.0.7:50051")
///     .with_metadata("zone", "b")
///     .with_metadata("weight", 200);
/// assert_eq!(endpoint.text("zone"), Some("b"));
/// assert_eq!(endpoint.number("weight"), Some(200));
/// // As Go's endpoints manager writes and reads it.
/// let stored = endpoint.to_json();
/// assert_eq!(Endpoint::from_stored(&stored), Some(endpoint));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// `host:port`.
    pub address: Arc<str>,
    /// Arbitrary metadata by name. Go clients see it as `map[string]any`.
    pub metadata: BTreeMap<String, Value>,
    /// The lease of the endpoint's key, as read from etcd. 0 if there is none, or if it was not
    /// read from etcd. It is never written.
    pub lease: i64,
    /// etcd's revision of its last change; 0: not read from etcd. Never written.
    pub revision: i64,
}

/// The format that Go writes: `{"Op":0,"Addr":"10.0.0.7:7070","Metadata":{…}}`. `Op` is always 0
/// (add) in a stored value.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(rename = "Op", default)]
    operation: u8,
    #[serde(rename = "Addr")]
    address: String,
    #[serde(rename = "Metadata", default)]
    metadata: Value,
}

impl Endpoint {
    /// An endpoint without metadata.
    pub fn new(address: impl Into<Arc<str>>) -> Self {
        Self {
            address: address.into(),
            metadata: BTreeMap::new(),
            lease: 0,
            revision: 0,
        }
    }

    /// Adds an item of metadata.
    #[must_use]
    pub fn with_metadata(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// The string with that name in the metadata.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).and_then(Value::as_str)
    }

    /// The non-negative integer with that name in the metadata.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.metadata.get(name).and_then(Value::as_u64)
    }

    /// The value to store.
    pub fn to_json(&self) -> Vec<u8> {
        let stored = Stored {
            operation: 0,
            address: self.address.to_string(),
            metadata: if self.metadata.is_empty() {
                Value::Null
            } else {
                self.metadata.clone().into_iter().collect()
            },
        };
        // String keys and JSON values can always be serialized.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Parses a stored value: JSON, or a bare `host:port` as many tutorials store it. `None` if it
    /// is neither.
    pub fn from_stored(value: &[u8]) -> Option<Self> {
        if let Ok(stored) = serde_json::from_slice::<Stored>(value) {
            let metadata = match stored.metadata {
                Value::Object(map) => map.into_iter().collect(),
                _ => BTreeMap::new(),
            };
            return (!stored.address.is_empty()).then(|| Self {
                address: stored.address.into(),
                metadata,
                lease: 0,
                revision: 0,
            });
        }
        let bare = std::str::from_utf8(value).ok()?.trim();
        let (host, port) = bare.rsplit_once(':')?;
        let is_host = !host.is_empty() && !host.contains(['{', '"', ' ', '/']);
        (is_host && port.parse::<u16>().is_ok()).then(|| Self::new(bare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read_and_what_we_write_is_what_go_writes() {
        let go = br#"{"Op":0,"Addr":"10.0.0.7:7070","Metadata":{"weight":7,"zone":"b"}}"#;
        let endpoint = Endpoint::from_stored(go).expect("an endpoint");
        assert_eq!(&*endpoint.address, "10.0.0.7:7070");
        assert_eq!(
            (endpoint.text("zone"), endpoint.number("weight")),
            (Some("b"), Some(7))
        );
        assert_eq!(endpoint.to_json(), go);
        let bare = br#"{"Op":0,"Addr":"h:1","Metadata":null}"#;
        assert_eq!(
            Endpoint::from_stored(bare).expect("an endpoint").to_json(),
            bare
        );
    }

    #[test]
    fn a_bare_address_is_read_and_anything_else_is_refused() {
        for good in ["10.0.0.7:7070", "host:1", "[::1]:2", " host:1\n"] {
            assert!(Endpoint::from_stored(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "host",
            "host:port",
            ":1",
            "{\"Addr\":\"\"}",
            "{\"x\":1}",
            "http://h:1",
            "\u{0}",
        ] {
            assert!(Endpoint::from_stored(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Endpoint::from_stored(&[0xff, b':', b'1']).is_none());
    }
}
