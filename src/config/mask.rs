//! What of a value may be shown: no password in a URL, no header, nothing of an unknown setting.
//!
//! Whatever prints a setting, for `gaocache config` or in an error, goes through here.

use figment::value::Value;

use super::{schema::Takes, show};

/// Stands for a secret.
pub(super) const MASK: &str = "***";

/// A checked value as TOML, without its secrets.
pub(super) fn checked(takes: Takes, value: &toml::Value) -> String {
    let masked = match (takes, value) {
        (Takes::Url, toml::Value::String(text)) => url(text).into(),
        (Takes::Urls, toml::Value::Array(list)) => list
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.clone(), |it| url(it).into())
            })
            .collect::<Vec<toml::Value>>()
            .into(),
        (Takes::Table, toml::Value::Table(table)) => table
            .keys()
            .map(|name| (name.clone(), MASK.into()))
            .collect::<toml::Table>()
            .into(),
        _ => value.clone(),
    };
    masked.to_string()
}

/// A value as it was given, without its secrets; `None` where all of it may be one.
pub(super) fn given(takes: Takes, value: &Value) -> Option<String> {
    match (takes, value) {
        (Takes::Url, Value::String(_, text)) => Some(format!("{:?}", url(text))),
        (Takes::Urls, Value::String(_, text)) => {
            let masked: Vec<String> = text.split(',').map(url).collect();
            Some(format!("{:?}", masked.join(",")))
        }
        (Takes::Table, Value::String(..)) => None,
        _ => Some(show::value(value)),
    }
}

/// A URL without its password. Its authority ends at the first slash; but if its port is not a
/// number, that may be the beginning of a password with a slash in it.
pub(crate) fn url(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let at = authority.rfind('@').or_else(|| {
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        let no_port = port.is_some_and(|port| port.parse::<u16>().is_err());
        rest.rfind('@').filter(|_| no_port)
    });
    let Some(at) = at else {
        return text.to_owned();
    };
    // A user's name alone may be a token.
    let user = match rest[..at].split_once(':') {
        Some((user, _)) => format!("{user}:"),
        None => String::new(),
    };
    format!("{scheme}{user}{MASK}{}", &rest[at..])
}

/// Whether there is a user in a URL, with a password or without.
pub(crate) fn has_user(text: &str) -> bool {
    url(text) != text
}

/// Whether a value was masked when it was printed, and so is not a value.
pub(super) fn was_masked(text: &str) -> bool {
    text == MASK || text.contains(&format!("{MASK}@"))
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (given, shown) in [
            ("http://o:8000/{key}", "http://o:8000/{key}"),
            ("http://u:p@o:8000/{key}", "http://u:***@o:8000/{key}"),
            ("https://token@o/{key}?a=b@c", "https://***@o/{key}?a=b@c"),
            ("http://o/@scope/{key}", "http://o/@scope/{key}"),
            ("http://u:p@ss@o/x", "http://u:***@o/x"),
            ("http://u:p/w@o/x", "http://u:***@o/x"),
            ("u:p@o:2379", "u:***@o:2379"),
            ("http://[::1]:2379", "http://[::1]:2379"),
        ] {
            assert_eq!(url(given), shown, "{given}");
        }
    }
}
