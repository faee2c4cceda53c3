//! Joining: once at the start, again until it works, and again when the pool is lost.
//!
//! - Source: agent-config.md §11. Consul joins once and never looks at the addresses again, so an
//!   agent whose servers all went away, or that met the wrong half of a cut at its start, stays
//!   lost until it is restarted (cluster-behaviour.md §16, row 5). This agent asks again, with
//!   names resolved afresh, for as long as its view says that its pool is lost.

use crate::config::{Joins, Resolved};
use crate::logger::Console;
use smol::Timer;
use std::convert::Infallible;
use std::sync::Arc;
use terraform_core::id::PoolName;
use terraform_core::node::request::{Request, RequestBody, Response};
use terraform_core::trace::Level;
use terraform_io::handle::NodeHandle;
use terraform_io::log::Record;
use terraform_io::resolve;

/// What is to be joined in a pool.
const fn joins_of(resolved: &Resolved, pool: PoolName) -> &Joins {
    match pool {
        PoolName::Lan => &resolved.joins,
        PoolName::Wan => &resolved.joins_wan,
    }
}

/// The ports of joins that name none, LAN and WAN: the agent's own.
pub(crate) fn join_ports(resolved: &Resolved) -> [u16; 2] {
    [PoolName::Lan, PoolName::Wan].map(|pool| default_port(resolved, pool))
}

fn default_port(resolved: &Resolved, pool: PoolName) -> u16 {
    match pool {
        PoolName::Lan => resolved.node.serf_lan_port,
        PoolName::Wan => resolved.serf_wan_port.unwrap_or(8302),
    }
}

/// Joins the addresses that must be reached at the start; none reached ends the agent.
pub(crate) async fn start_join(handle: &NodeHandle, resolved: &Resolved) -> Result<(), String> {
    for pool in [PoolName::Lan, PoolName::Wan] {
        let names = &joins_of(resolved, pool).once;
        if names.is_empty() {
            continue;
        }
        let (what, who) = words(pool);
        println!("==> Joining {what}...");
        let joined = join(handle, pool, names, default_port(resolved, pool)).await?;
        println!("    Join completed. Synced with {joined} initial {who}");
    }
    Ok(())
}

/// What a join in a pool joins, and whom it reaches.
const fn words(pool: PoolName) -> (&'static str, &'static str) {
    match pool {
        PoolName::Lan => ("cluster", "agents"),
        PoolName::Wan => ("WAN cluster", "WAN agents"),
    }
}

/// Resolves the names afresh and joins what they stand for.
async fn join(
    handle: &NodeHandle,
    pool: PoolName,
    names: &[String],
    port: u16,
) -> Result<usize, String> {
    let mut addresses = Vec::new();
    let mut errors = Vec::new();
    for name in names {
        match resolve::addresses(name, port).await {
            Ok(found) => addresses.extend(found),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if addresses.is_empty() {
        return Err(errors.join("; "));
    }
    let body = RequestBody::Join { pool, addresses, replay: false };
    match handle.request(Request::new(body)).await {
        Ok(Response::Joined(count)) => Ok(count),
        Ok(other) => Err(format!("a join was answered with {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// It tried as often as `retry_max` lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

/// What joins one pool while the agent runs.
pub(crate) struct Joining {
    joins: Joins,
    /// Of addresses that name none.
    port: u16,
    pool: PoolName,
    handle: NodeHandle,
    console: Arc<Console>,
}

impl Joining {
    pub(crate) fn new(
        resolved: &Resolved,
        pool: PoolName,
        handle: NodeHandle,
        console: Arc<Console>,
    ) -> Self {
        let (joins, port) = (joins_of(resolved, pool).clone(), default_port(resolved, pool));
        Self { joins, port, pool, handle, console }
    }

    /// Joins until one address is reached, and whenever the pool is lost after that.
    pub(crate) async fn run(self) -> GaveUp {
        if self.joins.again.is_empty() {
            return smol::future::pending().await;
        }
        if let Err(gave_up) = self.join_first().await {
            return gave_up;
        }
        match self.stay_joined().await {}
    }

    /// Tries until one address is reached, for ever unless `retry_max` says otherwise.
    async fn join_first(&self) -> Result<(), GaveUp> {
        let (_, who) = words(self.pool);
        let failed = match self.pool {
            PoolName::Lan => "Join failed",
            PoolName::Wan => "WAN join failed",
        };
        let mut attempts = 0;
        loop {
            let error = match join(&self.handle, self.pool, &self.joins.again, self.port).await {
                Ok(count) => {
                    let text = format!("Join completed. Synced with {count} initial {who}");
                    self.say(Level::Info, &text);
                    return Ok(());
                }
                Err(error) => error,
            };
            attempts += 1;
            if attempts == self.joins.max {
                return Err(GaveUp);
            }
            let (error, wait) = (on_one_line(&error), self.joins.interval);
            self.say(Level::Warn, &format!("{failed}: {error}, retrying in {wait:?}"));
            Timer::after(wait).await;
        }
    }

    /// Joins again while the pool is lost. Only the first attempt of many is worth a warning.
    async fn stay_joined(&self) -> Infallible {
        let (what, _) = words(self.pool);
        let mut was_lost = false;
        loop {
            Timer::after(self.joins.interval).await;
            let is_lost = self.handle.view().has_lost(self.pool);
            match (was_lost, is_lost) {
                (false, true) => self.say(Level::Warn, &format!("Lost the {what}, joining again")),
                (true, false) => self.say(Level::Info, &format!("Found the {what} again")),
                (true, true) | (false, false) => {}
            }
            was_lost = is_lost;
            if !is_lost {
                continue;
            }
            let joined = join(&self.handle, self.pool, &self.joins.again, self.port).await;
            if let Err(error) = joined {
                self.say(Level::Debug, &format!("Join failed: {}", on_one_line(&error)));
            }
        }
    }

    fn say(&self, level: Level, text: &str) {
        self.console.say(&Record { level, subsystem: "agent", text: &text });
    }
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
