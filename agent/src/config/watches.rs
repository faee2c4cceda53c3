//! Watches defined in configuration files (agent-config.md §5; what they watch: cli.md §7).

use super::definition::{Fields, Problem, mistyped, path, rule, text_list};
use crate::watch::{Handler, HttpHandler, Parameters, Subject, WatchDefinition};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a URL that is told may take if nothing else is set.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// Types that Consul knows and that belong to what is not built.
const UNBUILT: [&str; 3] = ["agent_service", "connect_leaf", "connect_roots"];

/// Reads one watch.
pub(super) fn watch(value: &Value) -> Result<WatchDefinition, Problem> {
    let mut fields = Fields::of(value)?;
    let parameters = Parameters {
        kind: fields.text("type")?,
        key: optional(&mut fields, "key")?,
        prefix: optional(&mut fields, "prefix")?,
        service: optional(&mut fields, "service")?,
        tag: one_or_more(&mut fields, "tag")?,
        passingonly: switch(&mut fields, "passingonly")?,
        state: optional(&mut fields, "state")?,
        name: optional(&mut fields, "name")?,
    };
    let kind = parameters.kind.as_str();
    if kind.is_empty() {
        return Err(Problem::Rule("Watch type must be specified".to_owned()));
    }
    if UNBUILT.contains(&kind) {
        return Err(Problem::Rule(format!("the watch type {kind} is not built")));
    }
    let subject = Subject::of(&parameters).map_err(Problem::Rule)?;
    let stale = switch(&mut fields, "stale")?;
    if stale.is_some() && kind == "event" {
        return Err(Problem::Rule("Invalid parameters: [stale]".to_owned()));
    }
    let definition = WatchDefinition {
        subject,
        datacenter: fields.text("datacenter")?,
        token: fields.text("token")?,
        stale: stale.unwrap_or(false),
        handler: handler(&mut fields)?,
    };
    fields.finish()?;
    Ok(definition)
}

/// What is done with a result: exactly one of `handler`, `args` and `http_handler_config`.
fn handler(fields: &mut Fields<'_>) -> Result<Handler, Problem> {
    let line = optional(fields, "handler")?.filter(|line| !line.trim().is_empty());
    let words = one_or_more(fields, "args")?;
    let kind = fields.text("handler_type")?;
    let config = fields.take("http_handler_config");
    let refused = |rule: &str| Err(Problem::Rule(rule.to_owned()));
    let is_http = match kind.as_str() {
        "" | "script" => false,
        "http" => true,
        _ => return refused(&format!("handler_type cannot be {kind:?}: use 'script' or 'http'")),
    };
    match (line, words.first(), config) {
        (None, None, Some(config)) if is_http => {
            let http = Fields::of(config).and_then(http);
            Ok(Handler::Http(http.map_err(|problem| problem.inside("http_handler_config"))?))
        }
        (None, None, None) if is_http => {
            refused("Handler type 'http' requires 'http_handler_config' to be set")
        }
        (_, _, Some(_)) if !is_http => {
            refused("'http_handler_config' requires handler_type = http")
        }
        (Some(line), None, None) if !is_http => Ok(Handler::Line(line)),
        (None, Some(program), None) if !is_http => {
            if program.is_empty() {
                return refused("args: the program's name cannot be empty");
            }
            Ok(Handler::Program(words))
        }
        (None, None, None) => refused("Must define a watch handler"),
        _ => refused("Only one watch handler allowed"),
    }
}

fn http(mut fields: Fields<'_>) -> Result<HttpHandler, Problem> {
    let url = fields.text("path")?;
    if url.is_empty() {
        return Err(Problem::Rule("http_handler_config: Requires 'path' to be set".to_owned()));
    }
    let method = fields.text("method")?;
    let timeout = fields.duration("timeout")?;
    let header = match fields.take("header") {
        None => BTreeMap::new(),
        Some(Value::Object(object)) => {
            let values = |(name, value): (&String, &Value)| {
                Ok((name.clone(), text_list(&path("header", name), value)?))
            };
            object.iter().map(values).collect::<Result<_, Problem>>()?
        }
        Some(other) => return Err(mistyped("header", "map", other)),
    };
    let handler = HttpHandler {
        url,
        method: if method.is_empty() { "POST".to_owned() } else { method },
        header,
        timeout: if timeout.is_zero() { HTTP_TIMEOUT } else { timeout },
        tls_skip_verify: fields.boolean("tls_skip_verify")?,
    };
    fields.finish()?;
    let sent = handler.request(1, &Value::Null);
    sent.map_err(|error| rule(format!("http_handler_config: {error}")))?;
    Ok(handler)
}

fn optional(fields: &mut Fields<'_>, key: &str) -> Result<Option<String>, Problem> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let value = fields.take(key);
    value.map(|value| text(value).ok_or_else(|| mistyped(key, "string", value))).transpose()
}

