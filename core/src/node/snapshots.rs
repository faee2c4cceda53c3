//! Snapshots of the catalog: what consensus wants done about them, with tables and files
//! (raft.md §9).
//!
//! A snapshot is a copy of the tables, which costs nothing since their maps are persistent, turned
//! into bytes block by block: the next block is made when the one before is written or
//! acknowledged. So neither the driver nor the memory ever holds more than a few blocks, and the
//! pause is that of one block, whatever the size of the catalog.

use super::writes::Purpose;
use super::{Node, NodeTrace};
use crate::catalog::Tables;
use crate::catalog::image::{ImageDecoder, ImageEncoder, ImageError};
use crate::durations::Durations;
use crate::machine::Machine as _;
use crate::raft::{ImageId, RaftInput, ReceiptId, SnapshotInput, SnapshotMeta, SnapshotOutput};
use crate::storage::op::{FileOp, Lane};
use crate::storage::snapshot::{self, BLOCK_BYTES_MAX, SnapshotFiles, SnapshotId, SnapshotWriter};
use crate::time::Instant;
use crate::trace::Level;
use crate::{mark, mutant};
use std::collections::BTreeMap;
use thiserror::Error;

/// A snapshot that is being stored here.
#[derive(Clone, Debug)]
struct Taking {
    since: Instant,
    encoder: ImageEncoder,
    writer: SnapshotWriter,
}

/// A snapshot that arrives.
#[derive(Clone, Debug)]
struct Receiving {
    receipt: ReceiptId,
    /// Until the last block came.
    writer: Option<SnapshotWriter>,
    /// Of its file, up to the last block.
    bytes: u64,
    decoder: ImageDecoder,
    /// From then on.
    tables: Option<Tables>,
}

impl Receiving {
    /// Takes the next block; an error says why it is none.
    fn take_block(
        &mut self,
        data: &[u8],
        last: bool,
        ops: &mut Vec<FileOp>,
    ) -> Result<(), BlockError> {
        if data.len() > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge { bytes: data.len() });
        }
        self.decoder.block(data)?;
        if last {
            self.tables = Some(std::mem::take(&mut self.decoder).finish()?);
        }
        if let Some(writer) = &mut self.writer {
            ops.extend(writer.block(data));
            self.bytes = writer.bytes();
        }
        if last && let Some(writer) = self.writer.take() {
            ops.extend(writer.finish());
        }
        Ok(())
    }
}

/// Why a block was refused that a leader sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum BlockError {
    /// It is larger than any that a server makes.
    #[error("a block has {bytes} bytes, at most {BLOCK_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is no part of a catalog.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// All snapshots of a server.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    files: SnapshotFiles,
    /// The newest that was stored in this run, and its bytes.
    stored: Option<(SnapshotId, u64)>,
    /// How long it took until those taken here were durable.
    times: Durations,
    taking: Option<Taking>,
    images: BTreeMap<ImageId, ImageEncoder>,
    receiving: Option<Receiving>,
}

impl Snapshots {
    pub(super) fn new(files: SnapshotFiles) -> Self {
        Self {
            files,
            stored: None,
            times: Durations::default(),
            taking: None,
            images: BTreeMap::new(),
            receiving: None,
        }
    }

    /// Whether this is the one that arrives.
    fn holds(&self, receipt: ReceiptId) -> bool {
        self.receiving.as_ref().is_some_and(|held| held.receipt == receipt)
    }

    /// Bytes of the newest one that was stored in this run.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.stored.map(|(_, bytes)| bytes)
    }

    /// How long it took until those taken here were durable.
    pub(super) const fn times(&self) -> &Durations {
        &self.times
    }

    /// The newest one that is durable here.
    pub(super) fn newest(&self) -> Option<SnapshotId> {
        self.files.newest()
    }
}

/// What a write to a snapshot's file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotWrite {
    /// A block of the one that is taken.
    Block,
    /// All of the one that is taken, its bytes, and when it was begun.
    Whole(SnapshotId, u64, Instant),
    /// A block that was received.
    Received(ReceiptId, u64),
    /// All of what was received, and its bytes.
    ReceivedWhole(ReceiptId, SnapshotId, u64),
    /// Removing what is not needed any more.
    Removal,
}

