//! Where nodes find each other: a fixed list, memory shared within a process, or etcd. Each implements [`crate::ports::Registry`].

pub mod etcd;
pub mod fixed;
pub mod memory;
