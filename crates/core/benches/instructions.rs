//! Instructions of the steps that every request takes, as valgrind counts them: unlike times, they
//! repeat on a noisy machine. `tools/instructions` runs it, and compares what it finds with
//! `instructions.tsv` beside this file.
//!
//! Without an argument it lists the steps; with one and a number, it takes that step so often.

fn main() {
    // cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    match (arguments.next(), arguments.next()) {
        (Some(scenario), Some(times)) => match times.parse() {
            Ok(times) => gaocache_core::instructions::run(&scenario, times),
            Err(error) => eprintln!("'{times}' is not a number: {error}"),
        },
        _ => gaocache_core::instructions::SCENARIOS
            .iter()
            .for_each(|it| println!("{it}")),
    }
}
