//! Maintains this node's membership: joins, keeps the fence open as long as possible, and rejoins
//! after an expulsion.
//!
//! It must never open the fence on a guess: only while the lease is certain to be alive, or with
//! vouchers from more than half of all members.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::parts::{Joined, Stops};
use gaocache_core::{
    cluster::Topology,
    error::Result,
    expulsion::{Expelled, Expulsion},
    joining::{Confirmations, Listed, Listing},
    membership::{IdHash, Member, MemberState},
    notices::{self, CarriedOut},
    ports::{Notice, Peers},
};

/// Pause before a step that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

impl Joined {
    /// Runs until this node has stopped: while it drains, it still has to know whether it is a
    /// member.
    pub(super) async fn keep_standing(self, stops: Stops) {
        tokio::select! {
            () = stops.admin.cancelled() => {}
            () = self.live_on(&stops.draining) => {}
        }
    }

    async fn live_on(&self, draining: &CancellationToken) {
        let mut me = self.me.clone();
        loop {
            tokio::select! {
                biased;
                // A node that is leaving doesn't join again.
                () = draining.cancelled() => return,
                () = self.join_others(&me.instance) => {}
            }
            self.stay().await;
            self.parts.standing.fence.close();
            let entries = self.parts.groups.drop_everything();
            self.parts.metrics.membership.expelled();
            tracing::warn!(
                entries,
                "this node is off the list; its entries are dropped, and it joins again"
            );
            me.instance = fastrand::u64(..).to_string().into();
            // An error says that the old registration has ended; it continues with the new one.
            let _ = self.session.rejoin(&me.instance).await;
        }
    }

    /// Joins: returns when all others have seen this incarnation and it is serving.
    async fn join_others(&self, life: &str) {
        loop {
            let Some(listed) = self.listed(life).await else {
                return;
            };
            tokio::select! {
                () = self.seen_by_others(listed.revision) => {}
                () = self.stands_otherwise(listed) => continue,
            }
            // Whoever saw the registration in a registry that went back to an earlier state has
            // marked it as young before, but this node's view may not show that yet.
            match self.session.is_young().await {
                Ok(false) => break,
                _ => sleep(RETRY).await,
            }
        }
        // This node was not notified of removals until now, so nothing in flight may be shared
        // or kept.
        self.parts.groups.drop_everything();
        while let Err(error) = self.session.announce(MemberState::Serving).await {
            if self.session.health().borrow().expelled {
                break;
            }
            tracing::debug!(%error, "could not announce that this node serves");
            sleep(RETRY).await;
        }
    }

    /// Resolves when the ring no longer shows that registration.
    async fn stands_otherwise(&self, listed: Listed) {
        let mut rings = self.parts.cluster.rings();
        // An error says that the node has stopped.
        let _ = rings.wait_for(|ring| !listed.holds_in(ring)).await;
    }

    /// This incarnation of the node, once the ring shows it; `None` if the others have taken it off
    /// the list before.
    async fn listed(&self, life: &str) -> Option<Listed> {
        let mut rings = self.parts.cluster.rings();
        let mut health = self.session.health();
        loop {
            let ring = rings.borrow_and_update().clone();
            let known = health.borrow_and_update().clone();
            match Listing::of(life, &ring, &known) {
                Listing::Listed(listed) => return Some(listed),
                Listing::Ended => return None,
                Listing::Awaited => {}
            }
            let changed = tokio::select! {
                changed = rings.changed() => changed,
                changed = health.changed() => changed,
            };
            // Their owners live as long as this node.
            changed.ok()?;
        }
    }

    /// Returns when each other member has confirmed that it has seen the revision, or is out.
    async fn seen_by_others(&self, revision: u64) {
        let mut rings = self.parts.cluster.rings();
        rings.mark_changed();
        let mut confirmations = Confirmations::default();
        let mut asking = FuturesUnordered::new();
        let mut notices = self.session.notices();
        let mut posted = None;
        loop {
            if rings.has_changed().unwrap_or(false) {
                let topology = rings.borrow_and_update().clone();
                let to_ask = confirmations.follow(&topology);
                let me = self.parts.standing.incarnation().unwrap_or_default();
                asking.extend(to_ask.into_iter().map(|it| self.has_seen(it, revision, me)));
            }
            if let (Some(at), Some(notices)) = (posted, &notices) {
                let notices = notices.borrow();
                let reached = notices.confirmed.iter().filter(|it| it.1.contains(&at));
                reached.for_each(|(member, _)| confirmations.confirmed(*member));
            }
            // The others take a vanished member off the list, if they can. Meanwhile this node
            // answers requests, but keeps nothing.
            let only_vanished = confirmations.lack_only_vanished();
            let complete = confirmations.are_complete();
            self.parts.joining.send_replace(only_vanished && !complete);
            if complete {
                break;
            }
            tokio::select! {
                Some(member) = asking.next() => confirmations.confirmed(member),
                // It counts as seen now, but has to be followed.
                _ = rings.changed() => rings.mark_changed(),
                () = notices::changed(&mut notices) => {}
                () = sleep(RETRY * 2), if posted.is_none() && !only_vanished => {
                    let listed = self.parts.standing.incarnation().unwrap_or_default();
                    posted = self.session.post(&Notice::Seen { revision, listed }).await.ok();
                }
            }
        }
        if let Some(at) = posted {
            let _ = self.session.withdraw(at).await;
        }
    }

