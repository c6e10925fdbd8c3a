//! What a connection is told about itself and may choose: the version of the protocol, a name.

use std::{net::SocketAddr, sync::atomic::Ordering};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    reply::{Protocol, Reply},
    request::Arguments,
    shared::Shared,
};
use crate::{
    auth::{Caller, Entry, Permissions},
    fairness::ClientId,
    tls::ClientNames,
};

/// The longest name of a connection or library, in bytes.
const MOST_NAME: usize = 128;
/// The only user, until there are others.
const USER: &[u8] = b"default";

/// One connection, as its client has set it up.
pub(super) struct Session {
    id: u64,
    from: SocketAddr,
    /// Who calls, as far as it has proven it.
    pub(super) caller: Caller,
    /// Whom its commands are counted for.
    pub(super) client: ClientId,
    permissions: Permissions,
    since: Instant,
    pub(super) protocol: Protocol,
    name: String,
    library: String,
    library_version: String,
}

impl Session {
    pub(super) fn new(shared: &Shared, names: Option<ClientNames>, from: SocketAddr) -> Self {
        let caller = Caller::new(Entry::Network(from)).with_names(names);
        Self {
            client: shared.permissions.client(&caller),
            permissions: shared.permissions.clone(),
            id: shared.next_id.fetch_add(1, Ordering::Relaxed),
            from,
            caller,
            since: Instant::now(),
            protocol: Protocol::default(),
            name: String::new(),
            library: String::new(),
            library_version: String::new(),
        }
    }

    /// `HELLO`.
    pub(super) fn hello(&mut self, arguments: Arguments<'_>) -> Reply {
        let protocol = match arguments.at(1) {
            b"" if arguments.len() == 1 => self.protocol,
            b"2" => Protocol::Resp2,
            b"3" => Protocol::Resp3,
            _ => return Reply::Error("NOPROTO", "unsupported protocol version".into()),
        };
        let (mut at, mut name) = (2, None);
        while at < arguments.len() {
            let option = arguments.at(at).to_ascii_lowercase();
            match (&option[..], arguments.len() - at) {
                (b"auth", 3..) => {
                    let refused = self.log_in(arguments.at(at + 1), arguments.at(at + 2));
                    if refused.is_error() {
                        return refused;
                    }
                    at += 3;
                }
                (b"setname", 2..) => {
                    name = Some(arguments.at(at + 1));
                    at += 2;
                }
                _ => {
                    let option = option.escape_ascii();
                    return Reply::error(format!("Syntax error in HELLO option '{option}'"));
                }
            }
        }
        if let Some(name) = name {
            let named = set(&mut self.name, name, "Client names");
            if named.is_error() {
                return named;
            }
        }
        self.protocol = protocol;
        let field = |name: &str, value| (Reply::text(name), value);
        Reply::Map(vec![
            field("server", Reply::text("gaocache")),
            field("version", Reply::text(env!("CARGO_PKG_VERSION"))),
            field("proto", Reply::Integer(protocol.number())),
            field("id", self.id()),
            field("mode", Reply::text("standalone")),
            field("role", Reply::text("master")),
            field("modules", Reply::Array(Vec::new())),
        ])
    }

    /// `AUTH`.
    pub(super) fn auth(&mut self, arguments: Arguments<'_>) -> Reply {
        match arguments.len() {
            2 => self.log_in(USER, arguments.at(1)),
            3 => self.log_in(arguments.at(1), arguments.at(2)),
            _ => Reply::error("syntax error"),
        }
    }

    /// The password is a bearer token. If it doesn't count, the client stays who it was.
    fn log_in(&mut self, user: &[u8], password: &[u8]) -> Reply {
        if user != USER {
            let what = "invalid username-password pair or user is disabled.";
            return Reply::Error("WRONGPASS", what.into());
        }
        let token = Bytes::copy_from_slice(password);
        let caller = self.caller.clone().with_token(Some(token));
        if let Err(why) = self.permissions.log_in(&caller) {
            return Reply::Error("WRONGPASS", why.into());
        }
        self.is_now(caller);
        Reply::OK
    }

