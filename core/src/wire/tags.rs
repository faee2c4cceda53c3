//! A member's tags, kept as the bytes that gossip carries.
//!
//! Every agent knows the tags of every member, so they are held in the one allocation that they
//! came in; looking one up reads a few hundred bytes and allocates nothing.

use super::DecodeError;
use super::msgpack::{Flavour, Gossip};
use super::pack::Reader;
use super::serf::{TAGS_MAGIC, decode_tags, put_tags};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;

/// What a member says of itself: a few pairs of text, ordered by key, each key once.
#[derive(Clone, PartialEq, Eq)]
pub struct Tags(Bytes);

impl Tags {
    /// The tags that a meta says (gossip-wire.md §11.3). Shares the meta's memory if the pairs
    /// stand in order there, which peers do not promise.
    ///
    /// - Errors: those of [`decode_tags`].
    pub fn of_meta(meta: &Bytes) -> Result<Self, DecodeError> {
        let tags = put_tags(&decode_tags(meta)?);
        Ok(Self(if tags == *meta { meta.clone() } else { tags }))
    }

    /// The value of the tag `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut input = Reader::new(self.0.get(1..).unwrap_or_default());
        let count = input.map().expect(CHECKED);
        (0..count).map(move |_| (text(&mut input), text(&mut input)))
    }

    /// The pairs as a map of their own.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// The value of one tag of a meta, which is read no further than there; `None` if there is none or
/// the meta cannot be read. Like [`Tags::get`] without making tags of it first.
pub fn tag_of_meta<'a>(meta: &'a [u8], key: &str) -> Option<&'a str> {
    let (&TAGS_MAGIC, pairs) = meta.split_first()? else { return None };
    let mut input = Reader::new(pairs);
    let count = input.map().ok()?;
    for _ in 0..count {
        let name = Gossip::get_bytes(&mut input).ok()?;
        let value = Gossip::get_bytes(&mut input).ok()?;
        if name == key.as_bytes() {
            return std::str::from_utf8(value).ok();
        }
    }
    None
}

/// Why reading the pairs cannot fail.
const CHECKED: &str = "tags are checked when they are made";

fn text<'a>(input: &mut Reader<'a>) -> &'a str {
    let bytes = Gossip::get_bytes(input).expect(CHECKED);
    std::str::from_utf8(bytes).expect(CHECKED)
}

impl Default for Tags {
    fn default() -> Self {
        Self(put_tags(&BTreeMap::new()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Tags {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self(put_tags(&pairs.collect()))
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::serf::encode_tags;
    use proptest::prelude::*;

    #[test]
    fn pairs_out_of_order_are_put_in_order() {
        let meta = Bytes::from_static(b"\xff\x82\xa1b\xa12\xa1a\xa11");
        let tags = Tags::of_meta(&meta).unwrap();
        assert_eq!(tags.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(Tags::of_meta(&Bytes::from_static(b"web")).unwrap().get("role"), Some("web"));
        assert!(Tags::of_meta(&Bytes::from_static(b"\xff\x81\xa1b")).is_err());
    }

    proptest! {
        #[test]
        fn tags_are_those_of_the_map_and_share_an_ordered_meta(
            map in prop::collection::btree_map(".{0,40}", ".{0,40}", 0..4), missing in ".{0,8}",
        ) {
            let tags: Tags = map.clone().into_iter().collect();
            prop_assert_eq!(&tags.to_map(), &map);
            for key in map.keys().chain([&missing]) {
                prop_assert_eq!(tags.get(key), map.get(key).map(String::as_str));
            }
            if let Ok(meta) = encode_tags(&map) {
                let shared = Tags::of_meta(&meta).unwrap();
                prop_assert_eq!(shared.0.as_ptr(), meta.as_ptr());
                prop_assert_eq!(shared, tags);
                for key in map.keys().chain([&missing]) {
                    let value = map.get(key).map(String::as_str);
                    prop_assert_eq!(tag_of_meta(&meta, key), value);
                }
            }
        }
    }
}
