//! `terraform watch`: looks at something, and runs a program whenever it has changed (cli.md §7).

use super::Exit;
use super::client::{self, Client};
use super::transport::unexpected;
use crate::signals::Wishes;
use crate::watch::{LOOK_TIME, Parameters, Plan, Subject, query, result};
use argh::{ArgsInfo, FromArgs};
use serde_json::Value;
use smol::future::FutureExt as _;
use smol::io::AsyncWriteExt as _;
use terraform_io::http::client::system_text;
use terraform_io::http::json::pretty;
use terraform_io::program::{Input, Program, exit_text};
use terraform_io::runtime::within;

/// Shows keys, services, nodes, checks or events once, or runs a program with them on its standard
/// input now and after every change. The program finds the index of the change in CONSUL_INDEX.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// what to watch: key, keyprefix, services, nodes, service, checks or event
    #[argh(option, arg_name = "type", long = "type")]
    kind: Option<String>,
    /// the key, for the type key
    #[argh(option, arg_name = "key")]
    key: Option<String>,
    /// how the keys begin, for the type keyprefix
    #[argh(option, arg_name = "prefix")]
    prefix: Option<String>,
    /// the service, for the type service and, at will, checks
    #[argh(option, arg_name = "name")]
    service: Option<String>,
    /// only instances with this tag, for the type service; may be repeated
    #[argh(option, arg_name = "tag")]
    tag: Vec<String>,
    /// true for only instances whose checks all pass, for the type service (false)
    #[argh(option, arg_name = "true|false")]
    passingonly: Option<String>,
    /// only checks in this state, for the type checks
    #[argh(option, arg_name = "state")]
    state: Option<String>,
    /// only events of this name, for the type event
    #[argh(option, arg_name = "name")]
    name: Option<String>,
    /// give the program to the user's SHELL, or else /bin/sh, as a line (true)
    #[argh(option, arg_name = "bool")]
    shell: Option<bool>,
    /// the program to run
    #[argh(positional)]
    child: Vec<String>,
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<Exit, Exit> {
    let (arguments, client) = client::parse::<Arguments>("watch", words)?;
    if arguments.kind.as_ref().is_none_or(|kind| kind.is_empty()) {
        let help = client::help::<Arguments>("watch");
        return Err(Exit::failure(format!("Watch type must be specified\n\n{help}")));
    }
    let subject = parameters(&arguments).and_then(|given| Subject::of(&given));
    let subject = subject.map_err(|rule| Exit::failure(format!("{rule}\n")))?;
    // Whether there is an agent is known before the first look, which would try for ever.
    let failed = |error| Exit::failure(format!("Error querying Consul agent: {error}\n"));
    client.get("/v1/agent/self", &[]).map_err(failed)?;
    let mut wishes = Wishes::watch()
        .map_err(|error| Exit::failure(format!("Error watching for signals: {error}\n")))?;
    let handler = Handler { words: &arguments.child, shell: arguments.shell.unwrap_or(true) };
    smol::block_on(watch(&client, &subject, &handler, &mut wishes))
}

fn parameters(arguments: &Arguments) -> Result<Parameters, String> {
    Ok(Parameters {
        kind: arguments.kind.clone().unwrap_or_default(),
        key: arguments.key.clone(),
        prefix: arguments.prefix.clone(),
        service: arguments.service.clone(),
        tag: arguments.tag.clone(),
        passingonly: arguments.passingonly.as_deref().map(passing).transpose()?,
        state: arguments.state.clone(),
        name: arguments.name.clone(),
    })
}

fn passing(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!(
            "Failed to parse passingonly flag: strconv.ParseBool: parsing \"{other}\": invalid \
             syntax"
        )),
    }
}

/// What is done with a result.
struct Handler<'a> {
    /// A program; none means that the first result is shown.
    words: &'a [String],
    shell: bool,
}

