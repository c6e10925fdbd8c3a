//! `gaocache dev`: a cluster in one process, for trying things out. It needs nothing else
//! installed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    failure::{Failure, is_in_use},
    output::{print_line, tell},
    reload::warn,
    signals::{Hangup, Signals},
};
use crate::{
    config::{self, Config, ListenerTlsSettings, Loaded, OriginKind, Sources},
    node::{Addresses, Node, NodeBuilder, configured::start_telemetry},
    registry::Registry,
    settings::{ADMIN_PORT, GRPC_PORT, HTTP_PORT},
    telemetry::line::this_thread_works_for,
};

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
    let signals = Signals::listen(Hangup::Stops)?;
    let group = group(&args.origin);
    let Loaded {
        settings: first,
        warnings,
        ..
    } = settings(0, args, &group, true)?;
    let telemetry = start_telemetry(&first, "dev")?;
    warn(&warnings);
    let registry = Registry::memory();
    let (ends, mut ended) = mpsc::channel(1);
    let known = usable_group(&first, &group)?;
    let mut shown = Vec::new();
    for number in 0..args.nodes {
        let of = |free_ports| {
            let loaded = settings(number, args, &group, free_ports);
            loaded.map(|it| with_ports_of_its_own(it, number))
        };
        shown.push(start(of(false)?, of(true)?, registry.clone(), ends.clone()).await?);
    }
    for node in &mut shown {
        tokio::select! {
            _ = node.readiness.wait_for(|why_not| why_not.is_empty()) => {}
            Some(ended) = ended.recv() => return ended,
        }
    }
    for Started { id, addresses, .. } in &shown {
        let Urls { grpc, http, admin } = Urls::of(addresses, &first);
        print_line(&format!("{id}  grpc {grpc}  http {http}  admin {admin}"))?;
    }
    for Started { id, addresses, .. } in &shown {
        if let Some(redis) = addresses.redis {
            let (host, port) = (redis.ip(), redis.port());
            let key = quoted(&format!("{}:{}", known.name, known.example));
            print_line(&format!("{id}  redis-cli -h {host} -p {port} get {key}"))?;
        }
    }
    if let Some(Started { addresses, .. }) = shown.first() {
        let Urls { grpc, http, admin } = Urls::of(addresses, &first);
        print_line(&format!(
            "\nTry:  curl -i {http}/v1/{group}/{path}\n      curl -s {admin}/ring\n      \
             {program} get --target {grpc} {group} {key}\n      {program} ring --admin {place}\n\
             Stop: Ctrl-C",
            place = admin.trim_start_matches("http://"),
            program = quoted(&program()),
            group = known.name,
            path = utf8_percent_encode(&known.example, PATH),
            key = quoted(&known.example),
        ))?;
    }
    // The nodes end with the process, all at once. None of them is left to hand entries over to.
    let ended = tokio::select! {
        () = signals.received(1) => Ok(()),
        Some(ended) = ended.recv() => ended,
    };
    telemetry.flush();
    ended
}

/// Where a node's listeners are, as people type them.
struct Urls {
    grpc: String,
    http: String,
    admin: String,
}

impl Urls {
    fn of(addresses: &Addresses, settings: &Config) -> Self {
        let url = |address: Option<SocketAddr>, tls: &ListenerTlsSettings, plain: &str| {
            let scheme = if tls.is_on() { "https://" } else { plain };
            let address = address.map(|it| it.to_string());
            format!("{scheme}{}", address.unwrap_or_default())
        };
        Self {
            grpc: url(addresses.grpc, &settings.grpc.tls, ""),
            http: url(addresses.http, &settings.http.tls, "http://"),
            admin: url(addresses.admin, &settings.admin.tls, "http://"),
        }
    }
}

/// What a path may not contain as it is, and what a shell would read as more than a letter.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'/');

/// As it was called: `gaocache` alone may be found nowhere, or elsewhere.
fn program() -> String {
    let called = std::env::args_os().next();
    called.map_or_else(|| "gaocache".into(), |it| it.to_string_lossy().into_owned())
}

/// A word of a shell, which reads it as it is.
fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./:,@%+=".contains(it);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(char::is_control) {
        return format!("$'{}'", word.escape_default());
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The group that the hints name. `--set` may have put other groups in its place.
fn usable_group(settings: &Config, own: &DevGroup) -> Result<DevGroup, Failure> {
    let Some(first) = settings.groups.first() else {
        return Err(Failure::Configuration(
            "at least one group is needed".into(),
        ));
    };
    if first.name == own.name {
        return Ok(own.clone());
    }
    let example = match first.origin.kind {
        OriginKind::File => first_file(&first.origin.path),
        OriginKind::Http => None,
    };
    Ok(DevGroup {
        name: first.name.clone(),
        example: example.unwrap_or_else(|| "example".into()),
        toml: String::new(),
    })
}

