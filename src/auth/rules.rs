//! Who may do what, as settings say it.

use std::path::PathBuf;

use super::action::Action;
#[cfg(feature = "cli")]
use super::jwt::JwtRules;

/// Who may do what on a node's listeners. Calls from within the process need no permission.
///
/// ```
/// use gaocache::{Action, Settings};
///
/// let mut settings = Settings::loopback("node-0");
/// // Anyone who reaches the listeners may get values, and remove them.
/// settings.auth.anonymous = vec![Action::Read, Action::Remove];
/// // Who shows a certificate of this name may also purge one group.
/// settings.auth.grants = vec!["certificate:spiffe://shop/web purge users".into()];
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AuthRules {
    /// What everybody may do, in all groups, without a proof of who they are.
    pub anonymous: Vec<Action>,
    /// What the holders of client certificates and JWTs may do: `certificate:NAME ROLES [GROUPS]`
    /// or `jwt:SUBJECT ROLES [GROUPS]` each, lists separated by commas.
    pub grants: Vec<String>,
    /// File with bearer tokens: `NAME SHA256 ROLES [GROUPS]` a line. It is followed.
    pub token_file: Option<PathBuf>,
    /// Where the audit of changes goes.
    pub audit: AuditTo,
    /// Which JWTs count.
    #[cfg(feature = "cli")]
    pub(crate) jwt: Option<JwtRules>,
}

impl Default for AuthRules {
    /// Everybody may read, and nothing else.
    fn default() -> Self {
        Self {
            anonymous: vec![Action::Read],
            grants: Vec::new(),
            token_file: None,
            audit: AuditTo::Off,
            #[cfg(feature = "cli")]
            jwt: None,
        }
    }
}

/// Where the audit of changes goes.
///
/// ```
/// use gaocache::{AuditTo, Settings};
///
/// let mut settings = Settings::loopback("node-0");
/// settings.auth.audit = AuditTo::File("/var/log/gaocache/audit.json".into());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditTo {
    /// Nowhere.
    #[default]
    Off,
    /// On standard output, between the lines of the log.
    Stdout,
    /// On standard error.
    Stderr,
    /// At the end of this file.
    File(PathBuf),
}

#[cfg(feature = "cli")]
impl AuditTo {
    /// As the setting says it: a word, or a file.
    pub(crate) fn named(text: &str) -> Self {
        match text {
            "off" | "" => Self::Off,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }
}
