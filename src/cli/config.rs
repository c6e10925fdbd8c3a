//! `gaocache config`: the effective settings, in a form that can be loaded again.

use clap::Args;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{print_json, print_line, tell, tell_json},
    sources::ConfigArgs,
};
use crate::config::{InForce, listed};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    sources: ConfigArgs,
    /// Print JSON: a list of settings with name, value and source
    #[arg(long)]
    json: bool,
    /// Fail with exit code 64 if there are warnings, too
    #[arg(long)]
    strict: bool,
}

pub(super) fn show(args: &ShowArgs) -> Result<(), Failure> {
    let reading = args.sources.read();
    if args.json {
        let settings = reading.in_force.iter().map(|setting| {
            json!({
                "name": setting.name,
                "value": value(setting),
                "source": setting.source,
            })
        });
        print_json(&settings.collect::<Vec<_>>())?;
    } else {
        print_toml(&reading.in_force)?;
    }
    // The valid settings help to find what is wrong with the others.
    let warnings = reading.checked()?.warnings;
    if warnings.is_empty() {
        return Ok(());
    }
    let told = listed("warning", &warnings);
    if args.strict {
        return Err(Failure::Configuration(told));
    }
    warn(&told, args.json);
    Ok(())
}

/// Tells the warnings about settings.
pub(super) fn warn(told: &str, json: bool) {
    match json {
        true => tell_json(&json!({ "warning": told })),
        false => tell(&format!("gaocache: {told}")),
    }
}

fn print_toml(in_force: &[InForce]) -> Result<(), Failure> {
    let lines: Vec<Line<'_>> = in_force.iter().map(Line::of).collect();
    let width = |of: fn(&Line<'_>) -> usize| lines.iter().map(of).max().unwrap_or(0).min(60);
    let (names, values) = (width(|it| it.name.len()), width(|it| it.value.len()));
    let mut shown = None;
    for line in &lines {
        if line.group.is_some() && line.group != shown {
            print_line("\n[[groups]]")?;
            shown = line.group;
        }
        print_line(&format!(
            "{:names$} = {:values$}  # {}",
            line.name, line.value, line.source
        ))?;
    }
    Ok(())
}

/// The value, which is a literal of TOML, as JSON.
pub(super) fn value(setting: &InForce) -> Value {
    let table: Option<toml::Table> = format!("value = {}", setting.value).parse().ok();
    let value = table.as_ref().and_then(|table| table.get("value"));
    value.map_or(Value::Null, |value| json!(value))
}

/// A setting as a line of TOML: `groups[0].name` is `name` in the first table of its kind.
struct Line<'a> {
    group: Option<&'a str>,
    name: &'a str,
    value: &'a str,
    source: &'a str,
}

impl<'a> Line<'a> {
    fn of(setting: &'a InForce) -> Self {
        let (group, name) = match setting.name.split_once("].") {
            Some((group, name)) => (Some(group), name),
            None => (None, setting.name.as_str()),
        };
        Self {
            group,
            name,
            value: &setting.value,
            source: &setting.source,
        }
    }
}
