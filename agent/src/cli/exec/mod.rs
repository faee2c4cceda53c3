//! `terraform exec`: runs a command on the nodes that allow it (cli.md §7).
//!
//! The job is stored under a session's identity, an event announces it, and nodes tell output and
//! exit code in entries beside it; the other side is `remote_exec` of `io`. Entries and event are
//! those of Consul, so that its agents answer, too.

mod told;

use super::Exit;
use super::client::{self, Client};
use super::event::filters;
use super::flags::span;
use super::keys::Keys;
use super::session::Session;
use crate::signals::Wishes;
use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};
use smol::Timer;
use smol::future::FutureExt as _;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};
use terraform_core::wire::base64;
use terraform_io::http::client::system_text;
use told::{Told, lines};

/// Runs a command on all nodes that match and that allow it with disable_remote_exec=false, and
/// shows what it says. With - as the command, a script on standard input is run.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// only nodes whose name matches
    #[argh(option, arg_name = "regexp")]
    node: Option<String>,
    /// only nodes with a service that matches
    #[argh(option, arg_name = "regexp")]
    service: Option<String>,
    /// only nodes where such a service has a tag that matches
    #[argh(option, arg_name = "regexp")]
    tag: Option<String>,
    /// where in the key-value table the job is stored meanwhile (_rexec)
    #[argh(option, arg_name = "key", default = "\"_rexec\".to_owned()")]
    prefix: String,
    /// give the command to a shell there, as a line (true)
    #[argh(option, arg_name = "bool")]
    shell: Option<bool>,
    /// end after this long without a word from any node (2s)
    #[argh(option, arg_name = "duration", default = "Duration::from_secs(2)", from_str_fn(span))]
    wait: Duration,
    /// how long the job gets to reach all servers before it is announced (200ms)
    #[argh(
        option,
        arg_name = "duration",
        default = "Duration::from_millis(200)",
        from_str_fn(span)
    )]
    wait_repl: Duration,
    /// tell what is done
    #[argh(option, arg_name = "bool")]
    verbose: Option<bool>,
    /// the command
    #[argh(positional)]
    command: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(code) => Exit { code, ..Exit::default() },
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<u8, Exit> {
    let (arguments, client) = client::parse::<Arguments>("exec", words)?;
    let refuse = |rule: String| Exit::failure(format!("{rule}\n"));
    let job = job(&arguments).map_err(refuse)?;
    let Arguments { node, service, tag, .. } = arguments;
    let query = filters(node, service, tag).map_err(Exit::failure)?;
    let prefix = arguments.prefix.trim_matches('/').to_owned();
    if prefix.is_empty() {
        return Err(refuse("The prefix must not be empty".to_owned()));
    }
    let client = client.fresh();
    let failed = |error| refuse(format!("Error querying Consul agent: {error}"));
    let own = client.get("/v1/agent/self", &[]).map_err(failed)?;
    let local = own.get("Config").and_then(|config| config.get("Datacenter")?.as_str());
    let foreign = client.datacenter().filter(|name| Some(name.as_str()) != local);
    let wishes =
        Wishes::watch().map_err(|error| refuse(format!("Error watching for signals: {error}")))?;
    let mut execution = Execution {
        client: &client,
        prefix,
        wait: arguments.wait,
        wait_repl: arguments.wait_repl,
        verbose: arguments.verbose.unwrap_or(false),
        wishes,
    };
    let run = execution.run(&job, &query, foreign.is_some());
    smol::block_on(run).map_err(refuse)
}

/// The job, as agents read it.
fn job(arguments: &Arguments) -> Result<Value, String> {
    let wait = u64::try_from(arguments.wait.as_nanos()).unwrap_or(u64::MAX);
    match arguments.command.as_slice() {
        [] => Err("Must specify a command to execute".to_owned()),
        [dash] if dash == "-" => {
            let mut script = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut script);
            read.map_err(|error| format!("Failed to read stdin: {}", system_text(&error)))?;
            if script.is_empty() {
                return Err("Must specify a command to execute".to_owned());
            }
            Ok(json!({ "Script": base64::encode(&script), "Wait": wait }))
        }
        words if arguments.shell.unwrap_or(true) => {
            Ok(json!({ "Command": words.join(" "), "Wait": wait }))
        }
        words => Ok(json!({ "Args": words, "Wait": wait })),
    }
}

/// How many nodes said what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    acknowledged: usize,
    completed: usize,
    failed: usize,
}

/// One job.
struct Execution<'a> {
    client: &'a Client,
    prefix: String,
    wait: Duration,
    wait_repl: Duration,
    verbose: bool,
    wishes: Wishes,
}

