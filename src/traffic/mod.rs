//! What is under way at a node: bytes against one budget, and what each connection still owes.
//!
//! The store counts what it keeps. Everything else that clients can make a node hold is counted
//! here: requests that wait, bodies that arrive, loads, and answers until the last byte has left
//! for the socket. Nothing in here may wait for a client.

mod body;
mod budget;
mod connection;
mod incoming;

pub use body::{Outgoing, SLICE};
pub use budget::Budget;
pub use connection::{Cut, Patience, Ticket, Traffic};
pub use incoming::{Arriving, collect};
