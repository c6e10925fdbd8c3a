//! The settings that were given wrong, so that nothing can be concluded from their values.

use std::collections::BTreeSet;

/// Full names of settings and sections.
#[derive(Debug, Default)]
pub(super) struct Unsure(BTreeSet<String>);

impl Unsure {
    pub(super) fn add(&mut self, name: impl Into<String>) {
        self.0.insert(name.into());
    }

    /// Whether a setting was given wrong, or something above or below it in the tree.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|known| within(known, name) || within(name, known))
    }
}

/// Whether `name` is `outer` or lies inside it.
fn within(name: &str, outer: &str) -> bool {
    let rest = name.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::Unsure;

    #[test]
    fn a_section_covers_what_is_in_it() {
        let mut unsure = Unsure::default();
        unsure.add("groups[1].origin");
        unsure.add("node");
        for (name, expected) in [
            ("groups[1].origin.url", true),
            ("groups[1]", true),
            ("groups[1].name", false),
            ("groups[11].origin", false),
            ("groups", true),
            ("node.id", true),
            ("nodes", false),
        ] {
            assert_eq!(unsure.has(name), expected, "{name}");
        }
    }
}
