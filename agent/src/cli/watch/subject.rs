//! What is watched: where it is asked for, and what of the answer counts (cli.md §7).

use super::super::transport::{escaped, key_path};
use super::Arguments;
use serde_json::Value;

/// One thing to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Key(String),
    KeyPrefix(String),
    Services,
    Nodes,
    Service {
        name: String,
        tags: Vec<String>,
        passing: bool,
    },
    ChecksOfService(String),
    ChecksInState(String),
    /// An empty name stands for all.
    Event(String),
}

impl Subject {
    /// What the flags describe.
    ///
    /// - Errors: the rule that they break.
    pub(super) fn of(arguments: &Arguments) -> Result<Self, String> {
        let text = |flag: &Option<String>| flag.clone().filter(|text| !text.is_empty());
        let needed = |flag: &Option<String>, what: &str| {
            text(flag).ok_or_else(|| format!("Must specify a single {what} to watch"))
        };
        let kind = arguments.kind.as_deref().unwrap_or_default();
        let service = text(&arguments.service);
        let (subject, used): (Self, &[&str]) = match kind {
            "key" => (Self::Key(needed(&arguments.key, "key")?), &["key"]),
            "keyprefix" => (Self::KeyPrefix(needed(&arguments.prefix, "prefix")?), &["prefix"]),
            "services" => (Self::Services, &[]),
            "nodes" => (Self::Nodes, &[]),
            "service" => {
                let name = needed(&arguments.service, "service")?;
                let passing = passing(arguments.passingonly.as_deref())?;
                let tags = arguments.tag.clone();
                (Self::Service { name, tags, passing }, &["service", "tag", "passingonly"])
            }
            "checks" => match (service, text(&arguments.state)) {
                (Some(_), Some(_)) => return Err("Cannot specify service and state".to_owned()),
                (Some(name), None) => (Self::ChecksOfService(name), &["service"]),
                (None, state) => {
                    (Self::ChecksInState(state.unwrap_or_else(|| "any".to_owned())), &["state"])
                }
            },
            "event" => (Self::Event(text(&arguments.name).unwrap_or_default()), &["name"]),
            _ => return Err(format!("Unsupported watch type: {kind}")),
        };
        let given = [
            ("key", arguments.key.is_some()),
            ("prefix", arguments.prefix.is_some()),
            ("service", arguments.service.is_some()),
            ("tag", !arguments.tag.is_empty()),
            ("passingonly", arguments.passingonly.is_some()),
            ("state", arguments.state.is_some()),
            ("name", arguments.name.is_some()),
        ];
        let unused = given.iter().filter(|(name, given)| *given && !used.contains(name));
        let unused: Vec<&str> = unused.map(|(name, _)| *name).collect();
        if unused.is_empty() {
            Ok(subject)
        } else {
            Err(format!("Invalid parameters: [{}]", unused.join(" ")))
        }
    }

    /// The type's name.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::KeyPrefix(_) => "keyprefix",
            Self::Services => "services",
            Self::Nodes => "nodes",
            Self::Service { .. } => "service",
            Self::ChecksOfService(_) | Self::ChecksInState(_) => "checks",
            Self::Event(_) => "event",
        }
    }

    /// Where it is asked for.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Key(name) | Self::KeyPrefix(name) => key_path(name),
            Self::Services => "/v1/catalog/services".to_owned(),
            Self::Nodes => "/v1/catalog/nodes".to_owned(),
            Self::Service { name, .. } => format!("/v1/health/service/{}", escaped(name)),
            Self::ChecksOfService(name) => format!("/v1/health/checks/{}", escaped(name)),
            Self::ChecksInState(state) => format!("/v1/health/state/{}", escaped(state)),
            Self::Event(_) => "/v1/event/list".to_owned(),
        }
    }

    /// The parameters that it is asked for with.
    pub(super) fn query(&self) -> Vec<String> {
        match self {
            Self::KeyPrefix(_) => vec!["recurse".to_owned()],
            Self::Service { tags, passing, .. } => {
                let tags = tags.iter().map(|tag| format!("tag={}", escaped(tag)));
                tags.chain(passing.then(|| "passing".to_owned())).collect()
            }
            Self::Event(name) if !name.is_empty() => vec![format!("name={}", escaped(name))],
            Self::Key(_)
            | Self::Services
            | Self::Nodes
            | Self::ChecksOfService(_)
            | Self::ChecksInState(_)
            | Self::Event(_) => Vec::new(),
        }
    }

    /// Whether status 404 means that there is none.
    pub(super) const fn may_be_missing(&self) -> bool {
        matches!(self, Self::Key(_) | Self::KeyPrefix(_))
    }

    /// Whether the index is that of the newest event, which is computed from its identity.
    pub(super) const fn index_is_hash(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// What of an answer is shown: of a key the entry itself.
    pub(super) fn result(&self, answer: Value) -> Value {
        match (self, answer) {
            (Self::Key(_), Value::Array(rows)) => rows.into_iter().next().unwrap_or_default(),
            (_, answer) => answer,
        }
    }

    /// Leaves those events that are newer than the one with the index `seen`.
    pub(super) fn prune(&self, seen: Option<u64>, result: Value) -> Value {
        match (self, result) {
            (Self::Event(_), Value::Array(events)) => {
                let is_seen = |event: &Value| seen.is_some() && event_index(event) == seen;
                let newer = events.iter().rposition(is_seen).map_or(0, |at| at + 1);
                events.into_iter().skip(newer).collect()
            }
            (_, result) => result,
        }
    }
}

