//! The demo programs as people type them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

const PROGRAMS: [(&str, &str); 2] = [
    ("demo-origin", env!("CARGO_BIN_EXE_demo-origin")),
    ("demo-load", env!("CARGO_BIN_EXE_demo-load")),
];

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.expect("runs")
}

#[test]
fn help_is_help_and_no_address() {
    for (name, program) in PROGRAMS {
        let output = run(program, &["--help"]);
        assert!(output.status.success(), "{name}");
        let shown = String::from_utf8(output.stdout).expect("text");
        assert!(shown.contains(&format!("Usage: {name}")), "{shown}");
    }
}

#[test]
fn an_address_that_is_taken_is_told_in_words() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("bound").to_string();
    let load = ["--url", "http://127.0.0.1:1", "--listen", &address];
    for ((name, program), arguments) in PROGRAMS.iter().zip([&[address.as_str()][..], &load]) {
        let output = run(program, arguments);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let told = String::from_utf8(output.stderr).expect("text");
        let expected = format!("{name}: can't listen on {address}: Address already in use");
        assert!(told.starts_with(&expected), "{told}");
    }
}
