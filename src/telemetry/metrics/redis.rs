//! The metrics of the listener for Redis clients.

use prometheus::{IntCounter, IntGauge, Result};

use super::{connections::ConnectionMetrics, registrar::Registrar};
use crate::telemetry::names;

/// What kind of command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandClass {
    /// It reads values.
    Read,
    /// It removes keys.
    Remove,
    /// It is about the connection or the node.
    Session,
    /// There is no such command here.
    Refused,
}

const CLASSES: [(CommandClass, &str); 4] = [
    (CommandClass::Read, "read"),
    (CommandClass::Remove, "remove"),
    (CommandClass::Session, "session"),
    (CommandClass::Refused, "refused"),
];

/// Commands of one connection that are still to be counted.
#[derive(Debug, Default)]
pub struct CommandCounts([u64; CLASSES.len()]);

impl CommandCounts {
    /// One more.
    pub fn add(&mut self, class: CommandClass) {
        self.0[class as usize] += 1;
    }
}

/// The metrics of the listener for Redis clients.
#[derive(Clone)]
pub struct RedisMetrics {
    commands: [IntCounter; CLASSES.len()],
    protocol_errors: IntCounter,
    connections: IntGauge,
}

impl RedisMetrics {
    pub(super) fn register(
        registrar: &Registrar<'_>,
        connections: &ConnectionMetrics,
    ) -> Result<Self> {
        let commands = registrar.counters(names::REDIS_COMMANDS)?;
        Ok(Self {
            commands: CLASSES.map(|(_, name)| commands.with_label_values(&[name])),
            protocol_errors: registrar.counter(names::REDIS_PROTOCOL_ERRORS)?,
            connections: connections.open("redis"),
        })
    }

    /// Counts the commands, of which none is left then.
    pub fn count(&self, counts: &mut CommandCounts) {
        for (counter, count) in self.commands.iter().zip(&mut counts.0) {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
    }

    /// A client broke the protocol.
    pub fn violated(&self) {
        self.protocol_errors.inc();
    }

    /// Connections that are open.
    pub fn connections(&self) -> i64 {
        self.connections.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_counted_where_its_name_is() {
        for (place, (class, _)) in CLASSES.into_iter().enumerate() {
            assert_eq!(class as usize, place);
        }
    }
}
