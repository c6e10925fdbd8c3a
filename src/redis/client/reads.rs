//! Commands that read. What memory has is answered on the spot; the rest is loaded.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, stream};

use super::Client;
use crate::{
    auth::Action,
    redis::{
        commands::{Command, Verb},
        place::group_and_key,
        reply::{COPIED_BYTES, Reply},
        request::Arguments,
        waiting::Meanwhile,
    },
    service::{Service, flight_bytes},
    traffic::Traffic,
};
use gaocache_core::{error::Result, group::Answer, ports::Timestamp};

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
    pub(super) fn read(&mut self, command: &'static Command, arguments: Arguments<'_>) {
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
        let service = service.asked_by(self.session.client);
        let (group, key) = (group.to_owned(), key.to_owned());
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
        let service = service.asked_by(self.session.client);
        let traffic = self.traffic.clone();
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

    /// What to answer to a read that is not allowed.
    fn may_read(&self, group: &str) -> std::result::Result<(), Reply> {
        let permissions = &self.shared.permissions;
        let allowed = permissions.check(&self.session.caller, Action::Read, group);
        allowed.map_err(|refusal| Reply::failed(&refusal.into()))
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
