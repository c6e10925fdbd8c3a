//! Permanently takes members that vanished off the list, so that removals need not wait for them.
//!
//! A member vanishes when its lease ends although it did not leave. It may have crashed. Or it may
//! be cut off from the registry and still answer, because others vouch for it (`standing`). It is
//! out once its lease has ended, at least half of all members have promised not to vouch for it,
//! and every voucher given before has run out.
//!
//! A missing key in the registry alone must never expel a member: it may have been deleted by hand.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};

use crate::{
    cluster::Cluster,
    error::Result,
    membership::{IdHash, Member},
    ports::{Clock, Peers},
    standing::Standing,
};

/// Bound on asking a member for its promise.
const ASK: Duration = Duration::from_millis(500);
/// Pause before an attempt that failed is repeated.
const RETRY: Duration = Duration::from_millis(200);

/// How an attempt to expel a member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expelled {
    /// It is out.
    Yes,
    /// Not now: its lease is alive, or it came back.
    NotNow,
    /// Too few members promised: at least half of all members must be reachable.
    TooFew,
}

/// What an expulsion works with.
#[derive(Clone)]
pub struct Expulsion {
    /// The current ring.
    pub cluster: Arc<Cluster>,
    /// This node's place.
    pub standing: Arc<Standing>,
    /// Calls to other members.
    pub peers: Arc<dyn Peers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Expulsion {
    /// Takes members that vanish off the list, each in an attempt of its own: removals wait for all
    /// of them at the same time. Reports how each attempt ended. Ends with the cluster.
    pub async fn run(&self, told: impl Fn(&Member, Result<Expelled>)) {
        let mut rings = self.cluster.rings();
        rings.mark_changed();
        let mut attempts = FuturesUnordered::new();
        let mut under_way = HashSet::new();
        loop {
            tokio::select! {
                Some(ended) = attempts.next() => {
                    under_way.remove(&ended);
                    // It may have vanished again.
                    rings.mark_changed();
                }
                changed = rings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let topology = rings.borrow_and_update().clone();
                    for member in topology.others().filter(|member| member.vanished) {
                        let incarnation = member.incarnation();
                        if under_way.insert(incarnation) {
                            attempts.push(self.until_out(incarnation, &told));
                        }
                    }
                }
            }
        }
    }

    /// Tries until that member has come back or is off the list.
    async fn until_out(
        &self,
        incarnation: IdHash,
        told: &impl Fn(&Member, Result<Expelled>),
    ) -> IdHash {
        while let Some(member) = self.vanished(incarnation) {
            // While a removal waits for it, the turns are skipped.
            tokio::select! {
                () = self.standing.removal_waits() => {}
                () = sleep(self.turn(&member)) => {}
            }
            // Its record may have changed meanwhile.
            let Some(member) = self.vanished(incarnation) else {
                break;
            };
            let ended = self.expel(&member).await;
            told(&member, ended);
            sleep(RETRY).await;
        }
        incarnation
    }

    fn vanished(&self, incarnation: IdHash) -> Option<Member> {
        let topology = self.cluster.topology();
        let member = topology.by_incarnation(incarnation);
        member.filter(|member| member.vanished).cloned()
    }

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

    /// Whether at least half of the members promise not to vouch for it. Doesn't wait for more than
    /// that: some of the others may be out of reach, too.
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
        let mut promises: FuturesUnordered<_> = promises.collect();
        let mut promised = 1;
        while 2 * promised < topology.view.admitted() {
            match promises.next().await {
                Some(promise) => promised += usize::from(promise),
                None => return false,
            }
        }
        true
    }

    /// How long this node waits for others to expel that member. They take turns in the order of
    /// their ids, so that usually only one of them makes the calls.
    fn turn(&self, member: &Member) -> Duration {
        let topology = self.cluster.topology();
        let candidates = topology.view.members.iter().filter(|it| it.can_promise());
        let before = candidates.take_while(|it| it.id != *self.cluster.my_id());
        let place = u32::try_from(before.filter(|it| it.id != member.id).count());
        self.standing.promise_wait() * place.unwrap_or(u32::MAX).min(8)
    }
}
