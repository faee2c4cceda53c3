//! Node metadata as TXT records: `key=value` quoted as RFC 1464 §2 wants, or the bare value.

use std::collections::BTreeMap;

/// Keys that begin so, in any case, give their value alone.
const BARE: &str = "rfc1035-";

/// One text for each pair, by key.
pub(super) fn of_meta(meta: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    meta.iter().map(|(key, value)| {
        let bare = key.get(..BARE.len()).is_some_and(|start| start.eq_ignore_ascii_case(BARE));
        if bare { value.clone() } else { quoted(key, value) }
    })
}

fn quoted(key: &str, value: &str) -> String {
    let middle = key.trim_matches(' ');
    let leading = key.len() - key.trim_start_matches(' ').len();
    let trailing = key.len() - leading - middle.len();
    let mut text = "` ".repeat(leading);
    for letter in middle.chars() {
        if letter == '`' || letter == '=' {
            text.push('`');
        }
        text.push(letter);
    }
    text.push_str(&"` ".repeat(trailing));
    text.push('=');
    text.push_str(&value.replace('`', "``"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_quoted() {
        assert_eq!(quoted("color", "blue"), "color=blue");
        assert_eq!(quoted("equation=a", "4"), "equation`=a=4");
        assert_eq!(quoted("a`a", "t`rue"), "a``a=t``rue");
        assert_eq!(quoted(" lead  ", " x"), "` lead` ` = x");
        assert_eq!(quoted("   ", ""), "` ` ` =");
    }

    #[test]
    fn some_keys_give_their_value_alone_and_all_come_sorted() {
        let pairs = [("z", "1"), ("RFC1035-x", "v=spf1"), ("a", "")];
        let meta = pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let texts: Vec<_> = of_meta(&meta.collect()).collect();
        assert_eq!(texts, ["v=spf1", "a=", "z=1"]);
    }
}
