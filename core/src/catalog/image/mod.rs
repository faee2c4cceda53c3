//! The tables as bytes: what a snapshot of the log and a user's backup hold.
//!
//! An image is a sequence of blocks, a block one or more whole records. Both sides work on one
//! block at a time: [`ImageEncoder`] walks a clone of the tables, [`ImageDecoder`] builds
//! persistent maps. What follows from other records is not written: which node has which
//! identity, the instances of services, and deletions by age.
//!
//! | offset | bytes | record |
//! |---|---|---|
//! | 0 | 4 | bytes that follow, the tag included |
//! | 4 | 1 | tag |
//! | 5 | | payload |
//!
//! | tag | record | payload |
//! |---|---|---|
//! | 1 | `Head` | version, 1; the [`Head`] as msgpack |
//! | 2 | `Node` | the node as msgpack |
//! | 3 | `Service` | the service as msgpack; it is on the node before it |
//! | 4 | `Check` | the check as msgpack; so is it |
//! | 5 | `Coordinate` | the coordinate as msgpack; so is it |
//! | 6 | `ServiceIndex` | index u64, the folded name of the service |
//! | 7 | `Entry` | created u64, modified u64, flags u64, bytes of the key u32, key, value |
//! | 8 | `Tombstone` | index u64, the deleted key or prefix |
//! | 9 | `Restore` | the [`RestoreHead`] as msgpack: a restore is under way |
//! | 10 | `RestoreEnd` | none: the restore has read its end |
//! | 11 | `Session` | the session as msgpack |
//! | 12 | `Lock` | acquired u64, the session that holds it or zeros [u8; 16], the key of an entry |
//! | 13 | `LockDelay` | since when u64, nanoseconds u64, the key |
//! | 14 | `Prepared` | the prepared query as msgpack |
//! | 255 | `End` | records before it u64, CRC-32 of all bytes before it u32 |
//!
//! Numbers are big-endian. The head is first. Each node is followed by its services, its checks and
//! its coordinates; then come service indexes, sessions, prepared queries, entries, locks,
//! tombstones, lock delays and the restore. Within one tag keys ascend, so that equal tables have
//! equal images, and whatever is doubled, missing or out of place is refused. The end is the last
//! record of the last block.
//!
//! A `Restore` is followed by the rows that its decoder has read so far, in the same records. They
//! stand in the order it read them, so reading them again takes a new decoder to the same place;
//! what it has counted comes with the record.
//!
//! Differs: nodes bring along what is on them, instead of one section for each table, so that the
//! instances of a node can be made when its part ends and no step of the decoder is a long one.
//! Entries are written by hand: naming their fields would double the bytes of small ones.
//!
//! Source: raft.md §9.

mod decode;
mod encode;

pub use decode::ImageDecoder;
pub use encode::ImageEncoder;

use super::autopilot::Autopilot;
use super::{TableIndexes, Tables};
use crate::id::{ModifyIndex, RestoreId};
use crate::pack_struct;
use crate::wire::DecodeError;
use std::sync::Arc;
use thiserror::Error;

/// Bytes after which a block is closed. A block is longer only if a single record is.
pub const BLOCK_BYTES: usize = 256 << 10;

/// The version of the format, the first byte of the head.
const VERSION: u8 = 1;

/// The kinds of records in the order they stand in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// No record: what is before the first one.
    #[default]
    Start,
    Head,
    Node,
    Service,
    Check,
    Coordinate,
    ServiceIndex,
    Session,
    Prepared,
    Entry,
    Lock,
    Tombstone,
    LockDelay,
    Restore,
    RestoreEnd,
    End,
}

