//! Which members a query is for: names, and expressions over tags.
//!
//! Implements gossip-wire.md §11.4. All filters must match; an expression is searched anywhere in
//! the tag's value, and a missing tag is empty. A filter of an unknown kind, or with an expression
//! that cannot be used, matches nobody.

use crate::expression::compile;
use crate::id::NodeName;
use crate::wire::serf::QueryFilter;
use crate::wire::tags::Tags;
use bytes::Bytes;

/// Filters one query may have.
const FILTERS_MAX: usize = 64;

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
    fn an_expression_that_cannot_be_used_matches_nobody() {
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
