//! The rules about what members are told: G7, G8 and G10 (simulation.md §9.2).

use super::plan::GossipPlan;
use crate::checker::{Violation, broken, shown};
use crate::streams::Process;
use crate::world::{Delivery, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use terraform_core::id::{LamportTime, NodeName};
use terraform_core::serf::{MemberEventKind, SerfEvent};
use terraform_core::time::Instant;

/// Bytes of the largest datagram (gossip-protocol.md §1).
const DATAGRAM_MAX: usize = 1400;

/// How late an event may be told (gossip-protocol.md §23).
const HELD_BACK: Duration = Duration::from_secs(3);

/// What is remembered of deliveries.
#[derive(Debug)]
pub(super) struct Rules {
    reconnect_timeout: Duration,
    tombstone_timeout: Duration,
    /// Events each process was told.
    heard: BTreeSet<(Process, String)>,
    /// The event clock of each process.
    clocks: BTreeMap<Process, LamportTime>,
    /// Since when a process holds a member for failed or left.
    gone: BTreeMap<(Process, NodeName), (Instant, MemberEventKind)>,
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
        for Delivery { at, process, event } in deliveries {
            match event {
                SerfEvent::User(event) => self.told(world, process, event.time, event.name)?,
                SerfEvent::Members { kind, members } => {
                    for member in &members {
                        self.changed(at, process, kind, &member.name)?;
                    }
                }
                SerfEvent::Query { .. } => {}
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
        kind: MemberEventKind,
        name: &NodeName,
    ) -> Result<(), Violation> {
        let key = (process, name.clone());
        match kind {
            MemberEventKind::Leave | MemberEventKind::Failed => {
                self.gone.insert(key, (at, kind));
            }
            MemberEventKind::Join | MemberEventKind::Update => {
                self.gone.remove(&key);
            }
            MemberEventKind::Reap => {
                let Some((since, how)) = self.gone.remove(&key) else { return Ok(()) };
                let left = how == MemberEventKind::Leave;
                let limit = if left { self.tombstone_timeout } else { self.reconnect_timeout };
                // Clocks drift by 200 parts per million, and events are held back to be merged.
                let early = at.since(since) + limit / 1000 + HELD_BACK < limit;
                if early && !self.pruned.contains(name) {
                    let (who, held) = (shown(process), at.since(since));
                    return broken("G7", format!("{who} forgets {name}, {how:?} for {held:?}"));
                }
            }
        }
        Ok(())
    }
}
