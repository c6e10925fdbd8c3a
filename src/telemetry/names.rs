//! The names of all metrics. They are a contract with dashboards and alerts, so this is the only
//! file that defines them.
//!
//! Rules: names have the form `gaocache_<what>_<unit>[_total]` with base units. Labels have few
//! values, and a key is never a label. Only counters have a `peer` label.

/// A metric as Prometheus sees it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )*
        /// Every metric that gaocache defines.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

#[rustfmt::skip]
metrics! {
    REQUESTS = "gaocache_requests_total", "counter", ["group", "outcome"], "Gets from clients, by the source of the answer (hit, peer, origin, stale) or the kind of error.";
    REQUEST_DURATION = "gaocache_request_duration_seconds", "histogram", ["group"], "Latency of gets from clients. Of those that memory answers, one in sixteen is timed, and the others count as if they had taken as long as the latest.";
    PEER_REQUESTS = "gaocache_peer_requests_total", "counter", ["group", "outcome"], "Fetches from other nodes, by the source of the answer or the kind of error.";
    INVALIDATIONS = "gaocache_invalidations_total", "counter", ["group", "outcome"], "Removals and purges from clients: ok, or the kind of error.";
    STORE_ITEMS = "gaocache_store_items", "gauge", ["group", "tier"], "Entries in memory: owned (held as owner or replica) or hot (copies of keys that another node owns).";
    STORE_BYTES = "gaocache_store_bytes", "gauge", ["group", "tier"], "Memory used by entries, including overhead.";
    STORE_CAPACITY = "gaocache_store_capacity_bytes", "gauge", ["tier"], "Memory available for entries.";
    STORE_SHARE = "gaocache_store_share_bytes", "gauge", ["group", "tier"], "Memory that the group keeps when others want room (memory_share); 0: nothing is guaranteed.";
    STORE_LIMIT = "gaocache_store_limit_bytes", "gauge", ["group", "tier"], "Memory that the group never exceeds (memory_limit); without a limit, the capacity.";
    STORE_EVICTIONS = "gaocache_store_evictions_total", "counter", ["group", "tier"], "Entries evicted to make room for others.";
    STORE_EXPIRATIONS = "gaocache_store_expirations_total", "counter", ["group", "tier"], "Entries that were found to have expired.";
    STORE_PURGED_TAGS = "gaocache_store_purged_tags", "gauge", ["tier"], "Purged tags that are remembered until all entries were compared with them; at most 100,000 of a group. About 40 bytes each.";
    STORE_REFUSALS = "gaocache_store_refusals_total", "counter", ["group"], "Values that were served but not kept, because they are too large for the store or for the group's memory_limit.";
    FLIGHT_WAITS = "gaocache_flight_waits_total", "counter", ["group"], "Requests that joined a load in flight instead of starting one.";
    HOT_COPIES = "gaocache_hot_copies_total", "counter", ["group"], "Hot copies made of keys that another node owns.";
    ORIGIN_LOADS = "gaocache_origin_loads_total", "counter", ["group", "outcome"], "Loads from the origin: ok, or the kind of error (not_found: the key does not exist).";
    ORIGIN_DURATION = "gaocache_origin_load_duration_seconds", "histogram", ["group"], "Duration of loads from the origin, including time in the queue and retries.";
    ORIGIN_BYTES = "gaocache_origin_loaded_bytes_total", "counter", ["group"], "Bytes loaded from the origin.";
    ORIGIN_RENEWALS = "gaocache_origin_renewals_total", "counter", ["group"], "Loads that the origin answered with 304: the value that is kept got another lifetime, and no bytes moved.";
    ORIGIN_HEDGES = "gaocache_origin_hedges_total", "counter", ["group", "outcome"], "Loads that took long and were begun a second time (`origin.hedge`): won (the second brought the answer), lost (the first did, or neither).";
    ORIGIN_SAVED = "gaocache_origin_compression_saved_bytes_total", "counter", ["group"], "Bytes of loaded values that are kept in fewer bytes, since they are compressed (`origin.compress_min_bytes`): what that saved.";
    BREAKER_STATE = "gaocache_origin_breaker_state", "gauge", ["group"], "State of the group's circuit breaker: 0 closed (or none), 1 half-open (one load finds out whether the origin is back), 2 open.";
    BREAKER_REFUSALS = "gaocache_origin_breaker_refusals_total", "counter", ["group"], "Loads that were refused because the circuit breaker was open.";
    PEER_FETCHES = "gaocache_peer_fetches_total", "counter", ["peer", "outcome"], "Values requested from another node: hit (it had the value), origin (it loaded the value), error (it answered with an error, or its load took too long), unreachable, unavailable (it does not have the group yet, or is leaving), incompatible (it runs another version).";
    PEER_MESSAGES = "gaocache_peer_messages_total", "counter", ["peer", "call"], "Messages that ask another node for values: fetch (for one), fetch_many (for several at once; each of them counts in gaocache_peer_fetches_total), fetch_held (for gets that come at the same moment, or keys of a batch that it is likely to have, answered from memory; each of them counts too) or peek (for what it has in memory).";
    PEER_FETCH_DURATION = "gaocache_peer_fetch_duration_seconds", "histogram", [], "Duration of fetches from other nodes; one that asks for several values is one fetch.";
    PEER_RECEIVED_BYTES = "gaocache_peer_received_bytes_total", "counter", ["call", "zone"], "Bytes of values received from other nodes, as they crossed the network: by fetch (gets, batches and peeks) or handoff, from a node in the same zone, another one, or unknown (a zone of the two is not known).";
    PEERS_EJECTED = "gaocache_peers_ejected", "gauge", [], "Peers that are currently not asked because they failed.";
    PEER_REFUSALS = "gaocache_peer_refusals_total", "counter", ["reason"], "Calls and connections that the listener for other nodes refused: handshake (it proved no identity), unknown (no member has the identity that it proved; usual for a moment while a node joins) or sender (it claimed to be another member).";
    PEEKS = "gaocache_peeks_total", "counter", ["group", "outcome"], "Keys that other members were asked for before a load: found or missing.";
    HANDOFF_ENTRIES = "gaocache_handoff_entries_total", "counter", ["direction", "outcome"], "Entries sent to or received from other nodes: kept, known (already present), full (the receiver is full of hotter entries, or the entry is larger than one shard of its store), refused (its key is not valid, it has expired, it is larger than max_value, it was recently removed or purged, or the receiver is not sure to be a member), misdirected (the views of the two nodes differ; tried again), unknown_group (the receiver does not have the group), held or wanted (announced as in use, and the receiver has a copy or asks for one), failed (could not be sent yet).";
    HANDOFF_BYTES = "gaocache_handoff_sent_bytes_total", "counter", [], "Bytes of entries that were sent to other nodes.";
    HANDOFF_WAITING = "gaocache_handoff_waiting_entries", "gauge", [], "Entries that belong to another node and are still to be sent.";
    DRAINING_SINCE = "gaocache_draining_since_timestamp_seconds", "gauge", [], "Time at which this node began to leave; 0 if it is not leaving.";
    RING_MEMBERS = "gaocache_ring_members", "gauge", [], "Members of the ring, as seen by this node.";
    RING_REVISION = "gaocache_ring_revision", "gauge", [], "Registry revision of the current ring.";
    RING_FINGERPRINT = "gaocache_ring_fingerprint", "gauge", [], "A 48-bit hash of the members; equal on nodes that know the same members.";
    MEMBERS_VANISHED = "gaocache_members_vanished", "gauge", [], "Members whose registration has ended although they did not leave, and that the others have not taken off the list yet. Removals wait for them.";
    RING_SHARE = "gaocache_ring_own_share_ratio", "gauge", [], "Share of all keys that this node owns, from 0 to 1.";
    RING_CHANGES = "gaocache_ring_changes_total", "counter", [], "Ring changes applied by this node.";
    LEASE_RENEWALS = "gaocache_lease_renewals_total", "counter", ["outcome"], "Renewals of this node's lease in etcd: ok, failed (not acknowledged) or lost (the lease no longer existed).";
    LEASE_EXPIRY = "gaocache_lease_expiry_timestamp_seconds", "gauge", [], "Time at which this node's lease expires, according to the last acknowledged renewal.";
    EXPULSIONS = "gaocache_expulsions_total", "counter", [], "Times that this node was taken off the list for good: by the other members while it could not be reached, or because another process registered under its id; and times that its lease ended, so that it may have been. It dropped its entries, and joins again as soon as the id is free.";
    REGISTRATIONS = "gaocache_registrations_total", "counter", ["reason"], "Writes of this node's key in etcd, by reason: start, changed, lease_lost, key_lost, superseded (another process wrote the key).";
    WATCH_RECONNECTS = "gaocache_watch_reconnects_total", "counter", [], "Times that the watch on etcd was restarted.";
    REGISTRY_HEARD = "gaocache_registry_heard_timestamp_seconds", "gauge", [], "Time at which this node last heard from etcd.";
    RUNTIME_BUSY = "gaocache_runtime_busy_seconds_total", "counter", ["runtime"], "Time that a runtime's thread was busy. worker-0 and so on serve reads; admin answers probes and scrapes; control runs membership and handoff.";
    RUNTIME_TASKS = "gaocache_runtime_tasks", "gauge", ["runtime"], "Live tasks on a runtime.";
    RUNTIME_QUEUE = "gaocache_runtime_queued_tasks", "gauge", ["runtime"], "Tasks that were woken by other threads and wait for a runtime's thread.";
    TRACE_SPANS = "gaocache_trace_spans_total", "counter", ["outcome"], "Spans of this process: exported, failed (the receiver was unreachable or slow) or dropped (the queue was full).";
    LOG_LINES_DROPPED = "gaocache_log_lines_dropped_total", "counter", [], "Lines of this process' log that were never written, because standard output was not read or is closed.";
    READY = "gaocache_ready", "gauge", [], "1 while this node is ready.";
    CONNECTIONS = "gaocache_connections", "gauge", ["listener"], "Open connections, by listener: grpc, http, redis, peer or admin.";
    CONNECTIONS_LIMIT = "gaocache_connections_limit", "gauge", [], "Connections of clients and members that the gRPC, HTTP, Redis and peer listeners accept together: limits.max_connections, or less if the process may open fewer files.";
    CONNECTION_REFUSALS = "gaocache_connection_refusals_total", "counter", ["listener", "reason"], "Connections that were closed at once: total (limits.max_connections), address (limits.max_connections_per_address), failed (they could not be accepted; usually no file descriptor was left), plaintext (the listener speaks TLS, and the client did not) or tls (a handshake of TLS failed: the client showed no certificate or a wrong one, does not trust this node's, or speaks no TLS 1.3).";
    CONNECTION_CUTS = "gaocache_connection_cuts_total", "counter", ["listener", "reason"], "Connections that the node closed: handshake (no valid request began in time), idle (no request for a long time), stalled (the client did not read an answer), flood (too many control frames without data), untrusted (its certificate is no longer accepted, or its key no longer belongs to a member) or displaced (it had not proven to be a member, a client had not ended its TLS handshake, or no request was under way at the admin listener, and newer connections needed its place).";
    CLIENT_REFUSALS = "gaocache_client_refusals_total", "counter", ["reason"], "Requests that were refused because their client asks for more than one client may: rate (limits.max_requests_per_second_per_client), open (open requests, a third of cache.in_flight at one KiB each), misses (limits.max_misses_per_client) or arriving (requests that arrive in parts, a sixth of cache.in_flight at one KiB each).";
    CERTIFICATE_BEGINS = "gaocache_certificate_not_before_timestamp_seconds", "gauge", ["listener"], "Start of validity of the certificate in use, for listeners with certificates from files.";
    CERTIFICATE_ENDS = "gaocache_certificate_not_after_timestamp_seconds", "gauge", ["listener"], "When the certificate in use expires, for listeners with certificates from files.";
    CERTIFICATE_UNUSABLE = "gaocache_certificate_files_unusable", "gauge", ["listener"], "1 while the files of a listener's certificates can't be used as they are now, so that the certificates from before stay in use; else 0.";
    REDIS_COMMANDS = "gaocache_redis_commands_total", "counter", ["class"], "Commands of Redis clients: read, remove, session (about the connection or the node) or refused (there is no such command here). Keys that they read are counted in gaocache_requests_total.";
    REDIS_PROTOCOL_ERRORS = "gaocache_redis_protocol_errors_total", "counter", [], "Connections of Redis clients that were closed because the client broke the protocol, or did not send the rest of a command in time.";
    IN_FLIGHT_BYTES = "gaocache_in_flight_bytes", "gauge", [], "Bytes in flight: requests, loads, and answers that clients have not read yet.";
    IN_FLIGHT_LIMIT = "gaocache_in_flight_limit_bytes", "gauge", [], "Limit on the bytes in flight (cache.in_flight).";
    IN_FLIGHT_REFUSALS = "gaocache_in_flight_refusals_total", "counter", [], "Requests, loads and answers that were refused as overloaded, because too many bytes were in flight.";
    RELOADS = "gaocache_reloads_total", "counter", ["outcome"], "Times that the settings were read again: changed, unchanged, or refused (something was wrong with them, so nothing has changed).";
    RELOAD_REFUSED = "gaocache_reload_refused", "gauge", [], "1 if the settings that were read last were refused, so that the node runs with older ones.";
    AUTH_REFUSALS = "gaocache_auth_refusals_total", "counter", ["role", "reason"], "Calls of clients that were refused, by the role that they needed (read, remove, purge, admin; login for the AUTH of a Redis client): unauthenticated (the caller did not prove who it is) or denied (it lacks the role).";
    AUTH_STALE = "gaocache_auth_source_stale", "gauge", ["source"], "1 if the file of bearer tokens (tokens) or the keys for JWTs (jwks) could not be used when they were read last, so that those from before stay in force.";
    AUDIT_DROPPED = "gaocache_audit_dropped_total", "counter", [], "Lines of the audit that were not written: too many waited, too many calls were refused within a second, or the stream could not be written to.";
    BUILD_INFO = "gaocache_build_info", "gauge", ["version"], "Always 1; the label is the version.";
}
