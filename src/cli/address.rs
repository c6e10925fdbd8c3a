//! Addresses of nodes as people type them, and what is told when nobody answers there.

use std::time::Duration;

use super::failure::Failure;
use crate::settings::{ADMIN_PORT, GRPC_PORT};

/// Time limit for looking up a name and for connecting.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which listener of a node is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listener {
    Grpc,
    Admin,
}

impl Listener {
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

/// A listener of this machine.
pub(super) fn here(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// `HOST:PORT` of a gRPC listener.
pub(super) fn grpc_address(text: &str) -> Result<String, String> {
    host_and_port(text, GRPC_PORT)
}

/// `HOST:PORT` of an admin listener.
pub(super) fn admin_address(text: &str) -> Result<String, String> {
    host_and_port(text, ADMIN_PORT)
}

/// `HOST:PORT`, also where it was copied from a URL.
fn host_and_port(text: &str, usual: u16) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("the nodes' listeners speak no TLS; write HOST:PORT".into());
    }
    let address = text.strip_prefix("http://").unwrap_or(text);
    let address = address.trim_end_matches('/');
    let parts = address.rsplit_once(':').filter(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = !host.is_empty() && !host.contains(['/', '@', ':', ' ']);
        (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    match parts {
        Some(_) => Ok(address.to_owned()),
        None => Err(format!("write HOST:PORT, such as 127.0.0.1:{usual}")),
    }
}

/// Finds out early whether the name exists: later, that can't be told from other failures.
pub(super) async fn look_up(address: &str) -> Result<(), Failure> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(address)).await;
    let cause = match found {
        // The name service has no empty answers.
        Ok(Ok(_)) => return Ok(()),
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
            "https://h:1",
            "u@h:1",
            "h/x:1",
        ] {
            assert!(admin_address(wrong).is_err(), "{wrong}");
        }
    }
}
