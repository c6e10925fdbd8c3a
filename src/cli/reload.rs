//! Reads the settings of a node that runs again: on SIGHUP, on `POST /reload`, and when the content
//! of a file changes. Whatever is wrong with them, the node continues with those that it has.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    cluster::Etcd, config::value, members::forget_member, sources::ConfigArgs, tls::Tls,
    watched::Watched,
};
use crate::{
    admin::{Reloads, Wish},
    auth::Call,
    config::{Applies, ConfigError, InForce, Loaded, Problem, RegistryKind, RegistrySettings},
    node::reload::Live,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// The most names of settings in a list of a log line; then it says how many more there are.
const NAMED: usize = 20;

/// The current settings, and where new ones come from.
pub(super) struct Reloader {
    sources: ConfigArgs,
    in_force: Arc<Loaded>,
    /// Settings with new values that need a restart.
    waiting: Vec<String>,
    /// What was wrong with the settings that were read last.
    problem: String,
    publish: watch::Sender<Arc<Value>>,
    wishes: mpsc::Receiver<Wish>,
    hangups: mpsc::Receiver<()>,
}

impl Reloader {
    /// Of a node that starts with these settings.
    pub(super) fn new(
        sources: &ConfigArgs,
        loaded: Loaded,
        hangups: mpsc::Receiver<()>,
    ) -> (Self, Reloads) {
        let (publish, in_force) = watch::channel(Arc::default());
        let (wish, wishes) = mpsc::channel(4);
        let reloader = Self {
            sources: sources.clone(),
            in_force: Arc::new(loaded),
            waiting: Vec::new(),
            problem: String::new(),
            publish,
            wishes,
            hangups,
        };
        reloader.show();
        let reloads = Reloads {
            in_force,
            wishes: wish,
        };
        (reloader, reloads)
    }

    /// Brings new settings to the node for as long as it is polled.
    pub(super) async fn run(mut self, live: Live) -> std::convert::Infallible {
        let mut files = Watched::new(self.files());
        loop {
            // New settings may name other files.
            let named = self.files();
            if files.paths() != named {
                files = Watched::new(named);
                // A file may have changed after the settings were read, and before it is watched.
                if self.is_outdated().await {
                    self.reload_by_itself(&live, "a file changed").await;
                    continue;
                }
            }
            tokio::select! {
                // The requester may have gone.
                Some(wish) = self.wishes.recv() => match wish {
                    Wish::Reload(tell) => {
                        files.are_tried().await;
                        let _ = tell.send(self.reload(&live, "POST /reload").await);
                    }
                    // It may take as long as etcd takes to answer.
                    Wish::Forget(id, tell) => {
                        let registry = self.in_force.settings.registry.clone();
                        tokio::spawn(async move { tell.send(forget(registry, &id).await) });
                    }
                },
                Some(()) = self.hangups.recv() => {
                    files.are_tried().await;
                    self.reload_by_itself(&live, "SIGHUP").await;
                }
                () = files.changed() => self.reload_by_itself(&live, "a file changed").await,
            }
        }
    }

    /// Whether the sources say something else now.
    async fn is_outdated(&self) -> bool {
        let (sources, before) = (self.sources.clone(), self.in_force.clone());
        let read = tokio::task::spawn_blocking(move || match sources.read().checked() {
            Ok(after) => !Change::between(&before, &after).live.is_empty(),
            Err(_) => true,
        });
        read.await.unwrap_or(true)
    }

    /// The file of the settings, and those that these settings take the values of headers from.
    fn files(&self) -> Vec<PathBuf> {
        let groups = self.in_force.settings.groups.iter();
        let headers = groups.flat_map(|group| group.origin.header_files.values());
        let file = self.sources.file().map(Path::to_owned);
        file.into_iter().chain(headers.cloned()).collect()
    }

    /// A reload that no caller has asked for.
    async fn reload_by_itself(&mut self, live: &Live, cause: &'static str) {
        let done = self.reload(live, cause).await;
        live.tell_audit(cause, &Call::admin("reload", None), &done);
    }

    async fn reload(&mut self, live: &Live, cause: &str) -> Result<Value> {
        let (sources, before, node) = (self.sources.clone(), self.in_force.clone(), live.clone());
        // Files and folders may be on a disk that doesn't answer.
        let read = tokio::task::spawn_blocking(move || {
            let after = sources.read().checked().map_err(refused)?;
            check_groups(&before, &after)?;
            let change = Change::between(&before, &after);
            if change.live.is_empty() {
                return Ok((before, change, Default::default()));
            }
            let groups = node.apply(&before.settings, &after.settings)?;
            Ok((Arc::new(before.reloaded(after)), change, groups))
        });
        let read = read.await.unwrap_or_else(|error| {
            let what = "the settings could not be read; see the log";
            Err(Error::new(ErrorKind::Internal, what).with_source(error))
        });
        let (in_force, change, groups) = read.inspect_err(|error| {
            tracing::error!(cause, %error, "the new settings are refused; nothing has changed");
            live.count("refused");
            self.problem = error.message().to_owned();
            self.show();
        })?;
        let changed = !Arc::ptr_eq(&self.in_force, &in_force);
        live.count(if changed { "changed" } else { "unchanged" });
        let text = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        let (added, removed): (Vec<String>, Vec<String>) =
            (text(&groups.added), text(&groups.removed));
        tracing::info!(
            cause,
            changed = named(&change.live),
            groups_added = added.join(" "),
            groups_removed = removed.join(" "),
            requires_restart = named(&change.waiting),
            "the settings were read again"
        );
        if changed {
            warn(&in_force.warnings);
        }
        self.in_force = in_force;
        self.waiting.clone_from(&change.waiting);
        self.problem.clear();
        self.show();
        Ok(json!({
            "changed": change.live,
            "groups_added": added,
            "groups_removed": removed,
            "requires_restart": change.waiting,
            "warnings": as_json(&self.in_force.warnings),
        }))
    }

    /// Publishes the current settings.
    fn show(&self) {
        let settings = self.in_force.in_force.iter().map(|it| {
            json!({
                "name": it.name,
                "value": value(it),
                "source": it.source,
                "change": it.applies().name(),
            })
        });
        self.publish.send_replace(Arc::new(json!({
            "settings": settings.collect::<Vec<_>>(),
            "requires_restart": self.waiting,
            "problem": self.problem,
            "warnings": as_json(&self.in_force.warnings),
        })));
    }
}

/// Names of settings in a log line.
fn named(settings: &[String]) -> String {
    let mut named = settings[..settings.len().min(NAMED)].join(" ");
    if settings.len() > NAMED {
        named += &format!(" and {} more", settings.len() - NAMED);
    }
    named
}

/// Logs the warnings about settings.
pub(super) fn warn(warnings: &[Problem]) {
    for Problem { name, reason, .. } in warnings {
        tracing::warn!(setting = name, reason, "check this setting");
    }
}

/// As JSON: names and reasons.
fn as_json(warnings: &[Problem]) -> Value {
    let warnings = warnings.iter();
    warnings
        .map(|it| json!({ "name": it.name, "reason": it.reason }))
        .collect()
}

/// Takes a member off the list in this node's etcd.
async fn forget(registry: RegistrySettings, id: &str) -> Result<Value> {
    if registry.kind != RegistryKind::Etcd {
        let what = "this node finds the others without etcd, so there is nothing to forget";
        return Err(Error::new(ErrorKind::InvalidRequest, what));
    }
    forget_member(&Etcd::of(&registry), &Tls::accepting_any_certificate(), id).await
}

fn refused(error: ConfigError) -> Error {
    Error::new(ErrorKind::Configuration, error.to_string()).with_source(error)
}

/// What new settings change.
struct Change {
    /// Names of the settings that apply at once.
    live: Vec<String>,
    /// And of those that need a restart.
    waiting: Vec<String>,
}

impl Change {
    fn between(before: &Loaded, after: &Loaded) -> Self {
        let differ = |one: &Loaded, other: &Loaded| {
            let others = other.in_force.iter();
            let others: HashMap<_, _> = others.map(|it| (it.name.as_str(), it)).collect();
            let differing = one.in_force.iter().filter(|it| {
                let other = others.get(it.name.as_str());
                !other.is_some_and(|other| it.means_the_same(other))
            });
            differing.cloned().collect::<Vec<InForce>>()
        };
        let mut names: Vec<InForce> = differ(after, before);
        for gone in differ(before, after) {
            if !names.iter().any(|it| it.name == gone.name) {
                names.push(gone);
            }
        }
        let (live, waiting): (Vec<InForce>, Vec<InForce>) = names
            .into_iter()
            .partition(|it| it.applies() == Applies::Live);
        let named = |settings: Vec<InForce>| settings.into_iter().map(|it| it.name).collect();
        Self {
            live: named(live),
            waiting: named(waiting),
        }
    }
}

/// Refuses new groups that are more likely a mistake than meant.
fn check_groups(before: &Loaded, after: &Loaded) -> Result<()> {
    let wrong = |what: String| Err(Error::new(ErrorKind::Configuration, what));
    if let Some(moved) = before.numbered.moved(&after.numbered) {
        return wrong(moved);
    }
    // A file that was cut off, perhaps.
    if after.settings.groups.is_empty() && !before.settings.groups.is_empty() {
        let what = "a reload can't remove all groups: keep at least one [[groups]], or restart";
        return wrong(what.into());
    }
    Ok(())
}
