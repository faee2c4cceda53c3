//! The task that ends an interval every ten seconds.

use super::interval::INTERVAL;
use super::observe::{Observer, Seen};
use super::process::Process;
use super::sink::{self, Protocol};
use crate::event::Counters;
use crate::handle::NodeHandle;
use crate::log::Sink;
use crate::runtime::{spawn, within};
use smol::{Task, Timer};
use std::sync::Arc;
use std::time::Duration;
use terraform_core::node::NodeStatus;
use terraform_core::node::request::{Request, RequestBody, Response};
use terraform_core::time::{Instant, WallClock};

/// How long the node may take to say how it does; a busier one is not measured this time.
const STATUS_TIME: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Clone)]
pub struct Sources {
    /// The node, with its metrics.
    pub node: NodeHandle,
    /// What the host counts.
    pub counters: Arc<Counters>,
    /// Where failures to send are told.
    pub log: Sink,
}

/// Measures the agent and sends what is measured to the collectors of its settings, for ever.
pub async fn run(sources: Sources) {
    let metrics = Arc::clone(sources.node.metrics());
    let _sinks = sinks(&sources);
    let clock = sources.node.clock();
    let mut observer = Observer::default();
    // So that there is something to show before the first interval ends.
    observe(&sources, &mut observer).await;
    loop {
        Timer::after(left(clock.wall())).await;
        observe(&sources, &mut observer).await;
        metrics.turn(clock.now(), clock.wall());
    }
}

/// What is left of the interval.
fn left(wall: WallClock) -> Duration {
    let length = i64::try_from(INTERVAL.as_millis()).unwrap_or(i64::MAX);
    let gone = wall.as_millis().rem_euclid(length);
    Duration::from_millis(u64::try_from(length - gone).unwrap_or_default())
}

fn sinks(sources: &Sources) -> Vec<Task<()>> {
    let metrics = sources.node.metrics();
    let config = metrics.config();
    let collectors = [
        (Protocol::Statsd, &config.statsd),
        (Protocol::Statsite, &config.statsite),
        (Protocol::Dogstatsd, &config.dogstatsd),
    ];
    let wanted = collectors.into_iter().filter_map(|(protocol, address)| {
        let (address, log) = (address.clone()?, Arc::clone(&sources.log));
        Some(spawn(sink::send((protocol, address), Arc::clone(metrics), log)))
    });
    wanted.collect()
}

/// Looks at everything once.
async fn observe(sources: &Sources, observer: &mut Observer) {
    let node = &sources.node;
    let status = status(node).await;
    let process = smol::unblock(Process::read).await;
    let view = node.view();
    let seen = Seen {
        view: &view,
        status: status.as_deref(),
        process: process.as_ref(),
        host: &sources.counters,
        uptime: node.clock().now().since(Instant::ZERO),
    };
    node.metrics().add(|interval| observer.observe(&seen, interval));
}

async fn status(node: &NodeHandle) -> Option<Box<NodeStatus>> {
    let asked = node.request(Request::new(RequestBody::Status));
    match within(STATUS_TIME, asked).await {
        Some(Ok(Response::Status(status))) => Some(status),
        // It is overloaded, or stops.
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_at_full_ten_seconds() {
        let left = |millis| left(WallClock::from_millis(millis)).as_millis();
        assert_eq!((left(20_000), left(25_000), left(29_999)), (10_000, 5_000, 1));
    }
}
