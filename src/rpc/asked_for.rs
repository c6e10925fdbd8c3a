//! For which client one node asks another: clients take turns at the owner's origin, whichever
//! nodes they ask.
//!
//! It travels as metadata, which nodes that don't know it leave alone.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fairness::ClientId;

/// A decimal number, the same for the same client at every node.
const HEADER: HeaderName = HeaderName::from_static("gaocache-client");

/// Tells for which client the current task works.
pub(super) fn tell(headers: &mut HeaderMap) {
    let client = ClientId::current();
    if client != ClientId::NOBODY {
        headers.insert(HEADER, HeaderValue::from(client.0));
    }
}

/// For which client a node asks; where it doesn't tell, the node itself is one.
pub(super) fn read(headers: &HeaderMap, from: IpAddr) -> ClientId {
    let told = headers.get(HEADER).and_then(|it| it.to_str().ok());
    match told.and_then(|it| it.parse().ok()) {
        Some(number) => ClientId(number),
        None => ClientId::at(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_client_comes_out_as_it_went_in_and_else_the_node_is_one() {
        let from = IpAddr::from([10, 0, 0, 7]);
        let mut headers = HeaderMap::new();
        tell(&mut headers);
        assert_eq!(read(&headers, from), ClientId::at(from));
        let client = ClientId(u64::MAX);
        client.scope(async { tell(&mut headers) }).await;
        assert_eq!(read(&headers, from), client);
        headers.insert(HEADER, HeaderValue::from_static("-1"));
        assert_eq!(read(&headers, from), ClientId::at(from));
    }
}
