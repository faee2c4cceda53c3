//! Go-style flags over argh: `-flag`, `--flag`, `-flag=value`, `-flag value`.
//!
//! Booleans take a value only after `=` (cli.md §2), and parsing stops at the first word that is no
//! flag, or after `--`. Each command's flags are declared once, as an argh struct; this module
//! rewrites what a user typed into the form argh reads, and words refusals as users know them.

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs};
use std::fmt::Write as _;
use std::time::Duration;
use terraform_io::duration;

/// The `arg_name` that marks an option as a boolean.
pub(super) const BOOLEAN: &str = "bool";

/// What ends a command: something to print, and the exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// For standard output, before the text: bytes as they are.
    pub raw: Vec<u8>,
    /// For standard output.
    pub stdout: String,
    /// For standard error.
    pub stderr: String,
    /// The process's exit code.
    pub code: u8,
}

impl Exit {
    /// Success with this text on standard output.
    pub fn success(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    /// Failure with this text on standard error.
    pub fn failure(stderr: impl Into<String>) -> Self {
        Self { stderr: stderr.into(), code: 1, ..Self::default() }
    }
}

/// Reads the words after the command's name.
pub(super) fn parse<T: FromArgs + ArgsInfo>(command: &str, words: &[String]) -> Result<T, Exit> {
    let own = T::get_args_info();
    let [words] = rewrite(command, [&own], words)?;
    read(command, &[&own], &words)
}

/// The same for a command whose flags are its own and those of `U` and `V`, which many commands
/// share.
pub(super) fn parse_shared<T, U, V>(command: &str, words: &[String]) -> Result<(T, U, V), Exit>
where
    T: FromArgs + ArgsInfo,
    U: FromArgs + ArgsInfo,
    V: FromArgs + ArgsInfo,
{
    let infos = [&T::get_args_info(), &U::get_args_info(), &V::get_args_info()];
    let [own, first, second] = rewrite(command, infos, words)?;
    let own = read(command, &infos, &own)?;
    Ok((own, read(command, &infos, &first)?, read(command, &infos, &second)?))
}

fn read<T: FromArgs>(
    command: &str,
    infos: &[&CommandInfoWithArgs],
    words: &[String],
) -> Result<T, Exit> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    T::from_args(&["terraform", command], &words).map_err(|early| {
        let text = worded(early.output.trim_end());
        Exit::failure(format!("{text}\n\n{}", help_of(command, infos)))
    })
}

/// A refusal of argh as users know it (cli.md §2).
fn worded(text: &str) -> String {
    let refused = || {
        let rest = text.strip_prefix("Error parsing option '--")?;
        let (name, rest) = rest.split_once("' with value '")?;
        let (value, why) = rest.split_once("': ")?;
        Some(format!("invalid value \"{value}\" for flag -{name}: {why}"))
    };
    refused().unwrap_or_else(|| text.replace("option '--", "flag '-"))
}

/// The words in the form that argh reads: for each of `infos` the flags that it declares, and for
/// the first one all that is no flag.
fn rewrite<const N: usize>(
    command: &str,
    infos: [&CommandInfoWithArgs; N],
    words: &[String],
) -> Result<[Vec<String>; N], Exit> {
    let refuse = |text: String| Exit::failure(format!("{text}\n\n{}", help_of(command, &infos)));
    let mut rewritten = [const { Vec::new() }; N];
    let mut others = vec!["--".to_owned()];
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let bare = match word.strip_prefix('-') {
            Some(bare) if !bare.is_empty() && word != "--" => {
                bare.strip_prefix('-').unwrap_or(bare)
            }
            _ => {
                others.extend((word != "--").then(|| word.clone()));
                others.extend(rest.cloned());
                break;
            }
        };
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        // Consul spells one flag with underscores: -check_output_max_size.
        let name = &*name.replace('_', "-");
        if matches!(name, "h" | "help") {
            return Err(Exit::success(help_of(command, &infos)));
        }
        let declared = |info: &CommandInfoWithArgs| {
            info.flags.iter().find(|flag| long_name(flag) == name).map(is_boolean)
        };
        let mut owners = infos.iter().zip(&mut rewritten);
        let owner = owners.find_map(|(info, words)| Some((declared(info)?, words)));
        let Some((boolean_flag, words)) = owner else {
            return Err(refuse(format!("flag provided but not defined: -{name}")));
        };
        let value = match (boolean_flag, value) {
            (true, value) => boolean(name, value.unwrap_or("true")).map_err(&refuse)?,
            (false, Some(value)) => value.to_owned(),
            (false, None) => rest
                .next()
                .cloned()
                .ok_or_else(|| refuse(format!("flag needs an argument: -{name}")))?,
        };
        words.push(format!("--{name}"));
        words.push(value);
    }
    if let Some(first) = rewritten.first_mut() {
        first.extend(others);
    }
    Ok(rewritten)
}

fn boolean(name: &str, value: &str) -> Result<String, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
        _ => Err(format!("invalid boolean value \"{value}\" for -{name}: parse error")),
    }
}

fn long_name<'a>(flag: &FlagInfo<'a>) -> &'a str {
    flag.long.strip_prefix("--").unwrap_or(flag.long)
}

