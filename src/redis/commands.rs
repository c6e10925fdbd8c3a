//! The commands that there are. What tells of commands (`COMMAND`, the refusals, the docs) comes
//! from this table.

use super::{reply::Reply, request::Arguments};
use crate::telemetry::{metrics::CommandClass, trace::Call};

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Mget,
    Exists,
    Strlen,
    Ttl,
    Pttl,
    Del,
    Hello,
    Auth,
    Ping,
    Echo,
    Select,
    Client,
    Command,
    Info,
    Quit,
    Reset,
}

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    /// As its users write it.
    pub(super) name: &'static str,
    pub(super) verb: Verb,
    pub(super) class: CommandClass,
    /// How many words it has, the name included; if it may have more, negative.
    arity: i64,
    /// The number of the first key, and that of the last; -1: the last word.
    keys: (i64, i64),
    /// For traces.
    pub(super) call: Call,
    /// The words after the name.
    pub(super) words: &'static str,
    pub(super) about: &'static str,
}

const fn command(
    (name, verb, class): (&'static str, Verb, CommandClass),
    arity: i64,
    keys: (i64, i64),
    words: &'static str,
    about: &'static str,
) -> Command {
    Command {
        name,
        verb,
        class,
        arity,
        keys,
        call: Call::redis(name),
        words,
        about,
    }
}

use CommandClass::{Read, Remove, Session};

/// All commands; the most frequent one comes first.
#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    command(("GET", Verb::Get, Read), 2, (1, 1), "group:key", "The value; nil if the origin has no such key."),
    command(("MGET", Verb::Mget, Read), -2, (1, -1), "group:key …", "The values, in order. If any of them fails for a reason other than a missing key, the command fails."),
    command(("EXISTS", Verb::Exists, Read), -2, (1, -1), "group:key …", "How many of the keys have a value. Each is read as by `GET`."),
    command(("STRLEN", Verb::Strlen, Read), 2, (1, 1), "group:key", "The length of the value, which is read as by `GET`; 0 if there is none."),
    command(("TTL", Verb::Ttl, Read), 2, (1, 1), "group:key", "The value's remaining lifetime in seconds, rounded down; -1: it does not expire; -2: there is no such key. The value is read as by `GET`."),
    command(("PTTL", Verb::Pttl, Read), 2, (1, 1), "group:key", "The same in milliseconds."),
    command(("DEL", Verb::Del, Remove), -2, (1, -1), "group:key …", "Removes the keys everywhere, and answers once no member serves an older value any more. The answer is the number of keys given, whether they were in memory or not."),
    command(("UNLINK", Verb::Del, Remove), -2, (1, -1), "group:key …", "As `DEL`."),
    command(("PING", Verb::Ping, Session), -1, (0, 0), "[message]", "`PONG`, or the message."),
    command(("ECHO", Verb::Echo, Session), 2, (0, 0), "message", "The message."),
    command(("HELLO", Verb::Hello, Session), -1, (0, 0), "[2 or 3 [AUTH user password] [SETNAME name]]", "Chooses the version of the protocol, and returns facts about the server."),
    command(("AUTH", Verb::Auth, Session), -2, (0, 0), "[user] password", "Logs in with a bearer token as the password; `WRONGPASS` if the node does not accept it."),
    command(("SELECT", Verb::Select, Session), 2, (0, 0), "0", "There is one database; groups take the place of others."),
    command(("CLIENT", Verb::Client, Session), -2, (0, 0), "SETNAME, GETNAME, SETINFO, ID, INFO or LIST", "Names the connection, or returns facts about it. `LIST` lists this connection only."),
    command(("COMMAND", Verb::Command, Session), -1, (0, 0), "[COUNT, DOCS or INFO]", "Lists the commands that there are."),
    command(("INFO", Verb::Info, Session), -1, (0, 0), "[section …]", "Returns facts about the node. Metrics are at the admin listener."),
    command(("RESET", Verb::Reset, Session), 1, (0, 0), "", "Resets the connection to its initial state."),
    command(("QUIT", Verb::Quit, Session), -1, (0, 0), "", "Closes the connection."),
];

