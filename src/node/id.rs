//! Takes this node's id: never from a process that still runs.
//!
//! Of two processes with one id, the others know the one that registered last, and no longer notify
//! the other of removals. So a process first checks whether its predecessor has ended.

use std::{net::SocketAddr, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::parts::Joined;
use crate::rpc::peers::Life;
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::Member,
};

/// Pause before a process that says nothing is asked again.
const RETRY: Duration = Duration::from_millis(200);

impl Joined {
    /// Registers, as soon as no other process runs under this node's id. One that doesn't answer
    /// may be frozen, or out of reach: it is waited for until its lease has ended, since by then it
    /// knows by its own clock that it is no member. Where connections are refused, there is no
    /// wait.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if one does.
    pub(super) async fn take_id(&self) -> Result<()> {
        while let Some(holder) = self.session.holder(&self.me).await {
            if is_this_process_s(&holder.contact.address, &self.me.contact.address) {
                break;
            }
            match self.parts.peers.life(&holder).await {
                Life::Runs => return Err(taken(&holder)),
                Life::Gone => break,
                Life::Silent => {}
            }
            if self.session.has_ended(&holder).await.unwrap_or(false) {
                break;
            }
            let address = &*holder.contact.address;
            if let Some(suppressed) = self.parts.standing_throttle.due(address) {
                tracing::warn!(
                    address,
                    suppressed,
                    "the process that registered this node's id does not answer there, and may \
                     still run; this node registers when that process' lease has ended"
                );
            }
            sleep(RETRY).await;
        }
        self.session.register();
        Ok(())
    }

    /// The end of a node that may not have its id: it registered nothing and holds nothing, so
    /// nobody has to see it go.
    pub(super) async fn give_up(&self, draining: &CancellationToken) -> bool {
        draining.cancel();
        self.session.leave().await.is_ok()
    }
}

/// Whether a process that registered at `registered` must have ended, because this one has its
/// port. A name, or an address that another machine forwards, may lead to several: only an address
/// of this machine can be had by one process alone.
fn is_this_process_s(registered: &str, mine: &str) -> bool {
    let Ok(address) = registered.parse::<SocketAddr>() else {
        return false;
    };
    let is_here = || {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        interfaces.iter().any(|it| it.ip() == address.ip())
    };
    registered == mine && (address.ip().is_loopback() || is_here())
}

fn taken(by: &Member) -> Error {
    let what = format!(
        "another process runs with the id '{}' at {}; ids must be distinct: stop that process, or \
         set another node.id here",
        by.id, by.contact.address
    );
    Error::new(ErrorKind::Configuration, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_had_by_one_process_alone() {
        let is_it = is_this_process_s;
        assert!(is_it("127.0.0.1:7070", "127.0.0.1:7070"));
        assert!(!is_it("127.0.0.1:7070", "127.0.0.1:7071"), "another port");
        // Kept for documents, so no interface has it: as the address of a Service.
        assert!(!is_it("192.0.2.7:7070", "192.0.2.7:7070"));
        let name = "n-0.nodes:7070";
        assert!(!is_it(name, name), "it may have led elsewhere before");
    }
}
