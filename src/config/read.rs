//! Converts single values to the types that the schema requires. Variables and flags are always
//! strings, so a string is parsed as the required type.

use figment::value::{Num, Value};

use super::{mask, schema::Takes};

const MASKED: &str = "a secret in it was masked by `gaocache config`; write the secret itself";

/// Converts a value to the type that the schema requires. A string is parsed, since variables and
/// flags are always strings.
pub(super) fn take(takes: Takes, value: &Value) -> Result<toml::Value, String> {
    let text = match value {
        Value::String(_, text) => Some(text.as_str()),
        _ => None,
    };
    let number = match value {
        Value::Num(_, number) => show_number(number).parse().ok(),
        Value::String(_, text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let wrong = || "not a valid value".to_owned();
    match takes {
        Takes::Text => text.map(Into::into).ok_or_else(wrong),
        Takes::Integer { min, max } => {
            let number = number.ok_or_else(wrong)?;
            if number.fract() != 0.0 {
                return Err("not an integer".into());
            }
            within(number, min as f64, max as f64)?;
            Ok((number as i64).into())
        }
        Takes::Seconds { min, max } => {
            let number = number.ok_or_else(wrong)?;
            within(number, min, max)?;
            Ok(number.into())
        }
        Takes::Ratio => {
            let number = number.ok_or_else(wrong)?;
            within(number, 0.0, 1.0)?;
            Ok(number.into())
        }
        Takes::Boolean => match (value, text) {
            (Value::Bool(_, truth), _) => Ok((*truth).into()),
            (_, Some("true")) => Ok(true.into()),
            (_, Some("false")) => Ok(false.into()),
            _ => Err(wrong()),
        },
        Takes::Bytes => bytes(value, 1),
        Takes::BytesOrZero => bytes(value, 0),
        Takes::Socket => {
            let text = text.ok_or_else(wrong)?;
            let socket: Result<std::net::SocketAddr, _> = text.parse();
            socket.map_err(|_| "not an address and port".to_owned())?;
            Ok(text.into())
        }
        Takes::OneOf(words) => match text {
            Some(word) if words.contains(&word) => Ok(word.into()),
            _ => Err(wrong()),
        },
        Takes::Url => {
            let text = text.ok_or_else(wrong)?;
            url(text)?;
            Ok(text.into())
        }
        Takes::Urls => {
            let list = texts(value).ok_or_else(wrong)?;
            let items = list.as_array().into_iter().flatten();
            items.filter_map(toml::Value::as_str).try_for_each(|item| {
                let empty = item.is_empty().then(|| "one of them is empty".to_owned());
                empty.map_or_else(|| url(item), Err)
            })?;
            Ok(list)
        }
        Takes::Texts => texts(value).ok_or_else(wrong),
        Takes::Table => {
            let table = table(value).ok_or_else(wrong)?;
            let mut values = table.as_table().into_iter().flat_map(toml::Table::values);
            if values.any(|it| it.as_str().is_some_and(mask::was_masked)) {
                return Err(MASKED.into());
            }
            Ok(table)
        }
    }
}

fn within(number: f64, min: f64, max: f64) -> Result<(), String> {
    if (min..=max).contains(&number) {
        Ok(())
    } else {
        Err("out of range".into())
    }
}

/// A size as text with a unit. A number counts bytes.
fn bytes(value: &Value, least: u64) -> Result<toml::Value, String> {
    let text = match value {
        Value::String(_, text) => text.clone(),
        Value::Num(_, number) => format!("{}B", show_number(number)),
        _ => return Err("not a valid value".into()),
    };
    let size: bytesize::ByteSize = text.parse().map_err(|_| "not a size".to_owned())?;
    if size.as_u64() < least {
        return Err("must be greater than zero".into());
    }
    Ok(text.into())
}

/// Never quotes the URL, since it may contain a password.
fn url(text: &str) -> Result<(), String> {
    if mask::was_masked(text) {
        return Err(MASKED.into());
    }
    if text.is_empty() || text.starts_with("http://") || text.starts_with("https://") {
        return Ok(());
    }
    Err("does not start with http:// or https://".into())
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

/// A value as a person would write it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, letter) => format!("{letter:?}"),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => show_number(number),
        Value::Dict(..) => "{…}".into(),
        Value::Array(..) => "[…]".into(),
        Value::Empty(..) => "(nothing)".into(),
    }
}

fn show_number(number: &Num) -> String {
    number
        .to_i128()
        .map(|whole| whole.to_string())
        .or_else(|| number.to_f64().map(|fraction| fraction.to_string()))
        .unwrap_or_default()
}
