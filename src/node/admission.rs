//! How many connections of clients and peers a node takes, in all and from one address.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::per_address::{PerAddress, group};
use crate::{
    settings::ClientLimits,
    telemetry::{metrics::Metrics, throttle::Throttle},
};
use gaocache_core::cluster::Cluster;

/// A listener whose connections the workers serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    Grpc,
    Http,
    Peer,
}

impl Listener {
    /// For labels and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Peer => "peer",
        }
    }
}

/// Admits connections, within limits.
pub(super) struct Admission {
    most: AtomicUsize,
    most_per_address: AtomicUsize,
    /// Beyond `most`, for other members: clients must not shut them out.
    for_members: AtomicUsize,
    /// Files that the process may open.
    files: Option<usize>,
    open: Mutex<Open>,
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    throttle: Throttle,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_address: PerAddress,
}

/// One connection, while it lives.
pub(super) struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
    listener: Listener,
}

impl Admission {
    /// Limits for a process that may open so many files.
    pub(super) fn new(
        limits: &ClientLimits,
        files: Option<usize>,
        cluster: Arc<Cluster>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let admission = Self {
            most: AtomicUsize::default(),
            most_per_address: AtomicUsize::default(),
            for_members: AtomicUsize::default(),
            files,
            open: Mutex::default(),
            cluster,
            metrics,
            throttle: Throttle::default(),
        };
        admission.limit(limits);
        Arc::new(admission)
    }

    /// From now on, takes so many. Connections that are open stay.
    pub(super) fn limit(&self, limits: &ClientLimits) {
        let files = self.files;
        let reserved = |files: usize| limits.reserved_descriptors.min(files / 2);
        let possible = files.map_or(usize::MAX, |files| files - reserved(files));
        let most = limits.max_connections.min(possible);
        if most < limits.max_connections {
            tracing::warn!(
                max_connections = most,
                configured = limits.max_connections,
                max_open_files = files,
                "fewer connections than limits.max_connections are taken, since the process may \
                 open only so many files (RLIMIT_NOFILE)"
            );
        }
        self.metrics
            .connections
            .limit
            .set(i64::try_from(most).unwrap_or(i64::MAX));
        let for_members = files.map_or(limits.reserved_descriptors, reserved) / 4;
        self.most.store(most, Ordering::Relaxed);
        let per_address = limits.max_connections_per_address;
        self.most_per_address.store(per_address, Ordering::Relaxed);
        self.for_members.store(for_members, Ordering::Relaxed);
    }

    /// The most connections that are taken.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Takes a connection, or refuses it; the refusal is counted and logged.
    pub(super) fn admit(self: &Arc<Self>, from: SocketAddr, listener: Listener) -> Option<Permit> {
        let address = from.ip();
        let mut open = self.open.lock();
        let most_per_address = self.most_per_address.load(Ordering::Relaxed);
        let refused = if open.by_address.has(address, most_per_address) {
            Some(("address", "limits.max_connections_per_address"))
        } else if open.total >= self.most()
            && !(listener == Listener::Peer && self.is_member_within(&open, address))
        {
            Some(("total", "limits.max_connections"))
        } else {
            None
        };
        if let Some((reason, setting)) = refused {
            drop(open);
            self.refused(from, listener, reason, setting);
            return None;
        }
        open.total += 1;
        open.by_address.add(address);
        drop(open);
        self.metrics.connections.open(listener.name()).inc();
        Some(Permit {
            admission: self.clone(),
            address,
            listener,
        })
    }

    fn is_member_within(&self, open: &Open, address: IpAddr) -> bool {
        open.total < self.most() + self.for_members.load(Ordering::Relaxed) && {
            let topology = self.cluster.snapshot();
            let ip = |address: &str| address.parse::<SocketAddr>().ok().map(|it| it.ip());
            topology
                .others()
                .any(|member| ip(&member.contact.address).map(group) == Some(group(address)))
        }
    }

