//! The cluster as it is registered in etcd, for the commands that find the nodes there.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio::sync::Notify;

use super::{
    address::{Listener, NodeAddress},
    context::Context,
    failure::Failure,
    sources::ConfigArgs,
};
use crate::{
    config::{RegistryKind, RegistrySettings, has_user, pem, schema::DEFAULT_SERVICE},
    node::configured::etcd_config,
    registry::etcd::{
        Keys,
        advice::{CONTEXT, FLAGS, Names, SETTINGS, advised},
    },
};
use gaocache_discovery::{Credentials, Discovery, DiscoveryEvent, EtcdConfig, TlsFiles};

/// Time limit for the first answer from etcd.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where etcd is, how to log in there, and under which name the nodes are registered.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for etcd")]
pub(super) struct Cluster {
    /// URLs of etcd, separated by commas: find the nodes there
    #[arg(long, value_name = "URL,URL…", value_delimiter = ',')]
    etcd: Vec<String>,
    /// The service name under which the nodes are registered in etcd
    ///
    /// [default: that of the context, else gaocache]
    #[arg(long)]
    service: Option<String>,
    /// User name for etcd
    #[arg(
        long,
        value_name = "NAME",
        requires = "etcd_password_file",
        requires = "etcd"
    )]
    etcd_user: Option<String>,
    /// File with the password of that user
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
    /// PEM file with the CA certificates that etcd's certificate is verified against
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// PEM file with a client certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_key", requires = "etcd")]
    etcd_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
}

/// Whether it is a URL of etcd. Never quotes it, since it may contain a password; as the parser of
/// a flag, it would be quoted by clap.
fn check_url(text: &str) -> Result<(), &'static str> {
    if has_user(text) {
        return Err(
            "a URL of etcd must not contain a user name or a password; use --etcd-user and \
                    --etcd-password-file, or etcd_user and etcd_password_file of a context",
        );
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(());
    }
    Err("write URLs such as http://127.0.0.1:2379")
}

/// Whom a command asks.
pub(super) enum Whom {
    /// The node at this address.
    Node(NodeAddress),
    /// Those that are registered there.
    Cluster(Etcd),
}

impl Cluster {
    /// Whom to ask: `node` if a flag named one, else the etcd of the flags, else what the context
    /// says. `None`: nothing names anybody.
    pub(super) fn whom(
        &self,
        node: Option<&NodeAddress>,
        context: &Context,
        listener: Listener,
    ) -> Result<Option<Whom>, Failure> {
        if let Some(node) = node {
            return Ok(Some(Whom::Node(node.clone())));
        }
        if let Some(etcd) = self.etcd(context)? {
            return Ok(Some(Whom::Cluster(etcd)));
        }
        Ok(context.node(listener)?.map(Whom::Node))
    }

    /// Whether a flag names an etcd.
    pub(super) fn is_named(&self) -> bool {
        !self.etcd.is_empty()
    }

    /// How to reach etcd, by the flags or else by the context; `None` if neither names one.
    fn etcd(&self, context: &Context) -> Result<Option<Etcd>, Failure> {
        let by_flag = !self.etcd.is_empty();
        let etcd = if by_flag { &self.etcd } else { &context.etcd };
        if etcd.is_empty() {
            return Ok(None);
        }
        for it in etcd {
            check_url(it).map_err(|reason| {
                let source = if by_flag {
                    "--etcd".to_owned()
                } else {
                    context.source("etcd")
                };
                Failure::Usage(format!("{source}: {reason}"))
            })?;
        }
        let names = match by_flag || context.is_by_variable() {
            true => &FLAGS,
            false => &CONTEXT,
        };
        // Credentials of the context are not used for an etcd that a flag names.
        let context = if by_flag {
            &Context::default()
        } else {
            context
        };
        let or = |flag: &Option<PathBuf>, other: &Option<PathBuf>| {
            flag.clone().or_else(|| other.clone())
        };
        let mut config = EtcdConfig::new(etcd.clone());
        let user = self.etcd_user.as_ref().or(context.etcd_user.as_ref());
        let password_file = or(&self.etcd_password_file, &context.etcd_password_file);
        if let Some((user, password_file)) = user.zip(password_file) {
            usable("--etcd-password-file", &password_file, pem::text)?;
            config = config.with_credentials(Credentials::new(user, password_file));
        }
        let mut tls = TlsFiles::default();
        if let Some(ca) = or(&self.etcd_ca, &context.etcd_ca) {
            usable("--etcd-ca", &ca, pem::certificates)?;
            tls = tls.with_ca(ca);
        }
        let cert = or(&self.etcd_cert, &context.etcd_cert);
        if let Some((cert, key)) = cert.zip(or(&self.etcd_key, &context.etcd_key)) {
            usable("--etcd-cert", &cert, pem::certificates)?;
            usable("--etcd-key", &key, pem::private_key)?;
            tls = tls.with_identity(cert, key);
        }
        let service = self.service.clone().or_else(|| context.service.clone());
        Ok(Some(Etcd {
            config: config.with_tls(tls),
            service: service.unwrap_or_else(|| DEFAULT_SERVICE.to_owned()),
            names,
        }))
    }
}

