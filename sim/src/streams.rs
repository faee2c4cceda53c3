//! The connections between simulated hosts: ordered bytes, stalls, resets, half-open ends.
//!
//! A connection has two ends, each a stream of one process. Segments wait in their direction's
//! queue and leave it in order; a cut link holds the queue up, and a queue held up for
//! [`STALL_LIMIT`](crate::net::STALL_LIMIT) breaks the connection at the ends that still exist.

use crate::net::HostId;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use terraform_core::id::StreamId;
use terraform_core::node::input::{CloseReason, StreamKind};
use terraform_core::time::Instant;

/// A connection's number in its world.
pub type ConnectionId = u64;

/// One process of one host: a stream belongs to the process, not to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// The host.
    pub host: HostId,
    /// Which of its runs.
    pub boot: u64,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Whose.
    pub process: Process,
    /// Its number there.
    pub stream: StreamId,
}

/// What travels in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes.
    Data(Bytes),
    /// The end of the stream.
    Close(CloseReason),
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct Direction {
    /// What has not arrived, oldest first.
    pub waiting: VecDeque<Segment>,
    /// Whether a delivery is scheduled.
    pub pumping: bool,
    /// Since when the head has been held up.
    pub stalled_since: Option<Instant>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What its opener takes it for.
    pub kind: StreamKind,
    /// The port it goes to.
    pub port: u16,
    /// The end that opened it.
    pub opener: End,
    /// The other end, once accepted.
    pub acceptor: Option<End>,
    /// The host it goes to.
    pub target: HostId,
    /// From opener to acceptor.
    pub forth: Direction,
    /// From acceptor to opener.
    pub back: Direction,
}

impl Connection {
    /// The direction towards the acceptor or towards the opener.
    pub fn direction(&mut self, forth: bool) -> &mut Direction {
        if forth { &mut self.forth } else { &mut self.back }
    }

    /// The end that a direction leads to.
    pub const fn receiver(&self, forth: bool) -> Option<End> {
        if forth { self.acceptor } else { Some(self.opener) }
    }

    /// The hosts that a direction leads from and to.
    pub const fn path(&self, forth: bool) -> (HostId, HostId) {
        if forth {
            (self.opener.process.host, self.target)
        } else {
            (self.target, self.opener.process.host)
        }
    }
}

/// All connections of a world, found by number and by either end.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    by_id: BTreeMap<ConnectionId, Connection>,
    by_end: BTreeMap<(Process, StreamId), (ConnectionId, bool)>,
    opened: ConnectionId,
}

impl Connections {
    /// Adds a connection that `opener` asks for.
    pub fn open(
        &mut self,
        (kind, port): (StreamKind, u16),
        opener: End,
        target: HostId,
    ) -> ConnectionId {
        self.opened += 1;
        let id = self.opened;
        let (forth, back) = (Direction::default(), Direction::default());
        let connection = Connection { kind, port, opener, acceptor: None, target, forth, back };
        self.by_id.insert(id, connection);
        self.by_end.insert((opener.process, opener.stream), (id, true));
        id
    }

    /// Notes the accepting end.
    pub fn accept(&mut self, id: ConnectionId, acceptor: End) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.acceptor = Some(acceptor);
            self.by_end.insert((acceptor.process, acceptor.stream), (id, false));
        }
    }

    /// The connection and whether the end is its opener.
    pub fn of_end(&self, process: Process, stream: StreamId) -> Option<(ConnectionId, bool)> {
        self.by_end.get(&(process, stream)).copied()
    }

    /// The connection with this number.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.by_id.get_mut(&id)
    }

    /// Forgets an end: its process closed it or is gone.
    pub fn forget_end(&mut self, end: End) {
        self.by_end.remove(&(end.process, end.stream));
    }

    /// Whether the end is still in use.
    pub fn is_live(&self, end: End) -> bool {
        self.by_end.contains_key(&(end.process, end.stream))
    }

    /// Removes a connection with both its ends.
    pub fn remove(&mut self, id: ConnectionId) {
        if let Some(connection) = self.by_id.remove(&id) {
            self.forget_end(connection.opener);
            if let Some(acceptor) = connection.acceptor {
                self.forget_end(acceptor);
            }
        }
    }

    /// The connections that have an end in `process`, with whether that end opened them.
    pub fn of_process(&self, process: Process) -> Vec<(ConnectionId, bool)> {
        let low = (process, StreamId::ZERO);
        let high = (Process { boot: process.boot + 1, ..process }, StreamId::ZERO);
        self.by_end.range(low..high).map(|(_, entry)| *entry).collect()
    }
}
