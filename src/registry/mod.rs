//! How nodes find each other: through a fixed list, memory shared within one process, or etcd. Each
//! of these implements [`gaocache_core::ports::Registry`].

#[cfg(feature = "etcd")]
pub(crate) mod etcd;
pub(crate) mod fixed;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(crate) mod memory;
#[cfg(feature = "etcd")]
mod notices;

use std::{fmt, sync::Arc};

#[cfg(feature = "etcd")]
use gaocache_discovery::EtcdConfig;

use gaocache_core::ports;

/// Where nodes find each other. Clones are the same registry.
///
/// ```
/// use gaocache::{Error, NodeBuilder, Registry, Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let registry = Registry::memory();
/// for id in ["node-0", "node-1"] {
///     let node = NodeBuilder::new(Settings::loopback(id))
///         .registry(registry.clone())
///         .bind()
///         .await?;
///     tokio::spawn(node.run(std::future::pending()));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registry(pub(crate) Choice);

/// Which registry it is. Some are made only when the node is known.
#[derive(Clone)]
pub(crate) enum Choice {
    Made(Arc<dyn ports::Registry>),
    Fixed(Vec<String>),
    #[cfg(feature = "etcd")]
    Etcd {
        config: EtcdConfig,
        service: String,
        /// Empty: whatever cluster is there.
        cluster_id: String,
    },
}

// Without what is in it, such as a password.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Choice::Made(_) => "made",
            Choice::Fixed(_) => "fixed",
            #[cfg(feature = "etcd")]
            Choice::Etcd { .. } => "etcd",
        };
        f.debug_tuple("Registry").field(&kind).finish()
    }
}

impl Registry {
    /// For the nodes of one process: those that share clones of this.
    pub fn memory() -> Self {
        Self(Choice::Made(Arc::new(memory::MemoryRegistry::default())))
    }

    /// A fixed list of all nodes, this one too, each as `id=host:port` of its listener for peers.
    /// All nodes must have the same. It holds no keys, so it can't go with
    /// [`PeerIdentity::RegisteredKeys`](crate::PeerIdentity::RegisteredKeys).
    ///
    /// ```
    /// let registry = gaocache::Registry::fixed(["a=10.0.0.1:7071", "b=10.0.0.2:7071"]);
    /// # drop(registry);
    /// ```
    pub fn fixed<P: Into<String>>(peers: impl IntoIterator<Item = P>) -> Self {
        Self(Choice::Fixed(peers.into_iter().map(Into::into).collect()))
    }

    /// Leases in etcd. Nodes of one `service` find each other.
    ///
    /// ```
    /// use gaocache::{EtcdConfig, Registry};
    ///
    /// let registry = Registry::etcd(EtcdConfig::new(["http://etcd:2379"]), "squares");
    /// # drop(registry);
    /// ```
    #[cfg(feature = "etcd")]
    pub fn etcd(config: EtcdConfig, service: impl Into<String>) -> Self {
        Self(Choice::Etcd {
            config,
            service: service.into(),
            cluster_id: String::new(),
        })
    }
}
