//! The configuration language of people's `*.hcl` files, to the values that JSON would give.
//!
//! - Source: agent-config.md §2, §3. What Consul reads is HCL 1, a small language of keys,
//!   literals, lists and blocks without expressions. HCL 2, which libraries read, refuses some of
//!   its files (several keys on one line, quoted keys) and gives `${…}` a meaning that it has not
//!   here.
//! - A block is an object under its key; labels are keys in between. A key that is given twice has
//!   the later value, but blocks under one key are a list.
//! - A file that begins with `{` is JSON, as for Consul.

mod scanner;

use scanner::{Scanner, Token, TokenKind};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// How deep blocks and lists may be nested.
const DEPTH_MAX: u32 = 64;

/// Where a text is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("At {line}:{column}: {rule}")]
pub(super) struct HclError {
    /// The line, from 1.
    line: u32,
    /// The character in it, from 1.
    column: u32,
    /// The rule it breaks.
    rule: String,
}

/// Reads a text.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, HclError> {
    let mut scanner = Scanner::new(text);
    let next = scanner.next()?;
    let mut parser = Parser { scanner, next };
    let object = parser.entries(0)?;
    if parser.next.kind == TokenKind::End {
        return Ok(object);
    }
    Err(parser.refuse(format!("unexpected {}", parser.next.kind)))
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    /// The token that is looked at.
    next: Token,
}

