//! `terraform lock`: runs a program while a lock is held (cli.md §7).
//!
//! The entries and their flags are those of Consul's client library, so that its programs and this
//! one contend for the same locks.

mod mutex;
mod semaphore;

use super::Exit;
use super::client::{self, Client};
use super::flags::span;
use super::keys::{Failure, Keys, Waiting};
use super::session::Session;
use crate::signals::{Wish, Wishes};
use argh::{ArgsInfo, FromArgs};
use mutex::Mutex;
use semaphore::Semaphore;
use smol::Timer;
use smol::future::FutureExt as _;
use std::future::Future;
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use terraform_io::http::client::system_text;
use terraform_io::program::{Input, Program, Signal, exit_text};
use terraform_io::runtime::within;

/// The entry under the prefix that is the lock itself.
const LOCK: &str = ".lock";
/// How long one look for the lock waits; a program without a limit of time looks again.
const LOOK: Duration = Duration::from_secs(15);
/// How long one look waits for the loss of the lock.
const WATCH: Duration = Duration::from_secs(300);
/// The time between two tries to see whether the lock is still held.
const MONITOR_RETRY: Duration = Duration::from_secs(1);
/// How long the program may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Takes the lock of PREFIX and runs a program while it is held, with CONSUL_LOCK_HELD=true in its
/// environment. If the lock is lost the program is told to end, and killed after five seconds. The
/// lock is given back when the program has ended, and 15 s after this command is gone otherwise.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// how many may hold the lock at once; all contenders must agree (1)
    #[argh(option, arg_name = "count", default = "1")]
    n: i64,
    /// the name of the session that holds the lock
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// give up if the lock is not had within this time; 0s to wait for ever (0s)
    #[argh(option, arg_name = "duration", from_str_fn(span))]
    timeout: Option<Duration>,
    /// the same as -timeout, which see
    #[argh(option, arg_name = "duration", from_str_fn(span), long = "try")]
    attempt: Option<Duration>,
    /// how often in a row to try again to see whether the lock is held, a second each (3)
    #[argh(option, arg_name = "count", default = "3")]
    monitor_retry: u32,
    /// exit with 2 if the program fails
    #[argh(option, arg_name = "bool")]
    child_exit_code: Option<bool>,
    /// let the program read this command's standard input
    #[argh(option, arg_name = "bool")]
    pass_stdin: Option<bool>,
    /// give the program to the user's SHELL, or else /bin/sh, as a line (true)
    #[argh(option, arg_name = "bool")]
    shell: Option<bool>,
    /// tell what is done
    #[argh(option, arg_name = "bool")]
    verbose: Option<bool>,
    /// what is locked, and the program
    #[argh(positional, arg_name = "prefix child...")]
    rest: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("lock", words)?;
    let refuse = |rule: &str| Exit::failure(format!("{rule}\n"));
    let limit = u32::try_from(arguments.n).ok().filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| refuse("Lock holder limit must be positive"))?;
    let (prefix, child) = match arguments.rest.as_slice() {
        [prefix, child @ ..] if !child.is_empty() => (prefix, child),
        _ => return Err(refuse("Key prefix and child command must be specified")),
    };
    let prefix = prefix.trim_start_matches('/').trim_end_matches('/');
    if prefix.is_empty() {
        return Err(refuse("Key prefix and child command must be specified"));
    }
    let name = || format!("Terraform lock for '{}' at '{prefix}'", child.join(" "));
    let name = arguments.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(name);
    // Only the leader knows who holds a lock.
    let client = client.fresh();
    let failed = |error| Exit::failure(format!("Error querying Consul agent: {error}\n"));
    client.get("/v1/agent/self", &[]).map_err(failed)?;
    let wishes = Wishes::watch()
        .map_err(|error| Exit::failure(format!("Error watching for signals: {error}\n")))?;
    let time = arguments.timeout.or(arguments.attempt).filter(|time| !time.is_zero());
    let mut holding = Holding {
        client: &client,
        lock: Lock::new(prefix, limit),
        time,
        monitor_retry: arguments.monitor_retry,
        child,
        shell: arguments.shell.unwrap_or(true),
        input: match arguments.pass_stdin.unwrap_or(false) {
            true => Input::Shared,
            false => Input::Nothing,
        },
        verbose: arguments.verbose.unwrap_or(false),
        wishes,
    };
    holding.tell(&holding.lock.set_up());
    let failed = smol::block_on(holding.run(&name)).map_err(|error| refuse(&error))?;
    let code = if failed && arguments.child_exit_code.unwrap_or(false) { 2 } else { 0 };
    Ok(Exit { code, ..Exit::default() })
}

