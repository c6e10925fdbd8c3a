//! The names by which a client is known that has shown a certificate.

use std::sync::Arc;

/// DNS names and URIs of a client's certificate, which was verified. It is among the extensions of
/// each request that comes over such a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNames(pub Arc<[String]>);