    fn refused(&self, from: SocketAddr, listener: Listener, reason: &str, setting: &str) {
        let labels = [listener.name(), reason];
        self.metrics
            .connections
            .refusals
            .with_label_values(&labels)
            .inc();
        if let Some(suppressed) = self.throttle.due(reason) {
            tracing::warn!(
                %from, listener = listener.name(), setting, suppressed, "refused a connection"
            );
        }
    }

    /// A connection could not even be accepted.
    pub(super) fn failed(&self, listener: Listener, error: &std::io::Error) {
        let labels = [listener.name(), "failed"];
        self.metrics
            .connections
            .refusals
            .with_label_values(&labels)
            .inc();
        if let Some(suppressed) = self.throttle.due("failed") {
            tracing::warn!(
                %error, listener = listener.name(), suppressed, "could not accept a connection"
            );
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission
            .metrics
            .connections
            .open(self.listener.name())
            .dec();
        let mut open = self.admission.open.lock();
        open.total -= 1;
        open.by_address.remove(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaocache_core::membership::{Member, View};

    fn admission(limits: &ClientLimits, files: Option<usize>) -> Arc<Admission> {
        let cluster = Arc::new(Cluster::new("me"));
        let members = [
            Member::new("me", "10.0.0.1:1"),
            Member::new("it", "10.0.0.2:1"),
        ];
        cluster.install(View::new(1, members));
        Admission::new(limits, files, cluster, Metrics::new().expect("metrics"))
    }

    fn limits(most: usize, per_address: usize) -> ClientLimits {
        ClientLimits {
            max_connections: most,
            max_connections_per_address: per_address,
            ..ClientLimits::default()
        }
    }

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), 1)
    }

    #[test]
    fn connections_are_limited_in_all_and_by_address_and_free_their_place() {
        let admission = admission(&limits(3, 2), None);
        let admit = |address| admission.admit(from(address), Listener::Grpc);
        let one = admit("10.0.0.7").expect("room");
        let _two = admit("::ffff:10.0.0.7").expect("room");
        assert!(admit("10.0.0.7").is_none(), "the address");
        let _three = admit("10.0.0.8").expect("room");
        assert!(admit("10.0.0.9").is_none(), "the total");
        drop(one);
        assert!(admit("10.0.0.7").is_some());
        let open = admission.open.lock();
        assert_eq!((open.total, open.by_address.len()), (2, 2));
    }

    #[test]
    fn clients_don_t_shut_members_out() {
        let admission = admission(&limits(1, 2), None);
        let _client = admission.admit(from("10.0.0.7"), Listener::Grpc);
        assert!(admission.admit(from("10.0.0.8"), Listener::Grpc).is_none());
        assert!(admission.admit(from("10.0.0.2"), Listener::Grpc).is_none());
        assert!(admission.admit(from("10.0.0.8"), Listener::Peer).is_none());
        let one = admission.admit(from("10.0.0.2"), Listener::Peer);
        let two = admission.admit(from("10.0.0.2"), Listener::Peer);
        assert!(one.is_some() && two.is_some());
        assert!(admission.admit(from("10.0.0.2"), Listener::Peer).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let admission = admission(&limits(9, 1), None);
        let _one = admission.admit(from("2001:db8::1"), Listener::Http);
        assert!(
            admission
                .admit(from("2001:db8::2"), Listener::Http)
                .is_none()
        );
        assert!(
            admission
                .admit(from("2001:db8:0:1::1"), Listener::Http)
                .is_some()
        );
    }

    #[test]
    fn descriptors_are_kept_for_what_is_not_a_client() {
        let of = |files| admission(&limits(10_000, 1), Some(files)).most();
        assert_eq!(of(1 << 20), 10_000);
        assert_eq!(of(4_096), 4_096 - 512);
        assert_eq!(of(256), 128);
    }
}