impl Node {
    /// Does what consensus wants done.
    pub(super) fn route_snapshot(&mut self, now: Instant, output: SnapshotOutput) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let (block_bytes, store) = (server.raft.block_bytes(), server.wal.store());
        let (tables, snapshots) = (&server.tables, &mut server.snapshots);
        match output {
            SnapshotOutput::Take { meta } => {
                let encoder = ImageEncoder::new(tables.clone());
                let (writer, ops) = SnapshotWriter::begin(store, snapshot::Purpose::Own, &meta);
                snapshots.taking = Some(Taking { since: now, encoder, writer });
                self.write_snapshot_block(now, ops);
            }
            SnapshotOutput::Open { image } => {
                snapshots.images.insert(image, ImageEncoder::new(tables.clone()));
            }
            SnapshotOutput::Read { image } => {
                let Some(encoder) = snapshots.images.get_mut(&image) else { return };
                let Some(data) = encoder.next_block(block_bytes) else { return };
                let last = encoder.is_finished();
                self.tell_snapshots(now, SnapshotInput::Block { image, data, last });
            }
            SnapshotOutput::Close { image } => {
                snapshots.images.remove(&image);
            }
            SnapshotOutput::Receive { receipt, meta, number, data, last } => {
                self.receive_block(now, receipt, &meta, (number, &data, last));
            }
            SnapshotOutput::Drop { receipt } => {
                let dropped = snapshots.receiving.take_if(|held| held.receipt == receipt);
                let ops = dropped.and_then(|held| held.writer).map(SnapshotWriter::discard);
                self.remove_files(ops.unwrap_or_default());
            }
            SnapshotOutput::Install { receipt } => {
                let held = snapshots.receiving.take_if(|held| held.receipt == receipt);
                let tables = held.and_then(|held| held.tables);
                server.tables = tables.expect("INV-NODE-2: what is installed was received whole");
                server.changed = true;
            }
        }
    }

    /// Writes the next block of the snapshot that is taken, after `ops`.
    fn write_snapshot_block(&mut self, now: Instant, mut ops: Vec<FileOp>) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let block_bytes = server.raft.block_bytes();
        let Some(mut taking) = server.snapshots.taking.take() else { return };
        let Some(block) = taking.encoder.next_block(block_bytes) else { return };
        ops.extend(taking.writer.block(&block));
        if !taking.encoder.is_finished() {
            server.snapshots.taking = Some(taking);
            let purpose = Purpose::Snapshot(SnapshotWrite::Block);
            return self.writes.issue(purpose, Lane::State, ops, &mut self.out);
        }
        let (id, bytes) = (taking.writer.id(), taking.writer.bytes());
        ops.extend(taking.writer.finish());
        let purpose = Purpose::Snapshot(SnapshotWrite::Whole(id, bytes, taking.since));
        self.writes.issue(purpose, Lane::State, ops, &mut self.out);
        if mutant!(M29) {
            self.snapshot_taken(now, (id, bytes));
        }
    }

    /// Stores a block that arrived, if it is one.
    fn receive_block(
        &mut self,
        now: Instant,
        receipt: ReceiptId,
        meta: &SnapshotMeta,
        (number, data, last): (u64, &[u8], bool),
    ) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let mut ops = Vec::new();
        if number == 0 {
            let store = server.wal.store();
            let (writer, begin) = SnapshotWriter::begin(store, snapshot::Purpose::Received, meta);
            ops.extend(begin);
            server.snapshots.receiving = Some(Receiving {
                receipt,
                writer: Some(writer),
                bytes: 0,
                decoder: ImageDecoder::default(),
                tables: None,
            });
        }
        let held = server.snapshots.receiving.as_mut().filter(|held| held.receipt == receipt);
        let Some(held) = held else { return };
        if let Err(error) = held.take_block(data, last, &mut ops) {
            let writer = server.snapshots.receiving.take().and_then(|held| held.writer);
            self.remove_files(writer.map(SnapshotWriter::discard).unwrap_or_default());
            self.trace(Level::Error, NodeTrace::SnapshotRefused(error.to_string()));
            return self.tell_snapshots(now, SnapshotInput::Refused { receipt });
        }
        let write = if last {
            SnapshotWrite::ReceivedWhole(receipt, SnapshotId::of(meta), held.bytes)
        } else {
            SnapshotWrite::Received(receipt, number)
        };
        self.writes.issue(Purpose::Snapshot(write), Lane::State, ops, &mut self.out);
    }

    /// A write to a snapshot's file is done.
    pub(super) fn snapshot_written(&mut self, now: Instant, write: SnapshotWrite) {
        match write {
            SnapshotWrite::Block => self.write_snapshot_block(now, Vec::new()),
            SnapshotWrite::Whole(id, bytes, since) => {
                if let Some(server) = self.server.as_deref_mut() {
                    server.snapshots.times.record_since(since, now);
                }
                if !mutant!(M29) {
                    self.snapshot_taken(now, (id, bytes));
                }
            }
            SnapshotWrite::Received(receipt, number) => {
                self.tell_snapshots(now, SnapshotInput::Stored { receipt, number });
            }
            SnapshotWrite::ReceivedWhole(receipt, id, bytes) => {
                self.receipt_stored(now, receipt, (id, bytes));
            }
            SnapshotWrite::Removal => {}
        }
    }

    /// There was no space for a write to a snapshot's file: gives the snapshot up, and its file.
    pub(super) fn snapshot_found_no_room(&mut self, now: Instant, write: SnapshotWrite) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let (receipt, file) = match write {
            SnapshotWrite::Block | SnapshotWrite::Whole(..) => {
                server.snapshots.taking = None;
                (None, snapshot::Purpose::Own)
            }
            SnapshotWrite::Received(receipt, _) | SnapshotWrite::ReceivedWhole(receipt, ..) => {
                // Blocks behind the one that failed were given up with it.
                let held = server.snapshots.receiving.take_if(|held| held.receipt == receipt);
                if held.is_none() {
                    return;
                }
                (Some(receipt), snapshot::Purpose::Received)
            }
            // Nothing is removed in vain: that ends the node.
            SnapshotWrite::Removal => return,
        };
        self.trace(Level::Error, NodeTrace::NoRoomForSnapshot);
        self.remove_files(vec![file.discard()]);
        if receipt.is_none() {
            self.set_space_aside(0);
        }
        self.tell_snapshots(now, SnapshotInput::NoRoom { receipt });
    }

    /// What was received has its name, and is a snapshot unless it was given up meanwhile: one of
    /// its blocks may be missing then, and nothing may rely on it.
    fn receipt_stored(&mut self, now: Instant, receipt: ReceiptId, (id, bytes): (SnapshotId, u64)) {
        let Some(server) = self.server.as_deref() else { return };
        if server.snapshots.holds(receipt) {
            self.snapshot_stored(id, bytes);
            self.tell_snapshots(now, SnapshotInput::Durable { receipt });
        } else if server.snapshots.receiving.is_none() {
            // Another one that arrives may take the same name at any moment.
            mark!("node.given_up_snapshot_removed");
            self.remove_files(vec![FileOp::Remove(id.file())]);
        }
    }

    fn snapshot_taken(&mut self, now: Instant, (id, bytes): (SnapshotId, u64)) {
        self.snapshot_stored(id, bytes);
        self.set_space_aside(bytes);
        self.tell_snapshots(now, SnapshotInput::Taken { index: id.index, bytes });
    }

    /// A snapshot is durable: removes the files that nothing needs any more.
    fn snapshot_stored(&mut self, id: SnapshotId, bytes: u64) {
        let Some(server) = self.server.as_deref_mut() else { return };
        server.snapshots.stored = server.snapshots.stored.max(Some((id, bytes)));
        let retention = server.snapshots.files.add(id);
        let mut ops = retention.remove;
        if let Some(index) = retention.compact {
            ops.extend(server.wal.compact(index));
        }
        self.remove_files(ops);
    }

    fn remove_files(&mut self, ops: Vec<FileOp>) {
        if !ops.is_empty() {
            let purpose = Purpose::Snapshot(SnapshotWrite::Removal);
            self.writes.issue(purpose, Lane::State, ops, &mut self.out);
        }
    }

    fn tell_snapshots(&mut self, now: Instant, input: SnapshotInput) {
        if let Some(server) = self.server.as_deref_mut() {
            server.raft.handle(now, RaftInput::Snapshot(input), &mut self.boxes.raft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bootstrap, ServerConfig};
    use crate::id::{LogIndex, StoreId, WriteId};
    use crate::node::input::Input;
    use crate::node::output::Output;
    use crate::node::tests::node_of;
    use crate::storage::op::StorageFault;
    use crate::storage::testing::restored_server;

    /// The operations that a node hands to the disk.
    fn writes(node: &mut Node) -> Vec<(WriteId, Vec<FileOp>)> {
        let outputs = std::iter::from_fn(|| node.poll_output());
        let write = |output| {
            let Output::Persist { write, op } = output else { return None };
            Some((write, op.ops))
        };
        outputs.filter_map(write).collect()
    }

    /// What is relied on, and what is removed, once a server has received a snapshot whose first
    /// block found no space, or all of whose blocks did find some.
    fn received(first_fails: bool) -> (Option<SnapshotId>, Vec<FileOp>) {
        let config = ServerConfig::new(Bootstrap::Expect(3));
        let mut node = node_of(Some(config), restored_server());
        writes(&mut node);
        let mut encoder = ImageEncoder::new(Tables::default());
        let blocks: Vec<_> = std::iter::from_fn(|| encoder.next_block(1)).collect();
        assert!(blocks.len() > 1, "a later block can be stored where an earlier one was not");
        for (number, data) in (0..).zip(&blocks) {
            let last = number + 1 == blocks.len() as u64;
            node.receive_block(Instant::ZERO, ReceiptId(1), &meta(), (number, data, last));
        }
        let handed = writes(&mut node);
        assert_eq!(handed.len(), blocks.len());
        for (number, (write, _)) in handed.into_iter().enumerate() {
            let input = if number == 0 && first_fails {
                Input::PersistFailed { write, error: StorageFault::Full }
            } else {
                Input::Persisted { write }
            };
            node.handle(Instant::ZERO, input);
        }
        let removed = writes(&mut node).into_iter().flat_map(|(_, ops)| ops);
        let removed = removed.filter(|op| matches!(op, FileOp::Remove(_))).collect();
        let snapshots = node.server.unwrap().snapshots;
        assert_eq!(snapshots.bytes().is_some_and(|bytes| bytes > 0), !first_fails);
        (snapshots.newest(), removed)
    }

    fn meta() -> SnapshotMeta {
        let (index, configuration_index) = (LogIndex::new(9), LogIndex::new(1));
        SnapshotMeta { index, configuration_index, ..SnapshotMeta::default() }
    }

    /// Its last block gives the file its name all the same.
    #[test]
    fn a_received_snapshot_that_lacks_a_block_is_removed_and_never_relied_on() {
        let id = SnapshotId::of(&meta());
        assert_eq!(received(false), (Some(id), Vec::new()));
        let (newest, removed) = received(true);
        assert_eq!(newest, None);
        let file = snapshot::Purpose::Received.discard();
        assert_eq!(removed, [file, FileOp::Remove(id.file())]);
    }

    #[test]
    fn a_block_that_no_server_makes_is_refused_before_it_reaches_the_writer() {
        let meta = SnapshotMeta { index: LogIndex::new(1), ..SnapshotMeta::default() };
        let store = StoreId::from_bytes([1; 16]);
        let (writer, _) = SnapshotWriter::begin(store, snapshot::Purpose::Received, &meta);
        let mut held = Receiving {
            receipt: ReceiptId(1),
            writer: Some(writer),
            bytes: 0,
            decoder: ImageDecoder::default(),
            tables: None,
        };
        let mut ops = Vec::new();
        let bytes = BLOCK_BYTES_MAX + 1;
        let refused = held.take_block(&vec![0; bytes], false, &mut ops);
        assert_eq!(refused, Err(BlockError::TooLarge { bytes }));
        assert!(matches!(held.take_block(b"", false, &mut ops), Err(BlockError::Image(_))));
        assert!(ops.is_empty());
    }
}
