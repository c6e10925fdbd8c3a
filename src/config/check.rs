//! Checks that involve more than one setting, or files that a setting names.
//!
//! A check is skipped if a setting that it depends on is invalid: its result would be a guess.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    listener_tls::{ClientAuth, ListenerTlsSettings},
    mask, pem,
    problem::Problem,
    settings::{Config, GroupSettings, OriginKind, RegistryKind},
    unsure::Unsure,
    walk::InForce,
    zone,
};
use crate::{
    auth::{self, Action, Actions},
    http_client::template::{self, UrlTemplate},
    members::{self, fixed_members},
    settings::{ID_RULE, is_id, largest_value, open_administration},
    telemetry::log,
    tls::{AllowedPeers, is_signed},
    traffic::Budget,
};
use gaocache_core::group::{GROUP_NAME_RULE, is_group_name};

/// Every inconsistency between settings.
pub(super) fn together(settings: &Config, unsure: &Unsure) -> Vec<Problem> {
    let mut checks = Checks {
        unsure,
        problems: Vec::new(),
    };
    checks.node(settings);
    checks.registry(settings);
    checks.etcd(settings);
    checks.peer(settings);
    checks.listeners(settings);
    checks.auth(settings);
    if let Err(error) = log::check(&settings.log.level) {
        checks.wrong("log.level", &[], error.message());
    }
    checks.file("trace.ca", &settings.trace.ca, pem::certificates);
    checks.groups(settings);
    checks.in_flight(settings);
    checks.problems
}