/// Whether a file that a flag names can be used.
pub(super) fn usable(
    flag: &str,
    file: &Path,
    check: impl Fn(&Path) -> Result<(), String>,
) -> Result<(), Failure> {
    check(file).map_err(|reason| Failure::Usage(format!("{flag} {}: {reason}", file.display())))
}

impl Cluster {
    /// How to reach etcd, from the flags, else from the settings of a node; `what` needs it.
    pub(super) fn or_configured(&self, config: &ConfigArgs, what: &str) -> Result<Etcd, Failure> {
        let context = Context::in_force()?;
        if let Some(etcd) = self.etcd(&context)? {
            return Ok(etcd);
        }
        if !config.is_given() {
            return Err(if context.is_chosen() {
                context.lacks("etcd")
            } else {
                Failure::Usage(format!(
                    "`{what}` finds the nodes in etcd; pass --etcd or set GAOCACHE_ETCD, or pass \
                     the settings of a node (--config)"
                ))
            });
        }
        let registry = config.load()?.settings.registry;
        let instead = match registry.kind {
            RegistryKind::Etcd => return Ok(Etcd::of(&registry)),
            RegistryKind::Static => "is \"static\": a fixed list has no registrations",
            RegistryKind::Memory => "is \"memory\": a node by itself has no registrations",
        };
        Err(Failure::Usage(format!(
            "`{what}` looks at the registrations in etcd, but registry.kind {instead}"
        )))
    }
}

/// An etcd, and the name of a service there.
pub(super) struct Etcd {
    pub(super) config: EtcdConfig,
    pub(super) service: String,
    /// Where login and certificates were given.
    names: &'static Names,
}

impl Etcd {
    /// The one that a node's settings name.
    pub(super) fn of(registry: &RegistrySettings) -> Self {
        Self {
            config: etcd_config(&registry.etcd),
            service: registry.service.clone(),
            names: &SETTINGS,
        }
    }

    /// What is registered. Resolves when etcd has answered. Fails when none of its members does:
    /// after the first failure of each, since more tries would only take longer.
    pub(super) async fn discover(&self) -> Result<(Keys, Discovery), Failure> {
        let keys = Keys::of(&self.service);
        let failures = Arc::new((AtomicUsize::new(0), Notify::new()));
        let (members, counter) = (self.config.endpoints.len(), failures.clone());
        let count = move |event: &DiscoveryEvent| {
            if let DiscoveryEvent::Disconnected { .. } = event {
                counter.0.fetch_add(1, Ordering::SeqCst);
                counter.1.notify_one();
            }
        };
        let discovery = Discovery::start_ranges(self.config.clone(), [keys.range()], count);
        let all_failed = async {
            while failures.0.load(Ordering::SeqCst) < members {
                failures.1.notified().await;
            }
            // The problem is published right after the event.
            let mut changes = discovery.changes();
            let _ = changes
                .wait_for(|it| it.known || !it.problem.is_empty())
                .await;
        };
        let known = tokio::select! {
            biased;
            _ = discovery.known() => true,
            () = all_failed => discovery.list().known,
            () = tokio::time::sleep(TIMEOUT) => false,
        };
        if known {
            return Ok((keys, discovery));
        }
        let problem = discovery.list().problem;
        Err(Failure::Failed(if problem.is_empty() {
            "etcd: no answer in time; check --etcd".into()
        } else {
            advised(&problem, self.names, true)
        }))
    }

    /// No node is registered.
    pub(super) fn nobody(&self) -> Failure {
        Failure::Failed(format!(
            "no node is registered as '{}' in etcd; check --service (registry.service of the nodes) \
             and --etcd",
            self.service
        ))
    }
}
