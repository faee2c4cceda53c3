//! Go-style flags over argh: `-flag`, `--flag`, `-flag=value`, `-flag value`.
//!
//! Booleans take a value only after `=` (cli.md §2), and parsing stops at the first word that is no
//! flag, or after `--`. Each command's flags are declared once, as an argh struct; this module
//! rewrites what a user typed into the form argh reads, and words refusals as users know them.

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs};
use std::fmt::Write as _;

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
    let info = T::get_args_info();
    let rewritten = rewrite(command, &info, words)?;
    let words: Vec<&str> = rewritten.iter().map(String::as_str).collect();
    T::from_args(&["terraform", command], &words).map_err(|early| {
        let text = early.output.trim_end().replace("option '--", "flag '-");
        Exit::failure(format!("{text}\n\n{}", help(command, &info)))
    })
}

fn rewrite(
    command: &str,
    info: &CommandInfoWithArgs,
    words: &[String],
) -> Result<Vec<String>, Exit> {
    let refuse = |text: String| Exit::failure(format!("{text}\n\n{}", help(command, info)));
    let mut rewritten = Vec::with_capacity(words.len() + 1);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let bare = match word.strip_prefix('-') {
            Some(bare) if !bare.is_empty() && word != "--" => {
                bare.strip_prefix('-').unwrap_or(bare)
            }
            _ => {
                rewritten.push("--".to_owned());
                rewritten.extend((word != "--").then(|| word.clone()));
                rewritten.extend(rest.cloned());
                return Ok(rewritten);
            }
        };
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        if matches!(name, "h" | "help") {
            return Err(Exit::success(help(command, info)));
        }
        let Some(flag) = info.flags.iter().find(|flag| long_name(flag) == name) else {
            return Err(refuse(format!("flag provided but not defined: -{name}")));
        };
        let value = match (is_boolean(flag), value) {
            (true, value) => boolean(name, value.unwrap_or("true")).map_err(&refuse)?,
            (false, Some(value)) => value.to_owned(),
            (false, None) => rest
                .next()
                .cloned()
                .ok_or_else(|| refuse(format!("flag needs an argument: -{name}")))?,
        };
        rewritten.push(format!("--{name}"));
        rewritten.push(value);
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

fn is_boolean(flag: &FlagInfo<'_>) -> bool {
    match flag.kind {
        FlagInfoKind::Switch => true,
        FlagInfoKind::Option { arg_name } => arg_name == BOOLEAN,
    }
}

/// The help text of one command.
pub(super) fn help(command: &str, info: &CommandInfoWithArgs) -> String {
    let mut text = format!("Usage: terraform {command} [options]");
    for positional in info.positionals.iter().filter(|positional| !positional.hidden) {
        let _ = write!(text, " {}", positional.name.to_uppercase());
    }
    let _ = write!(text, "\n\n  {}\n", info.description);
    let mut flags: Vec<_> = info.flags.iter().filter(|flag| long_name(flag) != "help").collect();
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
    }
    debug_assert!(
        !info.flags.iter().any(|flag| is_switch(flag) && long_name(flag) != "help"),
        "booleans are declared as options named {BOOLEAN}, so that `-flag=false` works"
    );
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
}