/// A node that runs in a thread of its own.
struct Started {
    id: String,
    addresses: Addresses,
    readiness: watch::Receiver<Arc<str>>,
}

/// Starts a node in a thread of its own, so that its log lines can say which node they are about.
/// `ends` receives how it ended.
async fn start(
    usual: Config,
    free: Config,
    registry: Registry,
    ends: mpsc::Sender<Result<(), Failure>>,
) -> Result<Started, Failure> {
    let (tell, started) = oneshot::channel();
    let failed = |error: std::io::Error| {
        Failure::Failed(format!("could not start a node's thread: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let id = usual.node.id.clone();
    let thread = std::thread::Builder::new().name(id.clone());
    let running = thread.spawn(move || {
        this_thread_works_for(Some(id.as_str().into()));
        runtime.block_on(async {
            let node = match bind(&usual, &free, &registry).await {
                Ok(node) => node,
                Err(failure) => {
                    let _ = tell.send(Err(failure));
                    return;
                }
            };
            let _ = tell.send(Ok(Started {
                id,
                addresses: node.addresses(),
                readiness: node.readiness(),
            }));
            let ended = node.run(std::future::pending()).await;
            let _ = ends.send(ended.map_err(Failure::from)).await;
        });
    });
    running.map_err(failed)?;
    let died = |_| Failure::Failed("a node's thread died; see the log".into());
    started.await.map_err(died)?
}

/// The only group of a development cluster.
#[derive(Clone)]
struct DevGroup {
    name: String,
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
            name: "web".into(),
            example: "example".into(),
            toml: format!(
                "[{{ name = \"web\", ttl_seconds = 60, origin = {{ kind = \"http\", url = {url:?} }} }}]"
            ),
        };
    }
    DevGroup {
        name: "files".into(),
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
) -> Result<Loaded, Failure> {
    let port = |first: u16| if free_ports { 0 } else { first + number };
    let given = [
        format!("node.id=dev-{number}"),
        "node.worker_threads=1".into(),
        "node.drain_timeout_seconds=2".into(),
        "node.shutdown_timeout_seconds=2".into(),
        "registry.kind=memory".into(),
        "cache.capacity=128MiB".into(),
        "log.level=warn".into(),
        "log.keys=true".into(),
        // The user tries everything out, and nobody else can reach it.
        "auth.anonymous=read,remove,purge,admin".into(),
        format!("grpc.listen=127.0.0.1:{}", port(GRPC_PORT)),
        format!("http.listen=127.0.0.1:{}", port(HTTP_PORT)),
        // No user ever types it.
        "peer.listen=127.0.0.1:0".into(),
        format!("admin.listen=127.0.0.1:{}", port(ADMIN_PORT)),
        format!("groups={}", group.toml),
    ];
    // Not as `--set`: whatever is wrong with the origin was said with `--origin`.
    let built_in = given.iter().filter_map(|it| it.split_once('='));
    let platform = built_in.map(|(name, value)| {
        let source = match name {
            "groups" => "flag --origin",
            _ => "gaocache dev",
        };
        (name.to_owned(), value.to_owned(), source.to_owned())
    });
    let sources = Sources {
        platform: platform.collect(),
        overrides: args.overrides.clone(),
        ..Sources::default()
    };
    Ok(config::load(&sources)?)
}

/// Where `--set` names the port of a listener, that is the first node's; the others take the ports
/// behind it.
fn with_ports_of_its_own(loaded: Loaded, number: u16) -> Config {
    let Loaded {
        mut settings,
        in_force,
        ..
    } = loaded;
    let listeners = [
        ("grpc.listen", Some(&mut settings.grpc.listen)),
        ("http.listen", Some(&mut settings.http.listen)),
        ("redis.listen", settings.redis.listen.as_mut()),
        ("peer.listen", Some(&mut settings.peer.listen)),
        ("admin.listen", Some(&mut settings.admin.listen)),
    ];
    for (name, address) in listeners {
        let mut known = in_force.iter().filter(|it| it.name == name);
        let is_said = known.any(|it| it.source == "flag --set");
        if let Some(address) = address.filter(|it| is_said && it.port() != 0) {
            address.set_port(address.port().saturating_add(number));
        }
    }
    settings
}

/// A node on the usual ports, or on free ports if those are in use.
async fn bind(usual: &Config, free: &Config, registry: &Registry) -> Result<Node, Failure> {
    let build = async |settings: &Config| {
        let builder = NodeBuilder::configured(settings)?.registry(registry.clone());
        builder.bind().await
    };
    match build(usual).await {
        Err(error) if is_in_use(&error) => {
            let node = build(free).await?;
            // The commands of the README would reach another program.
            let why = error.message().split(';').next().unwrap_or_default();
            let id = &usual.node.id;
            tell(&format!(
                "gaocache: {id} takes free ports instead of the usual ones: {why}"
            ));
            Ok(node)
        }
        other => Ok(other?),
    }
}
