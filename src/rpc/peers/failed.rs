//! What the core learns of a failed call, and what metrics call it.

use tonic::Status;

use super::failure::Failure;
use gaocache_core::{
    error::{Error, ErrorKind},
    membership::Member,
    ports::PeerError,
};

/// A call that failed: what the core learns, and why.
#[derive(Clone)]
pub(in crate::rpc) struct Failed {
    pub(in crate::rpc) error: PeerError,
    pub(super) why: Why,
}

/// Why a call brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Unreachable,
    Late,
    Incompatible,
    /// The peer does not have the group yet, or is leaving.
    Unavailable,
    Error,
}

impl Why {
    /// As metrics name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Incompatible => "incompatible",
            Self::Unavailable => "unavailable",
            Self::Late | Self::Error => "error",
        }
    }
}

impl Failed {
    pub(super) fn new(failure: Failure, status: &Status, max_value: u64) -> Self {
        let cause = || {
            let what = format!("{}: {}", status.code(), status.message());
            Error::new(ErrorKind::PeerUnreachable, what).with_source(status.clone())
        };
        match failure {
            Failure::Answered(error) => Self::by_peer(error),
            Failure::NotKnown(error) => {
                let what = "a member doesn't know the identity of this node (yet)";
                let error = Error::new(ErrorKind::NotReady, what).with_source(error);
                Self {
                    why: Why::Unavailable,
                    error: PeerError::Answered(error),
                }
            }
            Failure::TooLarge => {
                let what = format!("between nodes: {}", status.message());
                let error = Error::value_too_large(what, max_value);
                Self::answered(error.with_source(status.clone()))
            }
            Failure::Refused | Failure::Silent | Failure::Broken => Self::unreachable(cause()),
            Failure::Late => Self {
                why: Why::Late,
                ..Self::unreachable(cause())
            },
            Failure::Unusable | Failure::Closed => Self {
                why: Why::Incompatible,
                ..Self::unreachable(cause())
            },
        }
    }

    /// The peer's answer is this error.
    pub(super) fn by_peer(error: Error) -> Self {
        let passing = [ErrorKind::UnknownGroup, ErrorKind::NotReady];
        let passing = passing.contains(&error.kind());
        Self {
            why: if passing {
                Why::Unavailable
            } else {
                Why::Error
            },
            error: PeerError::Answered(error),
        }
    }

    pub(super) fn unreachable(error: Error) -> Self {
        Self {
            error: PeerError::Unreachable(error),
            why: Why::Unreachable,
        }
    }

    pub(super) fn not_connected(member: &Member) -> Self {
        let what = format!("{} can't be connected to", member.id);
        Self::unreachable(Error::new(ErrorKind::PeerUnreachable, what))
    }

    pub(super) fn answered(error: Error) -> Self {
        Self {
            error: PeerError::Answered(error),
            why: Why::Error,
        }
    }
}
