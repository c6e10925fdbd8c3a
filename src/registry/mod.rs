//! Where nodes find each other: a fixed list, memory shared within a process, or etcd. Each
//! implements [`gaocache_core::ports::Registry`].

pub mod etcd;
pub mod fixed;
pub mod memory;
mod notices;