fn passing(text: Option<&str>) -> Result<bool, String> {
    match text.unwrap_or("false") {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!(
            "Failed to parse passingonly flag: strconv.ParseBool: parsing \"{other}\": invalid \
             syntax"
        )),
    }
}

/// The index of an event: both halves of its identity, folded into one (http-api.md §11).
fn event_index(event: &Value) -> Option<u64> {
    let digits = event.get("ID")?.as_str()?.replace('-', "");
    let half = |range| u64::from_str_radix(digits.get(range)?, 16).ok();
    Some(half(0..16)? ^ half(16..32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;
    use serde_json::json;

    fn of(words: &[&str]) -> Result<Subject, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Subject::of(&flags::parse("watch", &words).unwrap())
    }

    #[test]
    fn flags_that_describe_nothing_are_refused() {
        for (words, rule) in [
            (&["-type=x"][..], "Unsupported watch type: x"),
            (&["-type=key"], "Must specify a single key to watch"),
            (&["-type=keyprefix"], "Must specify a single prefix to watch"),
            (&["-type=service"], "Must specify a single service to watch"),
            (&["-type=checks", "-service=a", "-state=any"], "Cannot specify service and state"),
            (&["-type=key", "-key=a", "-prefix=b"], "Invalid parameters: [prefix]"),
            (
                &["-type=service", "-service=a", "-passingonly=maybe"],
                "Failed to parse passingonly flag: strconv.ParseBool: parsing \"maybe\": invalid \
                 syntax",
            ),
        ] {
            assert_eq!(of(words), Err(rule.to_owned()));
        }
    }

    #[test]
    fn every_type_is_asked_for_where_it_is_found() {
        for (words, path, query) in [
            (&["-type=key", "-key=a/b c"][..], "/v1/kv/a/b%20c", ""),
            (&["-type=keyprefix", "-prefix=a/"], "/v1/kv/a/", "recurse"),
            (&["-type=services"], "/v1/catalog/services", ""),
            (&["-type=nodes"], "/v1/catalog/nodes", ""),
            (
                &["-type=service", "-service=w", "-tag=a", "-tag=b", "-passingonly", "true"],
                "/v1/health/service/w",
                "tag=a&tag=b&passing",
            ),
            (&["-type=checks"], "/v1/health/state/any", ""),
            (&["-type=checks", "-state=critical"], "/v1/health/state/critical", ""),
            (&["-type=checks", "-service=w"], "/v1/health/checks/w", ""),
            (&["-type=event"], "/v1/event/list", ""),
            (&["-type=event", "-name=x"], "/v1/event/list", "name=x"),
        ] {
            let subject = of(words).unwrap();
            assert_eq!(
                (subject.path().as_str(), subject.query().join("&").as_str()),
                (path, query)
            );
        }
    }

    #[test]
    fn only_events_that_are_new_are_left() {
        let event = |id: &str| json!({ "ID": format!("00000000-0000-0000-0000-00000000000{id}") });
        let list = json!([event("1"), event("2"), event("3")]);
        let events = Subject::Event(String::new());
        assert_eq!(events.prune(Some(2), list.clone()), json!([event("3")]));
        assert_eq!(events.prune(Some(9), list.clone()), list, "all since then");
        assert_eq!(events.prune(None, list.clone()), list);
        assert_eq!(
            event_index(&json!({ "ID": "ffffffff-0000-0000-0000-000000000001" })),
            Some(0xffff_ffff_0000_0001)
        );
    }
}
