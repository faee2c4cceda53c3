//! Reads tables.

use super::pattern::Pattern;
use std::iter::Peekable;

/// When a step's answer must be the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// After some repetitions.
    Eventually,
    /// After the next step; it waits meanwhile.
    Later,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The status, or the exit code of `dig`.
    pub status: u16,
    /// What headers must be, by their lower-case names; `None` for those that must not be there.
    pub headers: Vec<(String, Option<Pattern>)>,
    /// The body.
    pub body: Pattern,
}

/// A request or question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line it begins at, from 1.
    pub line: usize,
    /// When its answer counts.
    pub when: When,
    /// Method and path, or `DIG` and what it asks.
    pub request: Pattern,
    /// Header lines.
    pub headers: Vec<Pattern>,
    /// The body.
    pub body: Pattern,
    /// What is answered.
    pub expected: Expected,
    /// Why Consul answers otherwise, and how; no answer if it is not asked.
    pub consul: Option<(String, Option<Expected>)>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its file's name without the ending.
    pub name: String,
    /// The text of a configuration file.
    pub config: String,
    /// What is asked, in order.
    pub steps: Vec<Step>,
}

impl Step {
    /// The words of `dig` if it is what asks.
    pub fn question(&self) -> Option<Pattern> {
        self.request.0.strip_prefix(QUESTION).map(|words| Pattern(words.to_owned()))
    }
}

/// What stands before a question.
const QUESTION: &str = "DIG ";

type Lines<'a> = Peekable<std::vec::IntoIter<(usize, &'a str)>>;

impl Table {
    /// Reads a table; errors name the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut table = Self { name: name.to_owned(), config: "{}".to_owned(), steps: Vec::new() };
        let lines: Vec<_> = (1..).zip(text.lines()).filter(|(_, l)| !l.starts_with('#')).collect();
        let mut lines = lines.into_iter().peekable();
        while let Some((number, line)) = lines.next() {
            if let Some(config) = line.strip_prefix("config ") {
                config.clone_into(&mut table.config);
            } else if !line.is_empty() {
                let step = step(number, line, &mut lines);
                table.steps.push(step.map_err(|why| format!("{name}.table:{number}: {why}"))?);
            }
        }
        Ok(table)
    }
}

fn step(number: usize, line: &str, lines: &mut Lines<'_>) -> Result<Step, String> {
    let (when, request) = match line.split_once(' ') {
        Some(("eventually", rest)) => (When::Eventually, rest),
        Some(("while", rest)) => (When::Later, rest),
        _ => (When::Now, line),
    };
    let mut headers = Vec::new();
    while let Some(header) = taken(lines, |line| line.contains(':') && is_header(line)) {
        headers.push(Pattern(header.to_owned()));
    }
    let mut body = Vec::new();
    while let Some(line) = taken(lines, |line| line.starts_with('>')) {
        body.push(line.strip_prefix("> ").unwrap_or_default());
    }
    let unsaid = || if request.starts_with(QUESTION) { Vec::new() } else { absent() };
    let expected = expected(lines, unsaid())?.ok_or("a step needs an answer")?;
    let reason = taken(lines, |line| line.starts_with("consul "));
    let consul = match reason.and_then(|line| line.strip_prefix("consul ")) {
        Some(reason) => Some((reason.to_owned(), self::expected(lines, unsaid())?)),
        None => None,
    };
    if let Some(line) = taken(lines, |line| !line.is_empty()) {
        return Err(format!("not a line of a step: {line}"));
    }
    Ok(Step {
        line: number,
        when,
        request: Pattern(request.to_owned()),
        headers,
        body: Pattern(body.join("\n")),
        expected,
        consul,
    })
}

