//! Reads JSON request bodies the way Consul does.
//!
//! - Source: http-api.md §1.12: keys match without regard to case, unknown keys are errors, `null`
//!   means absent, what follows the first value is ignored; §1.13 for durations.

use crate::duration;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use terraform_core::wire::base64::Base64Error;
use thiserror::Error;

/// Why a body was refused. The client is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// There is no body.
    #[error("EOF")]
    Empty,
    /// The body ends within a value.
    #[error("unexpected EOF")]
    Truncated,
    /// The body is no JSON.
    #[error("invalid JSON: {0}")]
    Syntax(String),
    /// A key is not known.
    #[error("json: unknown field {0:?}")]
    UnknownField(String),
    /// A value has another type.
    #[error("json: cannot unmarshal {found} into Go struct field .{field} of type {wanted}")]
    Type {
        /// The type found.
        found: String,
        /// The field.
        field: &'static str,
        /// The type wanted.
        wanted: &'static str,
    },
    /// A text is no base64.
    #[error(transparent)]
    Base64(#[from] Base64Error),
    /// A text is no duration.
    #[error(transparent)]
    Duration(#[from] duration::DurationError),
}

/// Reads the first JSON value of `body`.
pub fn parse(body: &[u8]) -> Result<Value, DecodeError> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    match values.next() {
        None => Err(DecodeError::Empty),
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) if error.is_eof() => Err(DecodeError::Truncated),
        Some(Err(error)) => Err(DecodeError::Syntax(error.to_string())),
    }
}

/// Calls `take` with each key, in lower case, and its value; `take` says whether it knows the key.
pub fn each(
    value: &Value,
    field: &'static str,
    mut take: impl FnMut(&str, &Value) -> Result<bool, DecodeError>,
) -> Result<(), DecodeError> {
    match value {
        Value::Null => Ok(()),
        Value::Object(members) => {
            for (key, value) in members {
                if !take(&key.to_ascii_lowercase(), value)? {
                    return Err(DecodeError::UnknownField(key.clone()));
                }
            }
            Ok(())
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(mismatch(value, field, "object"))
        }
    }
}

/// A string; `null` is empty.
pub fn string(value: &Value, field: &'static str) -> Result<String, DecodeError> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(mismatch(value, field, "string"))
        }
    }
}

/// A truth value; `null` is false.
pub fn boolean(value: &Value, field: &'static str) -> Result<bool, DecodeError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(mismatch(value, field, "bool"))
        }
    }
}

/// A whole number; `null` is 0.
pub fn integer(value: &Value, field: &'static str) -> Result<i64, DecodeError> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => number.as_i64().ok_or_else(|| mismatch(value, field, "int")),
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(mismatch(value, field, "int"))
        }
    }
}

/// A whole number that is not negative; `null` is 0.
pub fn unsigned(value: &Value, field: &'static str) -> Result<u64, DecodeError> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => number.as_u64().ok_or_else(|| mismatch(value, field, "uint64")),
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(mismatch(value, field, "uint64"))
        }
    }
}

/// A number with a fraction; `null` is 0.
pub fn float(value: &Value, field: &'static str) -> Result<f64, DecodeError> {
    match value {
        Value::Null => Ok(0.0),
        Value::Number(number) => number.as_f64().ok_or_else(|| mismatch(value, field, "float64")),
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(mismatch(value, field, "float64"))
        }
    }
}

/// A duration: text with units, or whole nanoseconds. Negative ones become zero, which every rule
/// about durations treats alike.
pub fn duration(value: &Value, field: &'static str) -> Result<Duration, DecodeError> {
    match value {
        Value::String(text) => match text.strip_prefix('-') {
            Some(rest) => duration::parse(rest).map(|_| Duration::ZERO).map_err(DecodeError::from),
            None if text.is_empty() => Ok(Duration::ZERO),
            None => Ok(duration::parse(text)?),
        },
        Value::Null | Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            let nanos = integer(value, field)?;
            Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
        }
    }
}

/// A list; `null` is empty.
pub fn list<T>(
    value: &Value,
    field: &'static str,
    each: impl Fn(&Value, &'static str) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(|item| each(item, field)).collect(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(mismatch(value, field, "array"))
        }
    }
}

/// A map whose keys are free; `null` is empty.
pub fn map<T>(
    value: &Value,
    field: &'static str,
    each: impl Fn(&Value, &'static str) -> Result<T, DecodeError>,
) -> Result<BTreeMap<String, T>, DecodeError> {
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(members) => {
            let pair = |(key, value): (&String, &Value)| Ok((key.clone(), each(value, field)?));
            members.iter().map(pair).collect()
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(mismatch(value, field, "map"))
        }
    }
}

/// Whether a value says nothing: `null`, `false`, `0`, empty, or made only of such values.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_zero),
    }
}

fn mismatch(value: &Value, field: &'static str, wanted: &'static str) -> DecodeError {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if wanted == "int" => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    DecodeError::Type { found, field, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_with_its_first_value() {
        assert_eq!(parse(b""), Err(DecodeError::Empty));
        assert_eq!(parse(b" \n"), Err(DecodeError::Empty));
        assert_eq!(parse(b"{\"a\":"), Err(DecodeError::Truncated));
        assert!(matches!(parse(b"{a}"), Err(DecodeError::Syntax(_))));
        assert!(parse(b"{} trailing").is_ok());
        assert!(matches!(parse("[".repeat(10_000).as_bytes()), Err(DecodeError::Syntax(_))));
    }

    #[test]
    fn a_wrong_type_names_field_and_type() {
        let text = |value: &str| integer(&parse(value.as_bytes()).unwrap(), "Port");
        let message = text("\"80\"").unwrap_err().to_string();
        assert_eq!(message, "json: cannot unmarshal string into Go struct field .Port of type int");
        assert!(text("1.5").is_err());
        assert!(text("99999999999999999999").is_err());
        assert_eq!(text("null"), Ok(0));
    }

    #[test]
    fn durations_are_texts_or_nanoseconds() {
        let read = |text: &str| duration(&parse(text.as_bytes()).unwrap(), "TTL");
        assert_eq!(read("\"1m30s\""), Ok(Duration::from_secs(90)));
        assert_eq!(read("1000"), Ok(Duration::from_micros(1)));
        assert_eq!(read("\"-5s\""), Ok(Duration::ZERO));
        assert_eq!(
            read("\"10\"").unwrap_err().to_string(),
            "time: missing unit in duration \"10\""
        );
    }
}