impl Kind {
    const fn of_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            1 => Self::Head,
            2 => Self::Node,
            3 => Self::Service,
            4 => Self::Check,
            5 => Self::Coordinate,
            6 => Self::ServiceIndex,
            7 => Self::Entry,
            8 => Self::Tombstone,
            9 => Self::Restore,
            10 => Self::RestoreEnd,
            11 => Self::Session,
            12 => Self::Lock,
            13 => Self::LockDelay,
            14 => Self::Prepared,
            255 => Self::End,
            _ => return None,
        })
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Start => 0,
            Self::Head => 1,
            Self::Node => 2,
            Self::Service => 3,
            Self::Check => 4,
            Self::Coordinate => 5,
            Self::ServiceIndex => 6,
            Self::Entry => 7,
            Self::Tombstone => 8,
            Self::Restore => 9,
            Self::RestoreEnd => 10,
            Self::Session => 11,
            Self::Lock => 12,
            Self::LockDelay => 13,
            Self::Prepared => 14,
            Self::End => 255,
        }
    }

    /// How errors name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Head => "head",
            Self::Node => "node",
            Self::Service => "service",
            Self::Check => "check",
            Self::Coordinate => "coordinate",
            Self::ServiceIndex => "service index",
            Self::Entry => "entry",
            Self::Tombstone => "tombstone",
            Self::Restore => "restore",
            Self::RestoreEnd => "end of the restore",
            Self::Session => "session",
            Self::Lock => "lock",
            Self::LockDelay => "lock delay",
            Self::Prepared => "prepared query",
            Self::End => "end",
        }
    }
}

/// What the tables hold beside their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    nodes: ModifyIndex,
    services: ModifyIndex,
    checks: ModifyIndex,
    coordinates: ModifyIndex,
    service_lost: ModifyIndex,
    kv: ModifyIndex,
    index_base: u64,
    restored_at: ModifyIndex,
    autopilot: Option<Arc<Autopilot>>,
    /// Not there in images from before there were sessions.
    sessions: Option<ModifyIndex>,
    /// The same for prepared queries.
    prepared: Option<ModifyIndex>,
}
pack_struct!(Head {
    nodes,
    services,
    checks,
    coordinates,
    service_lost,
    kv,
    index_base,
    restored_at,
    autopilot,
    sessions,
    prepared,
});

/// What a restore under way is beside its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RestoreHead {
    id: RestoreId,
    next: u64,
    bytes: u64,
    records: u64,
    crc: u32,
    head: Head,
}
pack_struct!(RestoreHead { id, next, bytes, records, crc, head });

impl Head {
    fn of(tables: &Tables) -> Self {
        let TableIndexes { nodes, services, checks, coordinates, sessions, service_lost } =
            tables.changed;
        Self {
            nodes,
            services,
            checks,
            coordinates,
            service_lost,
            kv: tables.kv.changed,
            index_base: tables.index_base,
            restored_at: tables.restored_at,
            autopilot: tables.autopilot.clone(),
            sessions: Some(sessions),
            prepared: Some(tables.prepared.changed),
        }
    }

    /// Tables without rows.
    fn into_tables(self) -> Tables {
        let Self { nodes, services, checks, coordinates, service_lost, .. } = self;
        let Self { kv, index_base, restored_at, autopilot, sessions, prepared, .. } = self;
        let sessions = sessions.unwrap_or(ModifyIndex::ZERO);
        let changed = TableIndexes { nodes, services, checks, coordinates, sessions, service_lost };
        let mut tables =
            Tables { changed, index_base, restored_at, autopilot, ..Tables::default() };
        tables.kv.changed = kv;
        tables.prepared.changed = prepared.unwrap_or(ModifyIndex::ZERO);
        tables
    }
}

/// Why an image was refused. Whoever made or carried it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// A record cannot be read or breaks a rule, which its cause names. The decoder is of no use
    /// any more.
    #[error("record {record} of the image: {source}")]
    Record {
        /// How many records stand before it.
        record: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The end is missing.
    #[error("the image ends early, after {records} records")]
    Unfinished {
        /// How many records there are.
        records: u64,
    },
}
