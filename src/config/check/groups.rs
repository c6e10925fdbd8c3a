//! Groups and their origins, and whether their values fit into the cache.

use std::collections::BTreeSet;

use super::Checks;
use crate::{
    config::{
        pem,
        problem::Problem,
        settings::{Config, GroupSettings, OriginKind},
        walk::InForce,
    },
    http_client::template::{self, UrlTemplate},
    settings::largest_value,
    traffic::Budget,
};
use gaocache_core::{
    group::{GROUP_NAME_RULE, is_group_name},
    store::MemoryQuota,
};

impl Checks<'_> {
    pub(super) fn in_flight(&mut self, settings: &Config) {
        let largest = settings.groups.iter().map(|group| group.max_value).max();
        let given = settings.cache.in_flight;
        if given == 0 {
            return;
        }
        if let Err(reason) = Budget::check(given, largest.unwrap_or(0)) {
            self.wrong("cache.in_flight", &["groups"], reason);
        }
    }

    pub(super) fn groups(&mut self, settings: &Config) {
        let mut names = BTreeSet::new();
        if let Err(reason) =
            MemoryQuota::check_all(settings.groups.iter().map(GroupSettings::memory))
        {
            let shares = shares_of_memory(&settings.groups);
            self.wrong("groups", &[], format!("{reason} ({shares})"));
        }
        if settings.groups.len() > usize::from(u16::MAX) {
            self.wrong("groups", &[], format!("at most {} groups", u16::MAX));
        }
        for (number, group) in settings.groups.iter().enumerate() {
            let name = |rest: &str| format!("groups[{number}].{rest}");
            let known = !self.unsure.has(&name("name"));
            if known && !names.insert(&group.name) {
                self.wrong(&name("name"), &[], "another group already has this name");
            }
            if !is_group_name(&group.name) {
                self.wrong(&name("name"), &[], GROUP_NAME_RULE);
            }
            if let Err(reason) = largest_value(group.max_value, settings.cache.capacity) {
                self.wrong(&name("max_value"), &["cache.capacity"], reason);
            }
            if let Err(reason) = group.memory().check() {
                let rests_on = name("memory_share");
                self.wrong(&name("memory_limit"), &[&rests_on], reason);
            }
            if group.soft_timeout_seconds > 0.0 && group.stale_if_error_seconds == 0.0 {
                let reason =
                    "needs stale_if_error_seconds: otherwise no value is kept past its TTL";
                let rests_on = name("stale_if_error_seconds");
                self.wrong(&name("soft_timeout_seconds"), &[&rests_on], reason);
            }
            self.origin(group, &name);
        }
    }

    fn origin(&mut self, group: &GroupSettings, name: &impl Fn(&str) -> String) {
        let (origin, kind) = (&group.origin, name("origin.kind"));
        match origin.kind {
            OriginKind::Http => {
                if let Err(error) = UrlTemplate::new(origin.url.as_str()) {
                    self.wrong(&name("origin.url"), &[&kind], error.message());
                }
                self.file(&name("origin.ca"), &origin.ca, pem::authorities);
                if let Err(error) = template::kept_headers(&origin.keep_headers) {
                    self.wrong(&name("origin.keep_headers"), &[&kind], error.message());
                }
                if let Err(error) = template::headers(&origin.headers) {
                    self.wrong(&name("origin.headers"), &[&kind], error.message());
                }
            }
            OriginKind::File => {
                if !origin.path.is_dir() {
                    let reason = "not a readable directory";
                    self.wrong(&name("origin.path"), &[&kind], reason);
                }
            }
        }
    }
}

/// Which groups are promised memory. There may be very many.
fn shares_of_memory(groups: &[GroupSettings]) -> String {
    const NAMED: usize = 20;
    let with = groups.iter().filter(|group| group.memory_share > 0.0);
    let shares: Vec<_> = with
        .map(|group| format!("{} {}", group.name, group.memory_share))
        .collect();
    let more = match shares.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = shares[..shares.len().min(NAMED)].join(", ");
    format!("groups[].memory_share: {named}{more}")
}

/// Settings of one kind of origin that were given to a group whose origin is of another kind: they
/// would have no effect, which their author doesn't expect.
pub fn leftovers(settings: &Config, in_force: &[InForce]) -> Vec<Problem> {
    /// The others are for every kind.
    const HTTP: [&str; 8] = [
        "url",
        "ca",
        "retries",
        "honour_cache_control",
        "keep_headers",
        "keep_not_found_body",
        "headers",
        "header_files",
    ];
    const FILE: [&str; 1] = ["path"];
    let mut problems = Vec::new();
    for (number, group) in settings.groups.iter().enumerate() {
        let (kind, of_the_other) = match group.origin.kind {
            OriginKind::Http => ("http", &FILE[..]),
            OriginKind::File => ("file", &HTTP[..]),
        };
        for setting in of_the_other {
            let name = format!("groups[{number}].origin.{setting}");
            let given = in_force.iter().find(|known| known.name == name);
            if given.is_some_and(|known| !known.is_default()) {
                let reason = format!("an origin of kind \"{kind}\" has no such setting");
                problems.push(Problem::of(name, reason));
            }
        }
    }
    problems
}
