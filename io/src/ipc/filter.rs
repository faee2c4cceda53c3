//! Which members a client wants: regular expressions over name, status and tags.
//!
//! Each covers the whole text, as if it stood between `^` and `$`; an empty one matches anything.
//! Their size is bounded, and matching takes time linear in the text.

use regex::{Regex, RegexBuilder};
use std::collections::BTreeMap;
use terraform_core::serf::Member;
use terraform_core::wire::ipc::Filter;

/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 1024;
/// Bytes of one compiled pattern.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// Tags filtered on.
const TAGS_MAX: usize = 64;

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
        let tag = |name: &str| member.tags.get(name).map_or("", String::as_str);
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
