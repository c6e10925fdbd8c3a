//! The groups of a node: what they are defined by, and how they are put together.

use std::{sync::Arc, time::Duration};

use crate::{
    origin::guarded::{Bounds, Guarded},
    telemetry::metrics::Metrics,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Group, GroupRules, Groups, Shared},
    ports::Origin,
    store::GroupId,
};

/// A group that a program brings along, with its own loader.
pub struct GroupDefinition {
    /// Name, times to live, largest value.
    pub rules: GroupRules,
    /// Where values come from.
    pub origin: Arc<dyn Origin>,
    /// How much the origin is asked at once.
    pub bounds: Bounds,
}

impl GroupDefinition {
    /// A group whose values live for `ttl`, of at most 8 MiB, loaded 64 at a time.
    pub fn new(name: &str, ttl: Duration, origin: Arc<dyn Origin>) -> Self {
        Self {
            rules: GroupRules {
                name: name.into(),
                ttl: Some(ttl),
                negative_ttl: Duration::ZERO,
                max_value: 8 << 20,
            },
            origin,
            bounds: Bounds {
                max_concurrency: 64,
                max_queue: 10_000,
                ramp: Duration::ZERO,
            },
        }
    }
}

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
