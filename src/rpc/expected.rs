//! The request of a call that bypasses tonic (`lean`): how much may come, how soon, and what is
//! looked at before it is decoded.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use prost::Message;
use tonic::Status;

use crate::{
    status::grpc::to_status,
    traffic::{PREFIX_BYTES, Ticket, collect},
};
use gaocache_core::error::Error;

/// Upper limit for requests for one key: the longest key, the longest group name, and room for
/// future fields.
pub(super) const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// What a request may be.
pub(super) struct Expected<C> {
    /// At most so many bytes.
    pub(super) bytes: usize,
    /// Which have to come within this time.
    pub(super) patience: Duration,
    /// Looks at it before it is decoded.
    pub(super) check: C,
}

impl Expected<fn(&Bytes) -> Result<(), Error>> {
    /// A request for one key.
    pub(super) fn small(patience: Duration) -> Self {
        Self {
            bytes: MAX_REQUEST_BYTES,
            patience,
            check: |_| Ok(()),
        }
    }
}

impl<C: FnOnce(&Bytes) -> Result<(), Error>> Expected<C> {
    /// Reads the only message of a request.
    pub(super) async fn read<B, Q>(self, body: B, ticket: &mut Ticket) -> Result<Q, Status>
    where
        B: Body<Data = Bytes>,
        Q: Message + Default,
    {
        let body = collect(body, ticket, self.bytes, self.patience).await;
        let body = body.and_then(|body| (self.check)(&body).map(|()| body));
        let message = message(body.map_err(|error| to_status(&error))?)?;
        Q::decode(message)
            .map_err(|error| Status::invalid_argument(format!("invalid message: {error}")))
    }
}

/// The only message of a request.
fn message(mut message: Bytes) -> Result<Bytes, Status> {
    if message.len() < PREFIX_BYTES {
        return Err(Status::internal("the request contains no message"));
    }
    let compressed = message.get_u8() != 0;
    let length = message.get_u32() as usize;
    if compressed {
        return Err(Status::unimplemented(
            "this call does not accept compressed messages",
        ));
    }
    if length != message.len() {
        return Err(Status::internal(
            "the message does not have the announced length",
        ));
    }
    Ok(message)
}
