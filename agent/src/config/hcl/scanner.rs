//! HCL's text as tokens: names, literals and marks, without comments.

use super::HclError;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// A key without quotes, `true` or `false`.
    Name(String),
    /// A text in quotes, or a here document.
    Text(String),
    Integer(i64),
    Float(f64),
    /// `=`
    Assign,
    Comma,
    /// `{`
    Open,
    /// `}`
    Close,
    /// `[`
    OpenList,
    /// `]`
    CloseList,
    End,
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name(_) => "a name",
            Self::Text(_) => "a text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Assign => "'='",
            Self::Comma => "','",
            Self::Open => "'{'",
            Self::Close => "'}'",
            Self::OpenList => "'['",
            Self::CloseList => "']'",
            Self::End => "the end",
        })
    }
}

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Takes tokens off a text.
pub(super) struct Scanner<'a> {
    rest: Peekable<Chars<'a>>,
    line: u32,
    column: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest: text.chars().peekable(), line: 1, column: 1 }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn take(&mut self) -> Option<char> {
        let taken = self.rest.next()?;
        if taken == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(taken)
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.peek() == Some(wanted) && self.take().is_some()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(next) = self.peek().filter(|next| wanted(*next)) {
            taken.push(next);
            self.take();
        }
        taken
    }

    fn refuse<T>(&self, rule: &str) -> Result<T, HclError> {
        Err(HclError { line: self.line, column: self.column, rule: rule.to_owned() })
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Result<Token, HclError> {
        self.skip()?;
        let (line, column) = (self.line, self.column);
        let at = |rule: &str| HclError { line, column, rule: rule.to_owned() };
        let Some(first) = self.peek() else {
            return Ok(Token { kind: TokenKind::End, line, column });
        };
        let kind = match first {
            '=' => TokenKind::Assign,
            ',' => TokenKind::Comma,
            '{' => TokenKind::Open,
            '}' => TokenKind::Close,
            '[' => TokenKind::OpenList,
            ']' => TokenKind::CloseList,
            '"' => {
                self.take();
                let kind = TokenKind::Text(self.text()?);
                return Ok(Token { kind, line, column });
            }
            '<' => TokenKind::Text(self.here_document()?),
            '-' | '0'..='9' => self.number().ok_or_else(|| at("illegal number"))?,
            first if first.is_alphabetic() || first == '_' => TokenKind::Name(
                self.take_while(|next| next.is_alphanumeric() || matches!(next, '_' | '-' | '.')),
            ),
            _ => return Err(at("illegal character")),
        };
        if matches!(first, '=' | ',' | '{' | '}' | '[' | ']') {
            self.take();
        }
        Ok(Token { kind, line, column })
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) -> Result<(), HclError> {
        loop {
            self.take_while(char::is_whitespace);
            let begun = match self.peek() {
                Some('#') => '/',
                Some('/') => {
                    self.take();
                    self.peek().unwrap_or_default()
                }
                _ => return Ok(()),
            };
            match begun {
                '/' => drop(self.take_while(|next| next != '\n')),
                '*' => {
                    self.take();
                    let mut last = ' ';
                    loop {
                        match self.take() {
                            Some('/') if last == '*' => break,
                            Some(next) => last = next,
                            None => return self.refuse("comment not terminated"),
                        }
                    }
                }
                _ => return self.refuse("expected '/' for comment"),
            }
        }
    }

    /// The rest of a text in quotes. What stands in `${…}` stays as it is.
    fn text(&mut self) -> Result<String, HclError> {
        let (mut text, mut braces) = (String::new(), 0_u32);
        loop {
            match self.peek() {
                None => return self.refuse("literal not terminated"),
                Some('\n') if braces == 0 => return self.refuse("literal not terminated"),
                Some(next) => {
                    self.take();
                    match next {
                        '"' if braces == 0 => return Ok(text),
                        '$' if braces == 0 && self.peek() == Some('{') => {
                            self.take();
                            text.push_str("${");
                            braces = 1;
                            continue;
                        }
                        '{' if braces > 0 => braces += 1,
                        '}' if braces > 0 => braces -= 1,
                        '\\' if braces == 0 => {
                            text.push(self.escape()?);
                            continue;
                        }
                        _ => {}
                    }
                    text.push(next);
                }
            }
        }
    }

    /// What a backslash and what follows it stand for.
    fn escape(&mut self) -> Result<char, HclError> {
        let digits = match self.peek() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some('0'..='7') => return self.code(3, 8),
            Some(plain) => {
                let meant = match plain {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    '"' | '\\' => plain,
                    _ => return self.refuse("illegal char escape"),
                };
                self.take();
                return Ok(meant);
            }
            None => return self.refuse("literal not terminated"),
        };
        self.take();
        self.code(digits, 16)
    }

    /// A character by its number.
    fn code(&mut self, digits: usize, radix: u32) -> Result<char, HclError> {
        let mut code = 0;
        for _ in 0..digits {
            match self.peek().and_then(|next| next.to_digit(radix)) {
                Some(digit) => code = code * radix + digit,
                None => return self.refuse("illegal char escape"),
            }
            self.take();
        }
        match char::from_u32(code) {
            Some(meant) => Ok(meant),
            None => self.refuse("illegal char escape"),
        }
    }

    /// `<<WORD`, lines, `WORD`; with `<<-` as many blanks are taken off each line as all have.
    fn here_document(&mut self) -> Result<String, HclError> {
        self.take();
        if !self.take_if('<') {
            return self.refuse("heredoc expected second '<', didn't see it");
        }
        let indented = self.take_if('-');
        let word = self.take_while(|next| next.is_alphanumeric() || next == '_');
        self.take_if('\r');
        if word.is_empty() || !self.take_if('\n') {
            return self.refuse("invalid characters in heredoc anchor");
        }
        let mut lines = Vec::new();
        loop {
            let line = self.take_while(|next| next != '\n');
            if line.trim() == word {
                break;
            }
            if !self.take_if('\n') {
                return self.refuse("heredoc not terminated");
            }
            lines.push(line);
        }
        let blanks = |line: &String| line.len() - line.trim_start_matches([' ', '\t']).len();
        let margin = if indented { lines.iter().map(blanks).min().unwrap_or(0) } else { 0 };
        let lines = lines.iter().map(|line| line.get(margin..).unwrap_or_default());
        Ok(lines.fold(String::new(), |text, line| text + line + "\n"))
    }

    /// A number; `None` if it is none.
    fn number(&mut self) -> Option<TokenKind> {
        let text =
            self.take_while(|next| next.is_ascii_alphanumeric() || matches!(next, '-' | '+' | '.'));
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.as_str()),
        };
        let radix =
            |digits: &str, radix| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok();
        let integer = match (digits.get(..2), digits.get(2..)) {
            (Some("0x" | "0X"), Some(digits)) => radix(digits, 16),
            _ if digits.len() > 1 && digits.starts_with('0') && !digits.contains('.') => {
                radix(digits, 8)
            }
            _ => radix(digits, 10),
        };
        if let Some(integer) = integer {
            return Some(TokenKind::Integer(integer));
        }
        let is_float = digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.contains(['.', 'e', 'E'])
            && !digits.starts_with("0x");
        if is_float { text.parse().ok().map(TokenKind::Float) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<TokenKind, String> {
        Scanner::new(text).next().map(|token| token.kind).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_have_escapes_and_keep_what_looks_like_a_variable() {
        let text = |text: &str| Ok(TokenKind::Text(text.to_owned()));
        assert_eq!(value(r#""a\n\"\\\x41\u00fc\101""#), text("a\n\"\\A\u{fc}A"));
        assert_eq!(value(r#""${a "b" {c}}\t""#), text("${a \"b\" {c}}\t"));
        assert_eq!(value("\"{{ GetPrivateIP }}\""), text("{{ GetPrivateIP }}"));
        assert_eq!(value(r#""\q""#), Err("At 1:3: illegal char escape".to_owned()));
        assert_eq!(value("\"a\nb\""), Err("At 1:3: literal not terminated".to_owned()));
    }

    #[test]
    fn here_documents_are_texts() {
        let text = |text: &str| Ok(TokenKind::Text(text.to_owned()));
        assert_eq!(value("<<EOF\n  a\n b\nEOF\n"), text("  a\n b\n"));
        assert_eq!(value("<<-EOF\n    a\n   b\n  EOF"), text(" a\nb\n"));
        assert_eq!(value("<<EOF\na"), Err("At 2:2: heredoc not terminated".to_owned()));
        assert!(value("<< \n").is_err() && value("<EOF").is_err());
    }

    #[test]
    fn numbers_are_whole_or_not() {
        assert_eq!(value("-12"), Ok(TokenKind::Integer(-12)));
        assert_eq!(value("0x1F"), Ok(TokenKind::Integer(31)));
        assert_eq!(value("010"), Ok(TokenKind::Integer(8)));
        assert_eq!(value("0"), Ok(TokenKind::Integer(0)));
        assert_eq!(value("1e3"), Ok(TokenKind::Float(1000.0)));
        assert_eq!(value("-0.5"), Ok(TokenKind::Float(-0.5)));
        for bad in ["-", "1x", "0x", "--1", "99999999999999999999"] {
            assert_eq!(value(bad), Err("At 1:1: illegal number".to_owned()), "{bad}");
        }
    }
}