impl Parser<'_> {
    /// Takes the token that is looked at.
    fn take(&mut self) -> Result<Token, HclError> {
        let next = self.scanner.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn refuse(&self, rule: impl Into<String>) -> HclError {
        HclError { line: self.next.line, column: self.next.column, rule: rule.into() }
    }

    /// Entries up to a closing brace or the end, neither of which is taken.
    fn entries(&mut self, depth: u32) -> Result<Map<String, Value>, HclError> {
        let mut object = Map::new();
        while !matches!(self.next.kind, TokenKind::End | TokenKind::Close) {
            self.entry(&mut object, depth)?;
            if self.next.kind == TokenKind::Comma {
                self.take()?;
            }
        }
        Ok(object)
    }

    /// One entry: keys, then `=` and a value, or a block.
    fn entry(&mut self, object: &mut Map<String, Value>, depth: u32) -> Result<(), HclError> {
        let mut keys = Vec::new();
        while let TokenKind::Name(key) | TokenKind::Text(key) = &self.next.kind {
            keys.push(key.clone());
            self.take()?;
        }
        let Some((key, labels)) = keys.split_first() else {
            return Err(self.refuse(format!("expected a key, got {}", self.next.kind)));
        };
        let value = if self.next.kind == TokenKind::Open {
            self.value(depth)?
        } else if self.next.kind != TokenKind::Assign {
            let rule = "expected start of object ('{') or assignment ('=')";
            return Err(self.refuse(format!("key '{}' {rule}", keys.join(" "))));
        } else if labels.is_empty() {
            self.take()?;
            self.value(depth)?
        } else {
            return Err(self.refuse("nested object expected: '{' got: '='"));
        };
        let wrap = |value, label: &String| Value::Object(Map::from_iter([(label.clone(), value)]));
        insert(object, key, labels.iter().rev().fold(value, wrap));
        Ok(())
    }

    fn value(&mut self, depth: u32) -> Result<Value, HclError> {
        if depth >= DEPTH_MAX {
            return Err(self.refuse(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let token = self.take()?;
        let refuse = |rule: String| HclError { line: token.line, column: token.column, rule };
        match token.kind {
            TokenKind::Text(text) => Ok(Value::String(text)),
            TokenKind::Name(name) if name == "true" => Ok(Value::Bool(true)),
            TokenKind::Name(name) if name == "false" => Ok(Value::Bool(false)),
            TokenKind::Integer(number) => Ok(Value::from(number)),
            TokenKind::Float(number) => match Number::from_f64(number) {
                Some(number) => Ok(Value::Number(number)),
                None => Err(refuse("number out of range".to_owned())),
            },
            TokenKind::Open => {
                let object = self.entries(depth + 1)?;
                if self.next.kind != TokenKind::Close {
                    let rule = format!("object expected closing '}}' got: {}", self.next.kind);
                    return Err(self.refuse(rule));
                }
                self.take()?;
                Ok(Value::Object(object))
            }
            TokenKind::OpenList => self.list(depth + 1),
            kind @ (TokenKind::Name(_)
            | TokenKind::Assign
            | TokenKind::Comma
            | TokenKind::Close
            | TokenKind::CloseList
            | TokenKind::End) => Err(refuse(format!("expected a value, got {kind}"))),
        }
    }

    /// The rest of a list.
    fn list(&mut self, depth: u32) -> Result<Value, HclError> {
        let mut values = Vec::new();
        loop {
            if self.next.kind == TokenKind::CloseList {
                self.take()?;
                return Ok(Value::Array(values));
            }
            values.push(self.value(depth)?);
            if self.next.kind == TokenKind::Comma {
                self.take()?;
            } else if self.next.kind != TokenKind::CloseList {
                let rule = "error parsing list, expected comma or list end, got";
                return Err(self.refuse(format!("{rule}: {}", self.next.kind)));
            }
        }
    }
}

/// Puts a value under a key; blocks under one key become a list.
fn insert(object: &mut Map<String, Value>, key: &str, value: Value) {
    match (object.get_mut(key), value) {
        (Some(Value::Array(blocks)), block @ Value::Object(_))
            if blocks.iter().all(Value::is_object) =>
        {
            blocks.push(block);
        }
        (Some(first @ Value::Object(_)), block @ Value::Object(_)) => {
            *first = Value::Array(vec![first.take(), block]);
        }
        (_, value) => drop(object.insert(key.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        Value::Object(parse(text).unwrap())
    }

    #[test]
    fn keys_blocks_labels_and_lists_are_what_json_would_say() {
        let text = "# one\n// two\n/* three */\nserver = true\n\"data_dir\" = \"/tmp/x\"\n\
                    ports { http = 8501 dns = -1 }\nretry_join = [\"a\", \"b\",]\n\
                    service \"web\" { port = 0x50 }\nlimit = 1.5";
        let expected = json!({
            "server": true, "data_dir": "/tmp/x", "ports": { "http": 8501, "dns": -1 },
            "retry_join": ["a", "b"], "service": { "web": { "port": 80 } }, "limit": 1.5,
        });
        assert_eq!(read(text), expected);
        assert_eq!(read(""), json!({}));
        let objects = "services = [ { name = \"a\" checks = [{ ttl = \"5s\" }] }, {name = \"b\"} ]";
        let expected = json!({ "services": [
            { "name": "a", "checks": [{ "ttl": "5s" }] }, { "name": "b" },
        ]});
        assert_eq!(read(objects), expected);
    }

    #[test]
    fn a_repeated_block_is_a_list_and_of_a_repeated_value_the_last_counts() {
        let services = json!({ "service": [{ "n": 1 }, { "n": 2 }, { "n": 3 }] });
        assert_eq!(read("service { n = 1 }\nservice { n = 2 }\nservice { n = 3 }"), services);
        assert_eq!(read("a = 1\na = 2"), json!({ "a": 2 }));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, error) in [
            ("data_dir = \"/tmp/x\n", "At 1:19: literal not terminated"),
            (
                "data_dir ",
                "At 1:10: key 'data_dir' expected start of object ('{') or assignment ('=')",
            ),
            ("\n = 1", "At 2:2: expected a key, got '='"),
            ("a = ", "At 1:5: expected a value, got the end"),
            ("a b = 1", "At 1:5: nested object expected: '{' got: '='"),
            ("a {\n b = 1", "At 2:7: object expected closing '}' got: the end"),
            ("a = [1 2]", "At 1:8: error parsing list, expected comma or list end, got: a number"),
            ("a = x", "At 1:5: expected a value, got a name"),
            ("a = 1 }", "At 1:7: unexpected '}'"),
            ("a = $", "At 1:5: illegal character"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error, "{text:?}");
        }
        let deep = "a = ".to_owned() + &"[".repeat(10_000);
        assert!(parse(&deep).unwrap_err().rule.starts_with("nested deeper than 64"));
    }
}