impl Execution<'_> {
    fn tell(&self, line: &str) {
        if self.verbose {
            println!("{line}");
        }
    }

    /// Stores the job, announces it and shows what nodes tell; the exit code.
    async fn run(&mut self, job: &Value, query: &[String], foreign: bool) -> Result<u8, String> {
        let failed = |error: String| format!("Failed to create session: {error}");
        // A session in another datacenter is on a node of it.
        let node = if foreign { Some(some_node(self.client).map_err(failed)?) } else { None };
        let session = Session::create(self.client, "Remote Exec", node.as_deref(), true).await;
        let session = session.map_err(failed)?;
        self.tell(&format!("Created remote execution session: {}", session.id));
        let folder = format!("{}/{}/", self.prefix, session.id);
        let done = self.run_in(&folder, &session, job, query).await;
        session.destroy().await;
        // What nodes still tell goes with the session.
        let _ = Keys(self.client).delete_tree(&folder).await;
        done
    }

    async fn run_in(
        &mut self,
        folder: &str,
        session: &Session<'_>,
        job: &Value,
        query: &[String],
    ) -> Result<u8, String> {
        let keys = Keys(self.client);
        let held = [format!("acquire={}", session.id)];
        let stored = keys.put(&format!("{folder}job"), &held, job.to_string().into_bytes()).await;
        match stored {
            Ok(true) => self.tell("Uploaded remote execution spec"),
            Ok(false) => return Err("Failed to create job file: failed to acquire key".to_owned()),
            Err(failure) => return Err(format!("Failed to create job file: {}", failure.text)),
        }
        Timer::after(self.wait_repl).await;
        let payload = json!({ "Prefix": self.prefix, "Session": session.id });
        let payload = payload.to_string().into_bytes();
        let fired = self.client.call(("PUT", "/v1/event/fire/_rexec"), query, payload).await;
        let fired = fired.map_err(|error| format!("Failed to fire event: {error}"))?;
        let event = client::json(&fired).unwrap_or_default();
        let id = event.get("ID").and_then(Value::as_str).unwrap_or_default();
        self.tell(&format!("Fired remote execution event: {id}"));
        let began = Instant::now();
        let ended = self
            .follow(folder)
            .or(async { Err(format!("Failed to renew session: {}", session.keep().await)) });
        let tally = ended.await?;
        let Tally { acknowledged, completed, failed } = tally;
        println!("{completed} / {acknowledged} node(s) completed / acknowledged");
        self.tell(&format!("Completed in {:.2} seconds", began.elapsed().as_secs_f64()));
        Ok(if failed > 0 || completed < acknowledged { 2 } else { 0 })
    }

    /// Shows what nodes tell until none has said anything for a while.
    async fn follow(&mut self, folder: &str) -> Result<Tally, String> {
        let (keys, mut tally, mut shown) = (Keys(self.client), Tally::default(), BTreeSet::new());
        let (mut seen, mut heard) = (None, Instant::now());
        loop {
            // A node that is at work says so every now and then.
            let busy = tally.acknowledged > tally.completed;
            let patience = if busy { self.wait.saturating_mul(2) } else { self.wait };
            let left = patience.saturating_sub(heard.elapsed());
            if left.is_zero() {
                return Ok(tally);
            }
            let waiting = seen.map(|index| (index, left));
            let wishes = &mut self.wishes;
            let looked = async { Some(keys.names(folder, waiting).await) }.or(async {
                wishes.next().await;
                None
            });
            let Some(looked) = looked.await else { return Err("Interrupted".to_owned()) };
            let failed = |text: String| format!("Failed to read the nodes' answers: {text}");
            let (names, index) = looked.map_err(|failure| failed(failure.text))?;
            seen = Some(index);
            let new = names.into_iter().filter(|name| !shown.contains(name));
            let mut new: Vec<String> = new.collect();
            // Of what came at once, the last words are the exit codes.
            new.sort_by_key(|name| name.ends_with("/exit"));
            for name in new {
                let told = name.strip_prefix(folder).and_then(Told::of);
                shown.insert(name.clone());
                let Some((node, told)) = told else { continue };
                let (entry, _) = keys.get(&name, None).await.map_err(|it| failed(it.text))?;
                heard = Instant::now();
                self.show(node, told, &entry.map(|it| it.value).unwrap_or_default(), &mut tally);
            }
        }
    }

    fn show(&self, node: &str, told: Told, value: &[u8], tally: &mut Tally) {
        match told {
            Told::Acknowledged => {
                tally.acknowledged += 1;
                self.tell(&format!("==> {node}: acknowledged"));
            }
            Told::Output if value.is_empty() => {
                self.tell(&format!("==> {node}: heartbeat received"));
            }
            Told::Output => println!("{}", lines(node, value)),
            Told::Exit => {
                let code = String::from_utf8_lossy(value);
                tally.completed += 1;
                tally.failed += usize::from(code != "0");
                println!("==> {node}: finished with exit code {code}");
            }
        }
    }
}

/// A node of the datacenter that is asked, whose agent is alive.
fn some_node(client: &Client) -> Result<String, String> {
    let rows = client.get("/v1/health/state/passing", &[])?;
    let alive = |row: &&Value| row.get("CheckID").and_then(Value::as_str) == Some("serfHealth");
    let node = rows.as_array().into_iter().flatten().find(alive);
    let name = node.and_then(|row| row.get("Node")?.as_str());
    name.map(str::to_owned).ok_or_else(|| "no node is alive there".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_is_refused_before_the_agent_is_asked() {
        for (words, rule) in [
            (&[][..], "Must specify a command to execute\n"),
            (&["-tag=a", "true"], "Cannot provide tag filter without service filter.\n"),
            (&["-node=(", "true"], "Failed to compile node filter regexp: unclosed group: \"(\"\n"),
            (&["-prefix=/", "true"], "The prefix must not be empty\n"),
        ] {
            let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!((exit.code, exit.stderr.as_str()), (1, rule));
        }
    }
}
