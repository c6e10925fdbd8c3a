//! Whether the process still runs that registered under a certain id.
//!
//! It must never say so of another process that answers at the same address: addresses of pods are
//! given again.

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};

use super::{failure::Failure, pool::GrpcPeers};
use crate::wire::{PromiseRequest, peer_client::PeerClient};
use gaocache_core::membership::{IdHash, Member};

/// What is found where a member registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The process that registered.
    Runs,
    /// Something accepts connections and says nothing: the process may be frozen.
    Silent,
    /// Nothing, or something else.
    Gone,
}

/// Bound on the answer, and then on connecting: where nothing is left, nobody refuses either.
const PATIENCE: Duration = Duration::from_millis(500);

impl GrpcPeers {
    /// Looks whether the process that registered as this member still runs. It is not ejected for
    /// what is found.
    pub async fn life(&self, member: &Member) -> Life {
        let Ok(route) = self.route(member) else {
            return Life::Gone;
        };
        // A promise that concerns no member: its answer says which incarnation gives it.
        let nobody = PromiseRequest {
            against: IdHash::NONE.0,
        };
        let mut client = PeerClient::new(route.channel());
        match timeout(PATIENCE, client.promise(nobody)).await {
            Ok(Ok(answer)) if answer.get_ref().incarnation == member.incarnation().0 => Life::Runs,
            Ok(Ok(_)) => Life::Gone,
            Ok(Err(status)) => match Failure::of(&status) {
                // By a registered key, it has proven who it is before it says that it doesn't know
                // this node. The key ends with its process.
                Failure::NotKnown(_) if member.contact.key.is_some() => Life::Runs,
                _ => Life::Gone,
            },
            Err(_) => {
                let connected = TcpStream::connect(&*member.contact.address);
                match timeout(PATIENCE, connected).await {
                    Ok(Ok(_)) => Life::Silent,
                    _ => Life::Gone,
                }
            }
        }
    }
}
