//! Which requests a browser may have been tricked into: those for a host name that is not this
//! node's (DNS rebinding), and those that another site's page sends.
//!
//! A page of an attacker's may have its own host name resolve to a node's address, and then reads
//! the node's answers as its own. So names are checked; addresses need no check, since a page
//! that was loaded from an address belongs to whoever controls the address.

use std::net::{IpAddr, Ipv6Addr};

use http::{
    HeaderMap, Method, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

/// The browser's word on who sends a request (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Below these, no public name exists.
const NOBODY_ELSE_S: [&str; 3] = ["*.localhost", "*.svc", "*.cluster.local"];

/// Host names that a listener answers for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    any: bool,
    names: Vec<Box<str>>,
    /// Ends of names, with a dot at their begin.
    ends: Vec<Box<str>>,
}

/// Why a request is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdirected {
    /// It is for another host.
    Host,
    /// Another site's page sends it.
    Site,
}

impl Hosts {
    /// Addresses, names that no stranger can have (those without a dot, and those of Kubernetes'
    /// services), these names of the node's, and what else is allowed: names, with `*.` before them
    /// all names below, and `*` alone for any.
    pub(crate) fn new<'a>(own: impl IntoIterator<Item = &'a str>, allowed: &'a [String]) -> Self {
        let mut hosts = Self::default();
        let given = allowed.iter().map(String::as_str);
        for name in NOBODY_ELSE_S.into_iter().chain(own).chain(given) {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some("") => hosts.any = true,
                Some(end) => hosts.ends.push(end.into()),
                None => hosts.names.push(name.into()),
            }
        }
        hosts
    }

    /// Whether a request is to be heard.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Misdirected> {
        let host = uri.authority().map(Authority::as_str);
        let named = headers.get_all(HOST).iter().map(|it| it.to_str().ok());
        let all_known = || {
            let mut all = host.map(Some).into_iter().chain(named);
            all.all(|it| it.is_some_and(|it| self.knows(it)))
        };
        if !self.any && !all_known() {
            return Err(Misdirected::Host);
        }
        // A get changes nothing, and the browser keeps its answer from another site.
        let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        if changes && is_of_another_site(uri, headers) {
            return Err(Misdirected::Site);
        }
        Ok(())
    }

    fn knows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        // A host in brackets ends with them for the parser, whatever comes behind.
        let whole = authority.as_str();
        let whole = whole.rsplit_once('@').map_or(whole, |it| it.1);
        let behind = whole.strip_prefix(authority.host()).unwrap_or(whole);
        let port = behind.strip_prefix(':').unwrap_or(behind);
        if !port.bytes().all(|it| it.is_ascii_digit()) {
            return false;
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if let Some(inner) = host.strip_prefix('[') {
            return inner.trim_end_matches(']').parse::<Ipv6Addr>().is_ok();
        }
        host.parse::<IpAddr>().is_ok()
            || (!host.is_empty() && !host.contains('.'))
            || self.names.iter().any(|it| **it == *host)
            || self.ends.iter().any(|end| host.ends_with(&**end))
    }
}

/// Whether a browser says so. Programs send neither header.
fn is_of_another_site(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let asked = uri.authority().map(Authority::as_str);
    let asked = asked.or_else(|| headers.get(HOST)?.to_str().ok());
    let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
    match (origin, asked) {
        (Some((_, origin)), Some(asked)) => !origin.eq_ignore_ascii_case(asked),
        _ => true,
    }
}

/// Whether a host may stand in the list of those that are allowed.
///
/// # Errors
/// Why not.
#[cfg(feature = "cli")]
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let is_part = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    if name == "*" || (!rest.is_empty() && !rest.starts_with('.') && rest.chars().all(is_part)) {
        return Ok(());
    }
    Err("write host names without a port, such as cache.shop.svc, *.example.com, or * for any")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(
        hosts: &Hosts,
        method: Method,
        headers: &[(&'static str, &str)],
    ) -> Option<Misdirected> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let uri = Uri::from_static("/v1/users/42");
        hosts.check(&method, &uri, &map).err()
    }

    #[test]
    fn only_names_of_the_node_s_and_addresses_are_answered_for() {
        let hosts = Hosts::new(
            ["n0.test"],
            &["*.shop.test".into(), "cache.example.com".into()],
        );
        let of = |host: &str| checked(&hosts, Method::GET, &[("host", host)]);
        for good in [
            "localhost:8080",
            "127.0.0.1",
            "10.0.0.7:8080",
            "[::1]:8080",
            "cache:8080",
            "n0.test:1",
            "N0.Test.",
            "cache.example.com",
            "a.shop.test",
            "x.localhost",
            "cache.shop.svc",
            "cache.shop.svc.cluster.local:8080",
        ] {
            assert_eq!(of(good), None, "{good}");
        }
        for wrong in [
            "evil.com",
            "n0.test.evil.com",
            "example.com",
            "shop.test",
            "10.0.0.7.evil.com",
            "",
            ":8080",
            "localhost.evil.com:8080",
            "cache.shop.svc.evil.com",
            "a@b:c:d",
            "evilshop.test",
            "[::1].evil.com",
            "[evil].com:80",
            "[evil]",
            "10.0.0.7:evil",
            "8:.evil.com:8",
        ] {
            assert_eq!(of(wrong), Some(Misdirected::Host), "{wrong}");
        }
        let two = [("host", "localhost"), ("host", "evil.com")];
        assert_eq!(checked(&hosts, Method::GET, &two), Some(Misdirected::Host));
        assert_eq!(checked(&hosts, Method::GET, &[]), None, "no browser");
        let any = Hosts::new([], &["*".into()]);
        assert_eq!(checked(&any, Method::GET, &[("host", "evil.com")]), None);
    }

    #[test]
    fn another_site_s_page_changes_nothing() {
        let hosts = Hosts::new([], &[]);
        let of = |further: &[(&'static str, &str)]| {
            let headers = [&[("host", "localhost:9090")], further].concat();
            checked(&hosts, Method::POST, &headers)
        };
        let site = Some(Misdirected::Site);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("origin", "http://localhost:9090")]), None);
        assert_eq!(of(&[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(of(&[("origin", "http://localhost:8000")]), site);
        assert_eq!(of(&[("origin", "null")]), site);
        for other in ["cross-site", "same-site"] {
            assert_eq!(of(&[("sec-fetch-site", other)]), site);
        }
        let get = [("host", "localhost"), ("sec-fetch-site", "cross-site")];
        assert_eq!(checked(&hosts, Method::GET, &get), None);
    }

    #[cfg(feature = "cli")]
    #[test]
    fn a_list_of_hosts_has_names_without_ports() {
        for good in ["*", "a", "*.a.b", "a-b.c"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for wrong in ["", "*.", "a:1", "http://a", "a*", "*a", "*..a"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
