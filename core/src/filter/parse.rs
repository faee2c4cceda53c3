//! From a text to an expression: a grammar of ordered choices.
//!
//! Each function takes what it is named after, or nothing and gives `None`. What was looked for in
//! vain at the farthest position becomes the error, as clients know it.
//!
//! - Source: http-api.md §1.10; Consul 1.8.7 for the texts of errors, and for what stands between
//!   double quotes: the escapes of Go's literals, but no quote.
//! - Nothing is read twice after it was taken, but the head of a match, at most four times; so the
//!   cost is linear in the text.

use super::{DEPTH_MAX, EXPRESSIONS_MAX, FILTER_BYTES_MAX, FilterError};
use std::collections::BTreeSet;
use std::fmt;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// One of several at least.
    Or(Vec<Self>),
    /// Each of several.
    And(Vec<Self>),
    /// All but this.
    Not(Box<Self>),
    /// A row has this.
    Match(Match),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// What is compared, from the outside in; never empty.
    pub(super) selector: Vec<String>,
    /// How.
    pub(super) operator: Operator,
    /// Whether it must not be so.
    pub(super) negated: bool,
    /// With what; empty if the operator takes nothing.
    pub(super) value: String,
}

/// How something is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `==`, `!=`.
    Equal,
    /// `in`, `contains`.
    In,
    /// `is empty`.
    Empty,
    /// `matches`.
    Matches,
}

/// Something that could have stood somewhere.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Exactly this.
    Literal(&'static str),
    /// One of some characters, as a grammar writes them.
    Class(&'static str),
    /// The end of the text.
    End,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => write!(f, "{text:?}"),
            Self::Class(class) => f.write_str(class),
            Self::End => f.write_str("EOF"),
        }
    }
}

const BLANK: &str = r"[ \t\r\n]";

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLong);
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        is_too_deep: false,
        expressions: 0,
        farthest: 0,
        expected: Vec::new(),
        problems: Vec::new(),
    };
    let found = parser.whole();
    if parser.is_too_deep {
        return Err(FilterError::TooDeep);
    }
    match found {
        Some(_) if parser.expressions > EXPRESSIONS_MAX => Err(FilterError::TooManyExpressions),
        Some(found) if parser.problems.is_empty() => Ok(found),
        Some(_) | None => Err(FilterError::Syntax(parser.explain())),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    is_too_deep: bool,
    /// Regular expressions seen.
    expressions: usize,
    /// The farthest position at which something was looked for in vain.
    farthest: usize,
    /// What was looked for there.
    expected: Vec<Expected>,
    /// What is wrong for certain, in the order it was found.
    problems: Vec<String>,
}

impl<'a> Parser<'a> {
    fn whole(&mut self) -> Option<Expression> {
        self.blank();
        let found = self.or()?;
        self.blank();
        self.end().then_some(found)
    }

    fn or(&mut self) -> Option<Expression> {
        let (first, rest) = self.joined("or", Self::and)?;
        Some(if rest.is_empty() { first } else { Expression::Or(with_first(first, rest)) })
    }

    fn and(&mut self) -> Option<Expression> {
        let (first, rest) = self.joined("and", Self::not)?;
        Some(if rest.is_empty() { first } else { Expression::And(with_first(first, rest)) })
    }

    /// Parts with `word` between them.
    fn joined(
        &mut self,
        word: &'static str,
        part: fn(&mut Self) -> Option<Expression>,
    ) -> Option<(Expression, Vec<Expression>)> {
        let (first, mut rest) = (part(self)?, Vec::new());
        while let Some(next) = self.attempt(|parser| {
            parser.words(&[word], true)?;
            part(parser)
        }) {
            rest.push(next);
        }
        Some((first, rest))
    }

    fn not(&mut self) -> Option<Expression> {
        let negated = self.attempt(|parser| {
            parser.literal("not")?;
            parser.blank().then_some(())?;
            parser.deeper(Self::not)
        });
        match negated {
            Some(inner) => Some(Expression::Not(Box::new(inner))),
            None => self.grouping(),
        }
    }

    fn grouping(&mut self) -> Option<Expression> {
        let grouped = self.attempt(|parser| {
            parser.literal("(")?;
            parser.blank();
            let inner = parser.deeper(Self::or)?;
            parser.blank();
            if parser.literal(")").is_none() {
                parser.problem(parser.at, "grouping", "Unmatched parentheses");
                return None;
            }
            Some(inner)
        });
        grouped.or_else(|| self.comparison())
    }

    fn comparison(&mut self) -> Option<Expression> {
        let found = self
            .attempt(Self::selector_and_value)
            .or_else(|| self.attempt(Self::selector_alone))
            .or_else(|| self.attempt(Self::value_and_selector))?;
        self.expressions += usize::from(found.operator == Operator::Matches);
        Some(Expression::Match(found))
    }

