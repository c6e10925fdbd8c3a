//! What is granted to whom, as `auth.grants` and the file of tokens write it.

use std::collections::HashMap;

use super::action::{Action, Actions};

/// The most characters of a wrong word that an error shows.
const SHOWN: usize = 64;

/// Actions in some groups, or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    actions: Actions,
    /// `None`: all, and the node itself.
    groups: Option<Box<[Box<str>]>>,
}

impl Grant {
    /// `ROLES [GROUPS]`: each a list with commas. Without groups, or with `*`, all are meant.
    pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let roles = words.next().ok_or("its roles are missing")?;
        let actions = Actions::parse(roles.split(','))?;
        let groups = words.next().unwrap_or("*");
        if words.next().is_some() {
            return Err("there is something after the groups; separate groups by commas".into());
        }
        let groups = (groups != "*").then(|| groups.split(',').map(Into::into).collect());
        let grant = Self { actions, groups };
        if grant.groups.is_some() && actions.contains(Action::Admin) {
            return Err("the role 'admin' belongs to no group; grant it without groups".into());
        }
        Ok(grant)
    }

    /// The groups that it names.
    #[cfg(feature = "cli")]
    pub(super) fn named(&self) -> Vec<String> {
        let groups = self.groups.iter().flatten();
        groups.map(ToString::to_string).collect()
    }

    pub(super) fn allows(&self, action: Action, group: &str) -> bool {
        self.actions.contains(action)
            && match &self.groups {
                None => true,
                Some(groups) => groups.iter().any(|it| **it == *group),
            }
    }
}

/// The grants of `auth.grants`, by what proves who somebody is.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// By a name in a client certificate.
    pub(super) certificates: HashMap<Box<str>, Vec<Grant>>,
    /// By the subject of a JWT.
    pub(super) subjects: HashMap<Box<str>, Vec<Grant>>,
}

impl Grants {
    /// Each is `certificate:NAME ROLES [GROUPS]` or `jwt:SUBJECT ROLES [GROUPS]`.
    pub(super) fn parse(lines: &[String]) -> Result<Self, String> {
        let mut grants = Self::default();
        for line in lines {
            let wrong = |reason: String| {
                let shown: String = line.escape_debug().take(SHOWN).collect();
                format!("'{shown}': {reason}")
            };
            let mut words = line.split_ascii_whitespace();
            let whom = words.next().unwrap_or_default();
            let (table, name) = match whom.split_once(':') {
                Some(("certificate", name)) => (&mut grants.certificates, name),
                Some(("jwt", name)) => (&mut grants.subjects, name),
                _ => {
                    let what = "write 'certificate:NAME ROLES' or 'jwt:SUBJECT ROLES', followed by groups \
                         if not all are meant";
                    return Err(wrong(what.into()));
                }
            };
            if name.is_empty() {
                return Err(wrong("the name is missing".into()));
            }
            let grant = Grant::parse(words).map_err(wrong)?;
            table.entry(name.into()).or_default().push(grant);
        }
        Ok(grants)
    }
}

/// To whom grants of `auth.grants` name a group, and which.
#[cfg(feature = "cli")]
pub(crate) fn named_groups(lines: &[String]) -> Vec<(String, String)> {
    let grants = lines.iter().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let whom = words.next()?.to_owned();
        Some((whom, Grant::parse(words).ok()?))
    });
    let named = grants.flat_map(|(whom, grant)| {
        let groups = grant.named().into_iter();
        groups.map(move |group| (whom.clone(), group))
    });
    named.collect()
}

/// Whether grants can be what `auth.grants` says.
#[cfg(feature = "cli")]
pub(crate) fn check(lines: &[String]) -> Result<(), String> {
    Grants::parse(lines).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Result<Grant, String> {
        Grant::parse(text.split_ascii_whitespace())
    }

    #[test]
    fn a_grant_is_for_its_groups_alone() {
        let some = grant("remove,purge users,orders").expect("a grant");
        assert!(some.allows(Action::Remove, "users") && some.allows(Action::Purge, "orders"));
        assert!(!some.allows(Action::Remove, "other") && !some.allows(Action::Read, "users"));
        for all in ["read,admin", "read,admin *"] {
            let all = grant(all).expect("a grant");
            assert!(all.allows(Action::Read, "any") && all.allows(Action::Admin, ""));
        }
    }

    #[test]
    fn a_grant_that_can_t_be_meant_is_refused() {
        for wrong in ["", "rule", "read users more", "admin users", "read,admin g"] {
            assert!(grant(wrong).is_err(), "{wrong}");
        }
        let lines = ["jwt:a", "token:a read", "certificate: read", "a read", ""];
        for wrong in lines {
            assert!(Grants::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_subject_may_contain_colons() {
        let lines = ["jwt:system:serviceaccount:shop:web remove".to_owned()];
        let grants = Grants::parse(&lines).expect("grants");
        assert!(
            grants
                .subjects
                .contains_key("system:serviceaccount:shop:web")
        );
    }
}
