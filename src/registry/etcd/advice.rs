//! What somebody can do about a problem with etcd, in the names that they set.
//!
//! etcd and the TLS below it name the problem, but not the setting; and what answers may be no etcd
//! at all.

/// What login and certificates are called where they are set.
pub struct Names {
    login: &'static str,
    identity: &'static str,
    authorities: &'static str,
}

/// In the settings of a node.
pub const SETTINGS: Names = Names {
    login: "registry.etcd.username and registry.etcd.password_file",
    identity: "registry.etcd.tls.cert and registry.etcd.tls.key",
    authorities: "registry.etcd.tls.ca",
};

/// As flags.
#[cfg(feature = "cli")]
pub const FLAGS: Names = Names {
    login: "--etcd-user and --etcd-password-file",
    identity: "--etcd-cert and --etcd-key",
    authorities: "--etcd-ca",
};

/// In a context of the command line.
#[cfg(feature = "cli")]
pub const CONTEXT: Names = Names {
    login: "etcd_user and etcd_password_file of the context",
    identity: "etcd_cert and etcd_key of the context",
    authorities: "etcd_ca of the context",
};

/// A problem, and what to do about it. `is_first`: etcd has never answered, so it may be none.
pub fn advised(problem: &str, names: &Names, is_first: bool) -> String {
    let has = |marks: &[&str]| marks.iter().any(|mark| problem.contains(mark));
    if has(&["tcp connect error", "dns error"]) {
        // Nothing was reached that could want something.
        return problem.to_owned();
    }
    let what = if has(&["user name is empty"]) {
        format!("etcd wants a login; see {}", names.login)
    } else if has(&["invalid user ID or password"]) {
        format!("etcd refuses the user or the password; see {}", names.login)
    } else if has(&["authentication is not enabled"]) {
        format!("etcd takes no login; leave out {}", names.login)
    } else if has(&["permission denied"]) {
        format!(
            "this user lacks a role for the keys of the service; grant it in etcd, or log in as \
             another user; see {}",
            names.login
        )
    } else if has(&["CertificateRequired"]) {
        format!("etcd wants a client certificate; see {}", names.identity)
    } else if has(&["fatal alert: BadCertificate", "fatal alert: UnknownCA"]) {
        format!(
            "etcd refuses the client certificate; see {}",
            names.identity
        )
    } else if has(&["UnknownIssuer"]) {
        let authorities = names.authorities;
        format!("no trusted CA signed the certificate of etcd; see {authorities}")
    } else if has(&["InvalidContentType", "tls handshake eof"]) {
        "does it speak TLS? If not, its URL begins with http://".to_owned()
    } else if is_first && has(&["https://"]) && has(&["transport error"]) {
        // The alert that says so often comes too late to be heard.
        format!(
            "does etcd want a client certificate? see {}",
            names.identity
        )
    } else if has(&["invalid compression flag", "not implemented"])
        || (is_first && has(&["transport error", "h2 protocol error"]))
    {
        "is this the port of an etcd for clients (by default 2379)? The URL of one that speaks TLS \
         begins with https://"
            .to_owned()
    } else {
        return problem.to_owned();
    };
    format!("{}; {what}", problem.trim_end_matches([':', ' ']))
}
