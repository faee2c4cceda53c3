//! Filter expressions (`?filter=`): which rows of an answer are wanted.
//!
//! `parse` makes an expression of a text, `compile` a test of it for one kind of row, `select` says
//! what the rows have. Selectors, operators and types of values are checked while a [`Filter`] is
//! made, so that judging a row cannot fail.
//!
//! - Source: http-api.md §1.10, and answers of Consul 1.8.7 for what it leaves open.
//! - A filter is bounded in its text, its depth and its regular expressions.
//! - Differs: regular expressions have the bounds and the syntax of [`crate::expression`]; the
//!   mesh, which is not built, is as on a service without it.

mod compile;
mod parse;
mod select;

pub use select::Row;

use crate::expression::ExpressionError;
use crate::wire::DecodeError;
use crate::wire::pack::{Pack, Reader, put_text};
use compile::Test;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use thiserror::Error;

/// Bytes of a filter; a client's request line has at most twice that.
pub const FILTER_BYTES_MAX: usize = 8 << 10;
/// How many parentheses and `not`s may stand around one match.
pub const DEPTH_MAX: usize = 64;
/// Regular expressions of one filter, each of which may take 256 KiB.
pub const EXPRESSIONS_MAX: usize = 16;

/// Why a filter was refused, in the words that clients know. Whoever gave it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Its text is too long.
    #[error("the filter is longer than {FILTER_BYTES_MAX} bytes")]
    TooLong,
    /// Its parentheses and `not`s stand in each other too deep.
    #[error("the filter is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// It has too many regular expressions.
    #[error("the filter has more than {EXPRESSIONS_MAX} regular expressions")]
    TooManyExpressions,
    /// It is no expression; the text says where, and what could stand there.
    #[error("{0}")]
    Syntax(String),
    /// The rows have nothing of this name.
    #[error("Selector {0:?} is not valid")]
    Selector(String),
    /// What is selected cannot be compared like that.
    #[error("Invalid match operator {operator:?} for selector {selector:?}")]
    Operator {
        /// The operator's name.
        operator: &'static str,
        /// What it was used on.
        selector: String,
    },
    /// What is selected is never such a value.
    #[error(
        "Failed to coerce value {value:?} for selector {selector:?}: {parser}: parsing {value:?}: {rule}"
    )]
    Value {
        /// The value.
        value: String,
        /// What it was compared with.
        selector: String,
        /// What reads such values, by the name that clients see.
        parser: &'static str,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// A regular expression was refused.
    #[error("Failed to compile regular expression {expression:?}: {error}")]
    Expression {
        /// It.
        expression: String,
        /// Why.
        #[source]
        error: ExpressionError,
    },
}

/// An expression over rows of one kind. Filters of the same text are the same.
pub struct Filter<R>(Arc<Compiled<R>>);

struct Compiled<R> {
    source: Box<str>,
    test: Test<R>,
}

impl<R: Row> Filter<R> {
    /// Reads and checks an expression.
    ///
    /// # Examples
    ///
    /// ```
    /// use terraform_core::catalog::model::Node;
    /// use terraform_core::filter::Filter;
    ///
    /// assert!(Filter::<Node>::parse(r#"Meta.env == prod and not Node matches "^db""#).is_ok());
    /// let error = Filter::<Node>::parse("Port == 80").unwrap_err();
    /// assert_eq!(error.to_string(), r#"Selector "Port" is not valid"#);
    /// ```
    pub fn parse(source: &str) -> Result<Self, FilterError> {
        let test = compile::compile(&parse::parse(source)?)?;
        Ok(Self(Arc::new(Compiled { source: source.into(), test })))
    }
}

impl<R> Filter<R> {
    /// Whether a row is wanted, on a server of the datacenter `own`.
    ///
    /// Cost: that of the text, times the row.
    pub fn wants(&self, row: &R, own: &str) -> bool {
        (self.0.test)(row, own)
    }

    /// The text it was made of.
    pub fn source(&self) -> &str {
        &self.0.source
    }
}

impl<R> Clone for Filter<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> fmt::Debug for Filter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.source(), f)
    }
}

impl<R> PartialEq for Filter<R> {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl<R> Eq for Filter<R> {}

impl<R> PartialOrd for Filter<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Filter<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.source().cmp(other.source())
    }
}

impl<R> Hash for Filter<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source().hash(state);
    }
}

impl<R: Row> Pack for Filter<R> {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self.source());
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let text = input.text()?;
        Self::parse(text).map_err(|_| input.invalid("is not a legal filter"))
    }
}

#[cfg(test)]
mod tests;
