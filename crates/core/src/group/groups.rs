//! The groups of a node, by name.

use std::{collections::HashMap, sync::Arc};

use super::Group;
use crate::error::{Error, ErrorKind, Result};

/// The groups of a node, by name.
#[derive(Clone, Default)]
pub struct Groups {
    by_name: Arc<HashMap<Arc<str>, Arc<Group>>>,
}

impl Groups {
    /// These groups.
    pub fn new(groups: impl IntoIterator<Item = Group>) -> Self {
        let by_name = groups
            .into_iter()
            .map(|group| (group.name().clone(), Arc::new(group)))
            .collect();
        Self {
            by_name: Arc::new(by_name),
        }
    }

    /// The group of that name.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn get(&self, name: &str) -> Result<&Arc<Group>> {
        self.by_name.get(name).ok_or_else(|| {
            // The name comes from outside: cut, or an attacker fills the log with it.
            let shown: String = name.chars().take(64).collect();
            Error::new(
                ErrorKind::UnknownGroup,
                format!("no group '{shown}' is configured here"),
            )
        })
    }

    /// Retires all of them; see [`Group::pass_through`].
    pub fn pass_through(&self) {
        self.iter().for_each(|group| group.pass_through());
    }

    /// Lets none of them take anything over any more; see [`Group::leave`].
    pub fn leave(&self) {
        self.iter().for_each(|group| group.leave());
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.by_name.values()
    }
}
