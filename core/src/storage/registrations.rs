//! What is registered on this agent, across restarts: one record log, compacted by replacement.
//!
//! Source: DESIGN.md §8 (data directory), agent-config.md §6 for what is kept: services and checks
//! registered through the interface, and the last report of TTL checks. Definitions of files are
//! not kept.
//!
//! `local/registrations.log` is a sequence of records (`record.rs`) from its first byte on. Kind 1
//! is the file's head and holds its version; kind 2 is one [`Change`], msgpack. A record's index is
//! the number of records of the same append that follow it. The records of one append have one
//! epoch, and epochs count up by one within a file, from 1 for the head and the state it begins
//! with. An unreadable newest append is torn and cut as a whole; one with a later epoch behind it
//! is damage, reported and never skipped.

use super::op::{FileOp, FilePath};
use super::record::{self, Binding, Head, Record};
use super::{StorageDamage, replace_file};
use crate::id::{CheckId, ServiceId, StoreId};
use crate::local::definition::{CheckDefinition, ServiceDefinition};
use crate::time::WallClock;
use crate::wire::pack;
use crate::{catalog::model::CheckStatus, mark, pack_enum, pack_struct};
use std::collections::BTreeMap;
use thiserror::Error;

const KIND_HEAD: u8 = 1;
const KIND_CHANGE: u8 = 2;
const VERSION: u64 = 1;
/// A file smaller than this is never compacted while running.
const COMPACT_BYTES_MIN: u64 = 64 << 10;
/// A file is compacted once it is this many times as long as after its last compaction.
const COMPACT_FACTOR: u64 = 4;

/// The last report of a TTL check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlState {
    /// The check.
    pub check: CheckId,
    /// What was reported.
    pub status: CheckStatus,
    /// What there was to read.
    pub output: String,
    /// When the report is no longer worth anything, in civil time.
    pub expires: WallClock,
}
pack_struct!(TtlState { check, status, output, expires });

/// One change of the registrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Registers a service with its checks, or replaces it.
    PutService(Box<ServiceDefinition>),
    /// Forgets a service, its checks and their reports; an unknown one is no error.
    RemoveService(ServiceId),
    /// Registers a check, or replaces it.
    PutCheck(Box<CheckDefinition>),
    /// Forgets a check and its report; an unknown one is no error.
    RemoveCheck(CheckId),
    /// Keeps a report.
    PutTtl(TtlState),
}
pack_enum!(Change {
    1 => PutService(Box<ServiceDefinition>),
    2 => RemoveService(ServiceId),
    3 => PutCheck(Box<CheckDefinition>),
    4 => RemoveCheck(CheckId),
    5 => PutTtl(TtlState),
});

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registrations {
    /// Services, with the checks registered with them.
    pub services: BTreeMap<ServiceId, ServiceDefinition>,
    /// Checks registered by themselves.
    pub checks: BTreeMap<CheckId, CheckDefinition>,
    /// Reports of TTL checks, expired ones included.
    pub ttl: BTreeMap<CheckId, TtlState>,
}

impl Registrations {
    /// Applies one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::PutService(definition) => {
                let kept: Vec<CheckId> =
                    definition.checks.iter().map(|check| check.id.clone()).collect();
                let id = definition.service.id.clone();
                let old = self.services.insert(id, *definition);
                for check in old.iter().flat_map(|old| &old.checks) {
                    if !kept.contains(&check.id) {
                        self.ttl.remove(&check.id);
                    }
                }
            }
            Change::RemoveService(id) => {
                for check in self.services.remove(&id).iter().flat_map(|old| &old.checks) {
                    self.ttl.remove(&check.id);
                }
            }
            Change::PutCheck(definition) => {
                self.checks.insert(definition.id.clone(), *definition);
            }
            Change::RemoveCheck(id) => {
                self.checks.remove(&id);
                self.ttl.remove(&id);
            }
            Change::PutTtl(state) => {
                self.ttl.insert(state.check.clone(), state);
            }
        }
    }

    /// The changes that make this state of nothing.
    fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        let services = self.services.values().cloned().map(Box::new).map(Change::PutService);
        let checks = self.checks.values().cloned().map(Box::new).map(Change::PutCheck);
        services.chain(checks).chain(self.ttl.values().cloned().map(Change::PutTtl))
    }
}

/// The writer of the file. A plain value that also holds what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationLog {
    state: Registrations,
    offset: u64,
    epoch: u64,
    /// Bytes at which the file is compacted.
    compact_at: u64,
}

/// Why the file cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum RegistrationsError {
    /// Something that was durable is not readable.
    #[error(transparent)]
    Damage(#[from] StorageDamage),
    /// A later release wrote the file.
    #[error("unknown version {0}")]
    Version(u64),
}

/// The path of the file.
pub(super) fn registrations_file() -> FilePath {
    FilePath::new("local/registrations.log")
}

/// The file holds no secret to bind to: there is one in a data directory.
const BINDING: Binding = Binding { store: StoreId::from_bytes([0; 16]), file: 0 };

