//! The watches of the configuration, which the agent runs against its own data.
//!
//! Each is a task that looks, waits for a change and runs its handler before it looks again, so
//! that handlers of one watch never overlap. A reload ends those that are not wanted any more and
//! leaves the others as they are; whoever ends a watch waits until its handler is gone.

use super::handler::{self, Handler};
use super::{LOOK_TIME, Plan, Subject, query, result};
use serde_json::Value;
use smol::Task;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::FutureExt as _;
use smol::lock::Mutex;
use std::convert::Infallible;
use terraform_core::trace::Level;
use terraform_io::http::own::OwnApi;
use terraform_io::log::{Record, Sink};
use terraform_io::runtime::{spawn, within};

/// One watch of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchDefinition {
    /// What is watched.
    pub subject: Subject,
    /// The datacenter that is asked; empty for the agent's own.
    pub datacenter: String,
    /// The token to ask with; empty for none.
    pub token: String,
    /// Whether any server may answer, from what it knows.
    pub stale: bool,
    /// What is done with a result.
    pub handler: Handler,
}

impl WatchDefinition {
    /// Where the next look asks.
    fn target(&self, plan: &Plan) -> String {
        let mut query = query(&self.subject, plan);
        if !self.datacenter.is_empty() {
            query.push(format!("dc={}", crate::cli::escaped(&self.datacenter)));
        }
        if self.stale {
            query.push("stale".to_owned());
        }
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.subject.path(), query.join("&"))
    }
}

/// Ends once the watch is to end.
#[derive(Debug)]
pub(super) struct Stop(Receiver<Infallible>);

impl Stop {
    pub(super) async fn wait(&self) {
        // Nothing is ever sent: the other end goes.
        let _ = self.0.recv().await;
    }
}

/// Where watches tell of what went wrong.
#[derive(Clone)]
pub(super) struct Voice(Sink);

impl Voice {
    pub(super) fn say(&self, level: Level, text: &str) {
        (self.0)(&Record { level, subsystem: "agent", text: &text });
    }
}

/// A watch that runs; dropping the sender ends it.
struct Watching {
    definition: WatchDefinition,
    stop: Sender<Infallible>,
    task: Task<()>,
}

/// The watches that run.
pub(crate) struct Watches {
    api: OwnApi,
    voice: Voice,
    running: Mutex<Vec<Watching>>,
}

impl Watches {
    /// None yet; they will ask `api` and tell `sink` what went wrong.
    pub(crate) fn new(api: OwnApi, sink: Sink) -> Self {
        Self { api, voice: Voice(sink), running: Mutex::default() }
    }

    /// Runs `wanted` and nothing else. Whatever of it runs already goes on.
    pub(crate) async fn set(&self, mut wanted: Vec<WatchDefinition>) {
        let mut running = self.running.lock().await;
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for watching in running.drain(..) {
            match wanted.iter().position(|one| *one == watching.definition) {
                Some(at) => {
                    wanted.remove(at);
                    kept.push(watching);
                }
                None => {
                    // All are told before any is waited for.
                    drop(watching.stop);
                    ended.push(watching.task);
                }
            }
        }
        for task in ended {
            task.await;
        }
        kept.extend(wanted.into_iter().map(|definition| self.start(definition)));
        *running = kept;
    }

    /// Ends all of them.
    pub(crate) async fn end(&self) {
        self.set(Vec::new()).await;
    }

    fn start(&self, definition: WatchDefinition) -> Watching {
        let (stop, stopped) = bounded(1);
        let running =
            watch(definition.clone(), self.api.clone(), self.voice.clone(), Stop(stopped));
        Watching { definition, stop, task: spawn(running) }
    }
}

async fn watch(definition: WatchDefinition, api: OwnApi, voice: Voice, stop: Stop) {
    let subject = &definition.subject;
    let mut plan = Plan::new(subject.index_is_hash());
    loop {
        let stopped = async {
            stop.wait().await;
            None
        };
        let looked = stopped.or(async { Some(look(&definition, &api, &plan).await) });
        match looked.await {
            None => return,
            Some(Ok((index, value))) => {
                let value = subject.prune(plan.index(), value);
                if let Some(change) = plan.seen(index, value) {
                    handler::handle(&definition.handler, change, &voice, &stop).await;
                }
            }
            Some(Err(_)) if api.has_stopped() => return,
            Some(Err(error)) => {
                let retry = plan.failed();
                let (kind, seconds) = (subject.kind(), retry.as_secs());
                let text = format!("Watch errored: type={kind} error={error:?} retry={seconds}s");
                voice.say(Level::Error, &text);
                if within(retry, stop.wait()).await.is_some() {
                    return;
                }
            }
        }
    }
}

/// One look, which waits until there is something new: its index and what there is.
async fn look(
    definition: &WatchDefinition,
    api: &OwnApi,
    plan: &Plan,
) -> Result<(u64, Value), String> {
    let answer = within(LOOK_TIME, api.get(definition.target(plan), &definition.token)).await;
    let answer = answer.ok_or("the agent does not answer")?;
    let index = answer.index();
    let found = result(&definition.subject, (answer.status, index.as_deref(), &answer.body))?;
    found.ok_or_else(|| {
        let body = String::from_utf8_lossy(&answer.body);
        format!("Unexpected response code: {} ({body})", answer.status)
    })
}
