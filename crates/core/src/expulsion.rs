//! Takes members that vanished off the list for good, so that removals need not wait for them.
//!
//! A member vanishes when its lease ends although it did not leave. It may have crashed. Or it may
//! be cut off from the registry and still answer, because others vouch for it (`standing`). It is
//! out once its lease has ended, at least half of all members have promised not to vouch for it,
//! and every voucher given before has run out.
//!
//! A missing key in the registry alone must never expel a member: somebody may have deleted it by
//! hand.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    cluster::Cluster,
    error::Result,
    membership::Member,
    ports::{Clock, Peers},
    standing::Standing,
};

/// Bound on asking a member for its promise.
const ASK: Duration = Duration::from_millis(500);

/// How an attempt to expel a member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expelled {
    /// It is out.
    Yes,
    /// Not now: its lease lives, or it came back.
    NotNow,
    /// Too few members promised: at least half of all members must be reachable.
    TooFew,
}

/// What an expulsion works with.
#[derive(Clone)]
pub struct Expulsion {
    /// The ring in force.
    pub cluster: Arc<Cluster>,
    /// This node's place.
    pub standing: Arc<Standing>,
    /// Calls to other members.
    pub peers: Arc<dyn Peers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Expulsion {
    /// Tries to expel `member`, which vanished.
    ///
    /// # Errors
    /// If the registry can't be reached.
    pub async fn expel(&self, member: &Member) -> Result<Expelled> {
        let session = self.standing.session()?;
        if !session.has_ended(member).await? {
            return Ok(Expelled::NotNow);
        }
        if !self.is_promised(member).await {
            return Ok(Expelled::TooFew);
        }
        // Vouchers that were given just before the promises.
        sleep(self.standing.promise_wait()).await;
        Ok(if session.expel(member).await? {
            Expelled::Yes
        } else {
            Expelled::NotNow
        })
    }

    /// Whether at least half of the members promise not to vouch for it.
    async fn is_promised(&self, against: &Member) -> bool {
        let topology = self.cluster.snapshot();
        let against = against.incarnation();
        if !topology.me().is_some_and(Member::can_promise) {
            return false;
        }
        self.standing.promise(against);
        let asked = topology.others().filter(|member| member.can_promise());
        let promises = asked.map(async |member| {
            let promise = timeout(ASK, self.peers.promise(member, against)).await;
            matches!(promise, Ok(Ok(by)) if by == member.incarnation())
        });
        let promised = join_all(promises)
            .await
            .into_iter()
            .filter(|it| *it)
            .count()
            + 1;
        2 * promised >= topology.view.admitted()
    }

    /// How long this node waits for others to expel that member. They take turns in the order of
    /// their ids, so that usually only one of them makes the calls.
    pub fn turn(&self, member: &Member) -> Duration {
        let topology = self.cluster.topology();
        let candidates = topology.view.members.iter().filter(|it| it.can_promise());
        let before = candidates.take_while(|it| it.id != *self.cluster.my_id());
        let place = u32::try_from(before.filter(|it| it.id != member.id).count());
        self.standing.promise_wait() * place.unwrap_or(u32::MAX).min(8)
    }
}
