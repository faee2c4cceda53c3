//! Tables to blocks.

use super::super::kv::{KvEntry, KvTable};
use super::super::lock::LockDelay;
use super::super::restore::Restoring;
use super::super::{Tables, keys};
use super::{Head, Kind, VERSION};
use crate::id::ModifyIndex;
use crate::wire::checksum::crc32_after;
use crate::wire::pack::Pack;
use bytes::Bytes;
use imbl::OrdMap;
use std::ops::Bound;
use std::sync::Arc;

/// Walks a clone of the tables and hands out its content in blocks; holds one block at most.
///
/// Equal tables and sizes give equal blocks.
#[derive(Clone, Debug)]
pub struct ImageEncoder {
    /// The tables, then those that the restore under way has so far.
    tables: Tables,
    /// That restore, until its own rows come.
    restoring: Option<Box<Restoring>>,
    /// Whether a restore is written that has read its end.
    ended: bool,
    cursor: Cursor,
    /// A record that the last block had no room for.
    carry: Vec<u8>,
}

/// What is written next.
#[derive(Clone, Debug)]
struct Cursor {
    /// `None` once everything is written.
    kind: Option<Kind>,
    /// The key of the node that was written last.
    node: Option<Arc<str>>,
    /// The key of the last record of this kind, if there is one; within a node, on that node.
    last: Option<Arc<str>>,
    /// Records written so far.
    records: u64,
    /// CRC-32 of the blocks handed out so far.
    crc: u32,
}

/// A block that is being filled.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// The record that would have made it too long.
    carry: Vec<u8>,
}

impl ImageEncoder {
    /// An encoder of these tables with the restore that is under way, for snapshots of the log.
    pub fn new(mut tables: Tables) -> Self {
        let kind = Some(Kind::Head);
        let cursor = Cursor { kind, node: None, last: None, records: 0, crc: 0 };
        let restoring = tables.restoring.take();
        Self { tables, restoring, ended: false, cursor, carry: Vec::new() }
    }

    /// An encoder of these tables without it, for backups of users.
    pub fn of_backup(tables: Tables) -> Self {
        Self::new(Tables { restoring: None, ..tables })
    }

    /// The next block, of at most `bytes_max` unless a single record is longer; `None` behind the
    /// last one.
    ///
    /// - Cost: that of the block, and O(log n) for each node in it.
    pub fn next_block(&mut self, bytes_max: usize) -> Option<Bytes> {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.reserve(bytes_max.min(super::BLOCK_BYTES).saturating_sub(bytes.len()));
        let mut block = Block { bytes, bytes_max, carry: Vec::new() };
        while let Some(kind) = self.cursor.kind.filter(|_| !block.is_full()) {
            self.advance(kind, &mut block);
        }
        self.cursor.crc = crc32_after(self.cursor.crc, &block.bytes);
        self.carry = block.carry;
        (!block.bytes.is_empty()).then(|| block.bytes.into())
    }

    /// Whether the last block was handed out.
    pub const fn is_finished(&self) -> bool {
        self.cursor.kind.is_none() && self.carry.is_empty()
    }

    /// Writes records of this kind until the block is full or there are no more.
    fn advance(&mut self, kind: Kind, block: &mut Block) {
        let Self { tables, restoring, ended, cursor, .. } = self;
        match kind {
            Kind::Start | Kind::Head => {
                cursor.put(block, kind, |out| put_head(tables, out));
                cursor.go_on(Some(Kind::Node));
            }
            Kind::Node => {
                let node = cursor.node.take();
                let Some((key, row)) = after(&tables.nodes, node.as_ref()).next() else {
                    return cursor.go_on(Some(Kind::ServiceIndex));
                };
                cursor.put(block, kind, |out| row.node.pack(out));
                cursor.node = Some(Arc::clone(key));
                cursor.go_on(Some(Kind::Service));
            }
            Kind::Service => cursor.on_node(&tables.services, block, kind, Kind::Check),
            Kind::Check => cursor.on_node(&tables.checks, block, kind, Kind::Coordinate),
            Kind::Coordinate => cursor.on_node(&tables.coordinates, block, kind, Kind::Node),
            Kind::ServiceIndex => {
                let rows = after(&tables.service_indexes, cursor.last.as_ref());
                // Zeros stand where a restore expects an index.
                let rows = rows.filter(|(_, index)| **index > ModifyIndex::ZERO);
                cursor.rows(rows, block, kind, Kind::Session, put_index);
            }
            Kind::Session => {
                let rows = after(&tables.sessions, cursor.last.as_ref());
                cursor.rows(rows, block, kind, Kind::Prepared, |_, row, out| row.pack(out));
            }
            Kind::Prepared => {
                let rows = after(&tables.prepared.rows, cursor.last.as_ref());
                cursor.rows(rows, block, kind, Kind::Entry, |_, row, out| row.pack(out));
            }
            Kind::Entry | Kind::Lock | Kind::Tombstone | Kind::LockDelay => {
                cursor.of_keys(&tables.kv, block, kind);
            }
            Kind::Restore => {
                cursor.go_on(Some(Kind::RestoreEnd));
                if let Some(restoring) = restoring.take() {
                    cursor.put(block, kind, |out| restoring.decoder.head_of(&restoring).pack(out));
                    *ended = restoring.decoder.has_ended();
                    *tables = restoring.decoder.into_tables();
                    cursor.go_on(Some(Kind::Node));
                }
            }
            Kind::RestoreEnd => {
                if *ended {
                    cursor.put(block, kind, |_| {});
                }
                cursor.go_on(Some(Kind::End));
            }
            Kind::End => {
                let (records, crc) = (cursor.records, crc32_after(cursor.crc, &block.bytes));
                cursor.put(block, kind, |out| {
                    out.extend_from_slice(&records.to_be_bytes());
                    out.extend_from_slice(&crc.to_be_bytes());
                });
                cursor.go_on(None);
            }
        }
    }
}

