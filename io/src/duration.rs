//! Durations in the text form that configuration files and the HTTP interface share.
//!
//! One or more `<decimal><unit>` with the units `ns us µs ms s m h` (http-api.md §1.13).

use std::time::Duration;
use thiserror::Error;

/// Why a text is no duration; worded as clients know it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// The text has no number where one belongs, or is too large.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit is not known.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Reads a duration that is not negative; `-1s` is refused, a leading `+` is accepted.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number = take_while(&mut rest, |c| c.is_ascii_digit() || c == '.');
        if number.is_empty() || number == "." {
            return Err(invalid());
        }
        let unit = take_while(&mut rest, |c| !c.is_ascii_digit() && c != '.');
        let factor = factor(unit, text)?;
        let part = scaled(number, factor).ok_or_else(invalid)?;
        nanos = nanos.checked_add(part).ok_or_else(invalid)?;
    }
    // Go's durations end at 2^63-1 nanoseconds, about 292 years.
    let nanos = i64::try_from(nanos).map_err(|_| invalid())?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

/// A duration in whole units as clients know it: `30s`, `1m30s`, `1h0m0s`, `500ms`.
pub fn text(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let whole = seconds % 60;
    let fraction = format!(".{millis:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{whole}{fraction}s"),
        (0, _) => format!("{minutes}m{whole}{fraction}s"),
        (_, _) => format!("{hours}h{minutes}m{whole}{fraction}s"),
    }
}

fn take_while<'a>(rest: &mut &'a str, keep: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}

/// Nanoseconds in one `unit`.
fn factor(unit: &str, text: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::MissingUnit(text.to_owned())),
        unit => {
            let (unit, text) = (unit.to_owned(), text.to_owned());
            return Err(DurationError::UnknownUnit { unit, text });
        }
    })
}

/// `number`, a decimal, times `factor`, cut to whole nanoseconds.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(factor)?;
    let mut unit = factor;
    for digit in fraction.chars() {
        unit /= 10;
        total = total.checked_add(unit * u128::from(digit.to_digit(10)?))?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        assert_eq!(parse("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("250µs"), Ok(Duration::from_micros(250)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_text_that_is_no_duration_is_refused_as_go_refuses_it() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(refused("10"), "time: missing unit in duration \"10\"");
        assert_eq!(refused("1d"), "time: unknown unit \"d\" in duration \"1d\"");
        assert_eq!(refused("x"), "time: invalid duration \"x\"");
        assert_eq!(refused(""), "time: invalid duration \"\"");
        assert_eq!(refused("-1s"), "time: invalid duration \"-1s\"");
        assert!(parse("999999999999999h").is_err());
        assert!(parse("1.2.3s").is_err());
    }

    #[test]
    fn durations_read_as_clients_know_them() {
        let text = |millis| text(Duration::from_millis(millis));
        let expected = ["300ms", "30s", "1.5s", "1m30s", "1h0m0s"];
        assert_eq!([300, 30_000, 1_500, 90_000, 3_600_000].map(text), expected);
    }
}
