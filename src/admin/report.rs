//! The ring as JSON: `/ring` serves it, and `gaocache ring` reads it.

use serde::{Deserialize, Serialize};

use gaocache_core::{cluster::Topology, group::Groups, ports::Peers};

/// The ring, as served by `/ring` and read by `gaocache ring`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingReport {
    /// The id of the reporting node.
    pub node: String,
    /// The registry's revision.
    pub revision: u64,
    /// Equal on nodes that know the same members.
    pub fingerprint: String,
    /// All members, including draining ones, ordered by id.
    pub members: Vec<MemberReport>,
    /// The owner of the requested key in each group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerReport>,
    /// The reporting node's groups, by name. All nodes must have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupReport>>,
    /// The ids of members to which the reporting node can't connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
}

/// A group in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// How long values are kept; 0: no limit.
    pub ttl_seconds: f64,
    /// How long a node remembers that a key does not exist.
    pub negative_ttl_seconds: f64,
    /// Maximum size of a value, in bytes.
    pub max_value: u64,
}

/// A member in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Stays the same across restarts.
    pub id: String,
    /// The address of its gRPC listener.
    pub address: String,
    /// Where the member runs.
    pub zone: String,
    /// Its weight relative to the other members.
    pub weight: u32,
    /// `serving`, `draining`, `joining`, or `vanished`: its registration has ended although it did
    /// not leave, and the others have not taken it off the list yet.
    pub state: String,
    /// The release it runs.
    pub version: String,
    /// The lease of its registration, as etcd writes it; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Its share of all keys, 0 to 1.
    pub share: f64,
    /// The registry's revision at which it came into the ring; 0: not known.
    #[serde(default)]
    pub since: u64,
}

/// An owner in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnerReport {
    /// The group.
    pub group: String,
    /// The owner's id; empty if there is no ring yet.
    pub owner: String,
}

/// Converts a topology to a report.
pub fn report(node: &str, topology: &Topology, owners: Vec<OwnerReport>) -> RingReport {
    let members = topology.view.members.iter().enumerate();
    RingReport {
        node: node.to_owned(),
        revision: topology.view.revision,
        fingerprint: topology.view.fingerprint().to_string(),
        members: members
            .map(|(at, member)| MemberReport {
                id: member.id.to_string(),
                address: member.address.to_string(),
                zone: member.zone.to_string(),
                weight: member.weight,
                state: member.state_name().to_owned(),
                version: member.version.to_string(),
                lease: (member.lease != 0).then(|| format!("{:x}", member.lease)),
                share: topology.share(at),
                since: member.since,
            })
            .collect(),
        owners,
        groups: None,
        unreachable: Vec::new(),
    }
}

/// The groups, by name.
pub(super) fn group_reports(groups: &Groups) -> Vec<GroupReport> {
    let reports = groups.iter().map(|group| {
        let rules = group.rules();
        GroupReport {
            name: rules.name.to_string(),
            ttl_seconds: rules.ttl.unwrap_or_default().as_secs_f64(),
            negative_ttl_seconds: rules.negative_ttl.as_secs_f64(),
            max_value: rules.max_value,
        }
    });
    let mut reports: Vec<GroupReport> = reports.collect();
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    reports
}

/// The members that this node tried to call, and could not.
pub(super) fn unreachable(topology: &Topology, peers: &dyn Peers) -> Vec<String> {
    let members = topology.view.members.iter();
    let out_of_reach = members.filter(|it| !peers.usable(it));
    out_of_reach.map(|it| it.id.to_string()).collect()
}

/// The owner of the key in each group.
pub(super) fn owners(groups: &Groups, topology: &Topology, key: &str) -> Vec<OwnerReport> {
    let owner = |hash| topology.owner_id(hash).map(ToString::to_string);
    let mut owners: Vec<OwnerReport> = groups
        .iter()
        .map(|group| OwnerReport {
            group: group.name().to_string(),
            owner: owner(group.hash(key)).unwrap_or_default(),
        })
        .collect();
    owners.sort_by(|a, b| a.group.cmp(&b.group));
    owners
}
