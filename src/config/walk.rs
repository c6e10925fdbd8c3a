//! Walks the merged values along with the schema: validates each value and records its source.
//!
//! It never stops at what is wrong. It notes it, puts the default in its place, and continues, so
//! that the checks that involve several settings have something to judge, too.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use figment::{
    Figment,
    value::{Dict, Value},
};

use super::{
    mask,
    problem::Problem,
    read::take,
    schema::{self, Applies, Setting, Takes},
    suggest::suggest,
    unsure::Unsure,
};

/// An effective setting.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// Full name, including the index of the group for a group's setting.
    pub name: String,
    /// The value as TOML. Secrets are masked.
    pub value: String,
    /// Where it came from.
    pub source: String,
    /// Of the value with its secrets, and of what the files contain that it stands for.
    fingerprint: u64,
}

impl InForce {
    /// Whether it has its default value.
    pub(super) fn is_default(&self) -> bool {
        let setting = schema::find(&generic(&self.name));
        setting.is_some_and(|it| mask::checked(it.takes, &stand_in(it)) == self.value)
    }

    /// Whether the other one means the same: a changed secret is a change, though it is masked.
    pub(crate) fn means_the_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Its value stands for this content of files.
    pub(super) fn stands_for(&mut self, content: &impl Hash) {
        self.fingerprint = fingerprint(&(self.fingerprint, content));
    }

    /// When a node that runs applies a new value of it.
    pub fn applies(&self) -> Applies {
        let setting = schema::find(&generic(&self.name));
        setting.map_or(Applies::Restart, Setting::applies)
    }

    /// Its place in the reference: which group, and which line of the schema.
    pub fn place(&self) -> (Option<usize>, Option<usize>) {
        let generic = generic(&self.name);
        let line = schema::SETTINGS.iter().position(|it| it.name == generic);
        (group_index(&self.name), line)
    }
}

/// The state of the walk.
pub(super) struct Walk<'a> {
    figment: &'a Figment,
    pub(super) problems: Vec<Problem>,
    pub(super) in_force: Vec<InForce>,
    pub(super) unsure: Unsure,
}

impl<'a> Walk<'a> {
    pub(super) fn new(figment: &'a Figment, problems: Vec<Problem>) -> Self {
        Self {
            figment,
            problems,
            in_force: Vec::new(),
            unsure: Unsure::default(),
        }
    }

    /// The validated values of all settings. Settings of single groups (`groups[0].name`) go on top
    /// of the list of groups.
    pub(super) fn all(&mut self, mut merged: Dict) -> toml::Table {
        let groups = merged.remove("groups");
        let (singles, merged) = merged
            .into_iter()
            .partition::<Dict, _>(|(name, _)| name.starts_with("groups["));
        let mut checked = self.section("", &merged);
        self.complete("", "", &mut checked);
        let groups = self.groups(groups, singles);
        checked.insert("groups".into(), groups.into());
        checked
    }

    /// The validated values of a section. `name` is its full name, empty for the root.
    fn section(&mut self, name: &str, dict: &Dict) -> toml::Table {
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
        let generic = generic(name);
        if let Some(setting) = schema::find(&generic) {
            return match take(setting.takes, value) {
                Ok(checked) => {
                    self.note(name, setting.takes, value, &checked);
                    Some(checked)
                }
                Err(reason) => {
                    let reason = format!("{reason}; expected: {}", setting.takes.allowed());
                    let shown = mask::given(setting.takes, value);
                    self.problem(name, shown, Some(value), reason);
                    None
                }
            };
        }
        if schema::is_section(&generic) {
            if let Some(dict) = value.as_dict() {
                return Some(self.section(name, dict).into());
            }
            let reason = "this is a section, not a setting".into();
            self.problem(name, None, Some(value), reason);
            return None;
        }
        self.unknown(name, &generic, value);
        None
    }

    /// Doesn't show the value: it may be a secret.
    fn unknown(&mut self, name: &str, generic: &str, value: &Value) {
        let what = match value {
            Value::Dict(..) => "no such section",
            _ => "no such setting",
        };
        let reason = match suggest(generic) {
            Some(meant) => {
                let index = group_index(name).map_or(String::new(), |index| index.to_string());
                let meant = meant.replace("[]", &format!("[{index}]"));
                let reason = format!("{what}; did you mean '{meant}'?");
                self.unsure.add(meant);
                reason
            }
            None => format!("{what}; see docs/configuration.md for all settings"),
        };
        self.problem(name, None, Some(value), reason);
    }

    fn groups(&mut self, value: Option<Value>, singles: Dict) -> Vec<toml::Value> {
        let list = match value {
            None => Vec::new(),
            Some(Value::Array(_, list)) => list,
            Some(value) => {
                // From a variable, the list comes as TOML.
                let list = match &value {
                    Value::String(tag, text) => inline_groups(text, *tag),
                    _ => Err("write each as [[groups]]".into()),
                };
                match list {
                    Ok(list) => list,
                    Err(reason) => {
                        self.problem("groups", None, Some(&value), reason);
                        return Vec::new();
                    }
                }
            }
        };
        let mut singles = self.singles(singles, list.len());
        let mut groups = Vec::new();
        for (number, group) in list.into_iter().enumerate() {
            let name = format!("groups[{number}]");
            let mut checked = toml::Table::new();
            if let Value::Dict(_, mut given) = group {
                overlay(&mut given, singles.remove(&number).unwrap_or_default());
                add_group_defaults(&mut given);
                checked = self.section(&name, &given);
            } else {
                let reason = "write each as [[groups]]".into();
                self.problem(&name, None, Some(&group), reason);
            }
            self.complete("groups[].", &format!("{name}."), &mut checked);
            groups.push(checked.into());
        }
        groups
    }

