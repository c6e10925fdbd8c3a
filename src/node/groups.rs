//! The groups of a node, put together from their definitions: at the start, and whenever new
//! settings take effect.

use std::{collections::HashSet, sync::Arc};

use crate::{group::GroupDefinition, origin::guarded::Guarded, telemetry::metrics::Metrics};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Group, GroupChanges, Groups, Shared, Wanted},
    ports::Origin,
};

/// Puts exactly these groups in force. Where `kept` has an origin for a group, the group goes on
/// with it: a new one would not know of the loads that run.
pub(super) fn put_in_force(
    groups: &Groups,
    definitions: Vec<GroupDefinition>,
    kept: impl Fn(&str) -> Option<Arc<dyn Origin>>,
    metrics: &Metrics,
    shared: &Shared,
) -> Result<GroupChanges> {
    let mut names = HashSet::new();
    let mut wanted = Vec::new();
    for definition in definitions {
        let name = definition.rules.name.clone();
        if !names.insert(name.clone()) {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("two groups have the name '{name}'"),
            ));
        }
        let origin = kept(&name).unwrap_or_else(|| {
            let observer = metrics.group(&name);
            Arc::new(Guarded::new(definition.origin, observer, definition.bounds))
        });
        wanted.push(Wanted {
            rules: definition.rules,
            origin,
        });
    }
    groups.replace(wanted, |number, wanted| {
        let observer = metrics.group(&wanted.rules.name);
        let Wanted { rules, origin } = wanted;
        Group::new(number, rules, origin, observer, shared.clone())
    })
}
