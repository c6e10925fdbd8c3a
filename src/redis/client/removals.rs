//! Commands that remove keys. They are carried out however busy the node is.

use futures::{StreamExt, stream};

use super::Client;
use crate::{
    auth::Call,
    redis::{
        commands::Command, place::group_and_key, reply::Reply, request::Arguments,
        waiting::Meanwhile,
    },
    service::Service,
};
use gaocache_core::{error::Result, ports::MANY_AT_ONCE};

impl Client {
    pub(super) fn remove(&mut self, command: &'static Command, arguments: Arguments<'_>) {
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
}
