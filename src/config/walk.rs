//! Walks the merged values along with the schema: validates each value and records its source.

use std::path::Path;

use figment::{
    Figment, Metadata, Source,
    value::{Dict, Value},
};

use super::{
    problem::Problem,
    read::{show, take},
    schema,
};

/// A setting in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Full name, including the index of the group for a group's setting.
    pub name: String,
    /// The value as TOML. Secrets are masked.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// The state of the walk.
pub(super) struct Walk<'a> {
    pub(super) figment: &'a Figment,
    pub(super) problems: Vec<Problem>,
    pub(super) in_force: Vec<InForce>,
}

impl Walk<'_> {
    /// The validated values of a section. `name` is its full name, empty for the root.
    pub(super) fn section(&mut self, name: &str, dict: &Dict) -> toml::Table {
        let mut checked = toml::Table::new();
        for (key, value) in dict {
            let full = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            if let Some(value) = self.value(&full, value) {
                checked.insert(key.clone(), value);
            }
        }
        checked
    }

    fn value(&mut self, name: &str, value: &Value) -> Option<toml::Value> {
        if name == "groups" {
            return self.groups(value);
        }
        let generic = generic(name);
        if let Some(setting) = schema::find(&generic) {
            let checked = take(setting.takes, value);
            match checked {
                Ok(checked) => {
                    self.note(name, value, &checked);
                    return Some(checked);
                }
                Err(reason) => {
                    let reason = format!("{reason}; expected: {}", setting.takes.allowed());
                    self.problem(name, Some(value), reason);
                    return None;
                }
            }
        }
        if schema::is_section(&generic) {
            if let Some(dict) = value.as_dict() {
                return Some(self.section(name, dict).into());
            }
            self.problem(name, Some(value), "this is a section, not a setting".into());
            return None;
        }
        let hint = match schema::nearest(&generic) {
            Some(nearest) => format!("no such setting; did you mean '{nearest}'?"),
            None => "no such setting; see docs/configuration.md for all settings".into(),
        };
        self.problem(name, Some(value), hint);
        None
    }

    fn groups(&mut self, value: &Value) -> Option<toml::Value> {
        let parsed;
        let list = match value {
            Value::Array(_, list) => list,
            // From a variable, the list comes as TOML.
            Value::String(tag, text) => match inline_groups(text, *tag) {
                Ok(list) => {
                    parsed = list;
                    &parsed
                }
                Err(reason) => {
                    self.problem("groups", Some(value), reason);
                    return None;
                }
            },
            _ => {
                self.problem("groups", Some(value), "write each as [[groups]]".into());
                return None;
            }
        };
        let mut groups = Vec::new();
        for (number, group) in list.iter().enumerate() {
            let name = format!("groups[{number}]");
            let Some(given) = group.as_dict() else {
                self.problem(&name, Some(group), "write each as [[groups]]".into());
                continue;
            };
            let mut given = given.clone();
            let missing = add_group_defaults(&mut given);
            for setting in missing {
                self.problem(
                    &setting.replace("[]", &format!("[{number}]")),
                    None,
                    "required".into(),
                );
            }
            groups.push(toml::Value::Table(self.section(&name, &given)));
        }
        Some(groups.into())
    }

    fn note(&mut self, name: &str, value: &Value, checked: &toml::Value) {
        let shown = if name.ends_with(".headers") {
            mask(checked)
        } else {
            checked.to_string()
        };
        self.in_force.push(InForce {
            name: name.into(),
            value: shown,
            source: self.source(value).unwrap_or_else(|| "default".into()),
        });
    }

    fn problem(&mut self, name: &str, value: Option<&Value>, reason: String) {
        self.problems.push(Problem {
            name: name.into(),
            value: value.map(show),
            source: value.and_then(|value| self.source(value)),
            reason,
        });
    }

    fn source(&self, value: &Value) -> Option<String> {
        self.figment.get_metadata(value.tag()).map(source_name)
    }
}

/// Converts `groups[3].name` to the schema's form, `groups[].name`.
fn generic(name: &str) -> String {
    match (name.find('['), name.find(']')) {
        (Some(open), Some(close)) => format!("{}{}", &name[..=open], &name[close..]),
        _ => name.to_owned(),
    }
}

/// Masks the values, since headers may contain credentials.
fn mask(headers: &toml::Value) -> String {
    let names = headers.as_table().into_iter().flat_map(toml::Table::keys);
    let shown: Vec<String> = names.map(|name| format!("{name} = \"***\"")).collect();
    format!("{{ {} }}", shown.join(", "))
}

fn inline_groups(text: &str, tag: figment::value::Tag) -> Result<Vec<Value>, String> {
    let table: toml::Table = format!("groups = {text}")
        .parse()
        .map_err(|error: toml::de::Error| format!("not a TOML list: {}", error.message()))?;
    let value = table.get("groups").map(Value::serialize);
    match value {
        Some(Ok(Value::Array(_, list))) => {
            Ok(list.into_iter().map(|value| retag(value, tag)).collect())
        }
        _ => Err("not a TOML list of tables".into()),
    }
}

/// Gives a parsed value, and every value inside it, the source of the text that it was parsed from.
fn retag(value: Value, tag: figment::value::Tag) -> Value {
    match value {
        Value::String(_, text) => Value::String(tag, text),
        Value::Bool(_, truth) => Value::Bool(tag, truth),
        Value::Num(_, number) => Value::Num(tag, number),
        Value::Dict(_, dict) => Value::Dict(
            tag,
            dict.into_iter()
                .map(|(key, value)| (key, retag(value, tag)))
                .collect(),
        ),
        Value::Array(_, list) => Value::Array(
            tag,
            list.into_iter().map(|value| retag(value, tag)).collect(),
        ),
        other => other,
    }
}

/// Adds the defaults of settings that a group omits. Returns the names of required settings that
/// are missing.
fn add_group_defaults(group: &mut Dict) -> Vec<&'static str> {
    let mut missing = Vec::new();
    for setting in schema::SETTINGS {
        let Some(name) = setting.name.strip_prefix("groups[].") else {
            continue;
        };
        let (section, key) = name.split_once('.').unwrap_or(("", name));
        let target = if section.is_empty() {
            &mut *group
        } else {
            let inner = group
                .entry(section.to_owned())
                .or_insert_with(|| Value::from(Dict::new()));
            match inner {
                Value::Dict(_, dict) => dict,
                // Not a table; the walk reports that.
                _ => continue,
            }
        };
        if target.contains_key(key) {
            continue;
        }
        match setting.default {
            Some(default) => {
                target.insert(key.to_owned(), Value::from(default().trim_matches('"')));
            }
            None => missing.push(setting.name),
        }
    }
    missing
}

fn source_name(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(Source::File(path)) => format!("file {}", show_path(path)),
        _ => metadata.name.to_string(),
    }
}

pub(super) fn show_path(path: &Path) -> String {
    path.display().to_string()
}