    /// The settings given for single groups, by the group's number.
    fn singles(&mut self, singles: Dict, groups: usize) -> BTreeMap<usize, Dict> {
        let mut by_number = BTreeMap::new();
        for (name, value) in singles {
            let reason = match (group_index(&name), &value) {
                (Some(number), Value::Dict(_, dict)) if number < groups => {
                    by_number.insert(number, dict.clone());
                    continue;
                }
                (Some(_), Value::Dict(..)) => match groups {
                    0 => "there is no such group: the settings have none".to_owned(),
                    1 => "there is no such group: the only one is groups[0]".to_owned(),
                    _ => format!(
                        "there is no such group: the last one is groups[{}]",
                        groups - 1
                    ),
                },
                _ => "write it as groups[0].ttl_seconds, with the number of the group".to_owned(),
            };
            self.problem(&name, None, Some(&value), reason);
        }
        by_number
    }

    /// Puts a value where there is none, or none that is right. `section` is the schema's name of
    /// the table, and `name` its full one; both end with a dot, unless they are empty.
    fn complete(&mut self, section: &str, name: &str, checked: &mut toml::Table) {
        for setting in schema::SETTINGS {
            let rest = match setting.name.strip_prefix(section) {
                Some(rest) if !rest.starts_with("groups[") => rest,
                _ => continue,
            };
            let Some(place) = vacant(checked, rest) else {
                continue;
            };
            place.0.insert(place.1.to_owned(), stand_in(setting));
            let full = format!("{name}{rest}");
            if setting.default.is_none() && !self.unsure.has(&full) {
                self.problem(&full, None, None, "required".into());
            }
        }
    }

    fn note(&mut self, name: &str, takes: Takes, value: &Value, checked: &toml::Value) {
        self.in_force.push(InForce {
            name: name.into(),
            value: mask::checked(takes, checked),
            source: self.source(value).unwrap_or_else(|| "default".into()),
            fingerprint: fingerprint(&checked.to_string()),
        });
    }

    fn problem(
        &mut self,
        name: &str,
        shown: Option<String>,
        value: Option<&Value>,
        reason: String,
    ) {
        self.unsure.add(name);
        self.problems.push(Problem {
            name: name.into(),
            value: shown,
            source: value.and_then(|value| self.source(value)),
            reason,
        });
    }

    fn source(&self, value: &Value) -> Option<String> {
        let metadata = self.figment.get_metadata(value.tag());
        metadata.map(|metadata| metadata.name.to_string())
    }
}

fn fingerprint(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Converts `groups[3].name` to the schema's form, `groups[].name`.
fn generic(name: &str) -> String {
    match (name.find('['), name.find(']')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", &name[..=open], &name[close..])
        }
        _ => name.to_owned(),
    }
}

/// The number of the group that a name like `groups[3]` or `groups[3].name` is about.
fn group_index(name: &str) -> Option<usize> {
    let (index, rest) = name.strip_prefix("groups[")?.split_once(']')?;
    let index = index.parse().ok()?;
    (rest.is_empty() || rest.starts_with('.')).then_some(index)
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

/// Puts the values of one table over those of another, table by table.
fn overlay(below: &mut Dict, above: Dict) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Dict(_, below)), Value::Dict(_, above)) => overlay(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Adds the defaults of settings that a group omits.
fn add_group_defaults(group: &mut Dict) {
    for setting in schema::SETTINGS {
        let Some((name, default)) = setting.name.strip_prefix("groups[].").zip(setting.default)
        else {
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
        target
            .entry(key.to_owned())
            .or_insert_with(|| Value::from(default().trim_matches('"')));
    }
}

/// The innermost table and the key of a setting without a value; `None` if it has one.
fn vacant<'t, 'n>(
    table: &'t mut toml::Table,
    name: &'n str,
) -> Option<(&'t mut toml::Table, &'n str)> {
    let Some((section, rest)) = name.split_once('.') else {
        return (!table.contains_key(name)).then_some((table, name));
    };
    let inner = table
        .entry(section)
        .or_insert_with(|| toml::Table::new().into());
    vacant(inner.as_table_mut()?, rest)
}

/// The default of a setting, or something that its type allows.
fn stand_in(setting: &Setting) -> toml::Value {
    let default = setting.default.map(|default| default());
    let text = match (&default, setting.takes) {
        (Some(default), _) => default.trim_matches('"'),
        (None, Takes::OneOf(words)) => words.first().copied().unwrap_or_default(),
        (None, _) => "",
    };
    take(setting.takes, &Value::from(text)).unwrap_or_else(|_| text.into())
}
