//! What a failed call says about the peer.
//!
//! Whether a peer is alive is one question, whether its answer can be used here is another. Only
//! the first may eject it: an older release, other limits or a long load are answers of a healthy
//! peer.

use std::error::Error as StdError;

use tonic::{Code, ConnectError, Response, Status, TimeoutExpired};

use crate::status::grpc::from_status;
use gaocache_core::error::{Error, ErrorKind};

/// How a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A gaocache node answered with this error.
    Answered(Error),
    /// A gaocache node doesn't know this one, whose registration it may not have seen yet.
    NotKnown(Error),
    /// No connection could be made.
    Refused,
    /// The connection stopped answering its keep-alive: the process is frozen, or its machine gone.
    Silent,
    /// A connection that was established ended. That may say nothing about the peer, such as when
    /// something on the way has closed it; another attempt will show.
    Broken,
    /// The peer closed the connection in order (GOAWAY): it is shutting down, or has received too
    /// many resets.
    Closed,
    /// It took longer than the call may.
    Late,
    /// A message is over the limit of the end that has to read it.
    TooLarge,
    /// The peer is alive, but refused the call or answered what this release can't read.
    Unusable,
}

impl Failure {
    /// Sorts the status of a failed call.
    pub(super) fn of(status: &Status) -> Self {
        if let Some(error) = from_status(status) {
            return match error.kind() {
                ErrorKind::Unauthenticated => Self::NotKnown(error),
                _ => Self::Answered(error),
            };
        }
        // A status that was received has no cause; the transport's own errors are causes.
        let mut cause = status.source();
        let mut transport = None;
        while let Some(error) = cause {
            if let Some(sorted) = sort(error) {
                transport = Some(sorted);
            }
            cause = error.source();
        }
        transport.unwrap_or_else(|| match status.code() {
            Code::DeadlineExceeded => Self::Late,
            Code::OutOfRange => Self::TooLarge,
            _ => Self::Unusable,
        })
    }

    /// Whether the same call may succeed at once on another connection.
    pub(super) fn is_worth_another(&self) -> bool {
        matches!(self, Self::Broken | Self::Closed)
    }

    /// Whether the peer is out of reach, so that the next in ring order has to stand in for it.
    pub(super) fn ejects(&self) -> bool {
        matches!(self, Self::Refused | Self::Silent | Self::Broken)
    }
}

/// The answers; `None` from a release that does not know the call.
pub(super) fn known<T>(called: Result<Response<T>, Status>) -> Result<Response<Option<T>>, Status> {
    match called {
        Err(status) if status.code() == Code::Unimplemented && from_status(&status).is_none() => {
            Ok(Response::new(None))
        }
        called => called.map(|answers| answers.map(Some)),
    }
}

/// What one cause of a transport error shows; `None`: nothing by itself. The innermost that shows
/// something decides.
fn sort(error: &(dyn StdError + 'static)) -> Option<Failure> {
    if error.is::<TimeoutExpired>() {
        return Some(Failure::Late);
    }
    if error.is::<ConnectError>() {
        return Some(Failure::Refused);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let silent = error.is_timeout();
        return Some(if silent {
            Failure::Silent
        } else {
            Failure::Broken
        });
    }
    let error = error.downcast_ref::<h2::Error>()?;
    // An answer from the peer itself shows that it is alive.
    Some(match error.is_remote() {
        true if error.is_reset() => Failure::Unusable,
        true if error.is_go_away() => Failure::Closed,
        _ => Failure::Broken,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::grpc::to_status;

    #[test]
    fn what_a_living_peer_answers_never_ejects_it() {
        let answers = [
            Status::unimplemented("an older release"),
            Status::out_of_range("decoded message length too large"),
            Status::internal("failed to decode Protobuf message"),
            Status::unavailable("a proxy says so"),
            Status::cancelled("by the peer"),
            Status::resource_exhausted("by the peer"),
            Status::deadline_exceeded("by the peer"),
            Status::unknown("by the peer"),
        ];
        let ours = ErrorKind::ALL.iter();
        let ours = ours.map(|kind| to_status(&Error::new(*kind, "why")));
        for status in answers.into_iter().chain(ours) {
            let failure = Failure::of(&status);
            assert!(!failure.ejects(), "{status:?}: {failure:?}");
            assert!(!failure.is_worth_another(), "{status:?}: {failure:?}");
        }
    }

    #[test]
    fn a_stream_that_the_peer_resets_is_an_answer_and_a_connection_that_ends_is_none() {
        let refused = h2::Error::from(h2::Reason::REFUSED_STREAM);
        assert!(
            Failure::of(&Status::from_error(refused.into())).ejects(),
            "not remote"
        );
        let refused = ConnectError(std::io::Error::other("refused").into());
        let status = Status::from_error(refused.into());
        assert!(matches!(Failure::of(&status), Failure::Refused));
        let late = Status::from_error(TimeoutExpired(()).into());
        assert!(matches!(Failure::of(&late), Failure::Late), "{late:?}");
    }
}
