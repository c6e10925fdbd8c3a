//! An etcd behind TLS and a password.

use std::{path::PathBuf, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::{Etcd, certificates, within};

/// An etcd that requires client certificates and, on demand, a password.
pub struct SecuredEtcd {
    etcd: Etcd,
    folder: tempfile::TempDir,
}

impl SecuredEtcd {
    /// One member, over `https`.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let path = |name: &str| folder.path().join(name);
        let argument = |name: &str, file: &str| format!("--{name}={}", path(file).display());
        let arguments = [
            argument("cert-file", "server.pem"),
            argument("key-file", "server.key"),
            argument("trusted-ca-file", "ca.pem"),
            "--client-cert-auth".to_owned(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let etcd = Etcd::with_scheme(1, "https", &arguments).await.remove(0);
        std::fs::write(path("password"), "secret\n").unwrap();
        Self { etcd, folder }
    }

    /// Where clients reach it.
    pub fn url(&self) -> &str {
        &self.etcd.url
    }

    /// One of its files: `ca.pem`, `client.pem`, `client.key`, `password`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From now on only the user `root` with the password of the file gets in.
    pub async fn demand_a_password(&self) {
        let read = |name: &str| std::fs::read(self.file(name)).unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("client.pem"), read("client.key")));
        let options = ConnectOptions::new().with_tls(tls);
        let added = async {
            loop {
                let admin = Client::connect([self.url()], Some(options.clone())).await;
                if let Ok(mut admin) = admin
                    && admin.user_add("root", "secret", None).await.is_ok()
                {
                    return admin;
                }
                // Between two attempts at a process that is just starting.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut admin = within("etcd answers over TLS", added).await;
        admin.user_grant_role("root", "root").await.unwrap();
        admin.auth_enable().await.unwrap();
    }
}
