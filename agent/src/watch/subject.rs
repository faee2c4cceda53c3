//! What is watched: where it is asked for, and what of the answer counts (cli.md §7).

use crate::cli::{escaped, key_path};
use serde_json::Value;

/// What describes something to watch; each is called as the flag and the key that it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) kind: String,
    pub(crate) key: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) tag: Vec<String>,
    pub(crate) passingonly: Option<bool>,
    pub(crate) state: Option<String>,
    pub(crate) name: Option<String>,
}

/// One thing to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One key.
    Key(String),
    /// The keys that begin so.
    KeyPrefix(String),
    /// The names of all services.
    Services,
    /// All nodes.
    Nodes,
    /// The instances of a service.
    Service {
        /// Its name.
        name: String,
        /// The tags that an instance must have.
        tags: Vec<String>,
        /// Whether all its checks must pass.
        passing: bool,
    },
    /// The checks of a service.
    ChecksOfService(String),
    /// The checks in a state.
    ChecksInState(String),
    /// The events of a name; an empty one stands for all.
    Event(String),
}

impl Subject {
    /// What the parameters describe.
    ///
    /// - Errors: the rule that they break.
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, String> {
        let text = |given: &Option<String>| given.clone().filter(|text| !text.is_empty());
        let needed = |given: &Option<String>, what: &str| {
            text(given).ok_or_else(|| format!("Must specify a single {what} to watch"))
        };
        let service = text(&parameters.service);
        let (subject, used): (Self, &[&str]) = match parameters.kind.as_str() {
            "key" => (Self::Key(needed(&parameters.key, "key")?), &["key"]),
            "keyprefix" => (Self::KeyPrefix(needed(&parameters.prefix, "prefix")?), &["prefix"]),
            "services" => (Self::Services, &[]),
            "nodes" => (Self::Nodes, &[]),
            "service" => {
                let name = needed(&parameters.service, "service")?;
                let passing = parameters.passingonly.unwrap_or(false);
                let tags = parameters.tag.clone();
                (Self::Service { name, tags, passing }, &["service", "tag", "passingonly"])
            }
            "checks" => match (service, text(&parameters.state)) {
                (Some(_), Some(_)) => return Err("Cannot specify service and state".to_owned()),
                (Some(name), None) => (Self::ChecksOfService(name), &["service"]),
                (None, state) => {
                    (Self::ChecksInState(state.unwrap_or_else(|| "any".to_owned())), &["state"])
                }
            },
            "event" => (Self::Event(text(&parameters.name).unwrap_or_default()), &["name"]),
            kind => return Err(format!("Unsupported watch type: {kind}")),
        };
        let given = [
            ("key", parameters.key.is_some()),
            ("prefix", parameters.prefix.is_some()),
            ("service", parameters.service.is_some()),
            ("tag", !parameters.tag.is_empty()),
            ("passingonly", parameters.passingonly.is_some()),
            ("state", parameters.state.is_some()),
            ("name", parameters.name.is_some()),
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
    pub(crate) const fn kind(&self) -> &'static str {
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
    pub(crate) fn path(&self) -> String {
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
    pub(crate) fn query(&self) -> Vec<String> {
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
    pub(crate) const fn may_be_missing(&self) -> bool {
        matches!(self, Self::Key(_) | Self::KeyPrefix(_))
    }

    /// Whether the index is that of the newest event, which is computed from its identity.
    pub(crate) const fn index_is_hash(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// What of an answer is shown: of a key the entry itself.
    pub(crate) fn result(&self, answer: Value) -> Value {
        match (self, answer) {
            (Self::Key(_), Value::Array(rows)) => rows.into_iter().next().unwrap_or_default(),
            (_, answer) => answer,
        }
    }

    /// Leaves those events that are newer than the one with the index `seen`.
    pub(crate) fn prune(&self, seen: Option<u64>, result: Value) -> Value {
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

/// The index of an event: both halves of its identity, folded into one (http-api.md §11).
fn event_index(event: &Value) -> Option<u64> {
    let digits = event.get("ID")?.as_str()?.replace('-', "");
    let half = |range| u64::from_str_radix(digits.get(range)?, 16).ok();
    Some(half(0..16)? ^ half(16..32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What `name=value` words describe.
    fn of(words: &[&str]) -> Result<Subject, String> {
        let mut parameters = Parameters::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            let text = Some(value.to_owned());
            match name {
                "type" => parameters.kind = value.to_owned(),
                "key" => parameters.key = text,
                "prefix" => parameters.prefix = text,
                "service" => parameters.service = text,
                "tag" => parameters.tag.push(value.to_owned()),
                "passingonly" => parameters.passingonly = value.parse().ok(),
                "state" => parameters.state = text,
                "name" => parameters.name = text,
                _ => panic!("{word}"),
            }
        }
        Subject::of(&parameters)
    }

    #[test]
    fn parameters_that_describe_nothing_are_refused() {
        for (words, rule) in [
            (&["type=x"][..], "Unsupported watch type: x"),
            (&["type=key"], "Must specify a single key to watch"),
            (&["type=keyprefix"], "Must specify a single prefix to watch"),
            (&["type=service"], "Must specify a single service to watch"),
            (&["type=checks", "service=a", "state=any"], "Cannot specify service and state"),
            (&["type=key", "key=a", "prefix=b"], "Invalid parameters: [prefix]"),
        ] {
            assert_eq!(of(words), Err(rule.to_owned()));
        }
    }

    #[test]
    fn every_type_is_asked_for_where_it_is_found() {
        for (words, path, query) in [
            (&["type=key", "key=a/b c"][..], "/v1/kv/a/b%20c", ""),
            (&["type=keyprefix", "prefix=a/"], "/v1/kv/a/", "recurse"),
            (&["type=services"], "/v1/catalog/services", ""),
            (&["type=nodes"], "/v1/catalog/nodes", ""),
            (
                &["type=service", "service=w", "tag=a", "tag=b", "passingonly=true"],
                "/v1/health/service/w",
                "tag=a&tag=b&passing",
            ),
            (&["type=checks"], "/v1/health/state/any", ""),
            (&["type=checks", "state=critical"], "/v1/health/state/critical", ""),
            (&["type=checks", "service=w"], "/v1/health/checks/w", ""),
            (&["type=event"], "/v1/event/list", ""),
            (&["type=event", "name=x"], "/v1/event/list", "name=x"),
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
