//! Which names of a certificate make its holder a peer, and which member it is then.

use std::{error::Error as StdError, sync::Arc};

use rustls::{Error as TlsError, OtherError};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use gaocache_core::error::{Error, ErrorKind};

/// Stands for the id of a member.
const ID: &str = "{id}";
/// Stands for any text.
const ANY: &str = "*";

/// Names that peers may have: DNS names or URIs such as SPIFFE ids.
#[derive(Clone, Debug)]
pub(crate) struct AllowedPeers(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    before: String,
    /// What may come between, and what after it; `None`: the name is exactly `before`.
    rest: Option<(Between, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Id,
    Anything,
}

/// The members that a certificate is valid for.
pub(super) type Members = Option<Vec<Arc<str>>>;

impl AllowedPeers {
    /// Reads the patterns of the settings.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn parse(patterns: &[String]) -> Result<Self, String> {
        if patterns.is_empty() {
            let what = "name at least one peer: a certificate of the authority alone makes nobody a \
                        node; \"*\" allows any";
            return Err(what.into());
        }
        let patterns = patterns.iter().map(|it| Pattern::parse(it));
        patterns.collect::<Result<_, _>>().map(Self)
    }

    /// The members that a certificate with these names is valid for; `None` for none at all.
    pub(super) fn members<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<Members> {
        let mut ids = Vec::new();
        for pattern in &self.0 {
            for name in names.clone() {
                match (pattern.between(name), &pattern.rest) {
                    (Some(id), Some((Between::Id, _))) => ids.push(id.into()),
                    (Some(_), _) => return Some(None),
                    (None, _) => {}
                }
            }
        }
        (!ids.is_empty()).then_some(Some(ids))
    }

    /// The same for a certificate as a handshake shows it.
    pub(super) fn of(&self, certificate: &[u8]) -> Result<Members, TlsError> {
        let names = alternative_names(certificate)?;
        self.members(names.iter().map(String::as_str))
            .ok_or_else(|| {
                TlsError::General("no name of the certificate is allowed for a peer".into())
            })
    }

    /// Whether the holder of the first certificate of a file can be the member with that id.
    ///
    /// # Errors
    /// Why not.
    #[cfg(feature = "cli")]
    pub(crate) fn accept(&self, file: &[u8], id: &str) -> Result<(), String> {
        let chain = super::pem::certificates(file)?;
        let names = alternative_names(&chain[0]).map_err(|error| error.to_string())?;
        let has = format!("the certificate is for: {}", names.join(", "));
        match self.members(names.iter().map(String::as_str)) {
            None => Err(format!("none of its names is in peer.allowed_peers; {has}")),
            Some(Some(ids)) if !ids.iter().any(|it| **it == *id) => Err(format!(
                "peer.allowed_peers does not allow it for the node '{id}'; {has}"
            )),
            Some(_) => Ok(()),
        }
    }
}

/// The DNS names and URIs of a certificate.
pub(super) fn alternative_names(certificate: &[u8]) -> Result<Vec<String>, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| unreadable("the certificate can't be read", error))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| unreadable("the names of the certificate can't be read", error))?;
    let names = names.map(|it| it.value.general_names.as_slice());
    let texts = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        });
    Ok(texts.collect())
}

fn unreadable(what: &str, error: impl StdError + Send + Sync + 'static) -> TlsError {
    let error = Error::new(ErrorKind::Configuration, format!("{what}: {error}")).with_source(error);
    TlsError::Other(OtherError(Arc::new(error)))
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let found = [(ID, Between::Id), (ANY, Between::Anything)];
        let mut found = found
            .into_iter()
            .filter_map(|(mark, between)| Some((text.split_once(mark)?, between)));
        let pattern = match found.next() {
            None => Self {
                before: text.into(),
                rest: None,
            },
            Some(((before, after), between)) => Self {
                before: before.into(),
                rest: Some((between, after.into())),
            },
        };
        let again = |it: &String| it.contains(ID) || it.contains(ANY);
        let rest = pattern.rest.as_ref();
        if text.is_empty() || again(&pattern.before) || rest.is_some_and(|(_, it)| again(it)) {
            return Err(format!(
                "'{text}' must be a DNS name or a URI with at most one {ID} or {ANY}"
            ));
        }
        Ok(pattern)
    }

    /// What comes between, if the name matches: one label of a DNS name or one segment of a URI.
    fn between<'a>(&self, name: &'a str) -> Option<&'a str> {
        let Some((between, after)) = &self.rest else {
            return (self.before == name).then_some("");
        };
        if *between == Between::Anything && self.before.is_empty() && after.is_empty() {
            return Some(name);
        }
        let found = name.strip_prefix(&*self.before)?.strip_suffix(&**after)?;
        let is_uri = self.before.contains("://");
        let fits = !found.is_empty() && !found.contains('/') && (is_uri || !found.contains('.'));
        fits.then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(patterns: &[&str], names: &[&str]) -> Option<Option<Vec<String>>> {
        let patterns: Vec<String> = patterns.iter().map(|&it| it.into()).collect();
        let allowed = AllowedPeers::parse(&patterns).expect("patterns");
        let members = allowed.members(names.iter().copied())?;
        Some(members.map(|ids| ids.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn a_name_makes_a_peer_of_any_member_or_of_the_one_that_it_names() {
        let spiffe = "spiffe://cluster/ns/cache/sa/gaocache";
        assert_eq!(allowed(&[spiffe], &["other", spiffe]), Some(None));
        assert_eq!(allowed(&[spiffe], &[&format!("{spiffe}/x"), ""]), None);
        assert_eq!(allowed(&["*"], &["a.b"]), Some(None));
        assert_eq!(allowed(&["*"], &[]), None);
        let headless = ["{id}.cache-headless.ns.svc"];
        let named = allowed(&headless, &["cache-0.cache-headless.ns.svc"]);
        assert_eq!(named, Some(Some(vec!["cache-0".into()])));
        for wrong in [
            ".cache-headless.ns.svc",
            "a.b.cache-headless.ns.svc",
            "cache-0.cache-headless.ns.svc.evil",
            "cache-headless.ns.svc",
        ] {
            assert_eq!(allowed(&headless, &[wrong]), None, "{wrong}");
        }
        let uri = ["spiffe://c/pod/{id}"];
        assert_eq!(
            allowed(&uri, &["spiffe://c/pod/a.b"]),
            Some(Some(vec!["a.b".into()]))
        );
        assert_eq!(allowed(&uri, &["spiffe://c/pod/a/b"]), None);
        assert_eq!(allowed(&["*.svc"], &["a.svc"]), Some(None));
        assert_eq!(allowed(&["*.svc"], &["a.b.svc"]), None);
    }

    #[test]
    fn a_certificate_that_can_t_be_read_is_refused_with_the_cause() {
        let allowed = AllowedPeers::parse(&["*".into()]).expect("a pattern");
        let Err(TlsError::Other(OtherError(error))) = allowed.of(b"no certificate") else {
            panic!("taken, or without its cause");
        };
        assert!(error.source().is_some(), "{error}");
    }

    #[test]
    fn patterns_that_say_nothing_or_too_much_are_refused() {
        for wrong in ["", "{id}{id}", "*.*", "{id}.*"] {
            assert!(AllowedPeers::parse(&[wrong.into()]).is_err(), "{wrong}");
        }
        assert!(AllowedPeers::parse(&[]).is_err());
    }
}
