//! Which members a query is for: names, and expressions over tags.
//!
//! Implements gossip-wire.md §11.4. All filters must match; an expression is searched anywhere in
//! the tag's value, and a missing tag is empty. A filter of an unknown kind matches nobody. An
//! expression is bounded in its text and in what it compiles to, and matching is linear.

use crate::id::NodeName;
use crate::wire::serf::QueryFilter;
use crate::wire::tags::Tags;
use bytes::Bytes;
use regex::{Regex, RegexBuilder};

/// Filters one query may have.
const FILTERS_MAX: usize = 64;
/// Bytes of one expression.
const EXPRESSION_BYTES_MAX: usize = 512;
/// Bytes an expression may compile to.
const COMPILED_BYTES_MAX: usize = 256 << 10;

/// Compiles an expression.
///
/// - Errors: the rule it breaks, after its name.
pub(super) fn compile(expression: &str) -> Result<Regex, String> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let compiled = RegexBuilder::new(expression)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build();
    compiled.map_err(|error| {
        if let regex::Error::CompiledTooBig(limit) = error {
            return format!("compiles to more than {limit} bytes");
        }
        format!("does not parse: {error}")
    })
}

/// Whether a query with these filters is for the member of this name and these tags.
pub(super) fn matches(filters: &[Bytes], name: &NodeName, tags: &Tags) -> bool {
    let one = |filter: &Bytes| match QueryFilter::decode(filter) {
        Ok(QueryFilter::Nodes(names)) => names.iter().any(|other| other == name.as_str()),
        Ok(QueryFilter::Tag { tag, expression }) => {
            let value = tags.get(&tag).unwrap_or_default();
            compile(&expression).is_ok_and(|expression| expression.is_match(value))
        }
        Err(_) => false,
    };
    filters.len() <= FILTERS_MAX && filters.iter().all(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::tests::name;

    fn is_for(filters: &[QueryFilter]) -> bool {
        let tags = Tags::from_iter([("role", "web-7")]);
        let filters: Vec<Bytes> = filters.iter().map(QueryFilter::encode).collect();
        matches(&filters, &name("a"), &tags)
    }

    fn tag(tag: &str, expression: &str) -> QueryFilter {
        QueryFilter::Tag { tag: tag.to_owned(), expression: expression.to_owned() }
    }

    #[test]
    fn all_filters_must_match() {
        let nodes = |names: &[&str]| {
            QueryFilter::Nodes(names.iter().map(|name| (*name).to_owned()).collect())
        };
        assert!(is_for(&[]));
        assert!(is_for(&[nodes(&["b", "a"]), tag("role", "eb-[0-9]$")]));
        assert!(!is_for(&[nodes(&["b"]), tag("role", "web")]));
        assert!(!is_for(&[nodes(&["a"]), tag("role", "^eb")]));
        assert!(is_for(&[tag("zone", "^$")]), "a missing tag is empty");
    }

    #[test]
    fn expressions_that_cost_too_much_match_nobody_and_say_why() {
        assert!(compile("(").unwrap_err().starts_with("does not parse"));
        assert!(compile(&"a".repeat(513)).unwrap_err().contains("longer than 512"));
        assert!(compile("(\\w{100}){100}").unwrap_err().contains("compiles to more"));
        assert!(!is_for(&[tag("role", "(")]));
    }

    #[test]
    fn a_filter_of_an_unknown_kind_matches_nobody() {
        let tags = Tags::default();
        for filter in [&b"\x02\x90"[..], b"", b"\x00", b"\x01\x90"] {
            assert!(!matches(&[Bytes::copy_from_slice(filter)], &name("a"), &tags));
        }
        let many = vec![tag("role", ""); FILTERS_MAX + 1];
        assert!(!is_for(&many));
    }
}
