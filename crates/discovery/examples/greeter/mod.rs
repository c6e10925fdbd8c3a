//! The greeter service of the examples. `greeter.v1.rs` is generated from `greeter.proto` and
//! checked in, so that the examples need neither `protoc` nor a build script; `make greeter` writes
//! it anew, and a test holds it against the proto file.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic
)]

include!("greeter.v1.rs");
