//! Compiles `proto/` with protox, a protobuf compiler written in Rust, so that no `protoc` is
//! needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let own = protox::compile(
        ["gaocache/v1/cache.proto", "gaocache/v1/peer.proto"],
        ["proto"],
    )?;
    // For reflection.
    fs::write(out.join("descriptors.bin"), own.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(own)?;
    Ok(())
}
