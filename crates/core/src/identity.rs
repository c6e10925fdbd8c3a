//! Who is at the other end of a connection: what it has proven, and which member it may speak for.
//!
//! Nothing from a caller that is not found here may be trusted. Only the key counts, never what a
//! message says about its sender.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::{
    cluster::{Cluster, Topology},
    membership::{IdHash, KeyFingerprint, Member, View},
};

/// What the handshake of a connection has proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing: this node's settings say that others need not prove who they are.
    Unproven,
    /// That it holds this key.
    Key(KeyFingerprint),
    /// That it has a certificate of an authority that this node trusts with its members.
    Certificate {
        /// The ids of the members that the certificate names; `None`: it is good for any.
        ids: Option<Vec<Arc<str>>>,
    },
}

impl Identity {
    /// Whether it proves that its holder is that member.
    fn is_of(&self, member: &Member) -> bool {
        match self {
            Self::Key(key) => member.contact.key.as_ref() == Some(key),
            Self::Certificate { ids: Some(ids) } => ids.contains(&member.id),
            Self::Unproven | Self::Certificate { ids: None } => false,
        }
    }
}

/// Why a caller is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It is not a member, as far as this node knows. It may have registered a moment ago.
    Unknown,
    /// It says that it is another member than it is.
    Impostor,
}

/// The other end of a connection. Which members it may be is looked up once for each topology.
#[derive(Debug)]
pub struct Caller {
    identity: Identity,
    known: Mutex<Known>,
}

/// What was found in a topology.
#[derive(Debug, Default)]
struct Known {
    /// Weak, so that a silent connection doesn't keep an old one.
    topology: Weak<Topology>,
    incarnations: Vec<IdHash>,
}

impl Caller {
    /// One that has proven this.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            known: Mutex::default(),
        }
    }

    /// What it has proven.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it is a member.
    ///
    /// # Errors
    /// [`Stranger::Unknown`] if not.
    pub fn is_member(&self, topology: &Arc<Topology>) -> Result<(), Stranger> {
        match self.find(topology, |members| !members.is_empty()) {
            Some(false) => Err(Stranger::Unknown),
            _ => Ok(()),
        }
    }

    /// Whether it may make calls that change nothing here: former members that may still run, too.
    ///
    /// # Errors
    /// [`Stranger::Unknown`] if not.
    pub fn may_ask(&self, cluster: &Cluster) -> Result<(), Stranger> {
        let member = self.is_member(&cluster.topology());
        member.or_else(|stranger| {
            let known = cluster.any_former_member(|member| self.identity.is_of(member));
            known.then_some(()).ok_or(stranger)
        })
    }

    /// Whether it may speak as the member with that incarnation.
    ///
    /// # Errors
    /// [`Stranger::Unknown`] if no member has that incarnation: a new incarnation may not be
    /// known yet. [`Stranger::Impostor`] if another has it.
    pub fn speaks_as(&self, sender: IdHash, topology: &Arc<Topology>) -> Result<(), Stranger> {
        match self.find(topology, |members| members.contains(&sender)) {
            Some(false) if topology.by_incarnation(sender).is_some() => Err(Stranger::Impostor),
            Some(false) => Err(Stranger::Unknown),
            _ => Ok(()),
        }
    }

    /// What is `asked` of the members that it may be; `None` if it may be any.
    fn find(&self, topology: &Arc<Topology>, asked: impl Fn(&[IdHash]) -> bool) -> Option<bool> {
        if matches!(
            self.identity,
            Identity::Unproven | Identity::Certificate { ids: None }
        ) {
            return None;
        }
        let mut known = self.known.lock();
        // A weak reference keeps the place in memory, so no other topology can have taken it.
        if known.topology.as_ptr() != Arc::as_ptr(topology) {
            *known = Known {
                topology: Arc::downgrade(topology),
                incarnations: self.members(&topology.view),
            };
        }
        Some(asked(&known.incarnations))
    }

    fn members(&self, view: &View) -> Vec<IdHash> {
        let members = view.members.iter();
        let its = members.filter(|member| self.identity.is_of(member));
        its.map(Member::incarnation).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: KeyFingerprint = KeyFingerprint([1; 32]);
    const B: KeyFingerprint = KeyFingerprint([2; 32]);

    fn member(id: &str, instance: &str, key: KeyFingerprint) -> Member {
        let mut member = Member::new(id, "h:1");
        member.instance = instance.into();
        member.contact.key = Some(key);
        member
    }

    fn topology(members: &[Member]) -> Arc<Topology> {
        Arc::new(Topology::new("me", View::new(1, members.iter().cloned())))
    }

    #[test]
    fn a_key_speaks_for_its_member_alone_and_for_the_life_that_is_listed() {
        let (a, b) = (member("a", "1", A), member("b", "1", B));
        let caller = Caller::new(Identity::Key(A));
        let before = topology(std::slice::from_ref(&b));
        assert_eq!(caller.is_member(&before), Err(Stranger::Unknown));
        let ring = topology(&[a.clone(), b.clone()]);
        assert_eq!(caller.is_member(&ring), Ok(()));
        assert_eq!(caller.speaks_as(a.incarnation(), &ring), Ok(()));
        let other = caller.speaks_as(b.incarnation(), &ring);
        assert_eq!(other, Err(Stranger::Impostor));
        let again = member("a", "2", A);
        let early = caller.speaks_as(again.incarnation(), &ring);
        assert_eq!(early, Err(Stranger::Unknown));
        let ring = topology(&[again.clone(), b]);
        assert_eq!(caller.speaks_as(again.incarnation(), &ring), Ok(()));
        let former = caller.speaks_as(a.incarnation(), &ring);
        assert_eq!(former, Err(Stranger::Unknown));
        let after = topology(&[member("a", "3", B)]);
        assert_eq!(caller.is_member(&after), Err(Stranger::Unknown));
    }

    #[test]
    fn who_was_a_member_may_ask_and_nothing_more() {
        let (a, b) = (member("a", "1", A), member("b", "1", B));
        let cluster = Cluster::new("me");
        let caller = Caller::new(Identity::Key(A));
        assert_eq!(caller.may_ask(&cluster), Err(Stranger::Unknown));
        cluster.install(View::new(1, [a.clone(), b.clone()]));
        assert_eq!(caller.may_ask(&cluster), Ok(()));
        cluster.install(View::new(2, [b]));
        assert_eq!(caller.may_ask(&cluster), Ok(()));
        let ring = cluster.snapshot();
        assert_eq!(caller.is_member(&ring), Err(Stranger::Unknown));
        let speaks = caller.speaks_as(a.incarnation(), &ring);
        assert_eq!(speaks, Err(Stranger::Unknown));
    }

    #[test]
    fn a_certificate_speaks_for_the_members_that_it_names() {
        let (a, b) = (member("a", "1", A), member("b", "1", B));
        let ring = topology(&[a.clone(), b.clone()]);
        let named = Caller::new(Identity::Certificate {
            ids: Some(vec!["a".into()]),
        });
        assert_eq!(named.speaks_as(a.incarnation(), &ring), Ok(()));
        let other = named.speaks_as(b.incarnation(), &ring);
        assert_eq!(other, Err(Stranger::Impostor));
        let gone = topology(std::slice::from_ref(&b));
        assert_eq!(named.is_member(&gone), Err(Stranger::Unknown));
        for identity in [Identity::Certificate { ids: None }, Identity::Unproven] {
            let any = Caller::new(identity);
            assert_eq!(any.is_member(&gone), Ok(()));
            assert_eq!(any.speaks_as(a.incarnation(), &gone), Ok(()));
        }
    }
}
