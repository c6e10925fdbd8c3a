//! Which faults are active, and what happened while they were.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kind::Kind;

/// Faults that are reported after their end: what they did may show later.
const REMEMBERED: usize = 4;

/// A set of kinds, a bit each.
pub type Kinds = u32;

/// What happened while a kind of fault was active. With several active each counts it.
#[derive(Clone, Copy, Default)]
pub struct Row {
    pub times: u64,
    pub seconds: f64,
    pub gets: u64,
    pub failed: u64,
    pub stale: u64,
    pub outlived: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub loads: u64,
}

impl Row {
    /// For `--json`.
    pub fn json(&self, name: &str) -> Value {
        json!({
            "fault": name, "times": self.times, "seconds": self.seconds, "gets": self.gets,
            "failed": self.failed, "stale": self.stale, "outlived": self.outlived,
            "removals_acknowledged": self.acknowledged, "removals_refused": self.refused,
            "origin_loads": self.loads,
        })
    }
}

struct Active {
    number: u64,
    kind: Kind,
    detail: String,
    since: Instant,
}

#[derive(Default)]
struct Inner {
    last: u64,
    active: Vec<Active>,
    /// Those that ended last, and when.
    ended: VecDeque<(Active, Instant)>,
    quiet_since: Option<Instant>,
    /// One for each kind, and the last for when none was active.
    rows: Vec<Row>,
    total: Row,
}

/// The active faults.
pub struct Board {
    kinds: AtomicU32,
    inner: Mutex<Inner>,
}

impl Board {
    /// No active faults.
    pub fn new() -> Self {
        let inner = Inner {
            rows: vec![Row::default(); Kind::all().len() + 1],
            quiet_since: Some(Instant::now()),
            ..Inner::default()
        };
        Self {
            kinds: AtomicU32::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// In force until the mark is dropped.
    pub fn begin(self: &Arc<Self>, kind: Kind, detail: String) -> InForce {
        let mut inner = self.inner.lock();
        inner.last += 1;
        let number = inner.last;
        inner.rows[kind.index()].times += 1;
        inner.end_quiet();
        inner.active.push(Active {
            number,
            kind,
            detail,
            since: Instant::now(),
        });
        self.publish(&inner);
        InForce {
            board: self.clone(),
            number,
        }
    }

    fn publish(&self, inner: &Inner) {
        let bits = inner.active.iter().map(|it| 1 << it.kind.index());
        self.kinds.store(bits.fold(0, |all, bit| all | bit), SeqCst);
    }

    /// The kinds that are active now.
    pub fn kinds(&self) -> Kinds {
        self.kinds.load(SeqCst)
    }

    /// Whether etcd is as it should be.
    pub fn etcd_is_well(&self) -> bool {
        let kinds = self.kinds();
        let mut ailing = Kind::all().iter().filter(|kind| kind.ails_etcd());
        !ailing.any(|kind| kinds & (1 << kind.index()) != 0)
    }

    /// How often something began that keeps nodes from etcd.
    pub fn etcd_losses(&self) -> u64 {
        let inner = self.inner.lock();
        let losses = Kind::all().iter().filter(|kind| kind.keeps_from_etcd());
        losses.map(|kind| inner.rows[kind.index()].times).sum()
    }

    /// Counts something that happened while these were active.
    pub fn count(&self, kinds: Kinds, add: impl Fn(&mut Row)) {
        let mut inner = self.inner.lock();
        add(&mut inner.total);
        let quiet = Kind::all().len();
        if kinds == 0 {
            add(&mut inner.rows[quiet]);
        }
        for index in (0..quiet).filter(|index| kinds & (1 << index) != 0) {
            add(&mut inner.rows[index]);
        }
    }

    /// What is active, and what was active last, for people.
    pub fn describe(&self) -> String {
        let inner = self.inner.lock();
        let tell =
            |it: &Active, when: String| format!("{} ({}, {when})", it.kind.name(), it.detail);
        let active = inner.active.iter();
        let active = active.map(|it| tell(it, format!("for {:.1?}", it.since.elapsed())));
        let ended = inner.ended.iter().rev();
        let ended = ended.map(|(it, when)| tell(it, format!("until {:.1?} ago", when.elapsed())));
        active.chain(ended).collect::<Vec<_>>().join("; ")
    }

    /// A row a kind, one for quiet times, and the total.
    pub fn rows(&self) -> Vec<(String, Row)> {
        let mut inner = self.inner.lock();
        inner.end_quiet();
        let names = Kind::all().iter().map(|kind| kind.name());
        let names = names.chain(["(none)".to_owned()]);
        let mut rows: Vec<_> = names.zip(inner.rows.iter().copied()).collect();
        rows.push(("total".into(), inner.total));
        rows
    }
}

impl Inner {
    fn end_quiet(&mut self) {
        if let (Some(since), Some(row)) = (self.quiet_since.take(), self.rows.last_mut()) {
            row.seconds += since.elapsed().as_secs_f64();
        }
    }
}

/// An active fault.
pub struct InForce {
    board: Arc<Board>,
    number: u64,
}

impl Drop for InForce {
    fn drop(&mut self) {
        let mut inner = self.board.inner.lock();
        let place = inner.active.iter().position(|it| it.number == self.number);
        if let Some(place) = place {
            let ended = inner.active.swap_remove(place);
            inner.rows[ended.kind.index()].seconds += ended.since.elapsed().as_secs_f64();
            inner.ended.push_back((ended, Instant::now()));
            while inner.ended.len() > REMEMBERED {
                inner.ended.pop_front();
            }
        }
        if inner.active.is_empty() {
            inner.quiet_since = Some(Instant::now());
        }
        self.board.publish(&inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_counts_for_every_fault_in_force() {
        let board = Arc::new(Board::new());
        board.count(board.kinds(), |row| row.gets += 1);
        let one = board.begin(Kind::Kill, "n0".into());
        let two = board.begin(Kind::Roll, "n1".into());
        board.count(board.kinds(), |row| row.gets += 1);
        drop(one);
        board.count(board.kinds(), |row| row.gets += 1);
        drop(two);
        let gets = |name: &str| {
            board
                .rows()
                .iter()
                .find(|row| row.0 == name)
                .unwrap()
                .1
                .gets
        };
        assert_eq!(["kill", "roll", "(none)", "total"].map(gets), [1, 2, 1, 3]);
        assert_eq!(board.kinds(), 0);
    }
}