/// The command of that name.
pub(super) fn find(name: &[u8]) -> Option<&'static Command> {
    let is = |it: &&Command| it.name.as_bytes().eq_ignore_ascii_case(name);
    COMMANDS.iter().find(is)
}

impl Command {
    /// Whether it may have so many words.
    pub(super) fn takes(&self, words: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        words == least || (self.arity < 0 && words > least)
    }

    fn flags(&self) -> &'static [&'static str] {
        match self.class {
            Read => &["readonly"],
            Remove => &["write"],
            Session | CommandClass::Refused => &["loading", "stale", "fast"],
        }
    }

    fn lower(&self) -> Reply {
        Reply::text(self.name.to_ascii_lowercase())
    }

    /// As `COMMAND` tells of it: name, arity, flags, keys, and what Redis 7 adds.
    fn entry(&self) -> Reply {
        let (first, last) = self.keys;
        let flags = self.flags().iter().map(|it| Reply::Status(it));
        let nothing = || Reply::Array(Vec::new());
        Reply::Array(vec![
            self.lower(),
            Reply::Integer(self.arity),
            Reply::Set(flags.collect()),
            Reply::Integer(first),
            Reply::Integer(last),
            Reply::Integer(i64::from(first > 0)),
            Reply::Set(Vec::new()),
            nothing(),
            nothing(),
            nothing(),
        ])
    }

    /// As `COMMAND DOCS` tells of it.
    fn docs(&self) -> (Reply, Reply) {
        let field = |name: &str, text: &str| (Reply::text(name), Reply::text(text));
        let group = match self.class {
            Read => "string",
            Remove => "generic",
            Session | CommandClass::Refused => "connection",
        };
        let docs = [field("summary", self.about), field("group", group)];
        (self.lower(), Reply::Map(docs.into()))
    }
}

/// The answer to `COMMAND`.
pub(super) fn answer(arguments: Arguments<'_>) -> Reply {
    let named = || arguments.after(2);
    let part = arguments.at(1).to_ascii_lowercase();
    match &part[..] {
        b"" => Reply::Array(COMMANDS.iter().map(Command::entry).collect()),
        b"count" => Reply::Integer(COMMANDS.len() as i64),
        b"info" if arguments.len() == 2 => {
            Reply::Array(COMMANDS.iter().map(Command::entry).collect())
        }
        b"info" => {
            let entry = |name| find(name).map_or(Reply::Nil, Command::entry);
            Reply::Array(named().map(entry).collect())
        }
        b"docs" if arguments.len() == 2 => Reply::Map(COMMANDS.iter().map(Command::docs).collect()),
        b"docs" => Reply::Map(named().filter_map(find).map(Command::docs).collect()),
        _ => Reply::error("COMMAND takes COUNT, DOCS and INFO"),
    }
}

/// The answer to a command that there isn't.
pub(super) fn refusal(name: &[u8]) -> Reply {
    /// Of a name that a client invented.
    const SHOWN: usize = 64;
    let name = name.get(..SHOWN).unwrap_or(name).escape_ascii();
    Reply::error(format!(
        "gaocache is read-through: it has no command '{name}'. Values come from the origin of \
         their group, and DEL removes one everywhere; COMMAND DOCS tells what there is"
    ))
}

/// The table of commands in Markdown, which `docs/redis.md` contains between markers.
pub fn reference() -> String {
    let mut out = String::from("| command | answer |\n|---|---|\n");
    for Command {
        name, words, about, ..
    } in COMMANDS
    {
        let command = format!("{name} {words}");
        out += &format!("| `{}` | {about} |\n", command.trim_end());
    }
    out
}
