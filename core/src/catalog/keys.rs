//! Keys of the catalog's tables: folded names joined by a byte that no name contains.
//!
//! Names and ids hold no control characters (`id.rs`), so a zero byte separates them without
//! ambiguity and sorts before everything: ranges come out by first part, then by second.

use crate::id::{NodeName, ServiceName};
use imbl::OrdMap;
use std::ops::Bound;
use std::sync::Arc;

/// Stands between the parts of a key.
const SEPARATOR: char = '\0';
/// The character after it: the end of a range.
const AFTER_SEPARATOR: char = '\u{1}';

/// The key of a node.
pub(super) fn node(name: &NodeName) -> Arc<str> {
    name.folded().into()
}

/// The key of a service's own row.
pub(super) fn service(name: &ServiceName) -> Arc<str> {
    name.folded().into()
}

/// The key of something on a node: `node` is the node's key, `id` is taken as it is.
pub(super) fn on_node(node: &str, id: &str) -> Arc<str> {
    let mut key = String::with_capacity(node.len() + 1 + id.len());
    key.push_str(node);
    key.push(SEPARATOR);
    key.push_str(id);
    key.into()
}

/// The key of an instance: `service` and `node` are keys themselves.
pub(super) fn instance(service: &str, node: &str, id: &str) -> Arc<str> {
    let mut key = String::with_capacity(service.len() + node.len() + id.len() + 2);
    key.push_str(service);
    key.push(SEPARATOR);
    key.push_str(node);
    key.push(SEPARATOR);
    key.push_str(id);
    key.into()
}

/// The values whose key begins with the part `first`, in order.
pub(super) fn under<'a, V>(
    map: &'a OrdMap<Arc<str>, V>,
    first: &str,
) -> impl Iterator<Item = &'a V> + use<'a, V> {
    under_after(map, first, None).map(|(_, value)| value)
}

/// The same with their keys, only those behind the key `after` if it is given.
pub(super) fn under_after<'a, V>(
    map: &'a OrdMap<Arc<str>, V>,
    first: &str,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> + use<'a, V> {
    let mut low = String::with_capacity(first.len() + 1);
    low.push_str(first);
    let mut high = low.clone();
    low.push(SEPARATOR);
    high.push(AFTER_SEPARATOR);
    let low = after.map_or(Bound::Included(low.as_str()), Bound::Excluded);
    map.range::<_, str>((low, Bound::Excluded(high.as_str())))
}

/// Whether two texts are the same name: equal when lower-cased.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && lower(a).eq(lower(b)))
}

fn lower(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_one_first_part_and_no_other() {
        let mut map = OrdMap::new();
        for key in [on_node("n1", "a"), on_node("n1", "b"), on_node("n10", "a"), on_node("n", "z")]
        {
            map.insert(Arc::clone(&key), key.to_string());
        }
        let found: Vec<_> = under(&map, "n1").cloned().collect();
        assert_eq!(found, ["n1\0a", "n1\0b"]);
    }

    #[test]
    fn names_match_in_any_case() {
        assert!(same("Web", "wEB") && same("ÄPFEL", "äpfel"));
        assert!(!same("web", "webs") && !same("é", "e"));
    }
}
