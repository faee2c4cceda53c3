//! Remote execution: an agent that allows it runs the jobs that operators announce by an event.
//!
//! - Source: cli.md §7 (`exec`), agent-config.md §5 (`disable_remote_exec`, on by default).
//! - The event `_rexec` names a session; under its identity the job is found in the key-value
//!   table, and there the agent acknowledges it and tells output and exit code, in entries that the
//!   session holds. Whether an event is meant for this node was decided when it was kept.
//! - With the end of the session nothing can be told any more, and what still runs is killed.

mod job;
mod run;

use crate::fanout::EventFan;
use crate::handle::NodeHandle;
use crate::log::{Record, Sink};
use crate::runtime::spawn;
use bytes::Bytes;
use job::{Call, Job};
use smol::lock::Semaphore;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::KvWrite;
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::query::{Query, Rows};
use terraform_core::event::{Event, is_event};
use terraform_core::id::{NodeName, SessionId};
use terraform_core::node::request::{Request, RequestBody, RequestContext, Response};
use terraform_core::serf::SerfEvent;
use terraform_core::trace::Level;

/// Jobs that run at once; others are refused.
const JOBS_MAX: usize = 16;

/// Runs what comes, for as long as the agent runs.
pub async fn serve(node: NodeHandle, name: NodeName, sink: Sink) {
    let places = Arc::new(Semaphore::new(JOBS_MAX));
    let mut seen = calls(&node).map(|event| event.id).collect::<BTreeSet<_>>();
    loop {
        let coming = subscribe(node.fan());
        // Ends when events came faster than they were taken; then it begins again.
        while coming.recv().await.is_ok() {
            let new: Vec<Arc<Event>> =
                calls(&node).filter(|event| !seen.contains(&event.id)).collect();
            seen = calls(&node).map(|event| event.id).collect();
            for event in new {
                let told = |level, text: &dyn fmt::Display| {
                    sink(&Record { level, subsystem: "agent", text });
                };
                let Some(place) = places.try_acquire_arc() else {
                    told(Level::Warn, &"remote exec: too many jobs are running, refusing one");
                    continue;
                };
                let call = match Call::decode(event.payload.as_deref().unwrap_or_default()) {
                    Ok(call) => call,
                    Err(error) => {
                        told(Level::Warn, &format_args!("remote exec: {error}"));
                        continue;
                    }
                };
                let session = call.session;
                told(
                    Level::Info,
                    &format_args!("remote exec: running the job of session {session}"),
                );
                let (reporter, sink) = (Reporter::new(&node, &name, call), Arc::clone(&sink));
                spawn(async move {
                    if let Err(error) = perform(reporter).await {
                        let text = format_args!("remote exec: session {session}: {error}");
                        sink(&Record { level: Level::Warn, subsystem: "agent", text: &text });
                    }
                    drop(place);
                })
                .detach();
            }
        }
    }
}

/// Events that announce a job, of those that were meant for this node.
fn calls(node: &NodeHandle) -> impl Iterator<Item = Arc<Event>> {
    let kept = node.view().events.clone();
    kept.into_iter().filter(|event| event.is_remote_exec())
}

fn subscribe(fan: &EventFan) -> smol::channel::Receiver<Arc<SerfEvent>> {
    let wanted = |event: &SerfEvent| matches!(event, SerfEvent::User(user) if is_event(user));
    fan.subscribe(Box::new(wanted))
}

/// Acknowledges a job, runs it and tells how it went.
async fn perform(mut reporter: Reporter) -> Result<(), String> {
    let job = reporter.job().await?;
    reporter.tell("ack", Bytes::new()).await?;
    let code = run::run(&job, &mut reporter).await?;
    reporter.tell("exit", code.to_string().into()).await
}

/// Tells of one job, in entries of the key-value table.
struct Reporter {
    node: NodeHandle,
    session: SessionId,
    /// Where the job is.
    job: String,
    /// Where what this node tells is.
    folder: String,
    chunks: u32,
}

impl Reporter {
    fn new(node: &NodeHandle, name: &NodeName, call: Call) -> Self {
        let Call { prefix, session } = call;
        let (job, folder) =
            (format!("{prefix}/{session}/job"), format!("{prefix}/{session}/{name}"));
        Self { node: node.clone(), session, job, folder, chunks: 0 }
    }

    /// Reads the job.
    async fn job(&self) -> Result<Job, String> {
        let query = Query::Key(self.job.clone());
        let answer = self.node.query(RequestContext::default(), query).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let Rows::Entries(entries) = &answer.rows else {
            return Err(format!("a key was answered with {:?}", answer.rows));
        };
        let entry = entries.first().ok_or_else(|| format!("there is no job at {:?}", self.job))?;
        Job::decode(&entry.value)
    }

    /// Stores what is told, held by the session.
    ///
    /// - Errors: the session is over, or nobody takes the entry.
    async fn tell(&self, what: &str, value: Bytes) -> Result<(), String> {
        let (key, session) = (format!("{}/{what}", self.folder), self.session);
        let write = KvWrite::Acquire(KvLock { key, value, flags: 0, session });
        let body = RequestBody::Write(Command::Kv(write));
        match self.node.request(Request::new(body)).await {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Unmet) => Err("the session is over".to_owned()),
            Ok(other) => Err(format!("a write was answered with {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Tells the next piece of output; an empty one says that the job still runs.
    async fn output(&mut self, bytes: Bytes) -> Result<(), String> {
        let what = format!("out/{:05x}", self.chunks);
        self.chunks = self.chunks.wrapping_add(1);
        self.tell(&what, bytes).await
    }
}
