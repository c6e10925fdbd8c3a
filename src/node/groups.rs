//! The groups of a node, put together from their definitions.

use std::sync::Arc;

use crate::{group::GroupDefinition, origin::guarded::Guarded, telemetry::metrics::Metrics};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Group, Groups, Shared},
    key::GroupId,
};

/// The groups over what they share, numbered in order.
pub(super) fn assemble(
    definitions: Vec<GroupDefinition>,
    metrics: &Metrics,
    shared: &Shared,
) -> Result<Groups> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, definition) in definitions.into_iter().enumerate() {
        let name = &definition.rules.name;
        if groups.iter().any(|group| group.name() == name) {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("two groups have the name '{name}'"),
            ));
        }
        let id = u16::try_from(number).map(GroupId).map_err(|error| {
            let what = "too many groups";
            Error::new(ErrorKind::Configuration, what).with_source(error)
        })?;
        let observer = metrics.group(name);
        let origin = Guarded::new(definition.origin, observer.clone(), definition.bounds);
        groups.push(Group::new(
            id,
            definition.rules,
            Arc::new(origin),
            observer,
            shared.clone(),
        ));
    }
    Ok(Groups::new(groups))
}