/// One append of `changes` that will stand at `base` of the file; the first one begins with the
/// file's head.
fn encode(base: u64, epoch: u64, changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |kind, following: usize, payload: &[u8]| {
        let head = Head { kind, index: following as u64, term: 0, epoch };
        let offset = base + out.len() as u64;
        record::put(&mut out, BINDING, offset, head, &[payload]);
    };
    if base == 0 {
        put(KIND_HEAD, changes.len(), &VERSION.to_be_bytes());
    }
    for (following, change) in (0..changes.len()).rev().zip(changes) {
        put(KIND_CHANGE, following, &pack::to_bytes(change));
    }
    out
}

impl RegistrationLog {
    /// What is registered.
    pub const fn registrations(&self) -> &Registrations {
        &self.state
    }

    /// Applies `changes`, and returns the operations that make them durable (lane `State`).
    ///
    /// One append is to be on its way at a time. After one that failed, say so by
    /// [`RegistrationLog::failed`].
    pub fn append(&mut self, changes: Vec<Change>) -> Vec<FileOp> {
        if changes.is_empty() {
            return Vec::new();
        }
        let data = encode(self.offset, self.epoch, &changes);
        changes.into_iter().for_each(|change| self.state.apply(change));
        if self.offset + data.len() as u64 > self.compact_at {
            return self.compact();
        }
        let offset = self.offset;
        self.offset += data.len() as u64;
        self.epoch += 1;
        let file = registrations_file();
        vec![FileOp::Write { file: file.clone(), offset, data: data.into() }, FileOp::Sync(file)]
    }

    /// The newest append failed, so the file's end is not known: the next one replaces the file.
    pub const fn failed(&mut self) {
        self.compact_at = 0;
    }

    /// The operations that replace the file by one that holds the present state only.
    pub(super) fn compact(&mut self) -> Vec<FileOp> {
        mark!("storage.registrations_compacted");
        let changes: Vec<Change> = self.state.changes().collect();
        let data = encode(0, 1, &changes);
        self.offset = data.len() as u64;
        self.epoch = 2;
        self.compact_at = (self.offset * COMPACT_FACTOR).max(COMPACT_BYTES_MIN);
        let mut ops = vec![FileOp::CreateDir(FilePath::new("local")), FileOp::SyncDir(None)];
        ops.extend(replace_file(&registrations_file(), data.into()));
        ops
    }

    /// The log in the file's content, and whether a torn end was cut. The caller compacts it.
    pub(super) fn read(content: Option<&[u8]>) -> Result<(Self, bool), RegistrationsError> {
        let mut log = Self { state: Registrations::default(), offset: 0, epoch: 1, compact_at: 0 };
        let Some(bytes) = content else { return Ok((log, false)) };
        let mut end = 0;
        let torn = loop {
            if end > 0 && end == bytes.len() {
                break false;
            }
            match read_append(bytes, end, log.epoch) {
                Ok((records, next)) => {
                    for record in records {
                        log.take(&record, end)?;
                    }
                    log.epoch += 1;
                    end = next;
                }
                Err(rule) => {
                    // The file gets its name with its head, so the head is never torn.
                    if end == 0 || record::later_epoch(bytes, end, BINDING, log.epoch) {
                        return Err(damage(end, rule).into());
                    }
                    mark!("storage.registrations_torn");
                    break true;
                }
            }
        };
        log.offset = end as u64;
        Ok((log, torn))
    }

    fn take(&mut self, record: &Record<'_>, at: usize) -> Result<(), RegistrationsError> {
        match (record.head.kind, record.head.epoch) {
            (KIND_HEAD, 1) => match record::number(record.payload) {
                Some(VERSION) => Ok(()),
                other => Err(RegistrationsError::Version(other.unwrap_or_default())),
            },
            (KIND_CHANGE, _) => {
                let illegal = |_| damage(at, "a record is no change of a registration");
                self.state.apply(pack::from_bytes(record.payload).map_err(illegal)?);
                Ok(())
            }
            _ => Err(damage(at, "a record is of unknown kind").into()),
        }
    }
}

fn damage(at: usize, rule: &'static str) -> StorageDamage {
    StorageDamage { file: registrations_file(), offset: at as u64, rule }
}

/// Reads the whole append of `epoch` at byte `at`; an error names the first broken rule.
fn read_append(
    bytes: &[u8],
    at: usize,
    epoch: u64,
) -> Result<(Vec<Record<'_>>, usize), &'static str> {
    let mut records: Vec<Record<'_>> = Vec::new();
    let mut next = at;
    loop {
        let record = record::read(bytes, next, BINDING)?;
        let announced = records.last().map(|last| last.head.index);
        let in_order =
            announced.is_none_or(|count| Some(record.head.index) == count.checked_sub(1));
        let heads_file = record.head.kind == KIND_HEAD;
        if record.head.epoch != epoch || !in_order || heads_file != (next == 0) {
            return Err("a record is not where it belongs");
        }
        next = record.end;
        records.push(record);
        if record.head.index == 0 {
            return Ok((records, next));
        }
    }
}

#[cfg(test)]
mod tests;
