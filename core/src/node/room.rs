//! Space on the disk: room ahead of the log's writer, and what is set aside for the next snapshot.
//!
//! A full disk is no reason to stop (raft.md §11.3 rule 6). What consensus wants written is handed
//! to the disk only where room is prepared for it, so only the preparation can fail, and that is
//! tried again until there is space. Meanwhile consensus takes no more entries; it votes, and
//! serves what it has. The space that is set aside lets a snapshot be stored, and an agent be
//! started, on a disk that others have filled.

use super::writes::Purpose;
use super::{Node, NodeTrace};
use crate::machine::Machine as _;
use crate::mark;
use crate::raft::{PersistBatch, RaftInput};
use crate::storage::op::Lane;
use crate::storage::snapshot;
use crate::time::Instant;
use crate::trace::Level;
use std::collections::VecDeque;
use std::time::Duration;

/// Time between two attempts to prepare room on a full disk.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a server knows of the space on its disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    /// What waits for room, in order: at most one batch of consensus and one of the bootstrap.
    waiting: VecDeque<(Purpose, PersistBatch)>,
    /// Whether consensus knows that the disk is full.
    full: bool,
    /// When to try again.
    retry_at: Option<Instant>,
    /// Whether the operator knows that no space could be set aside.
    told_unreserved: bool,
}

impl Room {
    /// When to try again.
    pub(super) const fn next_timeout(&self) -> Option<Instant> {
        self.retry_at
    }
}

impl Node {
    /// Hands out what must be durable for consensus or for the bootstrap, once there is room.
    pub(super) fn persist_log(&mut self, now: Instant, purpose: Purpose, batch: PersistBatch) {
        if let Some(server) = self.server.as_deref_mut() {
            server.room.waiting.push_back((purpose, batch));
            self.prepare_log(now);
        }
    }

    /// Hands out what there is room for, and the next steps of preparing room that are due.
    pub(super) fn prepare_log(&mut self, now: Instant) {
        let Some(server) = self.server.as_deref_mut() else { return };
        while let Some((purpose, batch)) = server.room.waiting.pop_front() {
            if !server.wal.has_room(&batch) {
                mark!("node.log_waits_for_room");
                server.room.waiting.push_front((purpose, batch));
                break;
            }
            let ops = server.wal.append(&batch);
            self.writes.issue(purpose, Lane::Log, ops, &mut self.out);
        }
        if server.room.retry_at.is_some() {
            return;
        }
        while let Some(step) = server.wal.prepare() {
            self.writes.issue(Purpose::Prepare(step.lane), step.lane, step.ops, &mut self.out);
        }
        if server.room.full && server.wal.is_prepared() {
            server.room.full = false;
            server.raft.handle(now, RaftInput::LogFull(false), &mut self.boxes.raft);
            self.trace(Level::Info, NodeTrace::LogHasRoom);
        }
    }

    /// A step of preparing room for the log is done.
    pub(super) fn log_prepared(&mut self, now: Instant, lane: Lane) {
        if let Some(server) = self.server.as_deref_mut() {
            server.wal.prepared(lane);
            self.prepare_log(now);
        }
    }

    /// There is no space for a step of preparing room for the log.
    pub(super) fn log_unprepared(&mut self, now: Instant, lane: Lane) {
        let Some(server) = self.server.as_deref_mut() else { return };
        server.wal.unprepared(lane);
        server.room.retry_at = Some(now + RETRY_INTERVAL);
        if !std::mem::replace(&mut server.room.full, true) {
            mark!("node.log_full");
            server.raft.handle(now, RaftInput::LogFull(true), &mut self.boxes.raft);
            self.trace(Level::Error, NodeTrace::LogFull);
        }
    }

    /// Tries again to prepare room, if that is due.
    pub(super) fn room_timeout(&mut self, now: Instant) {
        let Some(server) = self.server.as_deref_mut() else { return };
        if server.room.retry_at.take_if(|at| *at <= now).is_some() {
            self.prepare_log(now);
        }
    }

    /// Sets space aside for the next snapshot, if the last one had so many bytes, and for the next
    /// start.
    pub(super) fn set_space_aside(&mut self, snapshot_bytes: u64) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let grown = snapshot_bytes.saturating_add(snapshot_bytes / 4);
        let ops = vec![snapshot::reserve(grown.max(server.wal.restart_bytes()))];
        self.writes.issue(Purpose::Reserve, Lane::State, ops, &mut self.out);
    }

    /// No space could be set aside: it is tried again after the next snapshot.
    pub(super) fn no_space_aside(&mut self) {
        let Some(server) = self.server.as_deref_mut() else { return };
        if !std::mem::replace(&mut server.room.told_unreserved, true) {
            self.trace(Level::Warn, NodeTrace::Unreserved);
        }
    }

    /// Hands out the seal that proves the newest batch durable.
    pub(super) fn seal_log(&mut self) -> bool {
        let Some(server) = self.server.as_deref_mut() else { return false };
        let ops = server.wal.seal();
        self.writes.issue(Purpose::Seal, Lane::Log, ops, &mut self.out);
        true
    }
}