    fn selector_and_value(&mut self) -> Option<Match> {
        let selector = self.selector()?;
        let (operator, negated) = self
            .symbol("==", (Operator::Equal, false))
            .or_else(|| self.symbol("!=", (Operator::Equal, true)))
            .or_else(|| self.operator(&["contains"], (Operator::In, false)))
            .or_else(|| self.operator(&["not", "contains"], (Operator::In, true)))
            .or_else(|| self.operator(&["matches"], (Operator::Matches, false)))
            .or_else(|| self.operator(&["not", "matches"], (Operator::Matches, true)))?;
        Some(Match { selector, operator, negated, value: self.value()? })
    }

    fn selector_alone(&mut self) -> Option<Match> {
        let selector = self.selector()?;
        let empty = self.attempt(|parser| parser.words(&["is", "empty"], false));
        let negated = empty.is_none();
        if negated {
            self.words(&["is", "not", "empty"], false)?;
        }
        Some(Match { selector, operator: Operator::Empty, negated, value: String::new() })
    }

    fn value_and_selector(&mut self) -> Option<Match> {
        let value = self.value()?;
        let (operator, negated) = self
            .operator(&["in"], (Operator::In, false))
            .or_else(|| self.operator(&["not", "in"], (Operator::In, true)))?;
        let selector = self.selector();
        if selector.is_none() {
            self.problem(self.at, "match", "Invalid selector");
        }
        Some(Match { selector: selector?, operator, negated, value })
    }

    fn symbol(&mut self, text: &'static str, means: (Operator, bool)) -> Option<(Operator, bool)> {
        self.attempt(|parser| {
            parser.blank();
            parser.literal(text)?;
            parser.blank();
            Some(means)
        })
    }

