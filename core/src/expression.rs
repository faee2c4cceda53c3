//! Regular expressions that others give: filters of queries and of events.
//!
//! An expression is bounded in its text and in what it compiles to, and matching takes time linear
//! in the text, so that no member can make another one work for long. It matches anywhere in the
//! text unless it says otherwise.

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// Bytes of one expression.
const BYTES_MAX: usize = 512;
/// Bytes an expression may compile to.
const COMPILED_BYTES_MAX: usize = 256 << 10;

/// Why an expression was refused; one line. Whoever gave it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpressionError {
    /// Its text is too long.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// It compiles to too much.
    #[error("it compiles to more than {COMPILED_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no expression; the text says where it is wrong.
    #[error("{0}")]
    Syntax(String),
}

/// Compiles an expression.
pub fn compile(expression: &str) -> Result<Regex, ExpressionError> {
    if expression.len() > BYTES_MAX {
        return Err(ExpressionError::TooLong);
    }
    let compiled = RegexBuilder::new(expression)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => ExpressionError::TooLarge,
        // The last line says what is wrong; those before it draw an arrow to the place.
        regex::Error::Syntax(_) | _ => {
            let text = error.to_string();
            let reason = text.rsplit("error: ").next().unwrap_or_default().trim();
            ExpressionError::Syntax(format!("{reason}: {expression:?}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_cost_too_much_are_refused_with_one_line() {
        assert!(compile("web-[0-9]$").is_ok_and(|expression| expression.is_match("a web-7")));
        assert_eq!(compile(&"a".repeat(513)).unwrap_err(), ExpressionError::TooLong);
        assert_eq!(compile("(\\w{100}){100}").unwrap_err(), ExpressionError::TooLarge);
        let text = compile("(a\n").unwrap_err().to_string();
        assert_eq!(text, "unclosed group: \"(a\\n\"");
    }
}
