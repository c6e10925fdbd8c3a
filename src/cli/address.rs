//! Addresses of nodes as people type them, and the error when no node answers there.

use std::{fmt, net::SocketAddr, time::Duration};

use super::failure::Failure;
use crate::settings::{ADMIN_PORT, GRPC_PORT};
use gaocache_core::membership::Member;

/// Time limit for looking up a name and for connecting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which listener of a node is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listener {
    Grpc,
    Admin,
}

impl Listener {
    /// The flag, and the field of a context, that names its address.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "target",
            Self::Admin => "admin",
        }
    }

    /// Its address, as people type it.
    pub(super) fn parse(self, text: &str) -> Result<NodeAddress, String> {
        match self {
            Self::Grpc => grpc_address(text),
            Self::Admin => admin_address(text),
        }
    }

    /// That of a node on this machine.
    pub(super) fn usual(self) -> NodeAddress {
        let port = match self {
            Self::Grpc => GRPC_PORT,
            Self::Admin => ADMIN_PORT,
        };
        NodeAddress {
            address: format!("127.0.0.1:{port}"),
            scheme: None,
            is_assumed: true,
        }
    }

    /// What to do if no node is at [`Listener::usual`].
    pub(super) fn others(self) -> String {
        let name = self.name();
        format!(
            "this address was tried because none was named; name a node with --{name}, \
             GAOCACHE_{} or a context, or start one here: `gaocache dev`",
            name.to_uppercase()
        )
    }

    /// The question behind an answer that makes no sense.
    pub(super) fn doubt(self) -> &'static str {
        match self {
            Self::Grpc => {
                "is this the gRPC listener of a gaocache node (by default on port 7070; 8080 is \
                 HTTP, 9090 admin)?"
            }
            Self::Admin => {
                "is this the admin listener of a gaocache node (by default on port 9090; 7070 is \
                 gRPC, 8080 HTTP)?"
            }
        }
    }
}

/// The protocol to use with a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// A listener, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeAddress {
    /// `host:port`.
    pub(super) address: String,
    /// `None`: it was not said.
    pub(super) scheme: Option<Scheme>,
    /// Nobody named it: it is where a node on this machine usually is.
    pub(super) is_assumed: bool,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Some(Scheme::Https) => "https://",
            Some(Scheme::Http) | None => "",
        };
        write!(f, "{scheme}{}", self.address)
    }
}

/// A gRPC listener.
pub(super) fn grpc_address(text: &str) -> Result<NodeAddress, String> {
    place(text, GRPC_PORT)
}

/// An admin listener.
pub(super) fn admin_address(text: &str) -> Result<NodeAddress, String> {
    place(text, ADMIN_PORT)
}

/// The admin listener of a member, as it registered it.
pub(super) fn admin_of(member: &Member) -> Result<NodeAddress, String> {
    let mut place = admin_address(&member.admin_address())?;
    place.scheme.get_or_insert(Scheme::Http);
    Ok(place)
}

/// The gRPC listener of a member, as it registered it.
pub(super) fn grpc_of(member: &Member) -> NodeAddress {
    let scheme = if member.tls.clients {
        Scheme::Https
    } else {
        Scheme::Http
    };
    NodeAddress {
        address: member.address.to_string(),
        scheme: Some(scheme),
        is_assumed: false,
    }
}

/// `HOST:PORT`, perhaps with a scheme.
fn place(text: &str, usual: u16) -> Result<NodeAddress, String> {
    let (scheme, address) = match text.split_once("://") {
        Some(("https", address)) => (Some(Scheme::Https), address),
        Some(("http", address)) => (Some(Scheme::Http), address),
        _ => (None, text),
    };
    let address = address.trim_end_matches('/');
    let parts = address.rsplit_once(':').filter(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = !host.is_empty() && !host.contains(['/', '@', ':', ' ']);
        (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    match parts {
        Some(_) => Ok(NodeAddress {
            address: address.to_owned(),
            scheme,
            is_assumed: false,
        }),
        None => Err(format!(
            "write HOST:PORT, such as 127.0.0.1:{usual}, or https://HOST:PORT"
        )),
    }
}

/// Finds out early whether the name exists: later, that can't be distinguished from other failures.
/// Returns the addresses that it has.
pub(super) async fn look_up(place: &NodeAddress) -> Result<Vec<SocketAddr>, Failure> {
    let address = &place.address;
    let host = address
        .rsplit_once(':')
        .map_or(&**address, |(host, _)| host);
    let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(address)).await;
    let cause = match found {
        // The name service has no empty answers.
        Ok(Ok(found)) => return Ok(found.collect()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the name service did not answer".to_owned(),
    };
    Err(Failure::Failed(format!(
        "{address}: the host '{host}' can't be found: {cause}"
    )))
}

/// A time limit in seconds.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0.001 to 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::admin_address;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in [
            "h:1",
            "127.0.0.1:7070",
            "[::1]:7070",
            "http://h:1/",
            "http://h:1",
            "https://h:1/",
        ] {
            assert!(admin_address(good).is_ok(), "{good}");
        }
        for wrong in [
            "h",
            ":1",
            "h:",
            "h:0",
            "h:99999",
            "::1:7070",
            "ftp://h:1",
            "u@h:1",
            "h/x:1",
        ] {
            assert!(admin_address(wrong).is_err(), "{wrong}");
        }
    }
}
