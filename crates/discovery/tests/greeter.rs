//! The examples' generated code is what their proto file says. `make greeter` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

#[test]
fn the_generated_code_is_that_of_the_proto_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/greeter");
    let out = tempfile::tempdir().unwrap();
    let compiled = protox::compile(["greeter.proto"], [folder]).expect("a good file");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .compile_fds(compiled)
        .unwrap();
    let generated = fs::read_to_string(out.path().join("greeter.v1.rs")).unwrap();
    let checked_in = format!("{folder}/greeter.v1.rs");
    if std::env::var_os("GAOCACHE_WRITE_GREETER").is_some() {
        fs::write(&checked_in, generated).unwrap();
    } else {
        let standing = fs::read_to_string(&checked_in).expect("it is checked in");
        assert!(standing == generated, "run `make greeter`");
    }
}
