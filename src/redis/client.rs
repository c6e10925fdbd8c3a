//! Carries out the commands of one connection. What memory has is answered on the spot; loads run
//! side by side, and their answers leave in turn.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, task::Context};

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::{
    commands::{self, Command, Verb},
    output::Output,
    reply::{COPIED_BYTES, Reply, write},
    request::{Arguments, Violation},
    session::{self, Session},
    shared::Shared,
    waiting::{Meanwhile, Waiting},
};
use crate::{
    auth::{Action, Call},
    service::{Moment, Service, flight_bytes},
    telemetry::metrics::{CommandClass, CommandCounts},
    tls::ClientNames,
    traffic::{Ticket, Traffic},
};
use gaocache_core::{
    error::{Error, Result},
    group::{Answer, MANY_AT_ONCE},
    ports::Timestamp,
};

/// With so many bytes to be written, no further command begins.
const MOST_OUTPUT: usize = 64 << 10;
/// Room for answers is taken from the budget in steps of so many bytes.
const ROOM: usize = 16 << 10;
/// What the begin of a batch brings of it.
const FIRST_ROOM: usize = 1 << 10;

/// The commands of one connection.
pub(super) struct Client {
    shared: Arc<Shared>,
    traffic: Arc<Traffic>,
    session: Session,
    pub(super) output: Output,
    waiting: Waiting,
    /// Counts the answers since the last moment at which all were written.
    batch: Option<Ticket>,
    /// Bytes of answers that it still covers.
    room: usize,
    /// When the commands began that are carried out now.
    moment: Option<Moment>,
    /// Why reads of this batch are refused.
    overloaded: Option<Error>,
    counts: CommandCounts,
    /// The client has said goodbye, or what nobody understands.
    pub(super) ends: bool,
}

/// What a read is after.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Value,
    Presence,
    Length,
    Seconds,
    Milliseconds,
}

impl Client {
    pub(super) fn new(
        shared: &Arc<Shared>,
        names: Option<ClientNames>,
        traffic: Arc<Traffic>,
        from: SocketAddr,
    ) -> Self {
        Self {
            session: Session::new(shared, names, from),
            shared: shared.clone(),
            traffic,
            output: Output::default(),
            waiting: Waiting::default(),
            batch: None,
            room: 0,
            moment: None,
            overloaded: None,
            counts: CommandCounts::default(),
            ends: false,
        }
    }

    /// Whether another command may begin.
    pub(super) fn has_room(&self) -> bool {
        !self.ends && self.waiting.has_room() && self.output.len() < MOST_OUTPUT
    }

