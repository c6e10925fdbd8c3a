//! Carries out the commands of one connection. What memory has is answered on the spot; loads run
//! side by side, and their answers leave in turn.

mod reads;
mod removals;

use std::{net::SocketAddr, sync::Arc, task::Context};

use bytes::Bytes;

use super::{
    commands::{self, Verb},
    output::Output,
    reply::{Reply, write},
    request::{Arguments, Violation},
    session::{self, Session},
    shared::Shared,
    waiting::{Meanwhile, Waiting},
};
use crate::{
    service::Moment,
    telemetry::metrics::{CommandClass, CommandCounts},
    tls::ClientNames,
    traffic::{Ticket, Traffic},
};
use gaocache_core::error::Error;

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
        if let Err(refused) = self.admit(command.class, arguments.len() - 1) {
            return self.answer(refused);
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

    /// What to answer to a command of a client that sends too many.
    fn admit(&self, class: CommandClass, arguments: usize) -> Result<(), Reply> {
        let service = &self.shared.service;
        if !service.limits_requests() {
            return Ok(());
        }
        let keys = match class {
            CommandClass::Read | CommandClass::Remove => arguments,
            CommandClass::Session | CommandClass::Refused => 1,
        };
        let admitted = service.asked_by(self.session.client).admit(keys);
        admitted.map_err(|error| Reply::failed(&error))
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
