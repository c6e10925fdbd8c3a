//! The files of a small certificate authority.

use std::path::Path;

use crate::Authority;

/// Writes `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
pub fn certificates(folder: &Path) {
    let authority = Authority::new();
    std::fs::write(folder.join("ca.pem"), &authority.pem).unwrap();
    for name in ["server", "client"] {
        let issued = authority.issue(&["127.0.0.1", "localhost"]);
        let (certificate, key) = (issued.certificate.pem(), issued.pair.serialize_pem());
        std::fs::write(folder.join(format!("{name}.pem")), certificate).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key).unwrap();
    }
}
