//! What is to be done with an entry that this node holds. Pure.

use crate::{
    cluster::{Owner, Topology},
    membership::Member,
    ring::KeyHash,
    store::Entry,
};

use super::parts::HandoffRules;

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan<'a> {
    /// It belongs here, and the other holder, if any, has it.
    Stay,
    /// It is to go to that member.
    Send {
        /// Where to.
        to: &'a Member,
        /// This node keeps it too.
        copy: bool,
    },
}

/// The plan for an entry of that key. Once it is carried out for an entry, the plan for it is
/// `Stay` or the entry is gone.
pub fn plan<'a>(
    topology: &'a Topology,
    key: KeyHash,
    entry: &Entry,
    rules: HandoffRules,
) -> Plan<'a> {
    if rules.replicas < 2 {
        return match topology.owner(key) {
            Owner::Me => Plan::Stay,
            Owner::Other(to) => Plan::Send { to, copy: false },
        };
    }
    let mut ranked = topology.ranked(key);
    let first = ranked.next().unwrap_or(Owner::Me);
    let second = ranked.next();
    let has_it = |member: &Member| entry.has_replica_at(member.incarnation());
    match (first, second) {
        (Owner::Me, Some(Owner::Other(to)))
            if !has_it(to) && entry.use_count() >= rules.copy_from_use_count =>
        {
            Plan::Send { to, copy: true }
        }
        (Owner::Me, _) => Plan::Stay,
        (Owner::Other(to), Some(Owner::Me)) if !has_it(to) => Plan::Send { to, copy: true },
        (Owner::Other(_), Some(Owner::Me)) => Plan::Stay,
        // Even if another holder had it once: it may have given it away in a ring that this node
        // hasn't seen.
        (Owner::Other(to), _) => Plan::Send { to, copy: false },
    }
}

/// The other member that is to hold an entry of that key, which this node holds.
pub(super) fn other_holder(topology: &Topology, key: KeyHash) -> Option<&Member> {
    let mut ranked = topology.ranked(key);
    match (ranked.next()?, ranked.next()?) {
        (Owner::Me, Owner::Other(member)) | (Owner::Other(member), Owner::Me) => Some(member),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::{GroupId, HashedKey},
        membership::View,
        metadata::Metadata,
        ports::Timestamp,
        record::{Record, Stale},
        ring::hash_key,
    };

    const RULES: HandoffRules = HandoffRules {
        replicas: 2,
        copy_from_use_count: 3,
        bytes_per_second: 1,
    };

    /// How the members rank for a key, and the plan for it as each of them sees it.
    fn plans(rules: HandoffRules, use_count: u32, replica_at: Option<usize>) -> Vec<String> {
        let view = View::new(1, ["a", "b", "c"].map(|id| Member::new(id, "h:1")));
        let key = hash_key(0, "k");
        let outside = Topology::new("outside", view.clone());
        let ranked: Vec<&Member> = outside
            .ranked(key)
            .filter_map(|owner| match owner {
                Owner::Other(member) => Some(member),
                Owner::Me => None,
            })
            .collect();
        let rank = |member: &Member| ranked.iter().position(|it| it.id == member.id);
        let record = Record {
            value: None,
            expires_at: Timestamp::NEVER,
            stale: Stale::NEVER,
            entity_tag: 0,
            metadata: Metadata::NONE,
        };
        let entry = Entry::new(&HashedKey::new(GroupId(0), "k"), &record).with_use_count(use_count);
        if let Some(replica_at) = replica_at {
            entry.set_replica_at(ranked[replica_at].incarnation());
        }
        let seen_by = |me: &&Member| {
            let topology = Topology::new(&me.id, view.clone());
            match plan(&topology, key, &entry, rules) {
                Plan::Stay => "stay".to_owned(),
                Plan::Send { to, copy } => {
                    let what = if copy { "copy" } else { "move" };
                    format!("{what} to {}", rank(to).expect("a member"))
                }
            }
        };
        ranked.iter().map(seen_by).collect()
    }

    #[test]
    fn with_one_holder_an_entry_goes_to_its_owner() {
        let rules = HandoffRules {
            replicas: 1,
            ..RULES
        };
        assert_eq!(plans(rules, 9, None), ["stay", "move to 0", "move to 0"]);
    }

    #[test]
    fn with_two_holders_each_sees_that_the_other_has_it() {
        assert_eq!(
            plans(RULES, 3, None),
            ["copy to 1", "copy to 0", "move to 0"]
        );
        assert_eq!(plans(RULES, 2, None)[0], "stay", "not hot enough");
        assert_eq!(plans(RULES, 3, Some(1))[0], "stay");
        assert_eq!(plans(RULES, 3, Some(2))[0], "copy to 1");
        assert_eq!(plans(RULES, 3, Some(0))[1..], ["stay", "move to 0"]);
    }
}
