//! Who is in the cluster: members, and the view of them at a revision. Pure.

use std::{collections::BTreeMap, fmt, sync::Arc};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use crate::ring::DEFAULT_WEIGHT;
use crate::ring::{Ring, Slot};

/// What a member is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Owns its share of the keys.
    #[default]
    Serving,
    /// Is leaving: no longer in the ring, but still reachable.
    Draining,
    /// Has registered, and waits until all others have seen it. Out of the ring; keeps nothing.
    Joining,
}

impl MemberState {
    /// As written in etcd and in `/ring`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Joining => "joining",
        }
    }
}

/// A node, as other nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Stays the same across restarts (the pod's name). The ring hashes it.
    pub id: Arc<str>,
    /// `host:port` of its gRPC listener for clients; may change with every restart.
    pub address: Arc<str>,
    /// How other members reach it.
    pub contact: Contact,
    /// Where it runs; empty if unknown.
    pub zone: Arc<str>,
    /// Its share of the keys, relative to the others'. At least 1.
    pub weight: u32,
    /// Whether it owns keys.
    pub state: MemberState,
    /// The release it runs.
    pub version: Arc<str>,
    /// Which of its listeners speak TLS.
    pub tls: SpeaksTls,
    /// The port of its admin listener; 0 if unknown.
    pub admin_port: u16,
    /// Identifies this start of the process. Distinguishes a restarted member from one that has the
    /// same id by mistake.
    pub instance: Arc<str>,
    /// The lease of its registration; 0 if there is none.
    pub lease: i64,
    /// Its registration is gone though it did not leave: it crashed, or is cut off and may still
    /// run. Known until the others have agreed that it is out (`expulsion`).
    pub vanished: bool,
    /// The registry lost its data and doesn't know this member any more. It is kept on the list for
    /// a while, since it may register again, or not know of the loss yet.
    pub held: bool,
    /// It replaced an earlier incarnation of itself that had been admitted. That one has ended: no
    /// two processes have one id at the same time.
    pub restarted: bool,
    /// The registry's revision of the record by which it is known after it vanished.
    pub recorded_at: i64,
    /// The registry's revision at which this incarnation came into the ring; 0 if it is not known.
    /// Until it serves, that of its last change.
    pub since: u64,
}

/// Which listeners of a member speak TLS. Whether that for members does is no concern of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeaksTls {
    /// The one at its address.
    pub clients: bool,
    /// Its admin listener.
    pub admin: bool,
}

/// How other members reach a member, and what it has to show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// `host:port` of its listener for peers.
    pub address: Arc<str>,
    /// The key that it registered; `None`: it registered none.
    pub key: Option<KeyFingerprint>,
}

/// The SHA-256 of a certificate, in the binary form (DER) in which a handshake shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

impl KeyFingerprint {
    /// Reads what `Display` writes: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(digit(2 * at)? << 4 | digit(2 * at + 1)?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash of a member's id in eight bytes, for places where size matters: every fetch and every
/// entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdHash(pub u64);

impl IdHash {
    /// Stands for no member.
    pub const NONE: Self = Self(0);

    /// The hash of this id.
    pub fn of(id: &str) -> Self {
        Self(xxh3_64(id.as_bytes()))
    }
}

impl Member {
    /// Identifies this start of the member's process. Earlier starts held other entries.
    pub fn incarnation(&self) -> IdHash {
        let mut hash = Xxh3::new();
        hash.update(self.id.as_bytes());
        hash.update(&[0]);
        hash.update(self.instance.as_bytes());
        IdHash(hash.digest())
    }

    /// Whether it counts: it was seen by all others, and has not vanished.
    pub fn is_admitted(&self) -> bool {
        self.state != MemberState::Joining && !self.vanished
    }

    /// Whether its promise counts when a member is to be expelled: it was admitted, or replaced an
    /// admitted incarnation, which no longer vouches for anyone.
    pub fn can_promise(&self) -> bool {
        self.is_admitted() || (self.restarted && !self.vanished)
    }

