//! Whether the process still runs that registered under a certain id.
//!
//! It must never say so of another process that answers at the same address: addresses of pods are
//! given again.

use std::{io::ErrorKind, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use super::{failure::Failure, pool::GrpcPeers};
use crate::wire::{PromiseRequest, peer_client::PeerClient};
use gaocache_core::membership::{IdHash, Member};

/// What is found where a member registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The process that registered.
    Runs,
    /// Nothing that says so: the process may be frozen, or out of reach from here.
    Silent,
    /// Nothing listens there, or another process has answered.
    Gone,
}

/// Bound on the answer, and then on connecting: where nothing is left, nobody refuses either.
const PATIENCE: Duration = Duration::from_millis(500);

impl GrpcPeers {
    /// Looks whether the process that registered as this member still runs. It is not ejected for
    /// what is found.
    pub async fn life(&self, member: &Member) -> Life {
        // By a registered key, whoever answers has proven who it is. The key ends with its process.
        let is_proven = member.contact.key.is_some();
        match self.ask_who_runs(member).await {
            Some(Ok(_)) if is_proven => Life::Runs,
            Some(Ok(incarnation)) if incarnation == member.incarnation() => Life::Runs,
            Some(Ok(_)) => Life::Gone,
            // It doesn't know this node, say.
            Some(Err(Failure::NotKnown(_) | Failure::Answered(_))) if is_proven => Life::Runs,
            // A connection that breaks, or can't be made in time, says nothing about the process.
            Some(Err(_)) | None => match is_refused(&member.contact.address).await {
                true => Life::Gone,
                false => Life::Silent,
            },
        }
    }

    /// Which incarnation answers there; `None` if no answer came in time.
    async fn ask_who_runs(&self, member: &Member) -> Option<Result<IdHash, Failure>> {
        let route = self.route(member).ok()?;
        // A promise that concerns no member: its answer says which incarnation gives it.
        let nobody = PromiseRequest {
            against: IdHash::NONE.0,
        };
        let mut client = PeerClient::new(route.channel());
        let answer = timeout(PATIENCE, client.promise(nobody)).await.ok()?;
        Some(match answer {
            Ok(answer) => Ok(IdHash(answer.get_ref().incarnation)),
            Err(status) => Err(Failure::of(&status)),
        })
    }
}

/// Whether connections are refused there, because nothing listens.
async fn is_refused(address: &str) -> bool {
    let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
    matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}
