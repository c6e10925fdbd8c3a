//! Which node or cluster a command asks if no flag says: the environment, else a context of the
//! user's file, else this machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    address::{Listener, NodeAddress},
    failure::Failure,
};
use crate::config::{toml_problem, url_without_password};

/// Where a person's clusters are.
const FILE: &str = "gaocache/config.toml";

/// The user's file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    /// The context that is meant if none is named.
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

/// One cluster. Its fields are those of the flags.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Context {
    target: Option<String>,
    admin: Option<String>,
    pub(super) etcd: Vec<String>,
    /// Sent to the nodes of this context alone.
    pub(super) token: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) service: Option<String>,
    pub(super) etcd_user: Option<String>,
    pub(super) etcd_password_file: Option<PathBuf>,
    pub(super) etcd_ca: Option<PathBuf>,
    pub(super) etcd_cert: Option<PathBuf>,
    pub(super) etcd_key: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) server_name: Option<String>,
    /// Its name, if it is one of the file.
    #[serde(skip)]
    name: Option<String>,
    /// Whether the addresses are those of the environment instead.
    #[serde(skip)]
    by_variable: bool,
}

impl Context {
    /// The selected one. The environment overrides the file: an address of a node there,
    /// or an etcd, takes the place of all that the file says of either.
    pub(super) fn in_force() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
        let mut context = Self::of_file(variable("GAOCACHE_CONTEXT").as_deref())?;
        let (target, admin) = (variable("GAOCACHE_TARGET"), variable("GAOCACHE_ADMIN"));
        let etcd = variable("GAOCACHE_ETCD");
        if target.is_some() || admin.is_some() || etcd.is_some() {
            context = Self {
                target,
                admin,
                etcd: etcd.map_or_else(Vec::new, |urls| {
                    urls.split(',').map(|url| url.trim().to_owned()).collect()
                }),
                token: None,
                token_file: None,
                by_variable: true,
                ..context
            };
        }
        for (name, file) in [
            ("GAOCACHE_CA", &mut context.ca),
            ("GAOCACHE_CERT", &mut context.cert),
            ("GAOCACHE_CERT_KEY", &mut context.key),
        ] {
            *file = variable(name).map(PathBuf::from).or_else(|| file.take());
        }
        let named = variable("GAOCACHE_SERVER_NAME");
        context.server_name = named.or(context.server_name);
        Ok(context)
    }

    /// The address of a node, if there is one.
    pub(super) fn node(&self, listener: Listener) -> Result<Option<NodeAddress>, Failure> {
        let given = match listener {
            Listener::Grpc => &self.target,
            Listener::Admin => &self.admin,
        };
        let parsed = given.as_ref().map(|text| {
            listener.parse(text).map_err(|reason| {
                let (source, shown) = (self.source(listener.name()), url_without_password(text));
                Failure::Usage(format!("{source}: '{shown}': {reason}"))
            })
        });
        parsed.transpose()
    }

    /// The node on this machine, which is meant where nothing names another. Who chose a context
    /// means no node of this machine.
    pub(super) fn usual(&self, listener: Listener) -> Result<NodeAddress, Failure> {
        if self.is_chosen() {
            return Err(self.lacks(listener.name()));
        }
        Ok(listener.usual())
    }

    /// Whether one of the file is in force, be it in part.
    pub(super) fn is_chosen(&self) -> bool {
        self.name.is_some()
    }

    /// Whether the addresses are those of the environment.
    pub(super) fn is_by_variable(&self) -> bool {
        self.by_variable
    }

    /// What gave the field of that name.
    pub(super) fn source(&self, field: &str) -> String {
        match &self.name {
            Some(name) if !self.by_variable => format!("{field} of the context '{name}'"),
            _ => format!("GAOCACHE_{}", field.to_uppercase()),
        }
    }

    /// That nothing gives the field of that name.
    pub(super) fn lacks(&self, field: &str) -> Failure {
        let name = self.name.as_deref().unwrap_or_default();
        let why = if self.by_variable {
            format!("the environment overrides the addresses of the context '{name}'")
        } else {
            format!("the context '{name}' has no {field}")
        };
        let variable = field.to_uppercase();
        let whom = if field == "etcd" { "cluster" } else { "node" };
        Failure::Usage(format!(
            "{why}, so it is not clear which {whom} is meant; pass --{field}, or set GAOCACHE_{variable} \
             or {field} of the context"
        ))
    }

    fn of_file(named: Option<&str>) -> Result<Self, Failure> {
        let folder = std::env::var_os("XDG_CONFIG_HOME").filter(|it| !it.is_empty());
        let folder = folder.map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME").filter(|it| !it.is_empty())?;
            Some(Path::new(&home).join(".config"))
        });
        let path = folder.map(|folder| folder.join(FILE)).unwrap_or_default();
        let wrong = |what: &str| {
            let path = path.display();
            Failure::Configuration(format!("{path}: {what}"))
        };
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let file: Result<File, toml::de::Error> = toml::from_str(&text);
                file.map_err(|error| wrong(&toml_problem(&text, &error)))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(error) => return Err(wrong(&error.to_string())),
        };
        let Some(name) = named.or(file.current.as_deref()) else {
            return Ok(Self::default());
        };
        let names: Vec<&str> = file.contexts.keys().map(String::as_str).collect();
        let found = file.contexts.get(name).cloned().ok_or_else(|| {
            wrong(&format!(
                "there is no context '{name}'; the contexts are: {}",
                names.join(", ")
            ))
        })?;
        Ok(Self {
            name: Some(name.to_owned()),
            ..found
        })
    }
}