    /// `CLIENT`.
    pub(super) fn client(&mut self, arguments: Arguments<'_>) -> Reply {
        let part = arguments.at(1).to_ascii_lowercase();
        match (&part[..], arguments.len()) {
            (b"id", 2) => self.id(),
            (b"getname", 2) if self.name.is_empty() => Reply::Nil,
            (b"getname", 2) => Reply::text(&self.name),
            (b"setname", 3) => set(&mut self.name, arguments.at(2), "Client names"),
            (b"setinfo", 4) => {
                let attribute = arguments.at(2).to_ascii_lowercase();
                let (place, what) = match &attribute[..] {
                    b"lib-name" => (&mut self.library, "lib-name"),
                    b"lib-ver" => (&mut self.library_version, "lib-ver"),
                    _ => {
                        let other = attribute.escape_ascii();
                        return Reply::error(format!("Unrecognized option '{other}'"));
                    }
                };
                set(place, arguments.at(3), what)
            }
            (b"info", 2) | (b"list", 2..) => Reply::text(format!("{}\n", self.line())),
            (b"tracking" | b"caching" | b"trackinginfo" | b"getredir", _) => Reply::error(
                "gaocache is read-through: CLIENT TRACKING is refused, since a value also \
                 changes when its life is over, which happens at the node without an event that \
                 a client could be sent; use PTTL for how long to keep a copy",
            ),
            (part, _) => {
                let part = part.escape_ascii();
                Reply::error(format!(
                    "gaocache has no 'CLIENT {part}' with so many arguments; it has SETNAME, \
                     GETNAME, SETINFO, ID, INFO and LIST"
                ))
            }
        }
    }

    /// `RESET`: as it was when the client connected.
    pub(super) fn reset(&mut self) -> Reply {
        self.is_now(self.caller.clone().with_token(None));
        self.protocol = Protocol::default();
        self.name.clear();
        Reply::Status("RESET")
    }

    fn is_now(&mut self, caller: Caller) {
        self.client = self.permissions.client(&caller);
        self.caller = caller;
    }

    fn id(&self) -> Reply {
        Reply::Integer(i64::try_from(self.id).unwrap_or(i64::MAX))
    }

    fn line(&self) -> String {
        format!(
            "id={} addr={} name={} age={} idle=0 flags=N db=0 resp={} user=default lib-name={} \
             lib-ver={}",
            self.id,
            self.from,
            self.name,
            self.since.elapsed().as_secs(),
            self.protocol.number(),
            self.library,
            self.library_version
        )
    }
}

fn set(place: &mut String, name: &[u8], what: &str) -> Reply {
    match std::str::from_utf8(name) {
        Ok(text) if name.len() <= MOST_NAME && name.iter().all(u8::is_ascii_graphic) => {
            place.clear();
            place.push_str(text);
            Reply::OK
        }
        _ => Reply::error(format!(
            "{what} cannot contain spaces, newlines or special characters, or more than \
             {MOST_NAME} bytes."
        )),
    }
}

/// `INFO`, of these sections; of all if none is named.
pub(super) fn info(shared: &Shared, arguments: Arguments<'_>) -> Reply {
    let uptime = shared.started.elapsed().as_secs();
    let sections = [
        (
            "Server",
            format!(
                "gaocache_version:{}\r\nredis_mode:standalone\r\nprocess_id:{}\r\n\
                 uptime_in_seconds:{uptime}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::process::id(),
            ),
        ),
        (
            "Clients",
            format!("connected_clients:{}\r\n", shared.metrics.connections()),
        ),
        ("Persistence", "loading:0\r\n".to_owned()),
        (
            "Replication",
            "role:master\r\nconnected_slaves:0\r\n".to_owned(),
        ),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
    ];
    const ALL: [&[u8]; 3] = [b"default", b"all", b"everything"];
    let wanted = |name: &str| {
        let names = |it: &[u8]| {
            let is = |other: &[u8]| it.eq_ignore_ascii_case(other);
            is(name.as_bytes()) || ALL.into_iter().any(is)
        };
        arguments.len() == 1 || arguments.after(1).any(names)
    };
    let told = sections.iter().filter(|(name, _)| wanted(name));
    let told: Vec<String> = told
        .map(|(name, lines)| format!("# {name}\r\n{lines}"))
        .collect();
    Reply::Text(told.join("\r\n"))
}
