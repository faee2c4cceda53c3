//! From an expression to a test of rows, and the rules of each type of value.
//!
//! - Source: http-api.md §1.10: which type has which operators.
//! - A key that a map lacks equals nothing, is in nothing and is empty. Differs from what one would
//!   think, as in Consul: it matches every regular expression, and fails to match every one.

use super::FilterError;
use super::parse::{Expression, Match, Operator};
use super::select::Row;
use crate::expression;

/// Whether a row is wanted, on a server of a datacenter.
pub(super) type Test<R> = Box<dyn Fn(&R, &str) -> bool + Send + Sync>;

/// Whether a value is as wanted.
pub(super) type Judge<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// The test that an expression stands for. Its depth is that of the expression.
pub(super) fn compile<R: Row>(expression: &Expression) -> Result<Test<R>, FilterError> {
    let all = |parts: &[Expression]| parts.iter().map(compile).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expression::Or(parts) => {
            let tests: Vec<Test<R>> = all(parts)?;
            Box::new(move |row, own| tests.iter().any(|test| test(row, own)))
        }
        Expression::And(parts) => {
            let tests: Vec<Test<R>> = all(parts)?;
            Box::new(move |row, own| tests.iter().all(|test| test(row, own)))
        }
        Expression::Not(inner) => {
            let test: Test<R> = compile(inner)?;
            Box::new(move |row, own| !test(row, own))
        }
        Expression::Match(wanted) => {
            let path: Vec<&str> = wanted.selector.iter().map(String::as_str).collect();
            R::test(&path, wanted)?
        }
    })
}

impl Match {
    /// The rest `path` of the selector names nothing.
    pub(super) fn unknown(&self, path: &[&str]) -> FilterError {
        let known = self.selector.len().saturating_sub(path.len());
        let names: Vec<&str> = self.selector.iter().take(known + 1).map(String::as_str).collect();
        FilterError::Selector(names.join("."))
    }

    /// Nothing may follow in the selector.
    pub(super) fn ends(&self, path: &[&str]) -> Result<(), FilterError> {
        if path.is_empty() { Ok(()) } else { Err(self.unknown(path)) }
    }

    /// What is selected has no such operator.
    pub(super) fn misused(&self) -> FilterError {
        let operator = match (self.operator, self.negated) {
            (Operator::Equal, false) => "Equal",
            (Operator::Equal, true) => "Not Equal",
            (Operator::In, false) => "In",
            (Operator::In, true) => "Not In",
            (Operator::Empty, false) => "Is Empty",
            (Operator::Empty, true) => "Is Not Empty",
            (Operator::Matches, false) => "Matches",
            (Operator::Matches, true) => "Not Matches",
        };
        FilterError::Operator { operator, selector: self.selector.join(".") }
    }

    /// The outcome for a key that is not there.
    pub(super) const fn of_missing(&self) -> bool {
        self.negated || matches!(self.operator, Operator::Matches)
    }

    /// Judges by what `is_so` says, or by its opposite.
    pub(super) fn judge<T: ?Sized>(
        &self,
        is_so: impl Fn(&T) -> bool + Send + Sync + 'static,
    ) -> Judge<T> {
        let negated = self.negated;
        Box::new(move |value| is_so(value) != negated)
    }

    /// Texts can be equal, be a part of, and match.
    pub(super) fn on_text(&self) -> Result<Judge<str>, FilterError> {
        let value = self.value.clone();
        match self.operator {
            Operator::Equal => Ok(self.judge(move |text: &str| *text == *value)),
            Operator::In => Ok(self.judge(move |text: &str| text.contains(&value))),
            Operator::Matches => {
                let compiled = expression::compile(&value)
                    .map_err(|error| FilterError::Expression { expression: value, error })?;
                Ok(self.judge(move |text: &str| compiled.is_match(text)))
            }
            Operator::Empty => Err(self.misused()),
        }
    }

    /// Numbers can be equal.
    pub(super) fn on_number(&self) -> Result<Judge<i64>, FilterError> {
        self.only(&[Operator::Equal])?;
        let value = number(&self.value).map_err(|rule| self.refused("strconv.ParseInt", rule))?;
        Ok(self.judge(move |number: &i64| *number == value))
    }

    /// Flags can be equal.
    pub(super) fn on_flag(&self) -> Result<Judge<bool>, FilterError> {
        self.only(&[Operator::Equal])?;
        let value = match self.value.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return Err(self.refused("strconv.ParseBool", "invalid syntax")),
        };
        Ok(self.judge(move |flag: &bool| *flag == value))
    }

    /// Lists of texts can have one and be empty.
    pub(super) fn on_texts(&self) -> Result<Judge<[String]>, FilterError> {
        self.only(&[Operator::In, Operator::Empty])?;
        if self.operator == Operator::Empty {
            return Ok(self.judge(<[String]>::is_empty));
        }
        let value = self.value.clone();
        Ok(self.judge(move |texts: &[String]| texts.contains(&value)))
    }

    /// Refuses all operators but these.
    pub(super) fn only(&self, operators: &[Operator]) -> Result<(), FilterError> {
        if operators.contains(&self.operator) { Ok(()) } else { Err(self.misused()) }
    }

    fn refused(&self, parser: &'static str, rule: &'static str) -> FilterError {
        let (value, selector) = (self.value.clone(), self.selector.join("."));
        FilterError::Value { value, selector, parser, rule }
    }
}

/// A number as Go's literals write it: with a sign, in base 16, 8 or 2 by its prefix, with
/// underscores between digits.
fn number(text: &str) -> Result<i64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    let (is_negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = |letters: [char; 2]| digits.strip_prefix('0')?.strip_prefix(letters);
    let (radix, digits) = if let Some(digits) = prefix(['x', 'X']) {
        (16, digits.strip_prefix('_').unwrap_or(digits))
    } else if let Some(digits) = prefix(['b', 'B']) {
        (2, digits.strip_prefix('_').unwrap_or(digits))
    } else if let Some(digits) = prefix(['o', 'O']) {
        (8, digits.strip_prefix('_').unwrap_or(digits))
    } else {
        (if digits.starts_with('0') { 8 } else { 10 }, digits)
    };
    let is_number =
        digits.split('_').all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(radix)));
    if !is_number {
        return Err(SYNTAX);
    }
    let magnitude = i128::from_str_radix(&digits.replace('_', ""), radix);
    let value = magnitude.map(|n| if is_negative { -n } else { n });
    value.ok().and_then(|value| i64::try_from(value).ok()).ok_or("value out of range")
}