/// Looks again and again, until the result is shown, a handler fails or a signal comes.
async fn watch(
    client: &Client,
    subject: &Subject,
    handler: &Handler<'_>,
    wishes: &mut Wishes,
) -> Result<Exit, Exit> {
    let mut plan = Plan::new(subject.index_is_hash());
    loop {
        let looked = async { Some(look(client, subject, &plan).await) }.or(async {
            wishes.next().await;
            None
        });
        let changed = match looked.await {
            None => return Ok(Exit::default()),
            Some(Ok((index, result))) => plan.seen(index, subject.prune(plan.index(), result)),
            Some(Err(error)) => {
                let retry = plan.failed();
                let (kind, seconds) = (subject.kind(), retry.as_secs());
                eprintln!("Watch errored: type={kind} error={error:?} retry={seconds}s");
                match within(retry, wishes.next()).await {
                    Some(_) => return Ok(Exit::default()),
                    None => continue,
                }
            }
        };
        let Some((index, result)) = changed else { continue };
        if handler.words.is_empty() {
            let shown = pretty(result.to_string().as_bytes());
            return Ok(Exit { raw: shown, ..Exit::default() });
        }
        if handle(handler, index, result, wishes).await? == Handled::Stopped {
            return Ok(Exit::default());
        }
    }
}

/// One look, which waits until there is something new: its index and what there is.
async fn look(client: &Client, subject: &Subject, plan: &Plan) -> Result<(u64, Value), String> {
    let query = query(subject, plan);
    let answer = client.ask(("GET", &subject.path()), &query, Vec::new(), LOOK_TIME).await?;
    let index = answer.header("x-consul-index");
    result(subject, (answer.status, index, &answer.body))?.ok_or_else(|| unexpected(&answer))
}

/// How a handler went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    Done,
    /// A signal came and was passed on.
    Stopped,
}

/// Runs the program with the result on its standard input.
async fn handle(
    handler: &Handler<'_>,
    index: u64,
    result: &Value,
    wishes: &mut Wishes,
) -> Result<Handled, Exit> {
    let failed =
        |what: &str, error: String| Exit::failure(format!("Error {what} handler: {error}\n"));
    let variables = [("CONSUL_INDEX", index.to_string())];
    let child = Program::start(handler.words, handler.shell, &variables, Input::Fed);
    let mut child = child.map_err(|error| failed("starting", system_text(&error)))?;
    let input = child.take_input();
    let mut feed = async {
        if let Some(mut input) = input {
            // A handler need not read what it is told.
            let _ = input.write_all(format!("{result}\n").as_bytes()).await;
        }
        std::future::pending().await
    }
    .boxed_local();
    let mut stopped = Handled::Done;
    let status = loop {
        let ended = async { Ok(child.wait().await) }.or(async { Err(wishes.next().await) });
        match ended.or(&mut feed).await {
            Ok(status) => break status,
            // Whoever is told twice does not wait any more.
            Err(_) if stopped == Handled::Stopped => return Ok(stopped),
            Err(wish) => {
                stopped = Handled::Stopped;
                if let Err(error) = child.signal(wish.signal()) {
                    eprintln!("Warning, could not forward signal: {error}");
                }
            }
        }
    };
    let status = status.map_err(|error| failed("executing", system_text(&error)))?;
    match status.success() || stopped == Handled::Stopped {
        true => Ok(stopped),
        false => Err(failed("executing", exit_text(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;

    #[test]
    fn flags_become_parameters() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            parameters(&flags::parse::<Arguments>("watch", &words).unwrap())
        };
        let given = of(&["-type=service", "-service=w", "-tag=a", "-tag=b", "-passingonly", "1"]);
        let expected = Parameters {
            kind: "service".to_owned(),
            service: Some("w".to_owned()),
            tag: vec!["a".to_owned(), "b".to_owned()],
            passingonly: Some(true),
            ..Parameters::default()
        };
        assert_eq!(given, Ok(expected));
        let rule = "Failed to parse passingonly flag: strconv.ParseBool: parsing \"maybe\": invalid \
                    syntax";
        assert_eq!(of(&["-type=service", "-passingonly=maybe"]), Err(rule.to_owned()));
    }
}
