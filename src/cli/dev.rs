//! `gaocache dev`: a cluster in one process, for trying things out. It needs nothing else
//! installed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Failure, println_or_stop, serve::stop_signal};
use crate::{
    config::{self, Config, Sources},
    node::{Node, NodeBuilder, configured::start_telemetry},
    registry::Registry,
};
use gaocache_core::error::ErrorKind;

/// Preferred ports of the first node; node `n` uses these plus `n`.
const GRPC_PORT: u16 = 7070;
const HTTP_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// A directory, or a URL with the placeholder {key} (without it, /{key} is appended)
    #[arg(long, value_name = "URL-or-DIRECTORY", default_value = ".")]
    origin: String,
    /// Set one setting on every node, such as --set cache.capacity=64MiB
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
}

pub(super) async fn dev(args: &DevArgs) -> Result<(), Failure> {
    let stop = stop_signal()?;
    let group = group(&args.origin);
    let first = settings(0, args, &group, true)?;
    let telemetry = start_telemetry(&first, "dev")?;
    let registry = Registry::memory();
    let mut nodes = Vec::new();
    for number in 0..args.nodes {
        let node = bind(number, args, &group, &registry).await?;
        nodes.push(node);
    }
    let stopped = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    let shown: Vec<_> = nodes
        .iter()
        .map(|node| (node.id().to_owned(), node.addresses(), node.readiness()))
        .collect();
    for node in nodes {
        running.spawn(node.run(stopped.clone().cancelled_owned()));
    }
    for (_, _, readiness) in &shown {
        let mut readiness = readiness.clone();
        tokio::select! {
            _ = readiness.wait_for(|why_not| why_not.is_empty()) => {}
            Some(ended) = running.join_next() => return first_error(ended),
        }
    }
    let at = |address: Option<SocketAddr>| address.map(|it| it.to_string()).unwrap_or_default();
    for (id, addresses, _) in &shown {
        println_or_stop(&format!(
            "{id}  grpc {}  http http://{}  admin http://{}",
            at(addresses.grpc),
            at(addresses.http),
            at(addresses.admin)
        ))?;
    }
    if let Some((_, addresses, _)) = shown.first() {
        println_or_stop(&format!(
            "\nTry:  curl -i http://{}/v1/{}/{}\n      curl -s http://{}/ring\nStop: Ctrl-C",
            at(addresses.http),
            group.name,
            group.example,
            at(addresses.admin)
        ))?;
    }
    tokio::select! {
        () = stop => {}
        Some(ended) = running.join_next() => return first_error(ended),
    }
    stopped.cancel();
    while let Some(ended) = running.join_next().await {
        first_error(ended)?;
    }
    telemetry.flush();
    Ok(())
}

fn first_error(
    ended: Result<gaocache_core::error::Result<()>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure::Failed(format!("a node failed: {error}"))),
    }
}

/// The only group of a development cluster.
struct DevGroup {
    name: &'static str,
    /// A key that exists, if one is known.
    example: String,
    toml: String,
}

fn group(origin: &str) -> DevGroup {
    if origin.starts_with("http://") || origin.starts_with("https://") {
        let url = if origin.contains("{key}") {
            origin.to_owned()
        } else {
            format!("{}/{{key}}", origin.trim_end_matches('/'))
        };
        return DevGroup {
            name: "web",
            example: "example".into(),
            toml: format!(
                "[{{ name = \"web\", ttl_seconds = 60, origin = {{ kind = \"http\", url = {url:?} }} }}]"
            ),
        };
    }
    DevGroup {
        name: "files",
        example: first_file(Path::new(origin)).unwrap_or_else(|| "some/file".into()),
        toml: format!(
            "[{{ name = \"files\", ttl_seconds = 60, origin = {{ kind = \"file\", path = {origin:?} }} }}]"
        ),
    }
}

/// The first visible file in a directory, by name.
fn first_file(folder: &Path) -> Option<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let names = files.iter().filter_map(|path| path.file_name()?.to_str());
    names
        .filter(|name| !name.starts_with('.'))
        .map(str::to_owned)
        .next()
}

fn settings(
    number: u16,
    args: &DevArgs,
    group: &DevGroup,
    free_ports: bool,
) -> Result<Config, Failure> {
    let port = |first: u16| if free_ports { 0 } else { first + number };
    let given = [
        format!("node.id=dev-{number}"),
        "node.worker_threads=1".into(),
        "node.drain_timeout_seconds=2".into(),
        "node.shutdown_timeout_seconds=2".into(),
        "registry.kind=memory".into(),
        "cache.capacity=128MiB".into(),
        "log.level=warn".into(),
        format!("grpc.listen=127.0.0.1:{}", port(GRPC_PORT)),
        format!("http.listen=127.0.0.1:{}", port(HTTP_PORT)),
        format!("admin.listen=127.0.0.1:{}", port(ADMIN_PORT)),
        format!("groups={}", group.toml),
    ];
    let sources = Sources {
        overrides: given
            .into_iter()
            .chain(args.overrides.iter().cloned())
            .collect(),
        ..Sources::default()
    };
    Ok(config::load(&sources)?.settings)
}

/// A node on the preferred ports, or on free ports if those are in use.
async fn bind(
    number: u16,
    args: &DevArgs,
    group: &DevGroup,
    registry: &Registry,
) -> Result<Node, Failure> {
    let usual = settings(number, args, group, false)?;
    let build = async |settings: Config| {
        let builder = NodeBuilder::configured(&settings)?.registry(registry.clone());
        builder.bind().await
    };
    match build(usual).await {
        Err(error) if error.kind() == ErrorKind::Configuration => {
            Ok(build(settings(number, args, group, true)?).await?)
        }
        other => Ok(other?),
    }
}
