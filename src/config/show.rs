//! Values as a person would write them.

use figment::value::{Num, Value};

/// A value as a person would write it.
pub(super) fn value(given: &Value) -> String {
    match given {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, letter) => format!("{letter:?}"),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => self::number(number),
        Value::Dict(..) => "{…}".into(),
        Value::Array(..) => "[…]".into(),
        Value::Empty(..) => "(nothing)".into(),
    }
}

pub(super) fn number(given: &Num) -> String {
    given
        .to_i128()
        .map(|whole| whole.to_string())
        .or_else(|| given.to_f64().map(|fraction| fraction.to_string()))
        .unwrap_or_default()
}
