//! What can be allowed.

use std::fmt;

/// What a caller may be allowed to do. The role of the same name allows it, and nothing else.
///
/// ```
/// use gaocache::Action;
///
/// assert_eq!(Action::Purge.name(), "purge");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Get values.
    Read,
    /// Remove a key from all nodes.
    Remove,
    /// Remove all keys of a group from all nodes.
    Purge,
    /// Change the node itself: its log level, its settings, the list of members. It belongs to no
    /// group, so only a grant for all groups gives it.
    Admin,
}

impl Action {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Remove, Self::Purge, Self::Admin];

    /// The name of the role that allows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Remove => "remove",
            Self::Purge => "purge",
            Self::Admin => "admin",
        }
    }

    /// The action that the role of that name allows.
    pub(crate) fn of_role(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions(u8);

impl Actions {
    pub(super) fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        let bits = actions.into_iter().map(Action::bit);
        Self(bits.fold(0, |all, one| all | one))
    }

    /// The actions of these roles.
    ///
    /// # Errors
    /// Which of them is not a role.
    pub(crate) fn parse<'a>(roles: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let actions = roles.into_iter().map(|role| {
            Action::of_role(role).ok_or_else(|| {
                let shown: String = role.escape_debug().take(64).collect();
                format!("'{shown}' is not a role; the roles are read, remove, purge and admin")
            })
        });
        actions.collect::<Result<Vec<_>, _>>().map(Self::of)
    }

    pub(crate) const fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn of_bits(bits: u8) -> Self {
        Self(bits)
    }
}
