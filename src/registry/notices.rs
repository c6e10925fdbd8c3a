//! Notices in etcd: what a member tells the others when it can't reach one of them directly.
//!
//! A notice stands at `<service>-notices/posted/<incarnation>-<number>`, and how far a member has
//! confirmed at `<service>-notices/confirmed/<incarnation>`. Neither hangs on a lease: a notice
//! that went with its poster's lease could be gone before all have seen it. The poster withdraws
//! it, and takes away what is left of lives that nobody lists any more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gaocache_core::{
    membership::IdHash,
    ports::{Notice, Notices},
};
use gaocache_discovery::{Discovery, Endpoint, EtcdConfig, KeyRange, Result, expulsion::Records};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The notices of one service, as one node sees and posts them.
pub(super) struct NoticeBoard {
    records: Records,
    prefix: String,
    /// Tells this process' notices from others'.
    poster: u64,
    next: AtomicU64,
    /// Keys of the notices that this process posted, by revision.
    posted: Mutex<HashMap<u64, String>>,
    seen: watch::Receiver<Notices>,
    following: tokio::task::JoinHandle<()>,
}

impl Drop for NoticeBoard {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl NoticeBoard {
    pub(super) fn new(config: EtcdConfig, service: &str) -> Self {
        let prefix = format!("{service}-notices/");
        let range = KeyRange::prefix(prefix.clone());
        let discovery = Discovery::start_ranges(config.clone(), [range], |_| {});
        let (sender, seen) = watch::channel(Notices::default());
        let following = tokio::spawn(follow(discovery, prefix.clone(), sender));
        Self {
            records: Records::new(config),
            prefix,
            poster: fastrand::u64(..),
            next: AtomicU64::new(0),
            posted: Mutex::default(),
            seen,
            following,
        }
    }

    pub(super) fn notices(&self) -> watch::Receiver<Notices> {
        self.seen.clone()
    }

    pub(super) async fn post(&self, notice: &Notice) -> Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = format!("{}posted/{:016x}-{number}", self.prefix, self.poster);
        let revision = self.records.put(&key, &stored(notice)).await?;
        self.posted.lock().insert(revision, key);
        Ok(revision)
    }

    pub(super) async fn withdraw(&self, revision: u64) -> Result<()> {
        let key = self.posted.lock().remove(&revision);
        match key {
            Some(key) => self.records.delete(&key).await,
            None => Ok(()),
        }
    }

    pub(super) async fn confirm(&self, member: IdHash, revision: u64) -> Result<()> {
        let key = format!("{}confirmed/{:016x}", self.prefix, member.0);
        let value = Endpoint::new("confirmed").with_metadata("revision", revision);
        self.records.put(&key, &value).await.map(|_| ())
    }

    /// Takes away what that member confirmed: it is out.
    pub(super) async fn forget(&self, member: IdHash) -> Result<()> {
        let key = format!("{}confirmed/{:016x}", self.prefix, member.0);
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

fn read(prefix: &str, endpoints: &BTreeMap<Arc<str>, Endpoint>) -> Notices {
    let mut notices = Notices::default();
    for (key, value) in endpoints {
        let Some(name) = key.strip_prefix(prefix) else {
            continue;
        };
        if let Some(member) = name.strip_prefix("confirmed/") {
            let member = u64::from_str_radix(member, 16).map(IdHash);
            if let (Ok(member), Some(revision)) = (member, value.number("revision")) {
                notices.confirmed.insert(member, revision);
            }
        } else if let Some(notice) = notice(value) {
            let revision = u64::try_from(value.revision).unwrap_or(0);
            notices.standing.insert(revision, notice);
        }
    }
    notices
}

fn stored(notice: &Notice) -> Endpoint {
    match notice {
        Notice::Remove { group, key } => {
            let value = Endpoint::new("remove").with_metadata("group", &**group);
            match key {
                Some(key) => value.with_metadata("key", &**key),
                None => value,
            }
        }
        Notice::Seen { revision } => Endpoint::new("seen").with_metadata("revision", *revision),
    }
}

fn notice(value: &Endpoint) -> Option<Notice> {
    match &*value.address {
        "remove" => Some(Notice::Remove {
            group: value.text("group")?.into(),
            key: value.text("key").map(Into::into),
        }),
        "seen" => Some(Notice::Seen {
            revision: value.number("revision")?,
        }),
        // Of a newer release: not confirmed, so its poster knows that this node can't do it.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_stands_in_etcd_and_comes_back_the_same() {
        let notices = [
            Notice::Remove {
                group: "users".into(),
                key: Some("ä/b".into()),
            },
            Notice::Remove {
                group: "users".into(),
                key: None,
            },
            Notice::Seen { revision: 7 },
        ];
        for sent in notices {
            let bytes = stored(&sent).to_json();
            let read = Endpoint::from_stored(&bytes).expect("it has the form of an endpoint");
            assert_eq!(notice(&read), Some(sent));
        }
    }
}
