//! `gaocache get`, `remove` and `purge`: one call to a node.

use std::{io::Write, time::Duration};

use clap::Args;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{Failure, println_or_stop};
use crate::{
    error::{Error, ErrorKind},
    rpc::{
        status::from_status,
        wire::{self, cache_client::CacheClient},
    },
};

/// Bound on connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Target {
    /// The gRPC address of any node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    target: String,
    /// Seconds until a call is given up
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    group: String,
    key: String,
    #[command(flatten)]
    target: Target,
    /// Tell on standard error where the value came from
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    group: String,
    #[command(flatten)]
    target: Target,
}

impl Target {
    async fn connect(&self) -> Result<CacheClient<Channel>, Failure> {
        let address = &self.target;
        let failed = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Failure::Failed(format!(
                "{address}: {}",
                cause.unwrap_or_else(|| error.to_string())
            ))
        };
        let timeout = crate::config::seconds(self.timeout);
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .connect()
            .await
            .map_err(failed)?;
        // The node bounds values; a client takes what it gets.
        Ok(CacheClient::new(channel).max_decoding_message_size(usize::MAX))
    }
}

fn failed(status: &Status) -> Failure {
    let error = from_status(status).unwrap_or_else(|| {
        Error::new(
            ErrorKind::PeerUnreachable,
            format!("{}: {}", status.code(), status.message()),
        )
    });
    error.into()
}

pub(super) async fn get(args: &KeyArgs) -> Result<(), Failure> {
    let mut client = args.target.connect().await?;
    let request = wire::GetRequest {
        group: args.group.clone(),
        key: args.key.clone(),
    };
    let answer = client
        .get(request)
        .await
        .map_err(|status| failed(&status))?;
    let answer = answer.into_inner();
    if args.verbose {
        eprintln!(
            "source {:?}, owner {}, {} bytes, expires in {}",
            answer.source(),
            answer.owner,
            answer.value.len(),
            answer
                .ttl_remaining_ms
                .map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms")),
        );
    }
    std::io::stdout()
        .write_all(&answer.value)
        .map_err(|error| Failure::Failed(format!("standard output: {error}")))
}

pub(super) async fn remove(args: &KeyArgs) -> Result<(), Failure> {
    let mut client = args.target.connect().await?;
    let request = wire::RemoveRequest {
        group: args.group.clone(),
        key: args.key.clone(),
    };
    client
        .remove(request)
        .await
        .map_err(|status| failed(&status))?;
    Ok(())
}

pub(super) async fn purge(args: &GroupArgs) -> Result<(), Failure> {
    let mut client = args.target.connect().await?;
    let request = wire::PurgeRequest {
        group: args.group.clone(),
    };
    let answer = client
        .purge(request)
        .await
        .map_err(|status| failed(&status))?;
    println_or_stop(&format!("{} entries dropped", answer.into_inner().entries))
}