    /// The address of its admin listener, on the host of the other one: `host:port`, or a URL if
    /// that listener speaks TLS.
    pub fn admin_address(&self) -> String {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let scheme = if self.tls.admin { "https://" } else { "" };
        format!("{scheme}{host}:{}", self.admin_port)
    }

    /// What it is doing, for people: also whether it vanished.
    pub fn state_name(&self) -> &'static str {
        match self.vanished {
            true => "vanished",
            false => self.state.name(),
        }
    }

    /// A serving member with nothing but an id and an address, at which it answers clients and
    /// peers.
    pub fn new(id: impl Into<Arc<str>>, address: impl Into<Arc<str>>) -> Self {
        let address = address.into();
        Self {
            id: id.into(),
            contact: Contact {
                address: address.clone(),
                key: None,
            },
            address,
            zone: "".into(),
            weight: DEFAULT_WEIGHT,
            state: MemberState::Serving,
            version: "".into(),
            tls: SpeaksTls::default(),
            admin_port: 0,
            instance: "".into(),
            lease: 0,
            vanished: false,
            held: false,
            restarted: false,
            recorded_at: 0,
            since: 0,
        }
    }
}

/// The members at a revision of the registry, ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The registry's revision of the newest change seen; 0 if the registry has no revisions.
    pub revision: u64,
    /// Ordered by id, each id once.
    pub members: Arc<[Member]>,
    /// The registry knows nothing that is older than a lease: if it lost its data, there may be
    /// members that it doesn't know, and that still rely on their leases.
    pub young: bool,
}

impl View {
    /// A view of these members, in any order. Of two members with the same id, the later one is
    /// kept.
    pub fn new(revision: u64, members: impl IntoIterator<Item = Member>) -> Self {
        let by_id: BTreeMap<Arc<str>, Member> = members
            .into_iter()
            .map(|member| (member.id.clone(), member))
            .collect();
        Self {
            revision,
            members: by_id.into_values().collect(),
            young: false,
        }
    }

    /// Whether it takes the place of `before`. An empty list never wipes the ring: it means that
    /// nothing is known yet, or that a registry lost everything.
    pub fn replaces(&self, before: &Self) -> bool {
        !self.members.is_empty() && self != before
    }

    /// The member with that id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.place(id).map(|at| &self.members[at])
    }

    /// Its index.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.members
            .binary_search_by(|member| (*member.id).cmp(id))
            .ok()
    }

    /// The ring of the members at these indices.
    pub(crate) fn ring(&self, members: &[u32]) -> Ring {
        let slots: Vec<Slot<'_>> = members
            .iter()
            .map(|&at| &self.members[at as usize])
            .map(|member| Slot::new(&member.id, member.weight))
            .collect();
        Ring::new(&slots)
    }

    /// Members that were ever admitted, including those that vanished, in this incarnation or the
    /// one before: what the promises of an expulsion are counted against.
    pub fn admitted(&self) -> usize {
        let admitted = |member: &&Member| member.state != MemberState::Joining || member.restarted;
        self.members.iter().filter(admitted).count()
    }

    /// Equal for equal members (id, addresses, key, zone, weight, state), on any node and any
    /// platform.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Xxh3::new();
        let mut field = |bytes: &[u8]| {
            // Lengths first, so that different lists of fields never produce the same bytes.
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for member in self.members.iter() {
            field(member.id.as_bytes());
            field(member.address.as_bytes());
            field(member.contact.address.as_bytes());
            field(member.contact.key.as_ref().map_or(&[], |key| &key.0));
            field(member.zone.as_bytes());
            field(&member.weight.to_le_bytes());
            field(member.state.name().as_bytes());
            field(&[u8::from(member.vanished)]);
        }
        Fingerprint(hash.digest())
    }
}

/// A hash that is equal for nodes that know the same members; see [`View::fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
