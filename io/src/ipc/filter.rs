//! Which members and which events a client wants.
//!
//! Members are chosen by regular expressions over name, status and tags. Each covers the whole
//! text, as if it stood between `^` and `$`; an empty one matches anything. Their size is bounded,
//! and matching takes time linear in the text.

use super::stream::kind_name;
use regex::{Regex, RegexBuilder};
use std::collections::BTreeMap;
use terraform_core::serf::{Member, MemberEventKind, SerfEvent};
use terraform_core::wire::ipc::Filter;

/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 1024;
/// Bytes of one compiled pattern.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// Tags filtered on.
const TAGS_MAX: usize = 64;
/// Entries in a list of events.
const EVENTS_MAX: usize = 64;

/// A filter ready for use.
#[derive(Debug)]
pub(super) struct Members {
    name: Option<Regex>,
    status: Option<Regex>,
    tags: BTreeMap<String, Option<Regex>>,
}

impl Members {
    /// Compiles the patterns; `None` if one is no regular expression or above a limit.
    pub(super) fn new(filter: Filter) -> Option<Self> {
        if filter.tags.len() > TAGS_MAX {
            return None;
        }
        let tags = filter.tags.into_iter().map(|(tag, text)| Some((tag, pattern(&text)?)));
        Some(Self {
            name: pattern(&filter.name)?,
            status: pattern(&filter.status)?,
            tags: tags.collect::<Option<_>>()?,
        })
    }

    /// Whether the member is wanted. A tag it does not have counts as empty.
    pub(super) fn wants(&self, member: &Member) -> bool {
        let fits = |pattern: &Option<Regex>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
        };
        let tag = |name: &str| member.tags.get(name).unwrap_or_default();
        fits(&self.name, member.name.as_str())
            && fits(&self.status, member.status.as_str())
            && self.tags.iter().all(|(name, pattern)| fits(pattern, tag(name)))
    }
}

/// The outer option is `None` for a bad pattern, the inner one for one that matches anything.
#[expect(clippy::option_option, reason = "bad and absent are different outcomes here")]
fn pattern(text: &str) -> Option<Option<Regex>> {
    if text.is_empty() {
        return Some(None);
    }
    if text.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let whole = format!("^(?:{text})$");
    let built = RegexBuilder::new(&whole).size_limit(COMPILED_BYTES_MAX).build();
    built.ok().map(Some)
}

/// Changes of members that can be chosen.
const MEMBER_EVENTS: [MemberEventKind; 5] = [
    MemberEventKind::Join,
    MemberEventKind::Leave,
    MemberEventKind::Failed,
    MemberEventKind::Update,
    MemberEventKind::Reap,
];

/// Chosen events; one that any entry chooses is wanted.
#[derive(Debug)]
pub(super) struct Events(Vec<Chosen>);

#[derive(Debug)]
enum Chosen {
    All,
    Member(MemberEventKind),
    /// Of this name, if there is one.
    User(Option<String>),
    /// Of this name, if there is one.
    Query(Option<String>),
}

impl Events {
    /// Reads a comma-separated list; `None` if an entry is unknown or there are too many.
    pub(super) fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(vec![Chosen::All]));
        }
        let entries: Option<Vec<Chosen>> =
            text.split(',').take(EVENTS_MAX + 1).map(chosen).collect();
        entries.filter(|entries| entries.len() <= EVENTS_MAX).map(Self)
    }

    /// Whether the event is wanted.
    pub(super) fn wants(&self, event: &SerfEvent) -> bool {
        self.0.iter().any(|chosen| match (chosen, event) {
            (Chosen::All, _) => true,
            (Chosen::Member(wanted), SerfEvent::Members { kind, .. }) => wanted == kind,
            (Chosen::User(wanted), SerfEvent::User(event)) => {
                wanted.as_ref().is_none_or(|wanted| *wanted == event.name)
            }
            (Chosen::Query(wanted), SerfEvent::Query { name, .. }) => {
                wanted.as_ref().is_none_or(|wanted| wanted == name)
            }
            (Chosen::Member(_) | Chosen::User(_) | Chosen::Query(_), _) => false,
        })
    }
}

fn chosen(entry: &str) -> Option<Chosen> {
    let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    match (entry, entry.split_once(':')) {
        ("*", _) => Some(Chosen::All),
        ("user", _) => Some(Chosen::User(None)),
        ("query", _) => Some(Chosen::Query(None)),
        (_, Some(("user", rest))) => Some(Chosen::User(name(rest))),
        (_, Some(("query", rest))) => Some(Chosen::Query(name(rest))),
        _ => {
            let kind = MEMBER_EVENTS.into_iter().find(|kind| kind_name(*kind) == entry);
            kind.map(Chosen::Member)
        }
    }
}
