//! `gaocache config`: the settings in force, in a form that can be loaded again.

use super::{ConfigArgs, Failure, output::print_line};
use crate::config::InForce;

pub(super) fn show(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = args.load(true)?;
    let lines: Vec<Line<'_>> = loaded.in_force.iter().map(Line::of).collect();
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
