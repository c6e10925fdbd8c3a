//! Whom work is done for: an opaque number that goes with a request, from task to task and from
//! node to node.
//!
//! It goes implicitly, as the context of a trace does: the core, between the listeners and the
//! origins, need not know of it.

use std::net::{IpAddr, Ipv6Addr};

use futures::{Stream, future::BoxFuture, stream};
use xxhash_rust::xxh3::Xxh3;

use gaocache_core::askers::Asker;

/// A client, or what stands for one. The same client is the same number at every node, so that its
/// requests share one turn at the owner of their keys, whichever nodes it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientId(pub(crate) u64);

/// The clients for which one piece of work is done: one, unless another node asks for several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clients {
    pub(crate) first: ClientId,
    pub(crate) others: Vec<ClientId>,
}

tokio::task_local! {
    static CURRENT: Clients;
}

impl From<Asker> for ClientId {
    fn from(asker: Asker) -> Self {
        Self(asker.0)
    }
}

impl From<ClientId> for Asker {
    fn from(client: ClientId) -> Self {
        Self(client.0)
    }
}

impl From<ClientId> for Clients {
    fn from(first: ClientId) -> Self {
        let others = Vec::new();
        Self { first, others }
    }
}

impl Clients {
    /// Does this work for them.
    pub(crate) async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}

/// For whom the current task works, as the core knows them.
pub(crate) fn askers() -> Vec<Asker> {
    let all = CURRENT.try_with(|it| {
        let all = std::iter::once(it.first).chain(it.others.iter().copied());
        all.map(Asker::from).collect()
    });
    all.unwrap_or_else(|_| vec![ClientId::NOBODY.into()])
}

impl ClientId {
    /// The node itself, and programs that embed it.
    pub(crate) const NOBODY: Self = Self(0);

    /// A client that has proven to be this; `how` keeps apart names that were proven in different
    /// ways.
    pub(crate) fn named(how: &str, name: &str) -> Self {
        Self::of(how.as_bytes(), name.as_bytes())
    }

    /// A client that connects from there.
    pub(crate) fn at(address: IpAddr) -> Self {
        match network(address) {
            IpAddr::V4(address) => Self::of(b"address", &address.octets()),
            IpAddr::V6(address) => Self::of(b"address", &address.octets()),
        }
    }

    fn of(how: &[u8], what: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        for part in [how, what] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest().max(1))
    }

    /// For whom the current task works, or the first of them.
    pub(crate) fn current() -> Self {
        CURRENT.try_with(|it| it.first).unwrap_or(Self::NOBODY)
    }

    /// Does for the client what waits for nothing.
    pub(crate) fn within<R>(self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self.into(), work)
    }

    /// Reads a stream for the client.
    pub(crate) fn reads<S: Stream>(self, stream: S) -> impl Stream<Item = S::Item> {
        let mut stream = Box::pin(stream);
        stream::poll_fn(move |task| self.within(|| stream.as_mut().poll_next(task)))
    }

    /// Does this work for the client.
    pub(crate) async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        Clients::from(self).scope(work).await
    }
}

/// A task that works for the same client as the one that spawns it.
pub(crate) fn wrap_task(task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    match ClientId::current() {
        ClientId::NOBODY => task,
        client => Box::pin(client.scope(task)),
    }
}

/// The addresses that count as one: an IPv4 address, or an IPv6 network of 64 bits, which one
/// customer of a provider commands.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_name_or_else_its_network() {
        let at = |text: &str| ClientId::at(text.parse().expect("an address"));
        assert_eq!(at("10.0.0.1"), at("::ffff:10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        let named = ClientId::named;
        assert_eq!(named("token", "a"), named("token", "a"));
        assert_ne!(named("token", "a"), named("certificate", "a"));
        assert_ne!(named("token", "ab"), named("tokena", "b"));
    }

    #[tokio::test]
    async fn the_client_goes_with_the_work_and_with_the_tasks_that_it_spawns() {
        let client = ClientId::named("token", "a");
        assert_eq!(ClientId::current(), ClientId::NOBODY);
        let (told, heard) = tokio::sync::oneshot::channel();
        let spawned = async move {
            let _ = told.send(ClientId::current());
        };
        let work = async {
            tokio::spawn(wrap_task(Box::pin(spawned)));
            ClientId::current()
        };
        assert_eq!(client.scope(work).await, client);
        assert_eq!(heard.await, Ok(client));
    }
}
