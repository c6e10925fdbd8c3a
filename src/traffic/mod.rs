//! Bytes in flight at a node, against one budget, and the unsent answers of each connection.
//!
//! The store counts what it keeps. Everything else that clients can make a node hold is counted
//! here: requests that wait, bodies that arrive, loads, and answers until the last byte has left
//! for the socket. Nothing in this module may wait for a client.

mod body;
mod budget;
mod charge;
mod connection;
mod incoming;
mod messages;
mod ticket;

pub use body::{Outgoing, SLICE};
pub use budget::Budget;
pub use charge::Charge;
pub use connection::{Cut, Patience, Traffic};
pub use incoming::{Arriving, collect};
pub use messages::{MessageCursor, PREFIX_BYTES};
pub use ticket::Ticket;
