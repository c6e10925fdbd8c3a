//! A client that knows the ring: it finds the nodes in etcd, computes the same ring as they do, and
//! asks each key's owner directly.
//!
//! It retries within the caller's deadline. A node that can't be reached is ejected for a short
//! time, and the next member in ring order is asked, since any node can answer for any key. An
//! error that a node *answered* is final, unless the node says that it is leaving. The caller's
//! OpenTelemetry context is propagated.

pub(crate) mod connection;
mod convert;
mod many;
mod members;
mod options;

use std::{fmt, sync::Arc};

#[cfg(feature = "cli")]
pub(crate) use convert::answer as answer_of;
pub use options::ClientOptions;

use self::members::Members;
use crate::{answer::Answer, registry::etcd::Keys, telemetry::trace, wire};
use gaocache_core::error::Result;
use gaocache_discovery::{Discovery, EtcdConfig};

/// A client that finds the nodes in etcd and asks each key's owner. Cheap to clone.
///
/// ```no_run
/// use gaocache::{Client, ClientOptions, Error, EtcdConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let etcd = EtcdConfig::new(["http://127.0.0.1:2379"]);
/// let client = Client::new(etcd, "gaocache", ClientOptions::default());
/// let answer = client.get("users", "42").await?;
/// println!("{} bytes from {:?}", answer.value.len(), answer.source);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    members: Arc<Members>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("members", &self.members())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the nodes that are registered as `service` in etcd. Returns immediately. Calls
    /// wait, within their deadline, until nodes are known.
    pub fn new(etcd: EtcdConfig, service: &str, options: ClientOptions) -> Self {
        let keys = Keys::of(service);
        let discovery = Discovery::start_ranges(etcd, [keys.range()], |_| {});
        Self::over(discovery, keys, options)
    }

    /// A client for the nodes that `discovery` finds.
    pub(crate) fn over(discovery: Discovery, keys: Keys, options: ClientOptions) -> Self {
        Self {
            members: Arc::new(Members::follow(discovery, keys, options)),
        }
    }

    /// How many nodes the keys are shared out to; 0 while none is known.
    ///
    /// ```
    /// use gaocache::{Client, ClientOptions, EtcdConfig};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let etcd = EtcdConfig::new(["http://127.0.0.1:1"]);
    /// let client = Client::new(etcd, "gaocache", ClientOptions::default());
    /// assert_eq!(client.members(), 0, "etcd has not answered yet");
    /// # }
    /// ```
    pub fn members(&self) -> usize {
        self.members.count()
    }

    /// Returns when the keys are shared out to at least so many nodes. Calls don't need it: they
    /// wait themselves until a node is known.
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// // Before a benchmark, say.
    /// client.wait_for_members(3).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) if the discovery died.
    pub async fn wait_for_members(&self, members: usize) -> Result<()> {
        self.members.wait_for(members).await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The error that the node answered; [`PeerUnreachable`](crate::ErrorKind::PeerUnreachable) if
    /// no node answered within the deadline; [`NotReady`](crate::ErrorKind::NotReady) if no node is
    /// known.
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// use gaocache::ErrorKind;
    ///
    /// match client.get("users", "42").await {
    ///     Ok(answer) => println!("{} bytes", answer.value.len()),
    ///     Err(error) if error.kind() == ErrorKind::NotFound => println!("no such user"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, group: &str, key: &str) -> Result<Answer> {
        let request = wire::GetRequest {
            group: group.to_owned(),
            key: key.to_owned(),
        };
        let answer = self
            .members
            .call(group, key, self.members.deadline(), move |mut client| {
                let request = request.clone();
                async move { client.get(trace::request(request)).await }
            })
            .await?
            .into_inner();
        Ok(convert::answer(answer))
    }

    /// The values of many keys, in the order of `keys`. Each owner is asked for its keys at once,
    /// and the client's deadline holds for all of it.
    ///
    /// # Errors
    /// For each key, as [`Client::get`].
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// let keys = ["42", "43", "44"];
    /// for (key, answer) in keys.iter().zip(client.get_many("users", &keys).await) {
    ///     match answer {
    ///         Ok(answer) => println!("{key}: {} bytes", answer.value.len()),
    ///         Err(error) => println!("{key}: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_many(&self, group: &str, keys: &[impl AsRef<str>]) -> Vec<Result<Answer>> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        let deadline = self.members.deadline();
        many::get_many(&self.members, group, &keys, deadline).await
    }

    /// Removes a key from all nodes.
    ///
    /// # Errors
    /// As [`Client::get`]. [`PeerUnreachable`](crate::ErrorKind::PeerUnreachable) also if the node
    /// could not reach another member, which the message names.
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// client.remove("users", "42").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, group: &str, key: &str) -> Result<()> {
        let request = wire::RemoveRequest {
            group: group.to_owned(),
            key: key.to_owned(),
        };
        self.members
            .call(group, key, self.members.deadline(), move |mut client| {
                let request = request.clone();
                async move { client.remove(trace::request(request)).await }
            })
            .await
            .map(|_| ())
    }

    /// Removes all keys of a group from all nodes. Returns the number of removed entries.
    ///
    /// # Errors
    /// As [`Client::remove`].
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// println!("{} entries dropped", client.purge("users").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge(&self, group: &str) -> Result<u64> {
        let request = wire::PurgeRequest {
            group: group.to_owned(),
        };
        self.members
            .call(group, "", self.members.deadline(), move |mut client| {
                let request = request.clone();
                async move { client.purge(trace::request(request)).await }
            })
            .await
            .map(|answer| answer.into_inner().entries)
    }

    /// Removes all keys of a group whose values carry that tag from all nodes.
    ///
    /// # Errors
    /// As [`Client::remove`].
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// client.purge_tag("users", "team-7").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge_tag(&self, group: &str, tag: &str) -> Result<()> {
        let request = wire::PurgeTagRequest {
            group: group.to_owned(),
            tag: tag.to_owned(),
        };
        self.members
            .call(group, "", self.members.deadline(), move |mut client| {
                let request = request.clone();
                async move { client.purge_tag(trace::request(request)).await }
            })
            .await
            .map(|_| ())
    }
}
