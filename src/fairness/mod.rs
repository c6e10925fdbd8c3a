//! Shares what is scarce among clients: the places of loads, and requests within a time.
//!
//! A client is an opaque number here ([`ClientId`]). This module must never know how clients prove
//! who they are, and nothing in it may grow with the number of clients that there ever were.

mod client;
mod quota;
mod turns;

pub(crate) use client::{ClientId, network, wrap_task};
pub(crate) use quota::{OpenRequests, Permit, Quota, Quotas};
pub(crate) use turns::{Turn, Turns};
