//! Where a service's keys are in etcd, and the names that a service may have so that the keys of
//! two never mix.

use gaocache_discovery::{KeyRange, expulsion::RecordKeys};

/// Keys of a service begin with its name and one of these, unless they are members' keys, which
/// begin with its name and `/`. So no other service may have a name that ends with one.
const ENDINGS: [&str; 5] = [".roster", ".history", ".young", ".cluster", "-notices"];

/// Checks that a service may have this name.
///
/// # Errors
/// What the name must be.
pub(crate) fn check_service(name: &str) -> Result<(), String> {
    let is_taken = ENDINGS.iter().any(|ending| name.ends_with(ending));
    if !name.is_empty() && !name.contains('/') && !is_taken {
        return Ok(());
    }
    let endings = ENDINGS.map(|ending| format!("'{ending}'")).join(", ");
    Err(format!(
        "must not be empty, contain '/', or end with any of {endings}"
    ))
}

/// Where a service's keys are in etcd.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The members that are registered, as Go's endpoints manager has it.
    pub(super) members: String,
    /// Their records, by which they are known after they vanished.
    pub(super) roster: String,
    /// Shows that somebody registered before.
    history: String,
    /// Stands for the first lease after that.
    young: String,
    /// The id of the cluster.
    pub(super) cluster: String,
    /// What members publish for those that they can't reach.
    pub(in crate::registry) notices: String,
    service: String,
}

impl Keys {
    /// Those of `service`.
    pub fn of(service: &str) -> Self {
        let [roster, history, young, cluster, notices] =
            ENDINGS.map(|ending| format!("{service}{ending}"));
        Self {
            members: format!("{service}/"),
            roster: roster + "/",
            history,
            young,
            cluster,
            notices: notices + "/",
            service: service.into(),
        }
    }

    /// What a member keeps beside its key.
    pub(super) fn records(&self, id: &str) -> RecordKeys {
        RecordKeys {
            record: format!("{}{id}", self.roster),
            history: self.history.clone(),
            young: self.young.clone(),
            cluster: self.cluster.clone(),
        }
    }

    /// The key that stands while the history is young.
    pub(super) fn young(&self) -> &str {
        &self.young
    }

    /// One range holds them all but the notices, so that their changes are seen in order: `.` comes
    /// right before `/`, and `0` right after.
    pub fn range(&self) -> KeyRange {
        let Self { service, .. } = self;
        KeyRange::new(format!("{service}."), format!("{service}0"))
    }
}

/// The id of the member whose key this is, if it begins with `prefix`. No id contains `/`, so keys
/// further below are somebody else's.
pub(super) fn id<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
    key.strip_prefix(prefix).filter(|id| !id.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_may_have_the_name_that_another_one_s_keys_begin_with() {
        for name in ["gaocache", "prod.cache", "a.roster.b", "a-b"] {
            assert_eq!(check_service(name), Ok(()), "{name}");
        }
        let Keys {
            members,
            roster,
            history,
            young,
            cluster,
            notices,
            ..
        } = Keys::of("a");
        for key in [members, roster, history, young, cluster, notices] {
            // A service of that name would have its members below the key, or be below it.
            let name = key.strip_suffix('/').unwrap_or(&key);
            let below = [format!("{name}/b"), name.to_owned()];
            let refused = below.iter().filter(|it| check_service(it).is_err());
            assert_eq!(refused.count(), if name == "a" { 1 } else { 2 }, "{key}");
        }
        assert!(check_service("").is_err());
    }
}
