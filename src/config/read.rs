//! Converts single values to the types that the schema requires. Variables and flags are always
//! strings, so a string is parsed as the required type.

use figment::value::Value;

use super::{mask, schema::Takes, show};

const MASKED: &str = "a secret in it was masked by `gaocache config`; write the secret itself";

/// Converts a value to the type that the schema requires. A string is parsed, since variables and
/// flags are always strings.
pub(super) fn take(takes: Takes, value: &Value) -> Result<toml::Value, String> {
    match takes {
        Takes::Text => Ok(text(value)?.into()),
        Takes::Integer { min, max } => integer(number(value)?, min as f64, max as f64),
        Takes::Seconds { min, max } => within(number(value)?, min, max).map(Into::into),
        Takes::Ratio => within(number(value)?, 0.0, 1.0).map(Into::into),
        Takes::Boolean => boolean(value),
        Takes::Bytes => bytes(value, 1),
        Takes::BytesOrZero => bytes(value, 0),
        Takes::Socket => socket(text(value)?),
        Takes::SocketOrNone if text(value)?.is_empty() => Ok("".into()),
        Takes::SocketOrNone => socket(text(value)?),
        Takes::OneOf(words) => one_of(words, text(value)?),
        Takes::Url => url(text(value)?).map(Into::into),
        Takes::Urls => urls(value),
        Takes::Texts => texts(value).ok_or_else(wrong),
        Takes::Table => unmasked(table(value).ok_or_else(wrong)?),
    }
}

fn wrong() -> String {
    "not a valid value".to_owned()
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(_, text) => Ok(text),
        _ => Err(wrong()),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Num(_, number) => show::number(number).parse().ok(),
        Value::String(_, text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    number.ok_or_else(wrong)
}

fn within(number: f64, min: f64, max: f64) -> Result<f64, String> {
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err("out of range".into())
    }
}

fn integer(number: f64, min: f64, max: f64) -> Result<toml::Value, String> {
    if number.fract() != 0.0 {
        return Err("not an integer".into());
    }
    Ok((within(number, min, max)? as i64).into())
}

fn boolean(value: &Value) -> Result<toml::Value, String> {
    let truth = match value {
        Value::Bool(_, truth) => Some(*truth),
        Value::String(_, text) => text.parse().ok(),
        _ => None,
    };
    truth.map(Into::into).ok_or_else(wrong)
}

fn socket(text: &str) -> Result<toml::Value, String> {
    let socket: Result<std::net::SocketAddr, _> = text.parse();
    socket.map_err(|_| "not an address and port".to_owned())?;
    Ok(text.into())
}

fn one_of(words: &[&str], word: &str) -> Result<toml::Value, String> {
    let known = words.contains(&word);
    known.then(|| word.into()).ok_or_else(wrong)
}

/// A size as text with a unit. A number counts bytes.
fn bytes(value: &Value, least: u64) -> Result<toml::Value, String> {
    let text = match value {
        Value::String(_, text) => text.clone(),
        Value::Num(_, number) => format!("{}B", show::number(number)),
        _ => return Err(wrong()),
    };
    let size: bytesize::ByteSize = text.parse().map_err(|_| "not a size".to_owned())?;
    if size.as_u64() < least {
        return Err("must be greater than zero".into());
    }
    Ok(text.into())
}

/// Never quotes the URL, since it may contain a password.
fn url(text: &str) -> Result<&str, String> {
    if mask::was_masked(text) {
        return Err(MASKED.into());
    }
    if text.is_empty() || text.starts_with("http://") || text.starts_with("https://") {
        return Ok(text);
    }
    Err("does not start with http:// or https://".into())
}

fn urls(value: &Value) -> Result<toml::Value, String> {
    let list = texts(value).ok_or_else(wrong)?;
    for item in list.as_array().into_iter().flatten() {
        let item = item.as_str().unwrap_or_default();
        if item.is_empty() {
            return Err("one of its items is empty".into());
        }
        url(item)?;
    }
    Ok(list)
}

/// A list of strings. From a variable, also as TOML (`["a", "b"]`) or separated by commas (`a,b`).
fn texts(value: &Value) -> Option<toml::Value> {
    match value {
        Value::Array(_, list) => list
            .iter()
            .map(|item| item.as_str().map(toml::Value::from))
            .collect::<Option<Vec<_>>>()
            .map(Into::into),
        Value::String(_, text) if text.trim_start().starts_with('[') => {
            let table: toml::Table = format!("list = {text}").parse().ok()?;
            let list = table.get("list")?.as_array()?;
            list.iter()
                .all(toml::Value::is_str)
                .then(|| list.clone().into())
        }
        Value::String(_, text) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Some(items.map(toml::Value::from).collect::<Vec<_>>().into())
        }
        _ => None,
    }
}

fn table(value: &Value) -> Option<toml::Value> {
    match value {
        Value::Dict(_, dict) => dict
            .iter()
            .map(|(key, value)| Some((key.clone(), toml::Value::from(value.as_str()?))))
            .collect::<Option<toml::Table>>()
            .map(Into::into),
        Value::String(_, text) => {
            let table: toml::Table = format!("table = {text}").parse().ok()?;
            let inner = table.get("table")?.as_table()?;
            inner
                .values()
                .all(toml::Value::is_str)
                .then(|| inner.clone().into())
        }
        _ => None,
    }
}

/// A table without a secret that was masked when it was printed.
fn unmasked(table: toml::Value) -> Result<toml::Value, String> {
    let mut values = table.as_table().into_iter().flat_map(toml::Table::values);
    if values.any(|it| it.as_str().is_some_and(mask::was_masked)) {
        return Err(MASKED.into());
    }
    Ok(table)
}
