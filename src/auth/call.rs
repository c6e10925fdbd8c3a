//! What a caller wants done.

use super::action::Action;

/// A call that changes something, as the audit records it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// What it needs.
    pub(crate) action: Action,
    /// Its name.
    pub(crate) name: &'static str,
    /// Empty: it is about the node.
    pub(crate) group: &'a str,
    /// What it is about: the name of the field, and its value.
    pub(crate) detail: Option<(&'static str, &'a str)>,
}

impl<'a> Call<'a> {
    /// A removal.
    pub(crate) const fn remove(group: &'a str, key: &'a str) -> Self {
        Self {
            action: Action::Remove,
            name: "remove",
            group,
            detail: Some(("key", key)),
        }
    }

    /// A purge.
    pub(crate) const fn purge(group: &'a str) -> Self {
        Self {
            action: Action::Purge,
            name: "purge",
            group,
            detail: None,
        }
    }

    /// A purge of what carries a tag.
    pub(crate) const fn purge_tag(group: &'a str, tag: &'a str) -> Self {
        Self {
            action: Action::Purge,
            name: "purge",
            group,
            detail: Some(("tag", tag)),
        }
    }

    /// A token that a client logs in with, before it asks for anything.
    pub(crate) const fn login() -> Self {
        Self {
            // Whatever it will ask for. No line of the audit names it.
            action: Action::Read,
            name: "login",
            group: "",
            detail: None,
        }
    }

    /// What changes the node itself.
    pub(crate) const fn admin(name: &'static str, detail: Option<(&'static str, &'a str)>) -> Self {
        Self {
            action: Action::Admin,
            name,
            group: "",
            detail,
        }
    }
}
