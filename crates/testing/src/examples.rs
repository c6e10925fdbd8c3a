//! Examples as programs, run by the tests that show that they do what they say.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// An example of the crate whose test calls this.
pub fn example(name: &str) -> PathBuf {
    // target/debug/deps/TEST-… → target/debug/examples/NAME, which `cargo test` builds.
    let mut path = std::env::current_exe().expect("a path");
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

/// What an example prints that ends well.
pub fn run_example(name: &str, arguments: &[&str]) -> String {
    let output: Output = Command::new(example(name))
        .args(arguments)
        .output()
        .expect("runs");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
