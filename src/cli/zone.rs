//! `gaocache zone`: what an init container asks the Kubernetes API before the node starts.
//!
//! A node knows its zone only from the label of the machine, which pods see in their own labels
//! from Kubernetes 1.35 on. The node itself never calls the API: this command does, so that only
//! the init container needs a token, and only with the permission to get machines.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{header::ACCEPT, redirect::Policy};
use serde_json::Value;

use super::{access::read_token, failure::Failure, output::tell};
use crate::http_client::{self, Proxies};

/// The labels and annotations of a machine alone: all else would be a hundred times as long.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Kubernetes bounds an object's annotations to 256 KiB.
const MOST: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct ZoneArgs {
    /// Name of the machine, as Kubernetes knows it (spec.nodeName of the pod)
    #[arg(long)]
    node: String,
    /// The file to write; it is left empty if the machine has no such label
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Label of the machine with its zone
    #[arg(long, default_value = "topology.kubernetes.io/zone")]
    label: String,
    /// URL of the Kubernetes API
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://kubernetes.default.svc"
    )]
    api: String,
    /// Directory with the service account's `token` and the API's `ca.crt`
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    credentials: PathBuf,
}

pub(super) async fn zone(args: &ZoneArgs) -> Result<(), Failure> {
    let failed = |why: String| {
        let (node, api) = (&args.node, &args.api);
        Failure::Failed(format!("the zone of {node} is not known: {api}: {why}"))
    };
    let told = |error: gaocache_core::Error| failed(error.to_string());
    let authorities = args.credentials.join("ca.crt");
    let authorities = match args.api.starts_with("https://") {
        true => Some(read(&authorities)?),
        false => None,
    };
    let builder = http_client::trusting(authorities.as_deref(), Proxies::None).map_err(told)?;
    let builder = builder.timeout(TIMEOUT).redirect(Policy::none());
    let client = http_client::build(builder).map_err(told)?;
    let token = read_token(&args.credentials.join("token"))?;
    let node = utf8_percent_encode(&args.node, NON_ALPHANUMERIC);
    let request = client.get(format!("{}/api/v1/nodes/{node}", args.api));
    let request = request.bearer_auth(token).header(ACCEPT, METADATA);
    let answer = http_client::answer(request, MOST).await.map_err(failed)?;
    let machine: Value = serde_json::from_slice(&answer)
        .map_err(|error| failed(format!("the answer is not JSON: {error}")))?;
    let zone = machine["metadata"]["labels"][&args.label].as_str();
    if zone.is_none() {
        let (node, label) = (&args.node, &args.label);
        tell(&format!(
            "{node} has no label {label}, so its zone is not known"
        ));
    }
    let written = std::fs::write(&args.output, zone.unwrap_or_default());
    written.map_err(|error| Failure::Failed(format!("{}: {error}", args.output.display())))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error| Failure::Usage(format!("{}: {error}", path.display()));
    std::fs::read(path).map_err(wrong)
}
