//! The groups of a node, put together from their definitions: at the start, and whenever new
//! settings take effect.

use std::{collections::HashSet, sync::Arc};

use crate::{
    group::GroupDefinition,
    origin::{compressed::Compression, guarded::Guarded, mapped::Mapped},
    telemetry::metrics::Metrics,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Group, GroupChanges, Groups, Shared, Wanted},
    ports::LoadQueue,
};

/// Makes exactly these groups the current ones. Where `kept` has an origin for a group, the group
/// keeps it: a new one would not know of the running loads. `prepare` runs when nothing can fail
/// any more, and before any of the changes takes effect.
///
/// # Errors
/// [`ErrorKind::Configuration`]; nothing has changed then, not even a metric.
pub(super) fn put_in_force(
    groups: &Groups,
    definitions: Vec<GroupDefinition>,
    kept: impl Fn(&str) -> Option<Arc<dyn LoadQueue>>,
    metrics: &Metrics,
    shared: &Shared,
    prepare: impl FnOnce(),
) -> Result<GroupChanges> {
    let names = || definitions.iter().map(|it| &it.rules.name);
    let mut seen = HashSet::new();
    if let Some(name) = names().find(|name| !seen.insert(*name)) {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!("two groups have the name '{name}'"),
        ));
    }
    groups.has_room(names())?;
    prepare();
    let mut wanted = Vec::new();
    for definition in definitions {
        let name = definition.rules.name.clone();
        let origin = kept(&name).unwrap_or_else(|| {
            let (observer, bounds) = (metrics.group(&name), definition.bounds);
            let guarded = Guarded::new(definition.origin, observer.clone(), bounds);
            let guarded: Arc<dyn LoadQueue> = Arc::new(guarded);
            match bounds.compress_min_bytes {
                0 => guarded,
                least => {
                    let most = definition.rules.max_value;
                    let compression = Compression::new(observer, least, most);
                    Arc::new(Mapped::new(guarded, compression))
                }
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{NodeBuilder, loader, settings::Settings};

    fn group(name: &str) -> GroupDefinition {
        let origin = loader(async |key: String| Ok::<_, Error>(key));
        GroupDefinition::new(name, origin).ttl(Duration::from_secs(1))
    }

    #[tokio::test]
    async fn groups_that_are_refused_change_nothing() {
        let builder = NodeBuilder::new(Settings::standalone("n")).group(group("a"));
        let node = builder.bind().await.expect("a node");
        let parts = &node.parts;
        let mut prepared = false;
        let twice = vec![group("b"), group("c"), group("c")];
        let (groups, metrics, shared) = (&parts.groups, &parts.metrics, &parts.shared);
        let put = put_in_force(groups, twice, |_| None, metrics, shared, || prepared = true);
        assert_eq!(put.expect_err("refused").kind(), ErrorKind::Configuration);
        assert!(!prepared);
        assert!(groups.get("a").is_ok() && groups.get("b").is_err());
        let shown = String::from_utf8(metrics.render().expect("metrics")).expect("text");
        assert!(
            shown.contains("\"a\"") && !shown.contains("\"b\""),
            "{shown}"
        );
    }
}
