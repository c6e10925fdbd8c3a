//! How nodes find each other: through a fixed list, memory shared within one process, or etcd. Each
//! of these implements [`gaocache_core::ports::Registry`].

pub mod etcd;
pub mod fixed;
pub mod memory;
mod notices;
