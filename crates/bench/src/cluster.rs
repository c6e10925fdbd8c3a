//! The servers that are no code of ours, and the nodes, each with the settings that it ships with
//! but for where it listens, who else there is, and the origin.

use std::{fs, path::Path, time::Duration};

use tempfile::TempDir;

use crate::{
    keys::{GROUP, key},
    lines,
    process::{Process, SERVERS, find, free_address, listens},
};

/// Where a node listens.
pub struct Node {
    pub process: Process,
    pub grpc: String,
    pub http: String,
    pub redis: String,
    _folder: TempDir,
}

/// Nodes that know each other and have this origin.
pub async fn nodes(program: &Path, count: usize, origin: &str, further: &[&str]) -> Vec<Node> {
    let peers: Vec<String> = (0..count)
        .map(|number| format!("n{number}={}", free_address()))
        .collect();
    let mut nodes = Vec::new();
    for peer in &peers {
        nodes.push(node(program, peer, &peers, origin, further));
    }
    for node in &nodes {
        listens(&node.grpc).await;
        // Ready once it sees itself and the others.
        while lines::owner(&node.http, &key(1, 0)).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    nodes
}

fn node(program: &Path, peer: &str, peers: &[String], origin: &str, further: &[&str]) -> Node {
    let folder = TempDir::new().unwrap();
    let [grpc, http, redis, admin] = std::array::from_fn(|_| free_address());
    let (id, listen) = peer.split_once('=').unwrap();
    let settings = format!(
        r#"
node.id = "{id}"
node.advertise_host = "127.0.0.1"
grpc.listen = "{grpc}"
http.listen = "{http}"
redis.listen = "{redis}"
admin.listen = "{admin}"
peer.listen = "{listen}"
peer.insecure = true
registry.kind = "static"
registry.static.peers = {peers:?}

[[groups]]
name = "{GROUP}"
ttl_seconds = 86400
origin = {{ kind = "http", url = "http://{origin}/{{key}}" }}
"#
    );
    let file = folder.path().join("gaocache.toml");
    fs::write(&file, settings).unwrap();
    let mut arguments = vec!["serve", "--config", file.to_str().unwrap()];
    arguments.extend(further.iter().flat_map(|it| ["--set", it]));
    Node {
        process: Process::start(SERVERS, program.to_str().unwrap(), &arguments),
        grpc,
        http,
        redis,
        _folder: folder,
    }
}

/// An nginx with `proxy_cache` in front of the origin.
pub struct Nginx {
    pub process: Process,
    pub address: String,
    _folder: TempDir,
}

/// Starts it, where it is installed.
pub async fn nginx(origin: &str) -> Option<Nginx> {
    let program = find("nginx")?;
    let (folder, address) = (TempDir::new().unwrap(), free_address());
    let place = folder.path().display();
    let settings = format!(
        r#"
daemon off;
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  proxy_cache_path {place}/cache levels=1:2 keys_zone=all:64m max_size=1g inactive=1d;
  server {{
    listen {address};
    location / {{
      proxy_pass http://{origin};
      proxy_cache all;
      proxy_cache_valid 200 1d;
    }}
  }}
}}
"#
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, settings).unwrap();
    let process = Process::start(SERVERS, &program, &["-c", file.to_str().unwrap()]);
    listens(&address).await;
    Some(Nginx {
        process,
        address,
        _folder: folder,
    })
}

/// A Redis server that keeps all in memory.
pub struct Redis {
    pub process: Process,
    pub address: String,
    _folder: TempDir,
}

/// Starts it, where it is installed.
pub async fn redis() -> Option<Redis> {
    let program = find("redis-server")?;
    let (folder, address) = (TempDir::new().unwrap(), free_address());
    let port = address.split(':').nth(1).unwrap();
    let arguments = [
        "--port",
        port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        folder.path().to_str().unwrap(),
    ];
    let process = Process::start(SERVERS, &program, &arguments);
    listens(&address).await;
    Some(Redis {
        process,
        address,
        _folder: folder,
    })
}
