//! The examples at the end of each command's help.

pub(super) const SERVE: &str = "\
Examples:
  gaocache serve --config gaocache.toml
  gaocache serve --config gaocache.toml --set node.zone=a --set 'groups[0].ttl_seconds=60'";

pub(super) const DEV: &str = "\
Examples:
  gaocache dev --origin docs
  gaocache dev --nodes 5 --origin 'http://127.0.0.1:8000/users/{key}'";

pub(super) const GET: &str = "\
Examples:
  gaocache get users 42
  gaocache get users 42 --target 10.0.0.7:7070 -o user.json
  gaocache get users 42 --target https://cache.example:7070 --ca ca.crt
  gaocache get users 42 --etcd http://127.0.0.1:2379 --json";

pub(super) const REMOVE: &str = "\
Examples:
  gaocache remove users 42 --etcd http://127.0.0.1:2379 --token-file token
  gaocache remove users 42 --socket /run/gaocache/admin.sock";

pub(super) const PURGE: &str = "\
Examples:
  gaocache purge users --target 10.0.0.7:7070 --token-file token
  gaocache purge users --tag team-7 --target 10.0.0.7:7070 --token-file token
  gaocache purge users --socket /run/gaocache/admin.sock";

pub(super) const RING: &str = "\
Examples:
  gaocache ring --watch
  gaocache ring --admin 10.0.0.7:9090 --key 42
  gaocache ring --etcd http://127.0.0.1:2379 --json";

pub(super) const EXPLAIN: &str = "\
Examples:
  gaocache explain users 42
  gaocache explain users 42 --admin 10.0.0.7:9090 --json
  gaocache explain users 42 --etcd http://127.0.0.1:2379";

pub(super) const RELOAD: &str = "\
Examples:
  gaocache reload
  gaocache reload --admin 10.0.0.7:9090 --token-file token --json";

pub(super) const LOG: &str = "\
Examples:
  gaocache log debug
  gaocache log info,gaocache::rpc=debug --admin 10.0.0.7:9090 --token-file token";

pub(super) const MEMBERS: &str = "\
Examples:
  gaocache members --etcd http://127.0.0.1:2379
  gaocache members --config gaocache.toml --json";

pub(super) const FORGET: &str = "\
Examples:
  gaocache forget gaocache-7 --etcd http://127.0.0.1:2379";

pub(super) const CHECK: &str = "\
Examples:
  gaocache check --etcd http://127.0.0.1:2379 --members 3
  gaocache check --config gaocache.toml --group users --key 42";

pub(super) const CONFIG: &str = "\
Examples:
  gaocache config --config gaocache.toml
  gaocache config --config gaocache.toml --set cache.capacity=2GiB --json";

pub(super) const ZONE: &str = "\
Examples:
  gaocache zone --node \"$NODE_NAME\" --output /run/gaocache/zone";

pub(super) const COMPLETIONS: &str = "\
Examples:
  gaocache completions bash >/etc/bash_completion.d/gaocache
  gaocache completions zsh >\"${fpath[1]}/_gaocache\"";

pub(super) const MAN: &str = "\
Examples:
  gaocache man /usr/local/share/man/man1";