    /// Whether all that was asked is answered.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.output.is_empty()
    }

    /// Whether an answer can leave that there was no room for.
    pub(super) fn has_answers(&self) -> bool {
        self.waiting.is_ready()
    }

    /// Takes what loads have brought, as far as it is its turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.poll(cx);
        while self.output.len() < MOST_OUTPUT
            && let Some((reply, protocol)) = self.waiting.next()
        {
            let reply = self.paid(reply);
            write(&mut self.output, reply, protocol);
        }
    }

    /// All is written for now.
    pub(super) fn rests(&mut self) {
        if self.waiting.is_empty() {
            self.batch = None;
            self.overloaded = None;
            self.room = 0;
        }
    }

    /// Counts what was done since the last time.
    pub(super) fn count(&mut self) {
        self.shared.metrics.count(&mut self.counts);
    }

    /// The client is told what was wrong; nothing more is taken from it.
    pub(super) fn violates(&mut self, Violation(what): Violation) {
        self.shared.violated(&what);
        self.begin();
        self.answer(Reply::error(format!("Protocol error: {what}")));
        self.ends = true;
    }

    /// There is no room for what the client sends; nothing more is taken from it.
    pub(super) fn refuses(&mut self, error: &Error) {
        self.begin();
        self.answer(Reply::failed(error));
        self.ends = true;
    }

    /// Commands that have come by now begin now.
    pub(super) fn begins(&mut self) {
        self.moment = None;
    }

    /// Carries out a command.
    pub(super) fn take(&mut self, arguments: Arguments<'_>) {
        if arguments.len() == 0 {
            return;
        }
        self.begin();
        let name = arguments.at(0);
        let Some(command) = commands::find(name) else {
            self.counts.add(CommandClass::Refused);
            return self.answer(commands::refusal(name));
        };
        self.counts.add(command.class);
        if !command.takes(arguments.len()) {
            let name = command.name.to_ascii_lowercase();
            let what = format!("wrong number of arguments for '{name}' command");
            return self.answer(Reply::error(what));
        }
        match command.class {
            CommandClass::Read => self.read(command, arguments),
            CommandClass::Remove => self.remove(command, arguments),
            CommandClass::Session | CommandClass::Refused => {
                let reply = self.talk(command.verb, arguments);
                self.answer(reply);
            }
        }
    }

    fn begin(&mut self) {
        if self.batch.is_some() {
            return;
        }
        self.batch = Some(match self.traffic.begin() {
            Ok(ticket) => ticket,
            Err(error) => {
                self.overloaded = Some(error);
                // Removals, and those who ask how the node is, are heard.
                self.traffic.begin_anyway()
            }
        });
        self.room = FIRST_ROOM;
    }

    fn answer(&mut self, reply: Reply) {
        if self.waiting.is_empty() {
            let reply = self.paid(reply);
            write(&mut self.output, reply, self.session.protocol);
        } else {
            self.waiting.known(reply, self.session.protocol);
        }
    }

    /// The reply, with room for it; else that there is none.
    fn paid(&mut self, reply: Reply) -> Reply {
        let bytes = reply.copied_bytes();
        if let Some(left) = self.room.checked_sub(bytes) {
            self.room = left;
            return reply;
        }
        let step = bytes.max(ROOM);
        match self.batch.as_mut().map(|it| it.charge(step)) {
            Some(Err(error)) => Reply::failed(&error),
            Some(Ok(())) | None => {
                self.room += step - bytes;
                reply
            }
        }
    }

    fn read(&mut self, command: &'static Command, arguments: Arguments<'_>) {
        if let Some(error) = &self.overloaded {
            let refused = Reply::failed(error);
            return self.answer(refused);
        }
        match command.verb {
            Verb::Mget => self.read_many(command, arguments, Wanted::Value, Reply::Array),
            Verb::Exists => self.read_many(command, arguments, Wanted::Presence, sum),
            Verb::Strlen => self.read_one(command, arguments.at(1), Wanted::Length),
            Verb::Ttl => self.read_one(command, arguments.at(1), Wanted::Seconds),
            Verb::Pttl => self.read_one(command, arguments.at(1), Wanted::Milliseconds),
            _ => self.read_one(command, arguments.at(1), Wanted::Value),
        }
    }

    fn read_one(&mut self, command: &'static Command, place: &[u8], wanted: Wanted) {
        let (group, key) = match group_and_key(place) {
            Ok(both) => both,
            Err(wrong) => return self.answer(wrong),
        };
        if let Err(refused) = self.may_read(group) {
            return self.answer(refused);
        }
        let service = &self.shared.service;
        let scope = service.begin(command.call, &self.shared.no_headers);
        let moment = self.moment.get_or_insert_with(|| service.moment());
        if let Some(answer) = scope.within(|| service.get_held(group, key, moment)) {
            let reply = wanted.reply(answer, || moment.now);
            let reply = held(&self.traffic, reply, COPIED_BYTES);
            return self.answer(reply);
        }
        let (service, group, key) = (service.clone(), group.to_owned(), key.to_owned());
        let begun = self.traffic.begin();
        let traffic = self.traffic.clone();
        let load = async move {
            let _counted = match begun {
                Ok(ticket) => ticket,
                Err(error) => return Reply::failed(&error),
            };
            let answer = std::pin::pin!(service.get_elsewhere(&group, &key));
            let answer = scope.run(answer).await;
            held(&traffic, wanted.reply(answer, || service.now()), 0)
        };
        self.later(load, Meanwhile::Others);
    }

    /// Reads keys one after the other while memory has them, and the rest side by side.
    fn read_many(
        &mut self,
        command: &'static Command,
        arguments: Arguments<'_>,
        wanted: Wanted,
        gather: fn(Vec<Reply>) -> Reply,
    ) {
        let service = &self.shared.service;
        let scope = service.begin(command.call, &self.shared.no_headers);
        let mut places = Vec::with_capacity(arguments.len() - 1);
        for place in arguments.after(1) {
            let both = group_and_key(place);
            let both = both.and_then(|(group, key)| {
                self.may_read(group)?;
                Ok((group, key))
            });
            match both {
                Ok(both) => places.push(both),
                Err(refused) => return self.answer(refused),
            }
        }
        let mut replies = Vec::with_capacity(places.len());
        let moment = self.moment.get_or_insert_with(|| service.moment());
        for (group, key) in &places {
            let Some(answer) = scope.within(|| service.get_held(group, key, moment)) else {
                break;
            };
            let reply = wanted.reply(answer, || moment.now);
            replies.push(held(&self.traffic, reply, COPIED_BYTES));
        }
        let Some(missed) = places.len().checked_sub(replies.len()).filter(|it| *it > 0) else {
            return self.answer(all(replies, gather));
        };
        let rest = &places[places.len() - missed..];
        let owned = |(group, key): &(&str, &str)| ((*group).to_owned(), (*key).to_owned());
        let rest: Vec<(String, String)> = rest.iter().map(owned).collect();
        let begun = self.traffic.begin().and_then(|mut ticket| {
            ticket.charge(arguments.total() + flight_bytes(missed))?;
            Ok(ticket)
        });
        let (service, traffic) = (service.clone(), self.traffic.clone());
        let load = async move {
            let _counted = match begun {
                Ok(ticket) => ticket,
                Err(error) => return Reply::failed(&error),
            };
            let read = std::pin::pin!(read_together(&service, &traffic, wanted, rest));
            replies.extend(scope.run(read).await);
            all(replies, gather)
        };
        self.later(load, Meanwhile::Nothing);
    }

    fn remove(&mut self, command: &'static Command, arguments: Arguments<'_>) {
        let mut places = Vec::with_capacity(arguments.len() - 1);
        for place in arguments.after(1) {
            match group_and_key(place) {
                Ok((group, key)) => places.push((group.to_owned(), key.to_owned())),
                Err(wrong) => return self.answer(wrong),
            }
        }
        let service = self.shared.service.clone();
        let scope = service.begin(command.call, &self.shared.no_headers);
        let ticket = self.traffic.begin_anyway();
        let (permissions, caller) = (self.shared.permissions.clone(), self.session.caller.clone());
        let load = async move {
            let _counted = ticket;
            let count = places.len() as i64;
            let service: &Service = &service;
            let removed = stream::iter(places)
                .map(async |(group, key)| {
                    let removal = service.remove(&group, &key);
                    let call = Call::remove(&group, &key);
                    permissions.run(&caller, call, removal).await
                })
                .buffered(MANY_AT_ONCE)
                .collect::<Vec<Result<()>>>();
            let removed = scope.run(std::pin::pin!(removed)).await;
            match removed.into_iter().find_map(Result::err) {
                Some(error) => Reply::failed(&error),
                None => Reply::Integer(count),
            }
        };
        self.later(load, Meanwhile::Nothing);
    }

    /// What to answer to a read that is not allowed.
    fn may_read(&self, group: &str) -> std::result::Result<(), Reply> {
        let permissions = &self.shared.permissions;
        let allowed = permissions.check(&self.session.caller, Action::Read, group);
        allowed.map_err(|refusal| Reply::failed(&refusal.into()))
    }

    fn later(&mut self, load: impl Future<Output = Reply> + Send + 'static, meanwhile: Meanwhile) {
        self.waiting.later(load, self.session.protocol, meanwhile);
    }

    fn talk(&mut self, verb: Verb, arguments: Arguments<'_>) -> Reply {
        let echo = |number| Reply::Value(Bytes::copy_from_slice(arguments.at(number)));
        match verb {
            Verb::Ping => match arguments.len() {
                1 => Reply::Status("PONG"),
                2 => echo(1),
                _ => Reply::error("wrong number of arguments for 'ping' command"),
            },
            Verb::Echo => echo(1),
            Verb::Hello => self.session.hello(arguments),
            Verb::Auth => self.session.auth(arguments),
            Verb::Select if arguments.at(1) == b"0" => Reply::OK,
            Verb::Select => Reply::error("DB index is out of range: there is only 0"),
            Verb::Client => self.session.client(arguments),
            Verb::Command => commands::answer(arguments),
            Verb::Info => session::info(&self.shared, arguments),
            Verb::Reset => self.session.reset(),
            Verb::Quit => {
                self.ends = true;
                Reply::OK
            }
            _ => commands::refusal(arguments.at(0)),
        }
    }
}

