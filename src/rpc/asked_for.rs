//! For which client one node asks another: clients take turns at the owner's origin, whichever
//! nodes they ask.
//!
//! It travels as metadata, which nodes that don't know it leave alone.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fairness::{ClientId, Clients};
use gaocache_core::askers::{Asker, MOST_ASKERS};

/// A decimal number, the same for the same client at every node. Where several clients want the
/// same, it comes several times; nodes that don't know of that read the first.
const HEADER: HeaderName = HeaderName::from_static("gaocache-client");

/// Tells for which client the current task works.
pub(super) fn tell(headers: &mut HeaderMap) {
    tell_all(headers, &[ClientId::current().into()]);
}

/// Tells who asks, the first of them first.
pub(super) fn tell_all(headers: &mut HeaderMap, askers: &[Asker]) {
    let nobody = Asker::from(ClientId::NOBODY);
    for asker in askers.iter().filter(|it| **it != nobody) {
        headers.append(HEADER, HeaderValue::from(asker.0));
    }
}

/// For which clients a node asks; where it doesn't tell, the node itself is one.
pub(super) fn read(headers: &HeaderMap, from: IpAddr) -> Clients {
    let told = headers.get_all(HEADER).iter().take(MOST_ASKERS);
    let mut told = told.map(|it| it.to_str().ok()?.parse().ok().map(ClientId));
    match told.next().flatten() {
        Some(first) => Clients {
            first,
            others: told.flatten().collect(),
        },
        None => ClientId::at(from).into(),
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
        assert_eq!(read(&headers, from), ClientId::at(from).into());
        let client = ClientId(u64::MAX);
        client.scope(async { tell(&mut headers) }).await;
        assert_eq!(read(&headers, from), client.into());
        headers.insert(HEADER, HeaderValue::from_static("-1"));
        assert_eq!(read(&headers, from), ClientId::at(from).into());
        headers.clear();
        let askers: Vec<Asker> = (1..=100).map(Asker).collect();
        tell_all(&mut headers, &askers);
        let clients = read(&headers, from);
        assert_eq!(clients.first, ClientId(1));
        let others: Vec<_> = (2..=8).map(ClientId).collect();
        assert_eq!(clients.others, others, "no more than are noted");
    }
}