    /// Resolves when that member says that it has seen the revision, and `me` on the list.
    async fn has_seen(&self, member: Member, revision: u64, me: IdHash) -> IdHash {
        let peers = &self.parts.peers;
        while peers.await_revision(&member, revision, me).await.is_err() {
            sleep(RETRY).await;
        }
        member.incarnation()
    }

    /// Keeps the fence open while this node is a member; returns when the others took it off the
    /// list, or may have done so.
    async fn stay(&self) {
        let standing = &self.parts.standing;
        let clock = &self.parts.clock;
        let mut ticks = interval(standing.voucher() / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = self.session.health();
        loop {
            let off = async { health.wait_for(|it| it.expelled).await.is_ok() };
            tokio::select! {
                biased;
                // An error says that the node has stopped.
                _ = off => return,
                _ = ticks.tick() => {}
            }
            if standing.fence.has_lapsed(clock.now()) {
                return;
            }
            if standing.rely_on_lease(self.session.lease(), clock.now()) {
                standing.ask_for_vouchers(&self.parts.peers, &**clock).await;
            }
        }
    }

    /// Takes members that vanished off the list, until `stop`.
    pub(super) async fn expel_the_vanished(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.expel_on() => {}
        }
    }

    async fn expel_on(&self) {
        let expulsion = Expulsion {
            cluster: self.parts.cluster.clone(),
            standing: self.parts.standing.clone(),
            peers: Arc::new(self.parts.peers.clone()),
            clock: self.parts.clock.clone(),
        };
        let told = |member: &Member, ended: Result<Expelled>| match ended {
            Ok(Expelled::Yes) => {
                tracing::info!(member = %member.id, "a member that vanished is off the list");
            }
            Ok(Expelled::NotNow) => {}
            Ok(Expelled::TooFew) => self.removals_wait_for(member),
            Err(error) => tracing::debug!(%error, member = %member.id, "no expulsion now"),
        };
        expulsion.run(told).await;
    }

    fn removals_wait_for(&self, member: &Member) {
        if let Some(suppressed) = self.parts.standing_throttle.due(&member.id) {
            tracing::warn!(
                member = %member.id, suppressed,
                "a member vanished, and fewer than half of all members can be reached; removals \
                 wait until it is back or is forgotten (docs/production.md)"
            );
        }
    }

    /// Does what the notices of others ask for, and confirms it, until `stop`.
    pub(super) async fn heed_notices(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.heed_on() => {}
        }
    }

    async fn heed_on(&self) {
        let Some(mut notices) = self.session.notices() else {
            return;
        };
        let mut rings = self.parts.cluster.rings();
        let mut health = self.session.health();
        let mut mine = None;
        let mut carried_out = CarriedOut::default();
        notices.mark_changed();
        loop {
            let changed = tokio::select! {
                changed = notices.changed() => changed,
                // A notice may wait for a ring.
                changed = rings.changed() => changed,
                changed = health.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let standing = notices.borrow_and_update().standing.clone();
            let ring = rings.borrow_and_update().clone();
            let written = health.borrow_and_update().written.clone();
            mine = written.map(|(incarnation, _)| incarnation).or(mine);
            // Never for another process: one that is frozen, and whose id this one waits for, holds
            // what it was not told to remove.
            let is_mine = |me: &&Member| mine.as_ref() == Some(&me.instance);
            let Some(me) = ring.me().filter(is_mine).map(Member::incarnation) else {
                continue;
            };
            let Some(done) =
                carried_out.carry_out(me, &standing, |notice| self.carry_out(notice, &ring))
            else {
                continue;
            };
            while let Err(error) = self.session.confirm(me, &done).await {
                tracing::debug!(%error, "could not confirm a notice");
                sleep(RETRY).await;
            }
        }
    }

    /// Carries out a notice; false if it can't be confirmed yet.
    fn carry_out(&self, notice: &Notice, ring: &Topology) -> bool {
        match notice {
            Notice::Remove { group, what } => {
                // A group that was never configured here holds nothing.
                if let Ok(group) = self.parts.groups.current_or_former(group) {
                    group.remove_here(what);
                }
                true
            }
            Notice::Seen { revision, listed } => ring.has_seen(*revision, *listed),
        }
    }
}
