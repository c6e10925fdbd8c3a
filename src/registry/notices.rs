//! Notices in etcd: what a member publishes for the others when it can't reach one of them
//! directly.
//!
//! A notice is at `<service>-notices/posted/<name>`, and which of them a member has confirmed
//! at `<service>-notices/confirmed/<incarnation>`. Neither hangs on a lease: a notice that went
//! with its poster's lease could be gone before all have seen it. The poster withdraws it, and
//! an expulsion also removes what the expelled member confirmed.
//!
//! It must never count by etcd's revisions: an etcd that lost its data counts anew, while what was
//! confirmed before is still on its way, or still held by a follower.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gaocache_core::{
    membership::IdHash,
    ports::{Notice, NoticeId, Notices, Removal},
};
use gaocache_discovery::{Discovery, Endpoint, EtcdConfig, KeyRange, Result, expulsion::Records};
use serde_json::Value;
use tokio::sync::watch;

/// The notices of one service, as one node sees and posts them.
pub(super) struct NoticeBoard {
    records: Records,
    prefix: String,
    seen: watch::Receiver<Notices>,
    following: tokio::task::JoinHandle<()>,
}

impl Drop for NoticeBoard {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl NoticeBoard {
    /// The notices whose keys begin with `prefix`.
    pub(super) fn new(config: EtcdConfig, prefix: &str) -> Self {
        let range = KeyRange::prefix(prefix);
        let discovery = Discovery::start_ranges(config.clone(), [range], |_| {});
        let (sender, seen) = watch::channel(Notices::default());
        let following = tokio::spawn(follow(discovery, prefix.into(), sender));
        Self {
            records: Records::new(config),
            prefix: prefix.into(),
            seen,
            following,
        }
    }

    pub(super) fn notices(&self) -> watch::Receiver<Notices> {
        self.seen.clone()
    }

    pub(super) async fn post(&self, notice: &Notice) -> Result<NoticeId> {
        let id = NoticeId(fastrand::u64(..));
        self.records.put(&self.key(id), &stored(notice)).await?;
        Ok(id)
    }

    pub(super) async fn withdraw(&self, posted: NoticeId) -> Result<()> {
        self.records.delete(&self.key(posted)).await
    }

    fn key(&self, id: NoticeId) -> String {
        format!("{}posted/{}", self.prefix, name(id))
    }

    pub(super) async fn confirm(&self, member: IdHash, done: &BTreeSet<NoticeId>) -> Result<()> {
        let key = format!("{}confirmed/{}", self.prefix, hex(member.0));
        let done: Vec<String> = done.iter().map(|id| name(*id)).collect();
        let value = Endpoint::new("confirmed").with_metadata("notices", done);
        self.records.put(&key, &value).await.map(|_| ())
    }

