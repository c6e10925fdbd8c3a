//! Settings of single groups by their number, such as `groups[0].ttl_seconds`, come from variables
//! and flags, which stay while the file changes. A new file may have another group at that number:
//! it must never get what was meant for the one before, such as a secret in a header.

use std::collections::BTreeMap;

use figment::{
    Figment,
    value::{Dict, Value},
};

/// Which groups the numbers are about.
#[derive(Clone, Debug, Default)]
pub struct Numbered {
    /// The groups' names in the list, before settings by number.
    names: Vec<String>,
    /// Each number that a variable or flag names, with that source.
    given: BTreeMap<usize, String>,
}

impl Numbered {
    /// The list of `figment`, and the numbers that are the keys of `given`.
    pub(super) fn of<'a>(
        figment: &Figment,
        given: impl Iterator<Item = (&'a Dict, &'a str)>,
    ) -> Self {
        let listed = figment.find_value("groups").ok();
        let listed = listed.as_ref().and_then(Value::as_array).unwrap_or(&[]);
        let name = |group: &Value| Some(group.as_dict()?.get("name")?.as_str()?.to_owned());
        let numbers = given.flat_map(|(dict, source)| dict.keys().map(move |key| (key, source)));
        let numbers = numbers.filter_map(|(key, source)| {
            let number = key.strip_prefix("groups[")?.split(']').next()?;
            Some((number.parse().ok()?, source.to_owned()))
        });
        Self {
            names: listed
                .iter()
                .map(|it| name(it).unwrap_or_default())
                .collect(),
            given: numbers.collect(),
        }
    }

    /// Why a file with the list `after` can't take the place of one with this list, if it can't.
    pub fn moved(&self, after: &Self) -> Option<String> {
        let (number, source) = after
            .given
            .iter()
            .find(|(number, _)| self.names.get(**number) != after.names.get(**number))?;
        let name = |list: &Self| match list.names.get(*number) {
            Some(name) => format!("group '{name}'"),
            None => "no group".to_owned(),
        };
        Some(format!(
            "{source} sets groups[{number}], which was {} and is {} in the new file; keep the \
             order of the groups, or restart the node",
            name(self),
            name(after)
        ))
    }
}
