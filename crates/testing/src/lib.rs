//! What the socket-level tests of several crates share: real etcd processes, a proxy that can be
//! cut, certificates, pipes and bounds on waiting. Never published.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod certificates;
mod etcd;
mod examples;
mod pipe;
mod process;
mod proxy;
mod secured;

use std::{
    net::TcpListener,
    process::{Child, Command},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

pub use authority::{Authority, Issued, PemFolder};
pub use certificates::certificates;
pub use etcd::Etcd;
pub use examples::{example, run_example};
pub use pipe::NamedPipe;
pub use process::Process;
pub use proxy::Proxy;
pub use secured::SecuredEtcd;

/// Bound on everything that a test waits for; hit only when something is broken.
pub const LONG: Duration = Duration::from_secs(30);
/// The lease of the tests: short, so that its end can be waited for.
pub const TTL: Duration = Duration::from_secs(2);

/// Awaits with a bound, naming what was awaited.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(LONG, future)
        .await
        .unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// A port that was free a moment ago and that no other test of this process gets. Below the range
/// that the system gives out by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::SeqCst);
        let base = (std::process::id() % 97) as u16 * 100;
        let port = 20_000 + (base + offset) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Sends a signal, such as `-TERM`.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success(), "kill {name}");
}