/// How much longer a lock is waited for.
#[derive(Debug)]
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// Patience for this time, or for ever.
    fn new(time: Option<Duration>) -> Self {
        Self { until: time.and_then(|time| Instant::now().checked_add(time)) }
    }

    /// How long the next look may wait; `None` if the time is over.
    fn left(&self) -> Option<Duration> {
        let Some(until) = self.until else { return Some(LOOK) };
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(LOOK))
    }
}

/// Whether the entries of a lock that was given back are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleanup {
    Done,
    InUse,
}

/// Either kind of lock.
#[derive(Debug)]
enum Lock {
    Mutex(Mutex),
    Semaphore(Semaphore),
}

impl Lock {
    fn new(prefix: &str, limit: u32) -> Self {
        let key = format!("{prefix}/{LOCK}");
        match limit {
            1 => Self::Mutex(Mutex { key }),
            limit => Self::Semaphore(Semaphore { folder: format!("{prefix}/"), key, limit }),
        }
    }

    fn set_up(&self) -> String {
        match self {
            Self::Mutex(mutex) => format!("Setting up lock at path: {}", mutex.key),
            Self::Semaphore(semaphore) => {
                let prefix = semaphore.folder.trim_end_matches('/');
                format!("Setting up semaphore (limit {}) at prefix: {prefix}", semaphore.limit)
            }
        }
    }

    async fn acquire(
        &self,
        keys: Keys<'_>,
        session: &str,
        patience: &Patience,
    ) -> Result<bool, String> {
        match self {
            Self::Mutex(mutex) => mutex.acquire(keys, session, patience).await,
            Self::Semaphore(semaphore) => semaphore.acquire(keys, session, patience).await,
        }
    }

    async fn is_held(
        &self,
        keys: Keys<'_>,
        session: &str,
        waiting: Waiting,
    ) -> Result<(bool, u64), Failure> {
        match self {
            Self::Mutex(mutex) => mutex.is_held(keys, session, waiting).await,
            Self::Semaphore(semaphore) => semaphore.is_held(keys, session, waiting).await,
        }
    }

    async fn release(&self, keys: Keys<'_>, session: &str) -> Result<(), String> {
        match self {
            Self::Mutex(mutex) => mutex.release(keys, session).await,
            Self::Semaphore(semaphore) => semaphore.release(keys, session).await,
        }
    }

    async fn cleanup(&self, keys: Keys<'_>) -> Result<Cleanup, String> {
        match self {
            Self::Mutex(mutex) => mutex.cleanup(keys).await,
            Self::Semaphore(semaphore) => semaphore.cleanup(keys).await,
        }
    }
}

/// What happens first while the program runs.
enum First {
    Ended(io::Result<ExitStatus>),
    Signal(Wish),
    Lost(String),
}

/// One lock, one program.
struct Holding<'a> {
    client: &'a Client,
    lock: Lock,
    time: Option<Duration>,
    monitor_retry: u32,
    child: &'a [String],
    shell: bool,
    input: Input,
    verbose: bool,
    wishes: Wishes,
}

