//! Backups that are being read here (http-api.md §17).
//!
//! A backup is a clone of the tables of one moment, handed out as an image block by block, so that
//! a reader of any speed gets one state and holds nothing up. Whoever lost an answer may ask for
//! the last block again. What is cloned keeps old rows in memory, so few backups are open at once
//! (INV-BACKUP-1), and one that nobody reads on is forgotten.
//!
//! A backup that was opened as fresh as the leader's word is forgotten when this server stops
//! leading: its state may lack what the next leader has acknowledged.

use super::Node;
use super::request::{
    BackupBlock, BackupId, BackupOpened, BackupRead, BackupReply, RequestError, Response,
};
use crate::catalog::Tables;
use crate::catalog::image::{BLOCK_BYTES, ImageEncoder};
use crate::catalog::query::{Consistency, Query, Rows};
use crate::rpc::Ticket;
use crate::time::Instant;
use crate::timers::Timers;
use crate::watch::Parked;
use std::collections::BTreeMap;
use std::time::Duration;

/// Backups that may be open at one time.
const OPEN_MAX: usize = 4;
/// How long a backup is kept that nobody reads.
const IDLE: Duration = Duration::from_secs(60);

/// One open backup.
#[derive(Clone, Debug)]
struct Backup {
    encoder: ImageEncoder,
    /// Whether its reader wanted no leader's word.
    stale: bool,
    /// The number of the next block.
    next: u64,
    /// The block before that one.
    last: Option<BackupBlock>,
}

/// All that are open, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Backups {
    open: BTreeMap<u64, Backup>,
    idle: Timers<u64>,
}

impl Backups {
    /// When the next one is forgotten.
    pub(super) const fn next_timeout(&self) -> Option<Instant> {
        self.idle.next()
    }

    /// Forgets those that nobody has read for long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(number) = self.idle.pop_due(now) {
            self.open.remove(&number);
        }
    }

    /// Opens one of these tables; `number` is a random one.
    fn open(
        &mut self,
        now: Instant,
        number: u64,
        tables: Tables,
        stale: bool,
    ) -> Result<(), RequestError> {
        if self.open.len() >= OPEN_MAX {
            let text = format!("{OPEN_MAX} backups are being read from this server");
            return Err(RequestError::Overloaded(text));
        }
        let encoder = ImageEncoder::of_backup(tables);
        self.open.insert(number, Backup { encoder, stale, next: 0, last: None });
        self.idle.set(number, now + IDLE);
        assert!(self.open.len() <= OPEN_MAX, "INV-BACKUP-1: few backups are open at once");
        Ok(())
    }

    /// The block of this number: the next one, or once more the last one.
    fn read(&mut self, now: Instant, read: BackupRead) -> Result<BackupBlock, RequestError> {
        let BackupRead { backup, block } = read;
        let Some(open) = self.open.get_mut(&backup.number) else {
            return Err(RequestError::NotFound("the backup is not open any more".to_owned()));
        };
        self.idle.set(backup.number, now + IDLE);
        if block == open.next
            && let Some(data) = open.encoder.next_block(BLOCK_BYTES)
        {
            open.next += 1;
            open.last = Some(BackupBlock { data, last: open.encoder.is_finished() });
        }
        let next = open.next;
        open.last.clone().filter(|_| block.checked_add(1) == Some(next)).ok_or_else(|| {
            let text = format!("block {block} of the backup was asked for, {next} is the next one");
            RequestError::Refused(text)
        })
    }

    fn close(&mut self, number: u64) {
        self.open.remove(&number);
        self.idle.cancel(&number);
    }

    /// This server leads no longer.
    pub(super) fn end_of_leader(&mut self) {
        let of_leader = self.open.iter().filter(|(_, backup)| !backup.stale);
        let of_leader: Vec<u64> = of_leader.map(|(number, _)| *number).collect();
        for number in of_leader {
            self.close(number);
        }
    }
}

impl Node {
    /// Opens a backup of what is applied here, which is as fresh as the request wants.
    pub(super) fn open_backup(&mut self, now: Instant, read: &Parked) {
        let consistency = read.request.context.consistency;
        let answer = self.answer_from_here(now, &Query::RaftConfiguration, consistency);
        let Some((answer, server)) = answer.zip(self.server.as_deref_mut()) else { return };
        let Rows::RaftConfiguration(configuration) = answer.rows else {
            unreachable!("the configuration was asked for");
        };
        let number = server.rng.below(u64::MAX);
        let stale = consistency == Consistency::Stale;
        let applied = server.raft.applied();
        let opened = server.backups.open(now, number, server.tables.clone(), stale).map(|()| {
            let opened = BackupOpened {
                backup: BackupId { server: self.id, number },
                applied,
                term: server.raft.applied_term(),
                index: server.tables.index_at(applied),
                configuration,
                known_leader: answer.known_leader,
                last_contact: answer.last_contact,
            };
            Response::Backup(BackupReply::Opened(Box::new(opened)))
        });
        self.executed(now, read.ticket, opened);
    }

    /// Hands out a block of a backup.
    pub(super) fn read_backup(&mut self, now: Instant, ticket: Ticket, read: BackupRead) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let block = server.backups.read(now, read);
        let result = block.map(|block| Response::Backup(BackupReply::Block(block)));
        self.executed(now, ticket, result);
    }

    /// Forgets a backup.
    pub(super) fn close_backup(&mut self, now: Instant, ticket: Ticket, backup: BackupId) {
        let Some(server) = self.server.as_deref_mut() else { return };
        server.backups.close(backup.number);
        self.executed(now, ticket, Ok(Response::Done));
    }
}

#[cfg(test)]
mod tests;
