//! Many keys at once: one request to each owner.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::{convert, members::Members};
use crate::{
    answer::Answer,
    status::grpc::to_status,
    telemetry::trace,
    wire::{GetManyRequest, GetManyResponse, bearer::BearingClient, get_many_response::Outcome},
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Keys of one request: far fewer than nodes accept by default (`limits.max_keys_per_request`).
const BATCH: usize = 256;
/// Requests under way at the same time.
const AT_ONCE: usize = 8;

/// The answer of each key, in the order of `keys`.
pub(super) async fn get_many(
    members: &Arc<Members>,
    group: &str,
    keys: &[&str],
    deadline: Instant,
) -> Vec<Result<Answer>> {
    // Not by a closure: its future could not be spawned (rust-lang/rust#64552).
    let mut requests = Vec::new();
    for keys in members.by_owner(group, keys) {
        for batch in keys.chunks(BATCH) {
            let batch = Batch::new(group, batch);
            requests.push(batch.answered(members.clone(), deadline));
        }
    }
    let answered: Vec<_> = stream::iter(requests)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let answered: HashMap<String, Result<Answer>> = answered.into_iter().flatten().collect();
    let answer = |key: &&str| {
        answered
            .get(*key)
            .cloned()
            .unwrap_or_else(|| Err(unanswered()))
    };
    keys.iter().map(answer).collect()
}

fn unanswered() -> Error {
    let what = "the node sent no answer for this key";
    Error::new(ErrorKind::PeerUnreachable, what)
}

/// The keys of one request, and their answers so far. Another attempt asks only for the rest.
struct Batch {
    group: String,
    /// By its owner, the others are tried in ring order.
    first: String,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    left: HashSet<String>,
    answers: HashMap<String, Result<Answer>>,
    /// The node said so for one of the keys left, and others may answer for them.
    not_ready: Option<Error>,
}

impl Batch {
    fn new(group: &str, keys: &[&str]) -> Self {
        let left = keys.iter().map(|&key| key.to_owned()).collect();
        Self {
            group: group.to_owned(),
            first: keys.first().copied().unwrap_or_default().to_owned(),
            progress: Arc::new(Mutex::new(Progress {
                left,
                ..Progress::default()
            })),
        }
    }

    /// Asks until each key has an answer. What has none by the deadline has the last error.
    async fn answered(
        self,
        members: Arc<Members>,
        deadline: Instant,
    ) -> HashMap<String, Result<Answer>> {
        let ask = |client| ask(client, self.group.clone(), self.progress.clone());
        let ended = members.call(&self.group, &self.first, deadline, ask).await;
        let Progress {
            left, mut answers, ..
        } = std::mem::take(&mut *self.progress.lock());
        if let Err(error) = ended {
            answers.extend(left.into_iter().map(|key| (key, Err(error.clone()))));
        }
        answers
    }
}

/// One attempt.
async fn ask(
    mut client: BearingClient,
    group: String,
    progress: Arc<Mutex<Progress>>,
) -> Result<(), Status> {
    let keys = progress.lock().left.iter().cloned().collect();
    let request = trace::request(GetManyRequest { group, keys });
    let mut answers = client.get_many(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        progress.lock().take(answer);
    }
    progress.lock().end()
}

impl Progress {
    fn take(&mut self, answer: GetManyResponse) {
        let outcome = match answer.outcome {
            Some(Outcome::Found(found)) => Ok(convert::answer(found)),
            Some(Outcome::Error(error)) => Err(error.error()),
            None => return,
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::NotReady => self.not_ready = Some(error),
            // A key that was not asked for is ignored.
            outcome => {
                if self.left.remove(&answer.key) {
                    self.answers.insert(answer.key, outcome);
                }
            }
        }
    }

    /// The stream has ended.
    fn end(&mut self) -> Result<(), Status> {
        if self.left.is_empty() {
            return Ok(());
        }
        let error = self.not_ready.take();
        Err(error.map_or_else(
            || Status::data_loss(unanswered().message()),
            |it| to_status(&it),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{GetResponse, KeyError};

    fn answer(key: &str, outcome: Outcome) -> GetManyResponse {
        GetManyResponse {
            key: key.into(),
            outcome: Some(outcome),
        }
    }

    fn error(kind: ErrorKind) -> Outcome {
        Outcome::Error(KeyError {
            code: 0,
            kind: kind.name().into(),
            message: "why".into(),
            ..KeyError::default()
        })
    }

    #[test]
    fn what_a_leaving_node_does_not_answer_is_left_for_the_next() {
        let batch = Batch::new("g", &["a", "b", "c"]);
        let mut progress = batch.progress.lock();
        progress.take(answer("a", Outcome::Found(GetResponse::default())));
        progress.take(answer("b", error(ErrorKind::NotFound)));
        progress.take(answer("c", error(ErrorKind::NotReady)));
        progress.take(answer("nobody's", error(ErrorKind::NotFound)));
        let status = progress.end().expect_err("one is left");
        let told = crate::status::grpc::from_status(&status).expect("ours");
        assert_eq!(told.kind(), ErrorKind::NotReady);
        assert_eq!(progress.left, HashSet::from(["c".to_owned()]));
        assert_eq!(progress.answers.len(), 2);
        progress.take(answer("c", Outcome::Found(GetResponse::default())));
        assert!(progress.end().is_ok());
    }
}
