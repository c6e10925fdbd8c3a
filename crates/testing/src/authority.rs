//! Certificates for tests, and folders with files of them.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate of an authority, and its key.
pub struct Issued {
    /// The certificate.
    pub certificate: rcgen::Certificate,
    /// Its key.
    pub pair: KeyPair,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = "test authority";
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for these hosts and, where they have a scheme, URIs.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 4096)
    }

    /// The same, good until that year begins.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Issued {
        self.issue_with(names, |params| {
            params.not_after = date_time_ymd(year, 1, 1);
        })
    }

    /// The same, good from the beginning of that year on.
    pub fn issue_from(&self, names: &[&str], year: i32) -> Issued {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(year, 1, 1);
        })
    }

    /// One that only clients may show.
    pub fn issue_for_client(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        for uri in uris {
            let uri = SanType::URI(uri.try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        params.not_after = date_time_ymd(4096, 1, 1);
        change(&mut params);
        let pair = KeyPair::generate().unwrap();
        Issued {
            certificate: params.signed_by(&pair, &self.issuer).unwrap(),
            pair,
        }
    }
}

/// A folder with files in PEM format.
pub struct PemFolder(tempfile::TempDir);

impl Default for PemFolder {
    fn default() -> Self {
        Self::new()
    }
}

impl PemFolder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where a file is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// The same, as text.
    pub fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    /// Writes a file as Kubernetes does: a reader sees the old one or the new one.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(file)).unwrap();
    }

    /// Writes a certificate and its key as `NAME.pem` and `NAME.key`.
    pub fn write_identity(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.pem"), &issued.certificate.pem());
        self.write(&format!("{name}.key"), &issued.pair.serialize_pem());
    }
}