    fn operator(
        &mut self,
        words: &[&'static str],
        means: (Operator, bool),
    ) -> Option<(Operator, bool)> {
        self.attempt(|parser| parser.words(words, true)).map(|()| means)
    }

    /// A name, names behind dots, and texts in brackets.
    fn selector(&mut self) -> Option<Vec<String>> {
        let mut path = vec![self.name()?];
        while let Some(part) = self
            .attempt(|parser| {
                parser.literal(".")?;
                parser.name()
            })
            .or_else(|| self.attempt(Self::index))
        {
            path.push(part);
        }
        Some(path)
    }

    fn index(&mut self) -> Option<String> {
        self.literal("[")?;
        self.blank();
        let inside = self.at;
        let Some(text) = self.attempt(Self::string) else {
            self.problem(inside, "index", "Invalid index");
            return None;
        };
        self.blank();
        if self.literal("]").is_none() {
            self.problem(self.at, "index", "Unclosed index expression");
            return None;
        }
        Some(text)
    }

    fn name(&mut self) -> Option<String> {
        let from = self.at;
        self.one("[a-zA-Z]", |byte| byte.is_ascii_alphabetic())?;
        while self.one("[a-zA-Z0-9_]", |b| b.is_ascii_alphanumeric() || b == b'_').is_some() {}
        self.text.get(from..self.at).map(str::to_owned)
    }

    fn value(&mut self) -> Option<String> {
        self.attempt(Self::selector)
            .map(|path| path.join("."))
            .or_else(|| self.attempt(Self::number))
            .or_else(|| self.attempt(Self::string))
    }

    fn number(&mut self) -> Option<String> {
        let from = self.at;
        self.literal("-");
        if self.literal("0").is_none() {
            self.one("[1-9]", |byte| matches!(byte, b'1'..=b'9'))?;
            while self.digit().is_some() {}
        }
        self.attempt(|parser| {
            parser.literal(".")?;
            parser.digit()?;
            while parser.digit().is_some() {}
            Some(())
        });
        let end = self.at;
        let is_whole = self.blank() || self.end() || self.literal(")").is_some();
        self.at = end;
        if !is_whole {
            self.problem(end, "number", "Invalid number literal");
            return None;
        }
        self.text.get(from..end).map(str::to_owned)
    }

    fn digit(&mut self) -> Option<()> {
        self.one("[0-9]", |byte| byte.is_ascii_digit())
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        let quote = if self.literal("`").is_some() {
            '`'
        } else {
            self.literal("\"")?;
            '"'
        };
        let rest = self.rest();
        let Some(length) = rest.find(quote) else {
            self.at = self.text.len();
            self.problem(self.at, "string", "Unterminated string literal");
            return None;
        };
        let inner = rest.get(..length).unwrap_or_default();
        self.at += length + quote.len_utf8();
        if quote == '`' {
            return Some(inner.replace('\r', ""));
        }
        let text = unescape(inner);
        if text.is_none() {
            self.problem(start, "string", "invalid syntax");
        }
        // It ends here all the same, so that only this is wrong.
        Some(text.unwrap_or_default())
    }

    /// Words with blanks before each, and behind the last one if it is not the end of a match.
    fn words(&mut self, words: &[&'static str], is_followed: bool) -> Option<()> {
        for word in words {
            self.blank().then_some(())?;
            self.literal(word)?;
        }
        (!is_followed || self.blank()).then_some(())
    }

    fn blank(&mut self) -> bool {
        let from = self.at;
        while self.one(BLANK, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).is_some() {}
        self.at > from
    }

    fn end(&mut self) -> bool {
        let is_end = self.rest().is_empty();
        if !is_end {
            self.missed(Expected::End);
        }
        is_end
    }

    fn literal(&mut self, text: &'static str) -> Option<()> {
        if !self.rest().starts_with(text) {
            self.missed(Expected::Literal(text));
            return None;
        }
        self.at += text.len();
        Some(())
    }

    /// One ASCII character of a class.
    fn one(&mut self, class: &'static str, is_of: impl Fn(u8) -> bool) -> Option<()> {
        if !self.rest().bytes().next().is_some_and(is_of) {
            self.missed(Expected::Class(class));
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes back to where it began if `take` gives nothing.
    fn attempt<T>(&mut self, take: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let taken = take(self);
        if taken.is_none() {
            self.at = start;
        }
        taken
    }

    /// One level further in, if there is one.
    fn deeper(&mut self, take: fn(&mut Self) -> Option<Expression>) -> Option<Expression> {
        if self.depth == DEPTH_MAX {
            self.is_too_deep = true;
            return None;
        }
        self.depth += 1;
        let taken = take(self);
        self.depth -= 1;
        taken
    }

    fn missed(&mut self, expected: Expected) {
        if self.at > self.farthest {
            self.farthest = self.at;
            self.expected.clear();
        }
        if self.at == self.farthest {
            self.expected.push(expected);
        }
    }

    fn problem(&mut self, at: usize, rule: &str, text: &str) {
        let problem = format!("{}: rule {rule:?}: {text}", self.position(at));
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// What is wrong, for people.
    fn explain(&self) -> String {
        if !self.problems.is_empty() {
            return self.problems.join("\n");
        }
        let is_end = |expected: &&Expected| matches!(expected, Expected::End);
        let shown = self.expected.iter().filter(|expected| !is_end(expected));
        let shown: BTreeSet<String> = shown.map(Expected::to_string).collect();
        let mut shown: Vec<String> = shown.into_iter().collect();
        shown.extend(self.expected.iter().find(is_end).map(Expected::to_string));
        let last = shown.pop().unwrap_or_default();
        let list = if shown.is_empty() { last } else { format!("{} or {last}", shown.join(", ")) };
        format!("{}: no match found, expected: {list}", self.position(self.farthest))
    }

    /// `line:column (offset)`. Columns count characters, offsets bytes; the character that ends a
    /// line stands in column 0 of the next.
    fn position(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or_default();
        let ends_line = self.text.get(at..).is_some_and(|rest| rest.starts_with('\n'));
        let line = 1 + before.matches('\n').count() + usize::from(ends_line);
        let column = match (ends_line, before.rsplit('\n').next()) {
            (false, Some(own)) => own.chars().count() + 1,
            (true, _) | (false, None) => 0,
        };
        format!("{line}:{column} ({at})")
    }
}

fn with_first(first: Expression, mut rest: Vec<Expression>) -> Vec<Expression> {
    rest.insert(0, first);
    rest
}

/// What stands between double quotes, as Go reads it. Bytes that are no UTF-8 and surrogates
/// become the replacement character, which equals nothing they could.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' => return None,
            '\\' => escape(&mut rest, &mut out)?,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Takes what stands behind a backslash.
fn escape(rest: &mut std::str::Chars<'_>, out: &mut Vec<u8>) -> Option<()> {
    let kind = rest.next()?;
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '0'..='7' => 2,
        _ => 0,
    };
    let (radix, first) = match kind.to_digit(8) {
        Some(digit) => (8, digit),
        None => (16, 0),
    };
    let number = (0..digits).try_fold(first, |number, _| {
        let digit = rest.next()?.to_digit(radix)?;
        number.checked_mul(radix)?.checked_add(digit)
    })?;
    match kind {
        'a' => out.push(7),
        'b' => out.push(8),
        'f' => out.push(12),
        'n' => out.push(b'\n'),
        'r' => out.push(b'\r'),
        't' => out.push(b'\t'),
        'v' => out.push(11),
        '\\' => out.push(b'\\'),
        'x' | '0'..='7' => out.push(u8::try_from(number).ok()?),
        'u' | 'U' if number <= u32::from(char::MAX) => {
            let c = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => return None,
    }
    Some(())
}
