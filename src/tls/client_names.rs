//! Who a client is, by the certificate that its handshake has shown and proven.

use std::sync::Arc;

/// The DNS names and URIs (such as SPIFFE ids) of a verified client certificate, in the order in
/// which it has them. Each request of the connection has them in its extensions; without a
/// certificate there are none. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNames(pub Arc<[String]>);
