//! The rules about what members are told: G7, G8 and G10 (simulation.md §9.2).

use super::plan::GossipPlan;
use crate::checker::{Violation, broken, shown};
use crate::streams::Process;
use crate::world::{Delivery, Told, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use terraform_core::id::{LamportTime, NodeName};
use terraform_core::serf::{SerfEvent, SerfTrace};
use terraform_core::time::Instant;

/// Bytes of the largest datagram (gossip-protocol.md §1).
const DATAGRAM_MAX: usize = 1400;

/// What is remembered of deliveries.
#[derive(Debug)]
pub(super) struct Rules {
    reconnect_timeout: Duration,
    tombstone_timeout: Duration,
    /// Events each process was told.
    heard: BTreeSet<(Process, String)>,
    /// The event clock of each process.
    clocks: BTreeMap<Process, LamportTime>,
    /// Since when a process holds a member for failed or left, and for how long it must.
    gone: BTreeMap<(Process, NodeName), (Instant, Duration)>,
    /// Members that somebody asked to be forgotten at once.
    pub(super) pruned: BTreeSet<NodeName>,
}

impl Rules {
    pub(super) fn new(plan: &GossipPlan) -> Self {
        let serf = plan.config(0).serf;
        Self {
            reconnect_timeout: serf.reconnect_timeout,
            tombstone_timeout: serf.tombstone_timeout,
            heard: BTreeSet::new(),
            clocks: BTreeMap::new(),
            gone: BTreeMap::new(),
            pruned: BTreeSet::new(),
        }
    }

    /// Looks at what was delivered since the last look.
    pub(super) fn look(&mut self, world: &mut World) -> Result<(), Violation> {
        if world.datagram_max > DATAGRAM_MAX {
            let bytes = world.datagram_max;
            return broken("G8", format!("a datagram has {bytes} bytes"));
        }
        let deliveries = world.deliveries.as_mut().map(std::mem::take).unwrap_or_default();
        for Delivery { at, process, told } in deliveries {
            match told {
                Told::Event(SerfEvent::User(event)) => {
                    self.told(world, process, event.time, event.name)?;
                }
                // Events of members are held back to be merged; the log has them at once.
                Told::Event(SerfEvent::Members { .. } | SerfEvent::Query { .. }) => {}
                Told::Trace(trace) => self.changed(at, process, trace)?,
            }
        }
        Ok(())
    }

    /// G10: nothing is told twice, and the clock is ahead of what was told.
    fn told(
        &mut self,
        world: &World,
        process: Process,
        time: LamportTime,
        name: String,
    ) -> Result<(), Violation> {
        let who = shown(process);
        let text = name.clone();
        if !self.heard.insert((process, name)) {
            return broken("G10", format!("{who} is told {text} twice"));
        }
        let running = world.hosts.get(process.host).and_then(|host| host.running.as_ref());
        let Some(running) = running.filter(|_| world.hosts[process.host].process() == process)
        else {
            return Ok(());
        };
        let clock = running.node.serf().event_time();
        let before = self.clocks.insert(process, clock);
        if clock <= time || before.is_some_and(|before| before > clock) {
            let facts =
                format!("{who} is told {text} of {time} at {clock}, its clock was at {before:?}");
            return broken("G10", facts);
        }
        Ok(())
    }

    /// G7: a member that is gone is forgotten in its time, never earlier.
    fn changed(
        &mut self,
        at: Instant,
        process: Process,
        trace: SerfTrace,
    ) -> Result<(), Violation> {
        if let SerfTrace::MemberLeave { name, .. } = trace {
            self.gone.insert((process, name), (at, self.tombstone_timeout));
        } else if let SerfTrace::MemberFailed { name, .. } = trace {
            self.gone.insert((process, name), (at, self.reconnect_timeout));
        } else if let SerfTrace::MemberJoin { name, .. } = trace {
            self.gone.remove(&(process, name));
        } else if let SerfTrace::MemberReap { name } = trace
            && let Some((since, limit)) = self.gone.remove(&(process, name.clone()))
        {
            let held = at.since(since);
            // Clocks drift by 200 parts per million.
            if held + limit / 1000 < limit && !self.pruned.contains(&name) {
                let who = shown(process);
                let facts = format!("{who} forgets {name} after {held:?} of {limit:?}");
                return broken("G7", facts);
            }
        }
        Ok(())
    }
}
