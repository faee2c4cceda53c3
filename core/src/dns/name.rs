//! Domain names as text, always short enough for the wire (RFC 1035 §2.3.4).
//!
//! Names made here come from node names and settings. A dot inside a node name separates labels,
//! as it does in questions, where all labels left of the keyword are joined (dns.md §2).

use std::sync::Arc;

/// Bytes of a label.
const LABEL_BYTES_MAX: usize = 63;
/// Bytes of a name on the wire, with length bytes and the root.
const WIRE_BYTES_MAX: usize = 255;

/// An absolute name: labels of 1 to 63 bytes joined by dots, at most 255 bytes on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads `a.b.c` or `a.b.c.`; `None` if a label or the whole is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let legal = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len());
        (text.len() + 2 <= WIRE_BYTES_MAX && text.split('.').all(legal)).then(|| Self(text.into()))
    }

    /// Joins parts, each of which may hold several labels.
    pub fn from_labels<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let parts: Vec<&str> = parts.into_iter().collect();
        Self::parse(&parts.join("."))
    }

    /// The name `labels` in front of this one.
    pub fn under(&self, labels: &str) -> Option<Self> {
        Self::from_labels([labels, &self.0])
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The text without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case: names are the same without regard to case.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self(self.0.to_ascii_lowercase().into())
    }

    /// What stands in `labels` to the left of this name, compared without regard to case.
    pub fn strip_from<'a, 'b>(&self, labels: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let mut rest = labels;
        for own in self.labels().rev() {
            let (last, before) = rest.split_last()?;
            if !last.eq_ignore_ascii_case(own) {
                return None;
            }
            rest = before;
        }
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_the_limits_of_the_wire() {
        assert!(Name::parse("terraform.").is_some_and(|name| name.as_str() == "terraform"));
        assert_eq!(Name::parse(""), None);
        assert_eq!(Name::parse("a..b"), None);
        assert_eq!(Name::parse(&"a".repeat(64)), None);
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63)].join(".");
        assert!(Name::parse(&format!("{long}.{}", "d".repeat(61))).is_some());
        assert_eq!(Name::parse(&format!("{long}.{}", "d".repeat(62))), None);
    }

    #[test]
    fn a_zone_is_stripped_in_any_case_and_only_whole() {
        let zone = Name::parse("dc.example").unwrap();
        assert_eq!(zone.strip_from(&["a", "DC", "Example"]), Some(&["a"][..]));
        assert_eq!(zone.strip_from(&["xdc", "example"]), None);
        assert_eq!(zone.strip_from(&["example"]), None);
    }
}