impl Wanted {
    fn reply(self, answer: Result<Answer>, now: impl FnOnce() -> Timestamp) -> Reply {
        let answer = match (answer, self) {
            (Ok(answer), _) => answer,
            (Err(error), Self::Value) => return Reply::failed(&error),
            (Err(error), wanted) => {
                return match Reply::failed(&error) {
                    Reply::Nil => Reply::Integer(wanted.of_none()),
                    failed => failed,
                };
            }
        };
        let life = || answer.expires_at.since(now());
        let number = match self {
            Self::Value => return Reply::Value(answer.value),
            Self::Presence => 1,
            Self::Length => answer.value.len() as i64,
            // Rounded down, so that it never exceeds the remaining time.
            _ if answer.expires_at == Timestamp::NEVER => -1,
            Self::Seconds => i64::try_from(life().as_secs()).unwrap_or(i64::MAX),
            Self::Milliseconds => i64::try_from(life().as_millis()).unwrap_or(i64::MAX),
        };
        Reply::Integer(number)
    }

    /// What is said of a key that the origin doesn't have.
    fn of_none(self) -> i64 {
        match self {
            Self::Seconds | Self::Milliseconds => -2,
            Self::Value | Self::Presence | Self::Length => 0,
        }
    }
}

/// A value larger than so many bytes is counted until its last byte has left.
fn held(traffic: &Arc<Traffic>, reply: Reply, most: usize) -> Reply {
    match reply {
        Reply::Value(value) if value.len() > most => match traffic.hold(value) {
            Ok(value) => Reply::Value(value),
            Err(error) => Reply::failed(&error),
        },
        other => other,
    }
}

