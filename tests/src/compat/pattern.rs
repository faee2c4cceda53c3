//! Texts with placeholders, and what these stand for.

use std::collections::BTreeMap;

/// What names stand for.
pub type Values = BTreeMap<String, Vec<u8>>;

/// A text that may hold placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub String);

#[derive(Debug)]
enum Part {
    Literal(Vec<u8>),
    Any { name: Option<String> },
    Some { name: Option<String>, of: fn(u8) -> bool, length: Option<usize> },
}

impl Pattern {
    /// The text with names replaced by what they stand for.
    pub fn fill(&self, values: &Values) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces(&self.0) {
            match piece.strip_prefix('<').and_then(|word| values.get(word.trim_end_matches('>'))) {
                Some(value) => out.extend_from_slice(value),
                None => out.extend_from_slice(piece.as_bytes()),
            }
        }
        out
    }

    /// Whether `text` is one that this describes; if it is, its named values are kept, else where
    /// it stops to be.
    pub fn take(&self, text: &[u8], values: &mut Values) -> Result<(), usize> {
        let parts = self.parts(values);
        let (mut at, mut kept) = (0, Values::new());
        for (index, part) in parts.iter().enumerate() {
            let rest = &text[at..];
            let (length, name) = match part {
                Part::Literal(literal) => {
                    let same = literal.iter().zip(rest).take_while(|(a, b)| a == b).count();
                    if same < literal.len() {
                        return Err(at + same);
                    }
                    (same, &None)
                }
                Part::Some { name, of, length } => {
                    let run = rest.iter().take_while(|byte| of(**byte)).count();
                    let taken = length.unwrap_or(run);
                    if run == 0 || run < taken {
                        return Err(at);
                    }
                    (taken, name)
                }
                Part::Any { name } => {
                    let next = parts.get(index + 1);
                    (until(rest, next).ok_or(at)?, name)
                }
            };
            if let Some(name) = name {
                kept.insert(name.clone(), rest[..length].to_vec());
            }
            at += length;
        }
        if at < text.len() {
            return Err(at);
        }
        values.append(&mut kept);
        Ok(())
    }

    fn parts(&self, values: &Values) -> Vec<Part> {
        let mut parts = Vec::new();
        for piece in pieces(&self.0) {
            let word = piece.strip_prefix('<').and_then(|word| word.strip_suffix('>'));
            match (word.and_then(kind), word.and_then(|word| values.get(word))) {
                (Some(part), _) => parts.push(part),
                (None, Some(value)) => push(&mut parts, value),
                (None, None) => push(&mut parts, piece.as_bytes()),
            }
        }
        parts
    }
}

/// How much of `text` comes before the next literal.
fn until(text: &[u8], next: Option<&Part>) -> Option<usize> {
    let Some(Part::Literal(literal)) = next else { return Some(text.len()) };
    if text.ends_with(literal) && text.len() == literal.len() {
        return Some(0);
    }
    text.windows(literal.len()).position(|window| window == literal)
}

fn push(parts: &mut Vec<Part>, bytes: &[u8]) {
    if let Some(Part::Literal(literal)) = parts.last_mut() {
        literal.extend_from_slice(bytes);
    } else {
        parts.push(Part::Literal(bytes.to_vec()));
    }
}

/// The placeholder that stands between the brackets; names and all else are none.
fn kind(word: &str) -> Option<Part> {
    let (kind, name) = match word.split_once(':') {
        Some((kind, name)) => (kind, Some(name.to_owned())),
        None => (word, None),
    };
    let some = |of, length| Some(Part::Some { name: name.clone(), of, length });
    match kind {
        "any" => Some(Part::Any { name }),
        "uuid" => some(|byte| byte.is_ascii_hexdigit() || byte == b'-', Some(36)),
        "index" => some(|byte| byte.is_ascii_digit(), None),
        "number" => some(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte), None),
        "time" => some(|byte| byte.is_ascii_alphanumeric() || b"+-.:".contains(&byte), None),
        "hash" => some(|byte| byte.is_ascii_hexdigit(), None),
        _ => None,
    }
}

/// The text cut before and after everything that looks like a placeholder.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let inside = &rest[open + 1..];
        let is_word = |letter: char| letter.is_ascii_lowercase() || "-:".contains(letter);
        let close = inside.find(|letter| !is_word(letter)).unwrap_or(inside.len());
        let is_placeholder = close > 0 && inside[close..].starts_with('>');
        let cut = if is_placeholder { open } else { open + 1 };
        let (literal, tail) = rest.split_at(cut);
        pieces.push(literal);
        rest = tail;
        if is_placeholder {
            let (placeholder, tail) = rest.split_at(close + 2);
            pieces.push(placeholder);
            rest = tail;
        }
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pattern: &str, text: &str) -> Result<Values, usize> {
        let mut values = Values::from([("known".to_owned(), b"K".to_vec())]);
        Pattern(pattern.to_owned()).take(text.as_bytes(), &mut values).map(|()| values)
    }

    #[test]
    fn placeholders_take_what_they_stand_for_and_no_more() {
        assert!(take("a<any>z", "a-z").is_ok());
        assert!(take("a<any>z", "az").is_ok());
        assert_eq!(take("<index>x", "12y"), Err(2));
        assert_eq!(take("<index>", "x"), Err(0));
        assert_eq!(take("<uuid>", "0123"), Err(0));
        assert_eq!(take("abc", "abcd"), Err(3));
        assert!(take("<known>1", "K1").is_ok());
        assert_eq!(take("<known>1", "L1"), Err(0));
        assert!(take("<unknown> < <b", "<unknown> < <b").is_ok());
    }

    #[test]
    fn named_values_are_kept_and_filled_in() {
        let values = take("{\"a\":<index:seen>,\"b\":\"<any:rest>\"}", "{\"a\":7,\"b\":\"x\"}");
        let values = values.expect("the text is as described");
        let filled = Pattern("/<seen>/<rest>/<other>/<known>".to_owned()).fill(&values);
        assert_eq!(filled, b"/7/x/<other>/K");
    }
}