impl Cursor {
    fn go_on(&mut self, kind: Option<Kind>) {
        (self.kind, self.last) = (kind, None);
    }

    fn put(&mut self, block: &mut Block, kind: Kind, payload: impl FnOnce(&mut Vec<u8>)) {
        block.put(kind, payload);
        self.records += 1;
    }

    /// Writes what is on the current node.
    fn on_node<V: Pack>(
        &mut self,
        map: &OrdMap<Arc<str>, V>,
        block: &mut Block,
        kind: Kind,
        then: Kind,
    ) {
        let node = self.node.as_deref().unwrap_or_default();
        let rows = keys::under_after(map, node, self.last.as_deref());
        self.rows(rows, block, kind, then, |_, row, out| row.pack(out));
    }

    /// Writes what the key-value table holds.
    fn of_keys(&mut self, kv: &KvTable, block: &mut Block, kind: Kind) {
        let last = self.last.take();
        if kind == Kind::Entry {
            let rows = after(&kv.entries, last.as_ref());
            self.rows(rows, block, kind, Kind::Lock, |_, entry, out| put_entry(entry, out));
        } else if kind == Kind::Lock {
            let rows = after(&kv.locked, last.as_ref());
            self.rows(rows, block, kind, Kind::Tombstone, |_, entry, out| put_lock(entry, out));
        } else if kind == Kind::Tombstone {
            let rows = after(&kv.tombstones, last.as_ref());
            self.rows(rows, block, kind, Kind::LockDelay, put_index);
        } else {
            let rows = after(&kv.delays, last.as_ref());
            self.rows(rows, block, kind, Kind::Restore, put_delay);
        }
    }

    fn rows<'a, V: 'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a Arc<str>, &'a V)>,
        block: &mut Block,
        kind: Kind,
        then: Kind,
        payload: impl Fn(&str, &V, &mut Vec<u8>),
    ) {
        for (key, row) in rows {
            self.put(block, kind, |out| payload(key, row, out));
            if block.is_full() {
                self.last = Some(Arc::clone(key));
                return;
            }
        }
        self.go_on(Some(then));
    }
}

impl Block {
    const fn is_full(&self) -> bool {
        self.bytes.len() >= self.bytes_max && !self.bytes.is_empty() || !self.carry.is_empty()
    }

    /// Appends a record, or keeps it for the next block if this one has no room.
    fn put(&mut self, kind: Kind, payload: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.push(kind.tag());
        payload(&mut self.bytes);
        let length = self.bytes.len() - start - 4;
        let length = u32::try_from(length).expect("a row is smaller than a log entry may be");
        if let Some(head) = self.bytes.get_mut(start..start + 4) {
            head.copy_from_slice(&length.to_be_bytes());
        }
        if start > 0 && self.bytes.len() > self.bytes_max {
            self.carry = self.bytes.split_off(start);
        }
    }
}

/// What stands behind a key, or from the start.
fn after<'a, V>(
    map: &'a OrdMap<Arc<str>, V>,
    key: Option<&Arc<str>>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> + use<'a, V> {
    let from = key.map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<_, Arc<str>>((from, Bound::Unbounded))
}

fn put_index(key: &str, index: &ModifyIndex, out: &mut Vec<u8>) {
    out.extend_from_slice(&index.get().to_be_bytes());
    out.extend_from_slice(key.as_bytes());
}

fn put_head(tables: &Tables, out: &mut Vec<u8>) {
    out.push(VERSION);
    Head::of(tables).pack(out);
}

fn put_lock(entry: &KvEntry, out: &mut Vec<u8>) {
    let (acquired, session) = entry.lock();
    out.extend_from_slice(&acquired.to_be_bytes());
    out.extend_from_slice(session.map_or([0; 16], |session| *session.as_bytes()).as_slice());
    out.extend_from_slice(entry.key.as_bytes());
}

fn put_delay(key: &str, delay: &LockDelay, out: &mut Vec<u8>) {
    let nanos = u64::try_from(delay.delay.as_nanos()).unwrap_or(u64::MAX);
    out.extend_from_slice(&delay.since.get().to_be_bytes());
    out.extend_from_slice(&nanos.to_be_bytes());
    out.extend_from_slice(key.as_bytes());
}

fn put_entry(entry: &KvEntry, out: &mut Vec<u8>) {
    for number in [entry.create_index.get(), entry.modify_index.get(), entry.flags] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let key = u32::try_from(entry.key.len()).expect("a key is smaller than a log entry may be");
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(entry.key.as_bytes());
    out.extend_from_slice(&entry.value);
}
