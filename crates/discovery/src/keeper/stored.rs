//! What a registration knows of its record in etcd.

use tokio::time::Instant;

use crate::records::RecordKeys;

/// The copy of the endpoint that outlives the lease.
pub(crate) struct Record {
    pub(super) keys: RecordKeys,
    /// Its last change as we know it; 0: not yet written.
    pub(super) revision: i64,
    /// What the record of an earlier incarnation, which this one replaced, said about its state.
    pub(super) predecessor: Option<String>,
    /// etcd has lost its data. The same incarnation goes on there if it is registered again before
    /// this moment: later, others may have begun without it.
    pub(super) resumes_until: Option<Instant>,
    /// The id of the cluster as it stood in etcd when that was last looked at.
    pub(super) cluster: Option<Vec<u8>>,
}

impl Record {
    pub(crate) fn new(keys: RecordKeys) -> Self {
        Self {
            keys,
            revision: 0,
            predecessor: None,
            resumes_until: None,
            cluster: None,
        }
    }

    /// Whether it was written again, after etcd lost its data, too late for the same incarnation to
    /// go on.
    pub(super) fn resumes_late(&mut self) -> bool {
        let late = self.resumes_until.is_some_and(|it| Instant::now() >= it);
        if !late {
            self.resumes_until = None;
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_stands_again_after_its_lease_would_have_ended_is_late_until_it_begins_anew() {
        let keys = ["r", "h", "y", "c"].map(str::to_owned);
        let [record, history, young, cluster] = keys;
        let mut record = Record::new(RecordKeys {
            record,
            history,
            young,
            cluster,
        });
        assert!(!record.resumes_late(), "nothing was lost");
        let lease = Duration::from_secs(1);
        record.resumes_until = Some(Instant::now() + lease);
        tokio::time::advance(lease).await;
        assert!(record.resumes_late());
        assert!(record.resumes_late(), "also when it is written once more");
        record.resumes_until = Some(Instant::now() + lease);
        assert!(!record.resumes_late());
        tokio::time::advance(lease).await;
        assert!(!record.resumes_late(), "it stands since it was in time");
    }
}
