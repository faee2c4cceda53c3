//! The command line of this package's tools: words, and flags with a value each.

use std::collections::BTreeMap;

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The words without a flag, in their order.
    pub words: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Flags {
    /// Takes `--name value` for each of `names` out of `arguments`; the error says what is wrong.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        names: &[&str],
    ) -> Result<Self, String> {
        let (mut flags, mut arguments) = (Self::default(), arguments.into_iter());
        while let Some(word) = arguments.next() {
            let Some(name) = word.strip_prefix("--") else {
                flags.words.push(word);
                continue;
            };
            if !names.contains(&name) {
                return Err(format!("{word} is not one of {names:?}"));
            }
            let value = arguments.next().ok_or_else(|| format!("{word} needs a value"))?;
            flags.values.insert(name.to_owned(), value);
        }
        Ok(flags)
    }

    /// The text of a flag, if it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The number of a flag, or `default`.
    pub fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| format!("--{name} {text} is not a number"))
    }
}
