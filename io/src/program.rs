//! Programs that a user has this one run: a command line's child, a watch's handler.
//!
//! - Source: cli.md §2 and §7 (`-shell`, `SHELL`, which signals are passed on).
//! - A program gets a process group of its own, so that a signal reaches what it started, too. Only
//!   one that shares the terminal's input stays in ours: others may not read from it.

use crate::capture::{self, Pipe, Tail};
use rustix::process::{Pid, kill_process, kill_process_group};
use smol::process::{Child, ChildStdin, Stdio};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

/// What a program can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGUSR1.
    User1,
    /// SIGKILL.
    Kill,
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Hangup => Self::HUP,
            Signal::Interrupt => Self::INT,
            Signal::Terminate => Self::TERM,
            Signal::User1 => Self::USR1,
            Signal::Kill => Self::KILL,
        }
    }
}

/// What a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// What [`Program::take_input`] is given.
    Fed,
    /// What this program would read.
    Shared,
}

/// A program that was started; its output is this program's own.
#[derive(Debug)]
pub struct Program {
    child: Child,
    grouped: bool,
}

impl Program {
    /// Starts what `words` are: a program and its arguments, or with `shell` a line for the user's
    /// shell; `variables` are added to the environment.
    pub fn start(
        words: &[String],
        shell: bool,
        variables: &[(&str, String)],
        input: Input,
    ) -> io::Result<Self> {
        let (command, stdin, grouped) = prepared(words, shell, variables, input);
        let mut command = smol::process::Command::from(command);
        command.stdin(stdin).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        Ok(Self { child: command.spawn()?, grouped })
    }

    /// The same of a program whose output comes out of the pipe that is returned, for
    /// [`Program::follow`].
    pub fn start_captured(
        words: &[String],
        shell: bool,
        variables: &[(&str, String)],
        input: Input,
    ) -> io::Result<(Self, Pipe)> {
        let (command, stdin, grouped) = prepared(words, shell, variables, input);
        let (child, pipe) = capture::start(command, stdin)?;
        Ok((Self { child, grouped }, pipe))
    }

    /// Where a program that is [`Input::Fed`] is fed; the end is told by dropping it.
    pub const fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The program's process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a program that has ended gets none.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let sent = match self.grouped {
            true => kill_process_group(pid, signal.into()),
            false => kill_process(pid, signal.into()),
        };
        Ok(sent?)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.status().await
    }

    /// Waits for its end, and takes what it says into `tail` until then.
    pub async fn follow(&mut self, pipe: &Pipe, tail: &mut Tail) -> io::Result<ExitStatus> {
        capture::follow(&mut self.child, pipe, tail).await
    }
}

/// The command, what it reads, and whether it gets a process group of its own.
fn prepared(
    words: &[String],
    shell: bool,
    variables: &[(&str, String)],
    input: Input,
) -> (Command, Stdio, bool) {
    let mut command = command(words, shell);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let grouped = input != Input::Shared;
    if grouped {
        command.process_group(0);
    }
    let stdin = match input {
        Input::Nothing => Stdio::null(),
        Input::Fed => Stdio::piped(),
        Input::Shared => Stdio::inherit(),
    };
    (command, stdin, grouped)
}

/// The command that `words` are.
pub fn command(words: &[String], shell: bool) -> Command {
    if shell {
        let mut command = Command::new(user_shell());
        command.arg("-c").arg(words.join(" "));
        return command;
    }
    let (program, arguments) =
        words.split_first().map_or(("", words), |(first, rest)| (first.as_str(), rest));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn user_shell() -> OsString {
    std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

/// How a program ended, as Go words it.
pub fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(words: &[&str], shell: bool) -> Program {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Program::start(&words, shell, &[("GIVEN", "x".to_owned())], Input::Nothing).unwrap()
    }

    fn end(mut program: Program) -> String {
        exit_text(smol::block_on(program.wait()).unwrap())
    }

    #[test]
    fn a_shell_reads_the_words_as_one_line_and_a_program_as_they_are() {
        assert_eq!(end(start(&["test", "a b", "=", "a b"], false)), "exit status 0");
        assert_eq!(end(start(&["exit", "7"], true)), "exit status 7");
        assert_eq!(end(start(&["test", "$GIVEN", "=", "x"], true)), "exit status 0");
    }

    #[test]
    fn a_signal_reaches_what_a_program_has_started() {
        let program = start(&["sleep 600 & wait; exit 7"], true);
        program.signal(Signal::Kill).unwrap();
        assert_eq!(end(program), "signal: 9");
    }
}
