//! The table, in Markdown.

use std::{fmt, fs, process::Command};

use crate::{process::find, round::Round};

/// What was measured.
#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
    skipped: Vec<String>,
}

impl Table {
    /// A row: the rounds of each server, the node's first.
    pub fn add(&mut self, name: &str, goal: &str, servers: Vec<(&'static str, Vec<Round>)>) {
        let cpu = |rounds: &[Round]| median(rounds.iter().map(|it| it.cpu));
        let micros = |of: fn(&Round) -> std::time::Duration, rounds: &[Round]| {
            median(rounds.iter().map(|it| of(it).as_secs_f64() * 1e6))
        };
        let node = &servers[0].1;
        let others = servers[1..].iter().map(|(name, rounds)| {
            let ratios = node.iter().zip(rounds).map(|(own, its)| own.cpu / its.cpu);
            let (its, ratio) = (cpu(rounds), median(ratios));
            format!("{name} {its:.2} (× {ratio:.2})")
        });
        let others: Vec<String> = others.collect();
        let row = format!(
            "| {name} | {:.2} | {} | {goal} | {:.0} / {:.0} |",
            cpu(node),
            others.join("; "),
            micros(|it| it.median, node),
            micros(|it| it.tail, node),
        );
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// A server that is missing in a row.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.skipped.push(format!("{name}: {why}"));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {}\n", processor(), versions().join(", "))?;
        writeln!(
            f,
            "| measure | gaocache, CPU s per million gets | beside it (gaocache ÷ it) | goal \
             | gaocache, p50 / p99 µs |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "\nskipped: {skipped}")?;
        }
        Ok(())
    }
}

fn processor() -> String {
    let all = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = all.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    model.unwrap_or("unknown").to_owned()
}

/// What was measured beside the node: libraries as they are locked, and programs.
fn versions() -> Vec<String> {
    const LIBRARIES: [&str; 4] = ["h2", "hyper", "tokio", "tonic"];
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    let libraries = LIBRARIES.iter().filter_map(|name| {
        let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", after.split('"').next()?))
    });
    let programs = ["nginx", "redis-server"].iter().filter_map(|name| {
        let told = Command::new(find(name)?).arg("-v").output().ok()?;
        let told = [told.stdout, told.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        let version = told.split(['/', '=', ' ']).find(|it| it.contains('.'))?;
        Some(format!("{name} {}", version.trim()))
    });
    libraries.chain(programs).collect()
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
