//! The listeners for clients, their TLS, and who may do what there.

use std::{collections::BTreeSet, path::Path};

use super::Checks;
use crate::{
    auth::{self, Action, Actions},
    config::{
        listener_tls::{ClientAuth, ListenerTlsSettings},
        pem,
        settings::Config,
    },
    settings::open_administration,
};

impl Checks<'_> {
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

    pub(super) fn listeners(&mut self, settings: &Config) {
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

    pub(super) fn auth(&mut self, settings: &Config) {
        let auth = &settings.auth;
        let names = auth.anonymous.iter().map(String::as_str);
        if let Err(reason) = Actions::parse(names.clone()) {
            self.wrong("auth.anonymous", &[], reason);
        }
        let anonymous: Vec<Action> = names.filter_map(Action::of_role).collect();
        let (admin, insecure) = (settings.admin.listen, settings.admin.insecure);
        if let Some(reason) = open_administration(&anonymous, Some(admin), insecure) {
            let rests_on = ["admin.listen", "admin.insecure"];
            let what =
                format!("{reason}; let admin.listen be on loopback, or set admin.insecure = true");
            self.wrong("auth.anonymous", &rests_on, what);
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
                "set either a file or a URL, not both",
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
                let reason = "must be set if JWTs are accepted, or those for other services would be accepted too";
                self.wrong(name, &[], reason);
            }
        }
        self.file("auth.jwt.jwks_file", &jwt.jwks_file, auth::check_jwks);
        self.file("auth.jwt.ca", &jwt.ca, pem::authorities);
        self.file("auth.jwt.bearer_file", &jwt.bearer_file, pem::text);
    }
}
