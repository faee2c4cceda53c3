//! Processes that get no time and machines that are cut off: what waits for them, and until when.

use super::{Event, World};
use crate::net::HostId;
use crate::queue::Class;
use std::time::Duration;
use terraform_core::time::Instant;

impl World {
    /// Gives the host's process no time for `span`, or for as long as it was to have none already;
    /// what arrives waits.
    pub fn pause(&mut self, id: HostId, span: Duration) {
        self.note(format!("= host {id} is paused for {span:?}"));
        let until = &mut self.hosts[id].paused_until;
        *until = (*until).max(Some(self.now + span));
        let awake_at = &mut self.hosts[id].awake_at;
        *awake_at = (*awake_at).max(self.now + span);
    }

    /// Lets the host's disk do nothing for `span`; a longer span that began before goes on.
    pub fn stall_disk(&mut self, id: HostId, span: Duration) {
        self.note(format!("= the disk of host {id} stalls for {span:?}"));
        let until = &mut self.hosts[id].stalled_until;
        *until = (*until).max(Some(self.now + span));
    }

    /// Leaves `room` bytes of space on the host's disk, for `span` or for as long as it was full
    /// already.
    pub fn fill_disk(&mut self, id: HostId, room: u64, span: Duration) {
        self.note(format!("= the disk of host {id} has {room} bytes of space for {span:?}"));
        let until = self.now + span;
        let host = &mut self.hosts[id];
        host.disk.fill(room);
        host.full_until = host.full_until.max(Some(until));
    }

    /// Whether a pause of the host's process or a stall of its disk is not over.
    pub fn is_held_up(&self, id: HostId) -> bool {
        let host = &self.hosts[id];
        host.running.is_some() && host.paused_until.max(host.stalled_until) > Some(self.now)
    }

    /// When the next disk that is full has space again.
    pub fn next_space(&self) -> Option<Instant> {
        self.hosts.iter().filter_map(|host| host.full_until).min()
    }

    /// Gives the disks space again that were full until now.
    pub fn make_space(&mut self) {
        let now = self.now;
        for id in 0..self.hosts.len() {
            if self.hosts[id].full_until.is_some_and(|until| until <= now) {
                self.empty_disk(id);
            }
        }
    }

    /// Gives the host's disk space again.
    pub fn empty_disk(&mut self, id: HostId) {
        self.note(format!("= the disk of host {id} has space again"));
        self.hosts[id].full_until = None;
        self.hosts[id].disk.set_quota(None);
    }

    /// Holds what the host sends and what it is sent for `span`, while its timers run: the anomaly
    /// of Lifeguard's experiments (gossip-protocol.md §26). Nothing of it is lost, and a longer
    /// span that began before goes on.
    pub fn block(&mut self, id: HostId, span: Duration) {
        self.note(format!("= host {id} is blocked for {span:?}"));
        let until = &mut self.hosts[id].blocked_until;
        *until = (*until).max(Some(self.now + span));
    }

    /// The event, unless it has to wait: then it comes again when it is due.
    pub(super) fn unless_held(&mut self, mut event: Event) -> Option<Event> {
        let held = self.pause_of(&event).or_else(|| self.block_of(&event));
        let Some(resume) = held.or_else(|| self.stall_of(&event)) else {
            return Some(event);
        };
        let class = match event {
            Event::Timer { .. } => Class::Timer,
            Event::DiskDone { .. } => Class::Disk,
            Event::Datagram { .. }
            | Event::Connect { .. }
            | Event::Pump { .. }
            | Event::CheckDone { .. } => Class::Network,
        };
        if let Event::Datagram { to, held_by, .. } = &mut event {
            *held_by = Some(self.hosts[*to].process());
        }
        self.queue.push(resume, class, event);
        None
    }

    /// When the process an event is for gets time again, if it is paused.
    fn pause_of(&mut self, event: &Event) -> Option<Instant> {
        let host = match event {
            Event::Timer { process, .. } | Event::CheckDone { process, .. } => process.host,
            // The disk goes on while a process is paused, but nobody hears of it.
            Event::DiskDone { process, .. } => process.host,
            Event::Datagram { to, .. } => *to,
            Event::Connect { .. } => return None,
            Event::Pump { connection, forth } => {
                self.connections.get_mut(*connection)?.receiver(*forth)?.process.host
            }
        };
        let resume = self.hosts.get(host)?.paused_until?;
        if resume <= self.now {
            self.hosts[host].paused_until = None;
            return None;
        }
        Some(resume)
    }

    /// When the disk that an event comes from goes on, if it stalls.
    fn stall_of(&self, event: &Event) -> Option<Instant> {
        let Event::DiskDone { process, .. } = event else { return None };
        self.hosts.get(process.host)?.stalled_until.filter(|until| *until > self.now)
    }

    /// When the link an event belongs to works again, if one of its ends is blocked. A datagram
    /// already left its sender; what a blocked one sends leaves late.
    fn block_of(&mut self, event: &Event) -> Option<Instant> {
        let (from, to) = match event {
            Event::Timer { .. } | Event::CheckDone { .. } | Event::DiskDone { .. } => return None,
            Event::Datagram { to, .. } => (None, *to),
            Event::Connect { connection } => {
                let ends = self.connections.get_mut(*connection)?;
                (Some(ends.opener.process.host), ends.target)
            }
            Event::Pump { connection, forth } => {
                let (from, to) = self.connections.get_mut(*connection)?.path(*forth);
                (Some(from), to)
            }
        };
        from.and_then(|from| self.blocked(from)).max(self.blocked(to))
    }

    /// Until when the host is blocked, if it is.
    pub(super) fn blocked(&self, id: HostId) -> Option<Instant> {
        self.hosts.get(id)?.blocked_until.filter(|until| *until > self.now)
    }
}