    /// Deletes the confirmations of a member that was expelled.
    pub(super) async fn forget(&self, member: IdHash) -> Result<()> {
        let key = format!("{}confirmed/{}", self.prefix, hex(member.0));
        self.records.delete(&key).await
    }
}

async fn follow(discovery: Discovery, prefix: String, sender: watch::Sender<Notices>) {
    let mut changes = discovery.changes();
    loop {
        let endpoints = changes.borrow_and_update().endpoints.clone();
        let notices = read(&prefix, &endpoints);
        sender.send_if_modified(|current| {
            let changed = *current != notices;
            *current = notices;
            changed
        });
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn name(id: NoticeId) -> String {
    hex(id.0)
}

fn id(name: &str) -> Option<NoticeId> {
    unhex(name).map(NoticeId)
}

/// As text, since JSON's numbers end at 53 bits in many languages.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn unhex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

pub(super) fn read(prefix: &str, endpoints: &BTreeMap<Arc<str>, Endpoint>) -> Notices {
    let mut notices = Notices::default();
    for (key, value) in endpoints {
        let Some(name) = key.strip_prefix(prefix) else {
            continue;
        };
        if let Some(member) = name.strip_prefix("confirmed/") {
            let member = unhex(member).map(IdHash);
            if let (Some(member), Some(done)) = (member, value.metadata.get("notices")) {
                let done = done.as_array().into_iter().flatten();
                let done = done.filter_map(Value::as_str).filter_map(id).collect();
                notices.confirmed.insert(member, done);
            }
        } else if let Some(posted) = name.strip_prefix("posted/").and_then(id)
            && let Some(notice) = notice(value)
        {
            notices.standing.insert(posted, notice);
        }
    }
    notices
}

pub(super) fn stored(notice: &Notice) -> Endpoint {
    match notice {
        Notice::Remove { group, what } => {
            let value = Endpoint::new("remove").with_metadata("group", &**group);
            match what {
                Removal::Key(key) => value.with_metadata("key", &**key),
                // An older release purges the whole group.
                Removal::Tag(tag) => value.with_metadata("tag", &**tag),
                Removal::All => value,
            }
        }
        Notice::Seen { revision, listed } => Endpoint::new("seen")
            .with_metadata("revision", *revision)
            .with_metadata("listed", hex(listed.0)),
    }
}

fn notice(value: &Endpoint) -> Option<Notice> {
    match &*value.address {
        "remove" => Some(Notice::Remove {
            group: value.text("group")?.into(),
            what: match (value.text("key"), value.text("tag")) {
                (Some(key), _) => Removal::Key(key.into()),
                (None, Some(tag)) => Removal::Tag(tag.into()),
                (None, None) => Removal::All,
            },
        }),
        "seen" => Some(Notice::Seen {
            revision: value.number("revision")?,
            // Older releases don't say it.
            listed: value
                .text("listed")
                .and_then(unhex)
                .map_or(IdHash::NONE, IdHash),
        }),
        // Of a newer release: not confirmed, so its poster knows that this node can't do it.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use gaocache_testing::{Etcd, LONG, within};

    use super::*;

    #[test]
    fn a_notice_stands_in_etcd_and_comes_back_the_same() {
        let notices = [
            Notice::Remove {
                group: "users".into(),
                what: Removal::Key("ä/b".into()),
            },
            Notice::Remove {
                group: "users".into(),
                what: Removal::Tag("red".into()),
            },
            Notice::Remove {
                group: "users".into(),
                what: Removal::All,
            },
            Notice::Seen {
                revision: 7,
                listed: IdHash(u64::MAX),
            },
        ];
        for sent in notices {
            let bytes = stored(&sent).to_json();
            let read = Endpoint::from_stored(&bytes).expect("it has the form of an endpoint");
            assert_eq!(notice(&read), Some(sent));
        }
    }

    #[tokio::test]
    async fn what_was_confirmed_before_etcd_lost_its_data_counts_for_no_later_notice() {
        let mut etcd = Etcd::start().await;
        // The lease is how long a follower holds what it knew.
        let config = EtcdConfig::new([&*etcd.url]).with_lease_ttl(LONG * 2);
        let board = NoticeBoard::new(config, "s-notices/");
        let (member, listed) = (IdHash(7), IdHash::NONE);
        let seen = Notice::Seen {
            revision: 1,
            listed,
        };
        // The first history goes further than the second has come when the next notice is posted.
        let mut confirmed = BTreeSet::new();
        for _ in 0..20 {
            confirmed.insert(board.post(&seen).await.expect("posted"));
        }
        board.confirm(member, &confirmed).await.expect("confirmed");
        let mut notices = board.notices();
        let known = notices.wait_for(|it| it.confirmed.contains_key(&member));
        let known = within("the confirmation", known).await.expect("followed");
        assert_eq!(known.confirmed[&member], confirmed);
        drop(known);
        etcd.wipe().await;
        // One that was under way arrives late.
        let late = async { while board.confirm(member, &confirmed).await.is_err() {} };
        within("etcd answers", late).await;
        let posted = board.post(&seen).await.expect("posted");
        let standing = notices.wait_for(|it| it.standing.contains_key(&posted));
        let standing = within("the notice", standing).await.expect("followed");
        assert!(!standing.confirmed[&member].contains(&posted));
    }
}