/// An answer; `headers` are what is there and what is not unless it says otherwise.
fn expected(
    lines: &mut Lines<'_>,
    mut headers: Vec<(String, Option<Pattern>)>,
) -> Result<Option<Expected>, String> {
    let is_status = |line: &str| line.starts_with(|letter: char| letter.is_ascii_digit());
    let Some(line) = taken(lines, is_status) else { return Ok(None) };
    let mut words = line.split(' ');
    let status = words.next().and_then(|word| word.parse().ok()).ok_or("not a status")?;
    for word in words {
        for (name, value) in meaning(word).ok_or_else(|| format!("unknown word {word}"))? {
            set(&mut headers, name, (value != "-").then_some(value));
        }
    }
    while let Some(header) = taken(lines, is_header) {
        let (name, value) = header.split_once(':').ok_or("a header needs a colon")?;
        let value = value.trim();
        set(&mut headers, &name.to_ascii_lowercase(), (value != "-").then_some(value));
    }
    let mut body = String::new();
    let mut is_first = true;
    while let Some(line) = taken(lines, |line| line.starts_with(['<', '+'])) {
        if let Some(rest) = line.strip_prefix('+') {
            body.push_str(rest.trim_start());
            continue;
        }
        if !is_first {
            body.push('\n');
        }
        is_first = false;
        body.push_str(line.strip_prefix("< ").unwrap_or_default());
    }
    Ok(Some(Expected { status, headers, body: Pattern(body) }))
}

/// What is not there unless a table says so, and what is.
fn absent() -> Vec<(String, Option<Pattern>)> {
    let mut headers: Vec<_> = [
        "age",
        "allow",
        "content-encoding",
        "content-type",
        "location",
        "x-cache",
        "x-consul-effective-consistency",
        "x-consul-index",
        "x-consul-knownleader",
        "x-consul-lastcontact",
    ]
    .map(|name| (name.to_owned(), None))
    .into();
    headers.push(("vary".to_owned(), Some(Pattern("Accept-Encoding".to_owned()))));
    headers
}

/// The headers that a word stands for.
fn meaning(word: &str) -> Option<Vec<(&'static str, &'static str)>> {
    const CONSISTENCY: &str = "x-consul-effective-consistency";
    let meta = |index, leader| {
        vec![
            ("x-consul-index", index),
            ("x-consul-knownleader", leader),
            ("x-consul-lastcontact", "0"),
        ]
    };
    Some(match word {
        "json" => vec![("content-type", "application/json")],
        "text" => vec![("content-type", "text/plain; charset=utf-8")],
        "raw" => vec![
            ("content-type", "text/plain"),
            ("content-security-policy", "sandbox"),
            ("x-content-type-options", "nosniff"),
        ],
        "meta" => meta("<index>", "true"),
        "zero-meta" => meta("1", "false"),
        "leader" => vec![(CONSISTENCY, "leader")],
        "stale" => vec![(CONSISTENCY, "stale")],
        "consistent" => vec![(CONSISTENCY, "consistent")],
        "unrouted" => vec![("vary", "-")],
        _ => return None,
    })
}

fn set(headers: &mut Vec<(String, Option<Pattern>)>, name: &str, value: Option<&str>) {
    headers.retain(|(known, _)| known != name);
    headers.push((name.to_owned(), value.map(|value| Pattern(value.to_owned()))));
}

fn is_header(line: &str) -> bool {
    line.starts_with(|letter: char| letter.is_ascii_uppercase()) && line.contains(':')
}

fn taken<'a>(lines: &mut Lines<'a>, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
    lines.next_if(|(_, line)| wanted(line)).map(|(_, line)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_belongs_to_no_step_is_an_error() {
        let parse = |text: &str| Table::parse("t", text).map(|table| table.steps.len());
        assert_eq!(parse("GET /a\n200\n\n# c\nGET /b\nA: b\n> c\n200 json\n< d\n"), Ok(2));
        assert_eq!(parse("GET /a\n"), Err("t.table:1: a step needs an answer".to_owned()));
        assert_eq!(parse("\nGET /a\n200 jsn"), Err("t.table:2: unknown word jsn".to_owned()));
        let stray = Err("t.table:1: not a line of a step: huh".to_owned());
        assert_eq!(parse("GET /a\n200\nhuh"), stray);
    }

    #[test]
    fn bodies_are_lines_that_may_go_on() {
        let table = Table::parse("t", "GET /a\n200 json\n< a,\n+   b\n<\n");
        let step = table.expect("it is a table").steps.remove(0);
        assert_eq!(step.expected.body.0, "a,b\n");
    }
}
