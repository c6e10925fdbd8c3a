//! Whether what a connection has proven still counts, after the files that it was checked against
//! have changed.

use std::{future::pending, time::Duration};

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier,
};
use tokio::{sync::watch, time::sleep};

/// Verifies by what the files say now.
type Holds = dyn Fn(&[CertificateDer<'static>]) -> bool + Send + Sync;

/// What a connection has shown.
pub struct Trust(Option<Shown>);

struct Shown {
    chain: Vec<CertificateDer<'static>>,
    changes: watch::Receiver<()>,
    holds: Box<Holds>,
}

impl Trust {
    /// Of a connection that has shown nothing that could be taken back.
    pub const UNPROVEN: Self = Self(None);

    /// Of one that has shown this chain of certificates; `changes` was subscribed to before it was
    /// verified for the first time.
    pub(super) fn in_chain(
        chain: &[CertificateDer<'_>],
        changes: watch::Receiver<()>,
        holds: impl Fn(&[CertificateDer<'static>]) -> bool + Send + Sync + 'static,
    ) -> Self {
        let chain = chain.iter().map(|it| it.clone().into_owned());
        Self(Some(Shown {
            chain: chain.collect(),
            changes,
            holds: Box::new(holds),
        }))
    }

    /// Returns when it has not counted for so long: whoever renews its certificate a little late
    /// has this time.
    pub async fn ends(&mut self, patience: Duration) {
        let Some(shown) = &mut self.0 else {
            return pending().await;
        };
        let holds = |shown: &Shown| (shown.holds)(&shown.chain);
        // An error means that nobody follows the files any more.
        while shown.changes.changed().await.is_ok() {
            while !holds(shown) {
                sleep(patience).await;
                if !holds(shown) {
                    return;
                }
            }
        }
        pending().await
    }
}

/// Whether a verifier accepts the chain.
pub(super) fn verifies(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> bool {
    let verify = |(own, between): (&_, &[_])| {
        verifier
            .verify_client_cert(own, between, UnixTime::now())
            .is_ok()
    };
    chain.split_first().is_none_or(verify)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_not_trusted_any_more_has_a_while_and_who_is_again_stays() {
        let (changed, changes) = watch::channel(());
        let good = Arc::new(AtomicBool::new(true));
        let holds = {
            let good = good.clone();
            move |_: &[_]| good.load(Ordering::Relaxed)
        };
        let mut trust = Trust::in_chain(&[], changes, holds);
        let patience = Duration::from_secs(10);
        let mut ends = Box::pin(trust.ends(patience));
        let mut ended_within = async |time| tokio::time::timeout(time, &mut ends).await.is_ok();
        changed.send_replace(());
        assert!(!ended_within(10 * patience).await, "other files, as good");
        good.store(false, Ordering::Relaxed);
        assert!(!ended_within(10 * patience).await, "nothing has changed");
        changed.send_replace(());
        assert!(!ended_within(patience / 2).await);
        good.store(true, Ordering::Relaxed);
        assert!(!ended_within(10 * patience).await, "it counts again");
        good.store(false, Ordering::Relaxed);
        changed.send_replace(());
        assert!(ended_within(2 * patience).await);
    }
}
