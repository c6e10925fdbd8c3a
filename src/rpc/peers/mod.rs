//! The client side of calls between nodes: connections (`links`), and which peers are ejected
//! because they can't be reached (`ejected`).
//!
//! A member is out of reach when its connection is refused, breaks, or stops answering pings. Then
//! the next in ring order stands in for it, until a probe finds it healthy. A member that takes
//! long, refuses a call or answers what this node can't use is not: `failure` distinguishes these,
//! and must never eject a member for what it answers.

mod arriving;
mod calls;
mod ejected;
mod failed;
mod failure;
mod fetch;
mod fetch_held;
mod fetch_many;
mod gathering;
mod handoff;
mod held;
mod holding;
mod life;
mod links;
mod pool;
mod rules;
mod slots;

pub use life::Life;
pub use links::this_thread_is_worker;
pub use pool::GrpcPeers;
pub use rules::PeerRules;
pub(super) use rules::message_limit;
pub use slots::LoadBounds;