impl Holding<'_> {
    fn tell(&self, line: &str) {
        if self.verbose {
            println!("{line}");
        }
    }

    /// Takes the lock, runs the program, gives the lock back; whether the program failed.
    async fn run(&mut self, name: &str) -> Result<bool, String> {
        let delete = matches!(self.lock, Lock::Semaphore(_));
        let session = Session::create(self.client, name, None, delete).await;
        let session = session.map_err(|error| format!("Lock acquisition failed: {error}"))?;
        let done = self.run_with(&session).await;
        // A lock that was not given back is free with the end of its session.
        session.destroy().await;
        let failed = done?;
        self.clean_up().await?;
        Ok(failed)
    }

    async fn run_with(&mut self, session: &Session<'_>) -> Result<bool, String> {
        self.tell("Attempting lock acquisition");
        let keys = Keys(self.client);
        let patience = Patience::new(self.time);
        let mut expired = session.keep().boxed_local();
        let acquired = self
            .lock
            .acquire(keys, &session.id, &patience)
            .or(async { Err((&mut expired).await) })
            .or(async {
                self.wishes.next().await;
                Ok(false)
            })
            .await
            .map_err(|error| format!("Lock acquisition failed: {error}"))?;
        if !acquired {
            return Err("Shutdown triggered or timeout during lock acquisition".to_owned());
        }
        self.tell(&format!("Starting handler '{}'", self.child.join(" ")));
        let held = [("CONSUL_LOCK_HELD", "true".to_owned())];
        let failed = match Program::start(self.child, self.shell, &held, self.input) {
            Ok(mut program) => self.accompany(&session.id, &mut program, &mut expired).await?,
            Err(error) => {
                eprintln!("Error starting handler: {}", system_text(&error));
                true
            }
        };
        let released = self.lock.release(keys, &session.id).await;
        released.map_err(|error| format!("Lock release failed: {error}"))?;
        Ok(failed)
    }

    /// Waits for the program's end, or brings it about; whether it failed by itself. `expired` is
    /// what renews the session.
    ///
    /// - Errors: the lock was lost.
    async fn accompany(
        &mut self,
        session: &str,
        program: &mut Program,
        expired: &mut (impl Future<Output = String> + Unpin),
    ) -> Result<bool, String> {
        let lost = monitor(&self.lock, Keys(self.client), session, self.monitor_retry);
        let mut lost = lost.or(expired).boxed_local();
        let first = async { First::Ended(program.wait().await) }
            .or(async { First::Lost((&mut lost).await) })
            .or(async { First::Signal(self.wishes.next().await) });
        match first.await {
            First::Ended(status) => {
                self.tell("Child terminated, releasing lock");
                Ok(failed(status))
            }
            First::Signal(wish) => {
                self.tell("Shutdown triggered, killing child");
                // Until it has ended it needs the lock.
                let renewed = async {
                    (&mut lost).await;
                    smol::future::pending().await
                };
                self.stop(program, wish.signal()).or(renewed).await;
                Ok(false)
            }
            First::Lost(why) => {
                eprintln!("Lock lost, killing child: {why}");
                self.stop(program, Signal::Terminate).await;
                Err("Lock release failed: Lock not held".to_owned())
            }
        }
    }

    /// Tells the program to end, and kills it if it takes too long.
    async fn stop(&self, program: &mut Program, signal: Signal) {
        self.tell(&format!("Terminating child pid {}", program.id()));
        // The only failure is that it has ended.
        let _ = program.signal(signal);
        if within(GRACE, program.wait()).await.is_none() {
            self.tell(&format!("Child did not exit after grace period of {GRACE:?}"));
            let _ = program.signal(Signal::Kill);
            let _ = program.wait().await;
        }
    }

    async fn clean_up(&self) -> Result<(), String> {
        let cleaned = self.lock.cleanup(Keys(self.client)).await;
        match cleaned.map_err(|error| format!("Lock cleanup failed: {error}"))? {
            Cleanup::Done => self.tell("Cleanup succeeded"),
            Cleanup::InUse => self.tell("Cleanup aborted, lock in use"),
        }
        Ok(())
    }
}

/// Tells how a program ended by itself; whether it failed.
fn failed(status: io::Result<ExitStatus>) -> bool {
    let error = match status {
        Ok(status) if status.success() => return false,
        Ok(status) => exit_text(status),
        Err(error) => system_text(&error),
    };
    eprintln!("Error running handler: {error}");
    true
}

/// Watches the lock until it is not the session's any more, or nobody can say so; tells why.
async fn monitor(lock: &Lock, keys: Keys<'_>, session: &str, retries_max: u32) -> String {
    let (mut seen, mut retries) = (None, retries_max);
    loop {
        match lock.is_held(keys, session, seen.map(|index| (index, WATCH))).await {
            Ok((true, index)) => (seen, retries) = (Some(index), retries_max),
            Ok((false, _)) => return "it was taken away".to_owned(),
            Err(failure) if failure.may_pass && retries > 0 => {
                (seen, retries) = (None, retries - 1);
                Timer::after(MONITOR_RETRY).await;
            }
            Err(failure) => return failure.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_locked_is_refused_before_the_agent_is_asked() {
        for (words, rule) in [
            (&["-n=0", "a", "true"][..], "Lock holder limit must be positive\n"),
            (&["a"], "Key prefix and child command must be specified\n"),
            (&["/", "true"], "Key prefix and child command must be specified\n"),
        ] {
            let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!((exit.code, exit.stderr.as_str()), (1, rule));
        }
        let exit = run(&["-timeout=x".to_owned()]);
        let rule = "invalid value \"x\" for flag -timeout: time: invalid duration";
        assert!(exit.stderr.starts_with(rule), "{}", exit.stderr);
    }

    #[test]
    fn patience_without_a_limit_never_ends() {
        assert_eq!(Patience::new(None).left(), Some(LOOK));
        assert_eq!(Patience::new(Some(Duration::from_secs(600))).left(), Some(LOOK));
        assert_eq!(Patience { until: Some(Instant::now()) }.left(), None);
    }
}