/// The replies for these groups and keys, in order: one batch a group.
async fn read_together(
    service: &Service,
    traffic: &Arc<Traffic>,
    wanted: Wanted,
    places: Vec<(String, String)>,
) -> Vec<Reply> {
    let mut replies = vec![Reply::Nil; places.len()];
    let mut groups = HashMap::<String, (Vec<usize>, Vec<String>)>::new();
    for (place, (group, key)) in places.into_iter().enumerate() {
        let (places, keys) = groups.entry(group).or_default();
        places.push(place);
        keys.push(key);
    }
    let batches = groups.into_iter().map(|(group, (places, keys))| {
        let answers = service.get_many(&group, keys.into());
        Box::pin(answers.map(move |(nth, answer)| (places[nth], answer)))
    });
    let mut answers = stream::select_all(batches);
    while let Some((place, answer)) = answers.next().await {
        let reply = wanted.reply(answer, || service.now());
        replies[place] = held(traffic, reply, 0);
    }
    replies
}

/// All replies as one, or the first that is an error.
fn all(mut replies: Vec<Reply>, gather: fn(Vec<Reply>) -> Reply) -> Reply {
    match replies.iter().position(Reply::is_error) {
        Some(failed) => replies.swap_remove(failed),
        None => gather(replies),
    }
}

fn sum(replies: Vec<Reply>) -> Reply {
    let count = |reply| match reply {
        Reply::Integer(number) => number,
        _ => 0,
    };
    Reply::Integer(replies.into_iter().map(count).sum())
}

/// The two parts of a key of Redis: the group ends at the first colon.
fn group_and_key(place: &[u8]) -> Result<(&str, &str), Reply> {
    let wrong = |what: &'static str| Reply::error(format!("invalid_request: {what}"));
    let text = std::str::from_utf8(place).map_err(|_| wrong("a key must be UTF-8"))?;
    let both = text.split_once(':');
    both.ok_or_else(|| wrong("write a key as group:key; the group ends at the first colon"))
}
