//! Templates in addresses: `{{ GetPrivateInterfaces | attr "address" }}`.
//!
//! - Source: go-sockaddr's functions in Go's template language, as Consul 1.8.7 runs them; of the
//!   language there are calls, pipes, parentheses, texts, numbers, comments and trimmed spaces.
//! - Whatever is neither known nor built is refused by its name.

mod call;
mod networks;

use call::call;
use terraform_io::interfaces::InterfaceAddress;

/// Parentheses within parentheses.
const DEPTH_MAX: usize = 16;

/// What an expression stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Number(i64),
    Addresses(Vec<InterfaceAddress>),
}

/// `text` with its templates replaced; `all` are the machine's addresses.
///
/// - Errors: the text for the operator, with the template and what is wrong with it.
pub(super) fn expand(text: &str, all: &[InterfaceAddress]) -> Result<String, String> {
    expanded(text, all).map_err(|reason| format!("error parsing {text:?}: {reason}"))
}

fn expanded(text: &str, all: &[InterfaceAddress]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let trimmed = after.strip_prefix("- ");
        out.push_str(if trimmed.is_some() { before.trim_end() } else { before });
        let mut reader = Reader { rest: trimmed.unwrap_or(after), all };
        if let Some(value) = reader.action()? {
            out.push_str(&shown(value)?);
        }
        rest = match reader.rest.strip_prefix("-}}") {
            Some(rest) => rest.trim_start(),
            None => reader.rest.strip_prefix("}}").ok_or_else(|| reader.unexpected())?,
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn shown(value: Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Addresses(_) => {
            Err("interfaces are no address: end with attr \"address\" or join".to_owned())
        }
    }
}

/// Reads and evaluates what is between the braces.
struct Reader<'a> {
    rest: &'a str,
    all: &'a [InterfaceAddress],
}

impl<'a> Reader<'a> {
    /// A pipeline, or a comment, which stands for nothing.
    fn action(&mut self) -> Result<Option<Value>, String> {
        if let Some(comment) = self.rest.trim_start().strip_prefix("/*") {
            self.rest = comment.split_once("*/").ok_or("unclosed comment")?.1.trim_start();
            return Ok(None);
        }
        self.pipeline(0).map(Some)
    }

    /// Calls with `|` between them; what one gives is the last argument of the next.
    fn pipeline(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("too many parentheses".to_owned());
        }
        let mut value = self.command(None, depth)?;
        while self.take("|") {
            value = self.command(Some(value), depth)?;
        }
        Ok(value)
    }

    fn command(&mut self, piped: Option<Value>, depth: usize) -> Result<Value, String> {
        let name = self.name();
        if name.is_empty() {
            let value = self.operand(depth)?.ok_or_else(|| self.unexpected())?;
            return match piped {
                None => Ok(value),
                Some(_) => Err("only a function takes what is piped".to_owned()),
            };
        }
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(depth)? {
            arguments.push(argument);
        }
        arguments.extend(piped);
        call(&name, arguments, self.all)
    }

    /// A text, a number, a function without arguments or something in parentheses, if one is next.
    fn operand(&mut self, depth: usize) -> Result<Option<Value>, String> {
        self.skip();
        if let Some(raw) = self.rest.strip_prefix('`') {
            let (text, rest) = raw.split_once('`').ok_or("unterminated raw quoted string")?;
            self.rest = rest;
            return Ok(Some(Value::Text(text.to_owned())));
        }
        if let Some(quoted) = self.rest.strip_prefix('"') {
            return self.quoted(quoted).map(|text| Some(Value::Text(text)));
        }
        if self.take("(") {
            let value = self.pipeline(depth + 1)?;
            return if self.take(")") { Ok(Some(value)) } else { Err(self.unexpected()) };
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '-' || c == '+';
        let end = self.rest.find(|c| !is_number(c)).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        if !digits.is_empty() && digits.bytes().any(|byte| byte.is_ascii_digit()) {
            self.rest = rest;
            let number = digits.parse().map_err(|_| format!("bad number syntax: {digits:?}"))?;
            return Ok(Some(Value::Number(number)));
        }
        let name = self.name();
        if name.is_empty() { Ok(None) } else { call(&name, Vec::new(), self.all).map(Some) }
    }

    /// The rest of a text behind its opening quote; a backslash takes the next character as it is.
    fn quoted(&mut self, quoted: &'a str) -> Result<String, String> {
        let mut text = String::new();
        let mut letters = quoted.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some((_, letter @ ('\\' | '"'))) => text.push(letter),
                    _ => return Err("only \\\\ and \\\" are known in a quoted string".to_owned()),
                },
                letter => text.push(letter),
            }
        }
        Err("unterminated quoted string".to_owned())
    }

    fn name(&mut self) -> String {
        self.skip();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return String::new();
        }
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn take(&mut self, word: &str) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self) -> String {
        match self.rest.chars().next() {
            None => "unclosed action".to_owned(),
            Some(letter) => format!("unexpected {letter:?} in a template"),
        }
    }
}

#[cfg(test)]
mod tests;
