//! Whether the nodes can find, reach and trust each other.

use std::{net::IpAddr, path::PathBuf};

use super::Checks;
use crate::{
    config::{
        mask, pem,
        settings::{Config, RegistryKind},
        zone,
    },
    members::{self, fixed_members},
    registry::etcd::check_service,
    settings::{ID_RULE, is_id},
    tls::{AllowedPeers, is_signed},
};

impl Checks<'_> {
    pub(super) fn node(&mut self, settings: &Config) {
        if !is_id(&settings.node.id) {
            self.wrong("node.id", &[], ID_RULE);
        }
        if let Err(reason) = advertised(&settings.node.advertise_host) {
            self.wrong("node.advertise_host", &[], reason);
        }
        if let Err(reason) = zone::of(&settings.node) {
            self.wrong("node.zone_file", &["node.zone"], reason);
        }
    }

    pub(super) fn registry(&mut self, settings: &Config) {
        let registry = &settings.registry;
        if let Err(reason) = check_service(&registry.service) {
            self.wrong("registry.service", &[], reason);
        }
        match registry.kind {
            RegistryKind::Etcd if registry.etcd.endpoints.iter().all(String::is_empty) => self.wrong(
                "registry.etcd.endpoints",
                &["registry.kind"],
                "registry.kind \"etcd\" needs at least one URL such as \"http://127.0.0.1:2379\"",
            ),
            RegistryKind::Static => {
                if let Err(error) = fixed_members(&registry.fixed.peers, &settings.node.id) {
                    let rests_on = ["registry.kind", "node.id"];
                    self.wrong("registry.static.peers", &rests_on, error.message());
                }
                if !settings.peer.insecure && settings.peer.tls.ca.as_os_str().is_empty() {
                    let rests_on = ["registry.kind"];
                    let why = members::FIXED_NEEDS_IDENTITY;
                    let what = format!("{why}; set peer.tls, or peer.insecure = true");
                    self.wrong("peer.insecure", &rests_on, what);
                }
            }
            RegistryKind::Etcd | RegistryKind::Memory => {}
        }
    }

    pub(super) fn etcd(&mut self, settings: &Config) {
        let etcd = &settings.registry.etcd;
        // It would not log in with it, and the URL is shown in the log and by probes.
        if etcd.endpoints.iter().any(|it| mask::has_user(it)) {
            let reason = "a URL of etcd must not contain a user name or a password; use \
                          registry.etcd.username and registry.etcd.password_file";
            self.wrong("registry.etcd.endpoints", &[], reason);
        }
        self.both("registry.etcd.tls", &etcd.tls.cert, &etcd.tls.key);
        if etcd.username.is_empty() != etcd.password_file.as_os_str().is_empty() {
            self.wrong(
                "registry.etcd.username",
                &["registry.etcd.password_file"],
                "username and password_file must be set together",
            );
        }
        self.file(
            "registry.etcd.password_file",
            &etcd.password_file,
            pem::text,
        );
        self.file("registry.etcd.tls.ca", &etcd.tls.ca, pem::certificates);
        let (cert, key) = (&etcd.tls.cert, &etcd.tls.key);
        self.identity("registry.etcd.tls", cert, key, pem::valid_certificate);
    }

    pub(super) fn peer(&mut self, settings: &Config) {
        let peer = &settings.peer;
        let files = [
            ("peer.tls.ca", &peer.tls.ca),
            ("peer.tls.cert", &peer.tls.cert),
            ("peer.tls.key", &peer.tls.key),
        ];
        let named = |(_, path): &&(_, &PathBuf)| !path.as_os_str().is_empty();
        if files.iter().filter(named).count() == 0 {
            return;
        }
        if let Some((name, _)) = files.iter().find(|it| !named(it)) {
            self.wrong(name, &[], "peer.tls needs ca, cert and key");
        }
        if peer.insecure {
            let reason = "can't be true if peer.tls has certificates";
            self.wrong("peer.insecure", &[], reason);
        }
        let allowed = AllowedPeers::parse(&peer.allowed_peers);
        if let Err(reason) = &allowed {
            self.wrong("peer.allowed_peers", &[], reason);
        }
        let trusted = self.file("peer.tls.ca", &peer.tls.ca, pem::authorities);
        let (cert, key) = (&peer.tls.cert, &peer.tls.key);
        let usable = self.identity("peer.tls", cert, key, pem::server_certificate);
        if let (true, true, Ok(allowed)) = (trusted, usable, allowed) {
            self.accepted(settings, &allowed);
        }
    }

    /// Whether other nodes with the same settings accept this one.
    fn accepted(&mut self, settings: &Config, allowed: &AllowedPeers) {
        let tls = &settings.peer.tls;
        let Ok((ca, cert)) = pem::read(&tls.ca).and_then(|ca| Ok((ca, pem::read(&tls.cert)?)))
        else {
            return;
        };
        if let Err(reason) = is_signed(&ca, &cert) {
            self.wrong("peer.tls.cert", &["peer.tls.ca"], reason);
        } else if let Err(reason) = allowed.accept(&cert, &settings.node.id) {
            self.wrong("peer.tls.cert", &["peer.allowed_peers", "node.id"], reason);
        }
    }
}

/// Whether others can reach a node at this host.
fn advertised(host: &str) -> Result<(), &'static str> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare.unwrap_or(host).parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(
            "no client can reach a node at this address; use one of the machine's own addresses",
        ),
        Ok(_) => Ok(()),
        Err(_) if host.contains(':') => {
            Err("must be a host name or an address, without a port: that of grpc.listen is added")
        }
        Err(_) => {
            let is_part = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
            let good = host.chars().all(is_part);
            good.then_some(())
                .ok_or("must be a host name or an address")
        }
    }
}
