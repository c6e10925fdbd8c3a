//! A node under attack: real processes, a real etcd, a good client beside each attack.
//! `make abuse-test`
//!
//! It fails when the good client sees an error, the node takes more memory than it may, loses its
//! lease, or doesn't come to rest. How much slower the good client gets is printed; as attackers,
//! client and node share this machine, only a standstill fails.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attack;
mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod good;
mod http2;
mod target;
mod wire;

use std::{sync::Arc, time::Duration};

use attack::Attack;
use gaocache_testing::{Etcd, certificates};
use good::{Phase, Seen};
use target::{MIB, Target};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How long each attack lasts, unless `GAOCACHE_ABUSE_SECONDS` says otherwise.
const SECONDS: u64 = 10;
/// A standstill: far more than what sharing two cores with an attacker costs.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How long after an attack all must be as before.
const REST: Duration = Duration::from_secs(10);
/// Memory of an idle connection, as the settings' reference has it.
const CONNECTION: u64 = 36 << 10;

/// What an attack has done.
struct Row {
    name: &'static str,
    calm: Phase,
    attacked: Phase,
    peak: u64,
    bound: u64,
    kept: bool,
    calm_again: Option<Duration>,
    /// What the log must not have.
    forged: bool,
}

impl Row {
    fn failures(&self) -> Vec<&'static str> {
        let failures = [
            (self.attacked.errors > 0, "errors"),
            (self.attacked.requests == 0, "no answers"),
            (self.attacked.p99 > STANDSTILL, "standstill"),
            (self.peak > self.bound, "memory"),
            (!self.kept, "lease lost"),
            (self.calm_again.is_none(), "no rest"),
            (self.forged, "forged log"),
        ];
        let failed = failures.into_iter().filter(|(failed, _)| *failed);
        failed.map(|(_, what)| what).collect()
    }

    fn print(&self) {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (calm, attacked) = (ms(self.calm.p99), ms(self.attacked.p99));
        let rest = self
            .calm_again
            .map_or("never".into(), |it| format!("{:.2}", it.as_secs_f64()));
        let failures = self.failures().join(", ");
        println!(
            "| {} | {} | {} | {calm:.1} | {attacked:.1} | {:.1} | {} of {} | {} | {rest} | {} |",
            self.name,
            self.attacked.requests,
            self.attacked.errors,
            attacked / calm.max(0.001),
            self.peak / MIB,
            self.bound / MIB,
            if self.kept { "kept" } else { "lost" },
            if failures.is_empty() {
                "borne"
            } else {
                &failures
            },
        );
        if let Some(error) = &self.attacked.first_error {
            println!("first error of the row above: {error}");
        }
    }
}

async fn observe(attack: &Attack, etcd: &str, seconds: u64) -> Row {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    fifos(folder.path());
    let target = Arc::new(Target::start(attack, etcd, folder.path()).await);
    let lasts = Duration::from_secs(seconds);
    let began = Instant::now();
    let attacked = began + (lasts / 2).max(Duration::from_secs(2));
    let ended = attacked + lasts;
    let (before, bound) = (target.membership().await, target.bound().await);
    let watching = tokio::spawn(target.clone().watch_memory());
    let seen = Arc::new(Seen::default());
    let good = good::start(target.clone(), seen.clone());
    sleep_until(attacked).await;
    let mut attacks = tokio::spawn((attack.run)(target.clone()));
    if let Ok(ended_early) = timeout_at(ended, &mut attacks).await {
        ended_early.expect("the attack goes on to its end");
    }
    attacks.abort();
    let _ = attacks.await;
    let deadline = ended + REST;
    let calm = seen.between(began, attacked);
    let mut calm_again = None;
    while calm_again.is_none() && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
        calm_again = seen.calm_again(ended, calm.p99);
    }
    seen.stop();
    let joined = tokio::task::spawn_blocking(move || good.join()).await;
    assert!(joined.unwrap().is_ok(), "the good client doesn't panic");
    watching.abort();
    let after = target.membership().await;
    let forged = {
        let log = target.node.log.lock();
        log.iter()
            .any(|line| line.contains('\u{1b}') || line.starts_with("2026-01-01T"))
    };
    let row = Row {
        name: attack.name,
        calm,
        attacked: seen.between(attacked, ended),
        peak: target.peak(),
        bound: bound + attack.connections * CONNECTION,
        kept: before == after,
        calm_again,
        forged,
    };
    // In order, so that the next one is alone in etcd.
    let _ = watching.await;
    let target = Arc::into_inner(target);
    target.expect("nobody else has it").node.terminate().await;
    row
}

/// Files that never end to open.
fn fifos(folder: &std::path::Path) {
    let files = folder.join("files");
    std::fs::create_dir(&files).unwrap();
    let names = (0..100).map(|number| files.join(format!("{number}.fifo")));
    let made = std::process::Command::new("mkfifo").args(names).status();
    assert!(made.unwrap().success());
}

/// Lets this process have as many connections as the attacks need.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to its maximum");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    raise_descriptors();
    let seconds = std::env::var("GAOCACHE_ABUSE_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |it| it.parse().expect("whole seconds"));
    // A name chooses some attacks: `cargo test … --test abuse -- Redis`.
    let wanted = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let etcd = Etcd::start().await;
    println!("{seconds} s of each attack; times in milliseconds, memory in MiB\n");
    println!(
        "| attack | good requests | errors | p99 calm | p99 attacked | ratio | most memory | lease | s to rest | |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut failed = Vec::new();
    for attack in attacks::all() {
        let is_wanted = wanted.as_deref().is_none_or(|it| attack.name.contains(it));
        if is_wanted {
            let row = observe(&attack, &etcd.url, seconds).await;
            row.print();
            if !row.failures().is_empty() {
                failed.push(attack.name);
            }
        }
    }
    assert!(failed.is_empty(), "not borne: {failed:?}");
}
