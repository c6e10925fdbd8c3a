//! New settings for a node that runs: its groups with their origins, the limits on clients, and the
//! log. All of them take effect, or none.
//!
//! Settings that need a restart are ignored here; `config::schema` says which ones those are.

use std::{collections::HashMap, sync::Arc};

use super::{
    Node,
    admission::Admission,
    configured::{auth_rules, client_limits, definition, proxies, request_log},
    connection::Carrier,
    groups::put_in_force,
    parts::{Fixed, Parts, Stops},
    rules,
};
use crate::{
    admin::Reloads,
    auth::{Call, Permissions},
    config::{Config, GroupSettings, LogSettings},
    group::GroupDefinition,
    redis,
    rpc::routed::LiveRules,
    service::Service,
    telemetry::{level::LogLevel, line, requests},
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::GroupChanges,
};

/// A handle on a running node that applies new settings. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Live {
    parts: Arc<Parts>,
    service: Service,
    rules: LiveRules,
    redis: redis::Front,
    admission: Arc<Admission>,
    carrier: Carrier,
    permissions: Permissions,
    stops: Stops,
    fixed: Fixed,
}

impl Node {
    /// A handle that applies new settings while the node runs.
    pub(crate) fn live(&self) -> Live {
        Live {
            parts: self.parts.clone(),
            service: self.service.clone(),
            rules: self.rules.clone(),
            redis: self.redis.clone(),
            admission: self.admission.clone(),
            carrier: self.carrier.clone(),
            permissions: self.permissions.clone(),
            stops: self.stops.clone(),
            fixed: self.fixed.clone(),
        }
    }

    /// Lets the admin listener show the current settings, and request a reload.
    pub(crate) fn with_reloads(mut self, reloads: Reloads) -> Self {
        self.admin.settings = Some(reloads);
        self
    }
}

impl Live {
    /// Replaces the settings `before` with `after`. Blocks while it opens the directories of file
    /// origins.
    ///
    /// # Errors
    /// What is wrong with them; nothing has changed then.
    pub(crate) fn apply(&self, before: &Config, after: &Config) -> Result<GroupChanges> {
        if self.stops.draining.is_cancelled() {
            let what = "this node is shutting down and applies no more settings";
            return Err(Error::new(ErrorKind::NotReady, what));
        }
        let budget = &self.fixed.budget;
        // A setting that needs a restart.
        let proxies = proxies(before);
        let definitions = after.groups.iter();
        let definitions = definitions.map(|it| definition(it, proxies, budget));
        let definitions = definitions.collect::<Result<Vec<_>>>()?;
        rules::check(&definitions, self.fixed.capacity)?;
        self.check_sizes(&definitions)?;
        let permissions = self.permissions.prepare(&auth_rules(after, proxies))?;
        let loads = rules::loads(&definitions);
        let names = definitions.iter().map(|it| it.rules.name.clone());
        let names: Vec<Arc<str>> = names.collect();
        let unchanged = unchanged(&before.groups, &after.groups);
        let kept = |name: &str| {
            let group = unchanged
                .get(name)
                .and_then(|_| self.parts.groups.get(name).ok());
            group.map(|group| group.origin())
        };
        let (groups, metrics) = (&self.parts.groups, &self.parts.metrics);
        let shared = &self.parts.shared;
        // The first request to a new group is counted, and its first fetch is bounded.
        let prepare = || {
            self.service.know(names.iter(), metrics);
            self.parts.peers.bound_loads(loads);
        };
        let changed = put_in_force(groups, definitions, kept, metrics, shared, prepare)?;
        // Nothing from here on can fail.
        let limits = client_limits(&after.limits);
        self.rules
            .limit(limits.max_keys_per_request, limits.read_timeout);
        self.redis.limit(rules::redis(&limits));
        self.service.limit(rules::quota(&limits, budget));
        self.admission.limit(&limits);
        self.permissions.put_in_force(permissions);
        self.carrier.limit(&limits);
        log(&before.log, &after.log);
        Ok(changed)
    }

    /// Counts how an attempt ended: `changed`, `unchanged` or `refused`.
    pub(crate) fn count(&self, outcome: &str) {
        self.parts.metrics.runtimes.reloaded(outcome);
    }

    /// Tells the audit of what the process has done because of this.
    pub(crate) fn tell_audit<T>(&self, cause: &'static str, call: &Call<'_>, done: &Result<T>) {
        self.permissions.done_because(cause, call, done);
    }

    fn check_sizes(&self, definitions: &[GroupDefinition]) -> Result<()> {
        let largest = self.fixed.largest;
        for GroupDefinition { rules, .. } in definitions {
            if rules.max_value > largest {
                let what = format!(
                    "group '{}': a max_value of {} bytes is larger than any at the start ({largest} \
                     bytes); restart the node for it",
                    rules.name, rules.max_value
                );
                return Err(Error::new(ErrorKind::Configuration, what));
            }
        }
        Ok(())
    }
}

/// The groups whose origin is the same before and after.
fn unchanged<'a>(
    before: &[GroupSettings],
    after: &'a [GroupSettings],
) -> HashMap<&'a str, &'a GroupSettings> {
    let same = after.iter().filter(|after| {
        before.iter().any(|before| {
            // The origin reads no more of a value than the group takes.
            before.name == after.name
                && before.origin == after.origin
                && before.max_value == after.max_value
        })
    });
    same.map(|group| (group.name.as_str(), group)).collect()
}

/// A level that was set by hand stays, unless the settings change.
fn log(before: &LogSettings, after: &LogSettings) {
    line::allow_keys(after.keys);
    requests::log_so(&request_log(after));
    if before.level == after.level {
        return;
    }
    if let Some(Err(error)) = LogLevel::of_process().map(|it| it.set(&after.level)) {
        // The settings were checked before.
        tracing::error!(%error, "the log's level could not be changed");
    }
}
