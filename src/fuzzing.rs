//! What the fuzz targets reach: everything that reads bytes from outside, each behind a plain
//! function. It exists only with the feature `fuzzing`, and is not part of the API: anything here
//! may change or go at any time. The targets, with what each of them asserts, are in `crates/fuzz`.

pub use crate::config::{InForce, Sources, read_all};
pub use crate::{
    auth::fuzzing as auth, http::fuzzing as http, http_client::template, node::fuzzing as node,
    origin::fuzzing as origin, redis::fuzzing as redis, registry::fuzzing as registry,
    rpc::fuzzing as rpc, telemetry::fuzzing as telemetry, tls::fuzzing as tls,
};