fn switch(fields: &mut Fields<'_>, key: &str) -> Result<Option<bool>, Problem> {
    let value = fields.take(key);
    value.map(|value| value.as_bool().ok_or_else(|| mistyped(key, "bool", value))).transpose()
}

/// A list of texts, or one without a list around it.
fn one_or_more(fields: &mut Fields<'_>, key: &str) -> Result<Vec<String>, Problem> {
    match fields.take(key) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(value) => text_list(key, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse, parse_as};

    #[test]
    fn every_type_and_handler_is_read() {
        let text = r#"
            watches { type = "key" key = "a/b" handler = "echo x" }
            watches {
                type = "service" service = "w" tag = ["a", "b"] passingonly = true stale = true
                datacenter = "dc2" token = "t" args = ["/bin/true", "-x"]
            }
            watches {
                type = "event" name = "deploy" handler_type = "http"
                http_handler_config {
                    path = "http://h/x" method = "PUT" timeout = "3s" tls_skip_verify = true
                    header { A = ["b", "c"] }
                }
            }"#;
        let watches = parse_as(Format::Hcl, text).unwrap().watches;
        let plain = WatchDefinition {
            subject: Subject::Key("a/b".to_owned()),
            datacenter: String::new(),
            token: String::new(),
            stale: false,
            handler: Handler::Line("echo x".to_owned()),
        };
        assert_eq!(watches[0], plain);
        let (name, tags) = ("w".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
        let full = WatchDefinition {
            subject: Subject::Service { name, tags, passing: true },
            datacenter: "dc2".to_owned(),
            token: "t".to_owned(),
            stale: true,
            handler: Handler::Program(vec!["/bin/true".to_owned(), "-x".to_owned()]),
        };
        assert_eq!(watches[1], full);
        let Handler::Http(http) = &watches[2].handler else { panic!() };
        assert_eq!((http.method.as_str(), http.timeout), ("PUT", Duration::from_secs(3)));
        let request = http.request(7, &Value::Bool(true)).unwrap();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [
            header("Content-Type", "application/json"),
            header("A", "b"),
            header("A", "c"),
            header("X-Consul-Index", "7"),
        ];
        assert_eq!((&request.headers[..], &request.body[..]), (&expected[..], &b"true"[..]));
    }

    #[test]
    fn a_bad_watch_is_refused_with_key_and_rule() {
        for (watch, told) in [
            (r#"{"handler": "x"}"#, "watches: Watch type must be specified"),
            (r#"{"type": "nosuch", "handler": "x"}"#, "watches: Unsupported watch type: nosuch"),
            (r#"{"type": "connect_leaf", "handler": "x"}"#, "type connect_leaf is not built"),
            (r#"{"type": "key", "handler": "x"}"#, "watches: Must specify a single key to watch"),
            (r#"{"type": "nodes"}"#, "watches: Must define a watch handler"),
            (
                r#"{"type": "nodes", "handler": "x", "args": ["y"]}"#,
                "watches: Only one watch handler allowed",
            ),
            (r#"{"type": "nodes", "key": "x", "handler": "x"}"#, "Invalid parameters: [key]"),
            (r#"{"type": "event", "stale": true, "args": "x"}"#, "Invalid parameters: [stale]"),
            (r#"{"type": "nodes", "handler": 1}"#, "'watches.handler' expected type 'string'"),
            (r#"{"type": "nodes", "args": ["x"], "nope": 1}"#, "invalid config key watches.nope"),
            (r#"{"type": "nodes", "handler_type": "x"}"#, "handler_type cannot be \"x\""),
            (
                r#"{"type": "nodes", "handler_type": "http"}"#,
                "Handler type 'http' requires 'http_handler_config' to be set",
            ),
            (
                r#"{"type": "nodes", "handler_type": "http", "http_handler_config": {}}"#,
                "http_handler_config: Requires 'path' to be set",
            ),
            (
                r#"{"type": "nodes", "handler_type": "http",
                    "http_handler_config": {"path": "http://h", "nope": 1}}"#,
                "invalid config key watches.http_handler_config.nope",
            ),
            (
                r#"{"type": "nodes", "handler_type": "http",
                    "http_handler_config": {"path": "ftp://h"}}"#,
                "http_handler_config: parse \"ftp://h\"",
            ),
            (
                r#"{"type": "nodes", "handler": "x", "http_handler_config": {"path": "http://h"}}"#,
                "'http_handler_config' requires handler_type = http",
            ),
        ] {
            let error = parse(&format!("{{\"watches\": [{watch}]}}")).unwrap_err().to_string();
            assert!(error.contains(told), "{watch}: {error}");
        }
        let error = parse(r#"{"watches": 1}"#).unwrap_err().to_string();
        assert!(error.contains("'watches' expected type 'list'"), "{error}");
    }
}
