//! What an unknown setting may have meant.

use super::schema::{SETTINGS, VARIABLE_PREFIX};

/// How alike two names are at least, from 0 to 1, for one to be suggested for the other.
const ALIKE: f64 = 0.6;

/// The setting or section that a name may have meant, in the schema's form. Looks among those of
/// the same section first: `cache.capcity`, `cahce`. A name that is at home elsewhere comes last:
/// `capacity`.
pub(super) fn suggest(name: &str) -> Option<String> {
    let (section, last) = split(name);
    let siblings = SETTINGS
        .iter()
        .filter_map(|setting| child(setting.name, section));
    let sibling = best(last, siblings.map(|child| (child, join(section, child))));
    let elsewhere = SETTINGS.iter().map(|setting| {
        let (_, own) = split(setting.name);
        (own, setting.name.to_owned())
    });
    // In another section, only a name that is all but the same can be meant.
    sibling
        .or_else(|| best(last, elsewhere).filter(|(alike, _)| *alike > 0.85))
        .map(|(_, name)| name)
}

/// The one of these names that a name may have meant.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let found = best(name, names.map(|it| (it, it.to_owned())));
    found.map(|(_, name)| name)
}

/// The variable that was meant by one with too few underscores, such as `GAOCACHE_CACHE_CAPACITY`.
/// Only for the exact name of a setting: Kubernetes adds variables of its own, and so may others.
pub(super) fn variable(given: &str) -> Option<String> {
    let prefix = VARIABLE_PREFIX.trim_end_matches('_');
    let rest = given.strip_prefix(prefix)?.to_lowercase();
    let words = || rest.split('_').filter(|word| !word.is_empty());
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let number = words().find(is_number);
    let named = words().filter(|word| !is_number(word));
    let named = named.collect::<Vec<_>>().join("_");
    let plain = |name: &str| name.replace("[]", "").replace('.', "_");
    let setting = SETTINGS.iter().find(|it| plain(it.name) == named)?;
    let levels = setting
        .name
        .replace("[]", &format!(".{}", number.unwrap_or("0")));
    Some(format!(
        "{VARIABLE_PREFIX}{}",
        levels.replace('.', "__").to_uppercase()
    ))
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// The name right below `section` on the way to `setting`.
fn child(setting: &'static str, section: &str) -> Option<&'static str> {
    let rest = if section.is_empty() {
        setting
    } else {
        setting.strip_prefix(section)?.strip_prefix('.')?
    };
    let child = rest.split('.').next()?;
    Some(child.trim_end_matches("[]"))
}

fn best<'a>(
    name: &str,
    candidates: impl Iterator<Item = (&'a str, String)>,
) -> Option<(f64, String)> {
    candidates
        .map(|(candidate, full)| (alike(name, candidate), full))
        .filter(|(alike, _)| *alike >= ALIKE)
        // The first of the best: the table's order is that of the reference.
        .fold(None, |best, next| match best {
            Some((alike, _)) if alike >= next.0 => best,
            _ => Some(next),
        })
}

fn alike(name: &str, candidate: &str) -> f64 {
    let shortened = |long: &str, short: &str| {
        let rest = long.strip_prefix(short);
        rest.is_some_and(|rest| rest.starts_with('_'))
    };
    if name == candidate {
        1.0
    } else if shortened(candidate, name) || shortened(name, candidate) {
        0.95
    } else if candidate.split('_').any(|word| word == name) {
        0.9
    } else {
        strsim::normalized_damerau_levenshtein(name, candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::{suggest, variable};

    #[test]
    fn what_was_meant_is_found() {
        for (name, meant) in [
            ("cahce", Some("cache")),
            ("group", Some("groups")),
            ("groups[].ttl", Some("groups[].ttl_seconds")),
            ("groups[].tll_seconds", Some("groups[].ttl_seconds")),
            ("groups[].orign", Some("groups[].origin")),
            ("groups[].url", Some("groups[].origin.url")),
            (
                "groups[].origin.concurrency",
                Some("groups[].origin.max_concurrency"),
            ),
            ("node.wieght", Some("node.weight")),
            ("peer.timeout", Some("peer.timeout_seconds")),
            ("capacity", Some("cache.capacity")),
            ("registry.etcd.endpoint", Some("registry.etcd.endpoints")),
            ("zzz", None),
        ] {
            assert_eq!(suggest(name).as_deref(), meant, "{name}");
        }
    }

    #[test]
    fn a_variable_with_too_few_underscores_is_not_ignored_unless_it_is_no_setting() {
        for (given, meant) in [
            ("GAOCACHE_CACHE_CAPACITY", Some("GAOCACHE__CACHE__CAPACITY")),
            (
                "GAOCACHE__CACHE_CAPACITY",
                Some("GAOCACHE__CACHE__CAPACITY"),
            ),
            (
                "GAOCACHE_REGISTRY__ETCD__LEASE_TTL_SECONDS",
                Some("GAOCACHE__REGISTRY__ETCD__LEASE_TTL_SECONDS"),
            ),
            (
                "GAOCACHE_GROUPS__3__TTL_SECONDS",
                Some("GAOCACHE__GROUPS__3__TTL_SECONDS"),
            ),
            // What Kubernetes adds for services, and the program's own.
            ("GAOCACHE_PORT", None),
            ("GAOCACHE_SERVICE_PORT_GRPC", None),
            ("GAOCACHE_PORT_7070_TCP_ADDR", None),
            ("GAOCACHE_CONFIG_FILE", None),
            ("GAOCACHE_ETCD", None),
            ("PATH", None),
        ] {
            assert_eq!(variable(given).as_deref(), meant, "{given}");
        }
    }
}