const fn is_switch(flag: &FlagInfo<'_>) -> bool {
    matches!(flag.kind, FlagInfoKind::Switch)
}

/// A flag that is a time in Go's text form.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

fn is_boolean(flag: &FlagInfo<'_>) -> bool {
    match flag.kind {
        FlagInfoKind::Switch => true,
        FlagInfoKind::Option { arg_name } => arg_name == BOOLEAN,
    }
}

/// The help text of one command.
pub(super) fn help(command: &str, info: &CommandInfoWithArgs) -> String {
    help_of(command, &[info])
}

/// The help text of a command with shared flags.
pub(super) fn help_shared<T: ArgsInfo, U: ArgsInfo, V: ArgsInfo>(command: &str) -> String {
    help_of(command, &[&T::get_args_info(), &U::get_args_info(), &V::get_args_info()])
}

fn help_of(command: &str, infos: &[&CommandInfoWithArgs]) -> String {
    let mut text = format!("Usage: terraform {command} [options]");
    let positionals = infos.iter().flat_map(|info| info.positionals);
    for positional in positionals.filter(|positional| !positional.hidden) {
        let _ = write!(text, " {}", positional.name.to_uppercase());
    }
    let description = infos.first().map_or("", |info| info.description);
    let _ = write!(text, "\n\n  {description}\n");
    let flags = infos.iter().flat_map(|info| info.flags);
    let mut flags: Vec<_> = flags.filter(|flag| long_name(flag) != "help").collect();
    flags.sort_by_key(|flag| long_name(flag));
    if !flags.is_empty() {
        text.push_str("\nOptions:\n");
    }
    for flag in flags {
        let value = match flag.kind {
            FlagInfoKind::Option { arg_name } if !is_boolean(flag) => format!("=<{arg_name}>"),
            FlagInfoKind::Option { .. } | FlagInfoKind::Switch => String::new(),
        };
        let _ = write!(text, "\n  -{}{value}\n     {}\n", long_name(flag), flag.description);
        debug_assert!(
            !is_switch(flag),
            "booleans are declared as options named {BOOLEAN}, so that `-flag=false` works"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows things.
    #[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
    struct Show {
        /// show everything
        #[argh(option, arg_name = "bool")]
        detailed: Option<bool>,
        /// only these
        #[argh(option, arg_name = "regexp")]
        status: Option<String>,
        /// nothing else is taken
        #[argh(positional, hidden_help)]
        rest: Vec<String>,
    }

    fn show(words: &[&str]) -> Result<Show, Exit> {
        parse("show", &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn one_dash_two_dashes_and_equals_mean_the_same() {
        let expected =
            Show { detailed: Some(true), status: Some("a".to_owned()), rest: vec!["x".to_owned()] };
        assert_eq!(show(&["-detailed", "-status=a", "x"]).as_ref(), Ok(&expected));
        assert_eq!(show(&["--detailed=true", "--status", "a", "x"]).as_ref(), Ok(&expected));
    }

    #[test]
    fn a_boolean_does_not_take_the_next_word_and_flags_end_at_the_first_other_word() {
        let shown = show(&["-detailed", "false", "-status=a"]).unwrap();
        assert_eq!(shown.detailed, Some(true));
        assert_eq!(shown.rest, ["false", "-status=a"]);
        assert_eq!(show(&["-detailed=f"]).unwrap().detailed, Some(false));
    }

    #[test]
    fn refusals_are_worded_as_users_know_them() {
        let refused = |words: &[&str]| show(words).unwrap_err();
        assert!(refused(&["-nope"]).stderr.starts_with("flag provided but not defined: -nope\n"));
        assert!(refused(&["-status"]).stderr.starts_with("flag needs an argument: -status\n"));
        let boolean = refused(&["-detailed=x"]).stderr;
        assert!(boolean.starts_with("invalid boolean value \"x\" for -detailed: parse error\n"));
        assert_eq!(refused(&["-nope"]).code, 1);
        let help = refused(&["-h"]);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("-status=<regexp>"), "{}", help.stdout);
        let usage = "Usage: terraform show [options]\n";
        assert!(help.stdout.starts_with(usage), "what is only refused is not offered");
    }

    /// Shared.
    #[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
    struct Shared {
        /// how often
        #[argh(option, arg_name = "count")]
        count: Option<u32>,
    }

    /// Shared by others.
    #[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
    struct Further {
        /// where
        #[argh(option, arg_name = "place")]
        place: Option<String>,
    }

    #[test]
    fn shared_flags_stand_among_a_commands_own() {
        let all = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            parse_shared::<Show, Shared, Further>("show", &words)
        };
        let given = ["-count=2", "-place", "here", "-detailed", "x", "-count=3"];
        let (own, shared, further) = all(&given).unwrap();
        assert_eq!((own.detailed, shared.count), (Some(true), Some(2)));
        assert_eq!(further.place.as_deref(), Some("here"));
        assert_eq!(own.rest, ["x", "-count=3"]);
        let refused = all(&["-count=a"]).unwrap_err().stderr;
        let rule = "invalid value \"a\" for flag -count: invalid digit found in string\n";
        assert!(refused.starts_with(rule), "{refused}");
        assert!(refused.contains("-count=<count>") && refused.contains("-detailed"), "{refused}");
    }
}