/// Settings of one kind of origin that were given to a group whose origin is of another kind: they
/// would have no effect, which their author doesn't expect.
pub(super) fn leftovers(settings: &Config, in_force: &[InForce]) -> Vec<Problem> {
    /// The others are for every kind.
    const HTTP: [&str; 6] = [
        "url",
        "retries",
        "honour_cache_control",
        "keep_headers",
        "headers",
        "header_files",
    ];
    const FILE: [&str; 1] = ["path"];
    let mut problems = Vec::new();
    for (number, group) in settings.groups.iter().enumerate() {
        let (kind, of_the_other) = match group.origin.kind {
            OriginKind::Http => ("http", &FILE[..]),
            OriginKind::File => ("file", &HTTP[..]),
        };
        for setting in of_the_other {
            let name = format!("groups[{number}].origin.{setting}");
            let given = in_force.iter().find(|known| known.name == name);
            if given.is_some_and(|known| !known.is_default()) {
                let reason = format!("an origin of kind \"{kind}\" has no such setting");
                problems.push(Problem::of(name, reason));
            }
        }
    }
    problems
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

struct Checks<'a> {
    unsure: &'a Unsure,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Notes what is wrong with a setting, unless it or one of those that the check `rests_on` was
    /// given wrong in the first place.
    fn wrong(&mut self, name: &str, rests_on: &[&str], reason: impl Into<String>) {
        let mut all = rests_on.iter().chain(std::iter::once(&name));
        if all.any(|name| self.unsure.has(name)) {
            return;
        }
        self.problems.push(Problem::of(name, reason));
    }

    /// Checks what a file contains, if the setting names one. Returns whether there is one that can
    /// be used.
    fn file(&mut self, name: &str, path: &Path, check: fn(&Path) -> Result<(), String>) -> bool {
        if path.as_os_str().is_empty() {
            return false;
        }
        let checked = check(path);
        if let Err(reason) = &checked {
            self.wrong(name, &[], reason);
        }
        checked.is_ok()
    }

    fn node(&mut self, settings: &Config) {
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

    fn in_flight(&mut self, settings: &Config) {
        let largest = settings.groups.iter().map(|group| group.max_value).max();
        let given = settings.cache.in_flight;
        if given == 0 {
            return;
        }
        if let Err(reason) = Budget::check(given, largest.unwrap_or(0)) {
            self.wrong("cache.in_flight", &["groups"], reason);
        }
    }

    fn registry(&mut self, settings: &Config) {
        let registry = &settings.registry;
        if registry.service.is_empty() || registry.service.ends_with('/') {
            self.wrong("registry.service", &[], "must not be empty or end with '/'");
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
                    self.wrong("peer.insecure", &rests_on, members::FIXED_NEEDS_IDENTITY);
                }
            }
            RegistryKind::Etcd | RegistryKind::Memory => {}
        }
    }

    fn etcd(&mut self, settings: &Config) {
        let etcd = &settings.registry.etcd;
        // It would not log in with it, and the URL is shown in the log and by probes.
        if etcd.endpoints.iter().any(|it| mask::has_user(it)) {
            let reason = "a URL of etcd has no user and no password in it; use \
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

    fn peer(&mut self, settings: &Config) {
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

    /// Checks that neither of a certificate and its key is missing.
    fn both(&mut self, section: &str, cert: &Path, key: &Path) {
        if cert.as_os_str().is_empty() != key.as_os_str().is_empty() {
            let reason = "cert and key must be set together";
            let (cert, key) = (format!("{section}.cert"), format!("{section}.key"));
            self.wrong(&cert, &[&key], reason);
        }
    }

    /// Checks a certificate, its key, and that they belong together. Returns whether they can be
    /// used.
    fn identity(
        &mut self,
        section: &str,
        cert: &Path,
        key: &Path,
        check: fn(&Path) -> Result<(), String>,
    ) -> bool {
        let (cert_name, key_name) = (format!("{section}.cert"), format!("{section}.key"));
        let has_cert = self.file(&cert_name, cert, check);
        let has_key = self.file(&key_name, key, pem::private_key);
        if !has_cert || !has_key {
            return false;
        }
        let together = pem::together(cert, key);
        if let Err(reason) = &together {
            self.wrong(&key_name, &[&cert_name], reason);
        }
        together.is_ok()
    }

    fn listener_tls(&mut self, section: &str, tls: &ListenerTlsSettings) {
        let name = |rest: &str| format!("{section}.{rest}");
        let has = |path: &Path| !path.as_os_str().is_empty();
        self.both(section, &tls.cert, &tls.key);
        let asks = tls.client_auth != ClientAuth::None;
        if has(&tls.client_ca) != asks {
            let reason = if asks {
                "\"optional\" and \"required\" need client_ca"
            } else {
                "\"none\" asks for no certificate, so client_ca has no use; write \"optional\" or \
                 \"required\""
            };
            self.wrong(&name("client_auth"), &[&name("client_ca")], reason);
        } else if asks && !has(&tls.cert) {
            let reason = "a listener without TLS sees no certificates; set cert and key";
            self.wrong(&name("client_auth"), &[&name("cert")], reason);
        }
        self.file(&name("client_ca"), &tls.client_ca, pem::authorities);
        self.identity(section, &tls.cert, &tls.key, pem::server_certificate);
    }

    fn listeners(&mut self, settings: &Config) {
        let http = settings.http.enabled;
        let listeners = [
            ("grpc.listen", Some(settings.grpc.listen)),
            ("http.listen", http.then_some(settings.http.listen)),
            ("redis.listen", settings.redis.listen),
            ("peer.listen", Some(settings.peer.listen)),
            ("admin.listen", Some(settings.admin.listen)),
        ];
        let mut ports = BTreeSet::new();
        for (name, address) in listeners {
            let Some(address) = address else { continue };
            let known = !self.unsure.has(name);
            if known && address.port() != 0 && !ports.insert(address.port()) {
                self.wrong(name, &[], "another listener already uses this port");
            }
        }
        self.listener_tls("grpc.tls", &settings.grpc.tls);
        self.listener_tls("http.tls", &settings.http.tls);
        self.listener_tls("redis.tls", &settings.redis.tls);
        self.listener_tls("admin.tls", &settings.admin.tls);
    }

    fn auth(&mut self, settings: &Config) {
        let auth = &settings.auth;
        let names = auth.anonymous.iter().map(String::as_str);
        if let Err(reason) = Actions::parse(names.clone()) {
            self.wrong("auth.anonymous", &[], reason);
        }
        let anonymous: Vec<Action> = names.filter_map(Action::of_role).collect();
        let (admin, insecure) = (settings.admin.listen, settings.admin.insecure);
        if let Some(reason) = open_administration(&anonymous, Some(admin), insecure) {
            let rests_on = ["admin.listen", "admin.insecure"];
            self.wrong("auth.anonymous", &rests_on, reason);
        }
        let grants = auth::check_grants(&auth.grants);
        if let Err(reason) = grants {
            self.wrong("auth.grants", &[], reason);
        }
        self.file("auth.token_file", &auth.token_file, auth::check_tokens);
        self.jwt(settings);
        for (name, hosts) in [
            ("http.allowed_hosts", &settings.http.allowed_hosts),
            ("admin.allowed_hosts", &settings.admin.allowed_hosts),
        ] {
            let checked = hosts.iter().map(|host| auth::check_host(host));
            if let Err(reason) = checked.collect::<Result<(), _>>() {
                self.wrong(name, &[], reason);
            }
        }
    }

    fn jwt(&mut self, settings: &Config) {
        let jwt = &settings.auth.jwt;
        let file = !jwt.jwks_file.as_os_str().is_empty();
        if file && !jwt.jwks_url.is_empty() {
            self.wrong(
                "auth.jwt.jwks_file",
                &["auth.jwt.jwks_url"],
                "keys are in a file or behind a URL, not both",
            );
        }
        if !file && jwt.jwks_url.is_empty() {
            return;
        }
        for (name, value) in [
            ("auth.jwt.issuer", &jwt.issuer),
            ("auth.jwt.audience", &jwt.audience),
        ] {
            if value.is_empty() {
                let reason = "must be set where JWTs count, or those for others would count, too";
                self.wrong(name, &[], reason);
            }
        }
        self.file("auth.jwt.jwks_file", &jwt.jwks_file, auth::check_jwks);
        self.file("auth.jwt.ca", &jwt.ca, pem::certificates);
        self.file("auth.jwt.bearer_file", &jwt.bearer_file, pem::text);
    }

    fn groups(&mut self, settings: &Config) {
        let mut names = BTreeSet::new();
        if settings.groups.len() > usize::from(u16::MAX) {
            self.wrong("groups", &[], format!("at most {} groups", u16::MAX));
        }
        for (number, group) in settings.groups.iter().enumerate() {
            let name = |rest: &str| format!("groups[{number}].{rest}");
            let known = !self.unsure.has(&name("name"));
            if known && !names.insert(&group.name) {
                self.wrong(&name("name"), &[], "another group already has this name");
            }
            if !is_group_name(&group.name) {
                self.wrong(&name("name"), &[], GROUP_NAME_RULE);
            }
            if let Err(reason) = largest_value(group.max_value, settings.cache.capacity) {
                self.wrong(&name("max_value"), &["cache.capacity"], reason);
            }
            if group.soft_timeout_seconds > 0.0 && group.stale_if_error_seconds == 0.0 {
                let reason = "needs stale_if_error_seconds: past its life, no value is kept else";
                let rests_on = name("stale_if_error_seconds");
                self.wrong(&name("soft_timeout_seconds"), &[&rests_on], reason);
            }
            self.origin(group, &name);
        }
    }

    fn origin(&mut self, group: &GroupSettings, name: &impl Fn(&str) -> String) {
        let (origin, kind) = (&group.origin, name("origin.kind"));
        match origin.kind {
            OriginKind::Http => {
                if let Err(error) = UrlTemplate::new(origin.url.as_str()) {
                    self.wrong(&name("origin.url"), &[&kind], error.message());
                }
                if let Err(error) = template::kept_headers(&origin.keep_headers) {
                    self.wrong(&name("origin.keep_headers"), &[&kind], error.message());
                }
                if let Err(error) = template::headers(&origin.headers) {
                    self.wrong(&name("origin.headers"), &[&kind], error.message());
                }
            }
            OriginKind::File => {
                if !origin.path.is_dir() {
                    let reason = "not a readable directory";
                    self.wrong(&name("origin.path"), &[&kind], reason);
                }
            }
        }
    }
}
