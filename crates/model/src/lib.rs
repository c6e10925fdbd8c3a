//! A model of how a removal becomes final, to be checked exhaustively: three nodes, etcd, one key
//! whose old value all of them hold, and one removal.
//!
//! Every message may take any time or be lost, one way or both, between any two: what a link that
//! is cut does, or a process that is paused. So nothing of that is in the state; a step that
//! isn't taken is a message that doesn't come. Time is a few ticks, the same for all.
//!
//! What the core decides by pure code (words, promises, which members a node takes entries from)
//! the model has the core decide, so a change there is a change here. What comes between those
//! decisions is written again in [`protocol`], one step for each that the nodes take. Each rule can
//! be left out: then the checker has to find how the old value comes back ([`Rule`]).

pub mod bounds;
pub mod decisions;
pub mod protocol;
pub mod reads;
pub mod rule;
pub mod state;
mod steps;

pub use bounds::Bounds;
pub use protocol::Protocol;
pub use rule::Rule;
pub use state::State;
