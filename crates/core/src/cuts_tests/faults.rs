//! What goes wrong: links are cut, processes are paused, the registry loses its data, and keys are
//! deleted in it by hand.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{CALL, ETCD, IDS, World};

/// Which links are cut, by direction, and which processes are paused.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) cut: HashSet<(String, String)>,
    pub(super) still: HashSet<String>,
    /// The registry is down.
    down: bool,
}

impl Faults {
    fn keep_apart(&self, from: &str, to: &str) -> bool {
        let ends = (from.to_owned(), to.to_owned());
        self.cut.contains(&ends) || (self.down && (from == ETCD || to == ETCD))
    }
}

pub(super) struct Links {
    pub(super) faults: watch::Sender<Faults>,
    /// Some messages take seconds.
    pub(super) slow: bool,
    pub(super) rng: Mutex<Rng>,
}

impl Links {
    /// A message on its way; false if it is lost.
    pub(super) async fn pass(&self, from: &str, to: &str) -> bool {
        let (millis, waits) = {
            let mut rng = self.rng.lock();
            let slow = rng.u32(..50) == 0 && self.slow;
            (rng.u64(..if slow { 3_000 } else { 20 }), rng.bool())
        };
        sleep(Duration::from_millis(millis)).await;
        let mut faults = self.faults.subscribe();
        if faults.borrow().keep_apart(from, to) && !waits {
            sleep(CALL).await;
            return false;
        }
        let runs = |it: &Faults| !it.still.contains(from) && !it.still.contains(to);
        let arrives = faults
            .wait_for(|it| !it.keep_apart(from, to) && runs(it))
            .await;
        arrives.is_ok()
    }

    pub(super) async fn runs(&self, id: &str) {
        let mut faults = self.faults.subscribe();
        let running = faults.wait_for(|it| !it.still.contains(id)).await;
        drop(running);
    }
}

impl World {
    /// Cuts links, and pauses processes. Where the registry loses its data, more than
    /// half of the members are always in touch with it.
    pub(super) async fn break_things(self: Arc<Self>, until: Instant) {
        let first = self.dice.below(5);
        let victims = [IDS[first], IDS[(first + 1 + self.dice.below(4)) % 5]];
        while Instant::now() < until {
            self.dice.pause(6_000).await;
            let ends: Vec<&str> = IDS.iter().copied().chain([ETCD, ETCD, ETCD]).collect();
            let faults = 1 + self.dice.below(4);
            for _ in 0..faults {
                let (mut a, b) = (IDS[self.dice.below(5)], ends[self.dice.below(ends.len())]);
                let kind = self.dice.below(5);
                if self.loses && b == ETCD {
                    a = victims[self.dice.below(2)];
                }
                self.links.faults.send_modify(|it| {
                    let way = (a.to_owned(), b.to_owned());
                    let back = (b.to_owned(), a.to_owned());
                    match kind {
                        0 => drop(it.still.insert(a.to_owned())),
                        1 => drop(it.cut.insert(way)),
                        2 => drop(it.cut.insert(back)),
                        _ => it.cut.extend([way, back]),
                    }
                });
            }
            self.dice.pause(12_000).await;
            self.mend();
        }
        self.mend();
    }

    fn mend(&self) {
        self.links.faults.send_modify(|it| {
            it.cut.clear();
            it.still.clear();
        });
    }

    /// Somebody deletes keys by hand.
    pub(super) async fn delete_keys(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.dice.pause(20_000).await;
            let id = IDS[self.dice.below(5)];
            {
                let mut etcd = self.etcd.lock();
                etcd.revision += u64::from(etcd.keys.remove(id).is_some());
            }
            self.changed.send_replace(());
        }
    }

    /// The registry loses its data, or goes back to a backup, some time after it went down.
    pub(super) async fn lose_data(self: Arc<Self>, until: Instant) {
        while self.loses && Instant::now() < until {
            self.dice.pause(15_000).await;
            let backup = self.etcd.lock().clone();
            self.dice.pause(15_000).await;
            let down = |down| self.links.faults.send_modify(|it| it.down = down);
            down(true);
            self.dice.pause(5_000).await;
            let written = self.dice.number(..1_000) * self.dice.number(..2);
            match self.dice.below(2) {
                0 => self.etcd.lock().lose_all(),
                _ => self.etcd.lock().restore(backup, written),
            }
            down(false);
            self.changed.send_replace(());
        }
    }

    pub(super) async fn sweep(self: Arc<Self>, every: Duration) {
        loop {
            sleep(every).await;
            if self.etcd.lock().sweep() {
                self.changed.send_replace(());
            }
        }
    }
}
