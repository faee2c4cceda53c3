//! Receiving a snapshot (Raft thesis §5, figure 5.3; raft.md §9, "Arriving snapshot").
//!
//! Blocks are handed on as they come and acknowledged once they are stored. The log is replaced
//! when the whole snapshot is durable, in this order: its file, then the reset of the log. A crash
//! between the two leaves a snapshot that the log does not reach, which recovery takes for what it
//! is.

use super::super::membership::Configurations;
use super::super::shared::{Destination, Shared};
use super::super::{
    Body, Header, Raft, RaftOutput, RaftTrace, Role, SnapshotBlock, SnapshotMeta, SnapshotOutput,
    Unfit,
};
use super::ReceiptId;
use crate::id::{LogIndex, Term};
use crate::log::Log;
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{mark, mutant, trace};

/// Blocks taken and not stored, beyond which a leader keeps no window.
const PENDING_MAX: u64 = 16;
/// Positions beyond this are not counted to in any server's life; a log that begins there could
/// not be read again.
const INDEX_MAX: LogIndex = LogIndex::new(1 << 62);

/// A snapshot that arrives.
#[derive(Clone, Debug)]
pub(in super::super) struct Receipt {
    id: ReceiptId,
    /// The term of the leader that sends it, and the number it has there.
    source: (Term, u64),
    meta: SnapshotMeta,
    /// The block that is wanted next.
    next: u64,
    /// The blocks before this one are stored.
    stored: u64,
    /// Whether the last one was taken.
    whole: bool,
    /// Where the newest block came from.
    answer: Destination,
}

/// What the log says of a snapshot.
enum Standing {
    /// The log holds everything it covers.
    Held,
    /// The log lacks something of it.
    Lacking,
    /// The log has another history at its position, of equal terms.
    Contradicted,
}

fn standing(shared: &Shared, meta: &SnapshotMeta) -> Standing {
    if meta.index <= shared.commit && !mutant!(M27) {
        return Standing::Held;
    }
    match shared.log.position(meta.index) {
        Some(own) if own.term != meta.term => Standing::Lacking,
        Some(own) if own.chain != meta.chain => Standing::Contradicted,
        Some(_) => Standing::Held,
        None => Standing::Lacking,
    }
}

impl Raft {
    /// Takes a block.
    pub(in super::super) fn on_snapshot_block(
        &mut self,
        now: Instant,
        header: &Header,
        block: SnapshotBlock,
        out: &mut Outbox<RaftOutput>,
    ) {
        let SnapshotBlock { snapshot, meta, number, data, last } = block;
        if !well_formed(header, &meta) {
            self.shared.stats.malformed += 1;
            return;
        }
        if !self.follow(now, header, out) {
            return self.answer_old_leader(header, LogIndex::ZERO, out);
        }
        let (shared, answer) = (&mut self.shared, Destination::answer(header));
        match standing(shared, &meta) {
            Standing::Held => return acknowledge(shared, now, (answer, &meta), out),
            Standing::Contradicted => return contradict(shared, &meta, out),
            Standing::Lacking => {}
        }
        if shared.unfit(now) == Some(Unfit::DiskFull) {
            mark!("raft.snapshot.disk_full");
            return;
        }
        if !shared.is_settled() {
            // A snapshot goes another way to the disk than the term and the cluster it belongs to,
            // and must not be there without them. No leader needs this: it sends a snapshot after
            // an answer of its term, which waited for both. What is not taken is sent again.
            return;
        }
        let source = (header.term, snapshot);
        let known = shared.snapshots.receipt.as_ref().map(|receipt| receipt.source);
        if known.is_some_and(|known| known > source) {
            // A leader counts its snapshots: this is a late block of one that it has given up.
            mark!("raft.snapshot.late_block");
            return;
        }
        if known != Some(source) {
            drop_receipt(shared, out);
            shared.snapshots.receipts += 1;
            let id = ReceiptId(shared.snapshots.receipts);
            let index = meta.index;
            trace!(out, Level::Info, RaftTrace::ReceivingSnapshot { from: header.from, index });
            let receipt = Receipt {
                id,
                source,
                meta: meta.clone(),
                next: 0,
                stored: 0,
                whole: false,
                answer,
            };
            shared.snapshots.receipt = Some(receipt);
        }
        let Some(receipt) = &mut shared.snapshots.receipt else { return };
        if receipt.meta != meta {
            shared.stats.malformed += 1;
            return;
        }
        receipt.answer = answer;
        if number == receipt.next && !receipt.whole && number - receipt.stored < PENDING_MAX {
            receipt.next += 1;
            receipt.whole = last;
            let receipt = receipt.id;
            let output = SnapshotOutput::Receive { receipt, meta, number, data, last };
            return out.push(RaftOutput::Snapshot(output));
        }
        // It came twice, or one before it is lost.
        let next = if number < receipt.next { receipt.stored } else { receipt.next };
        shared.send(answer, Body::SnapshotAnswer { snapshot, next }, out);
    }

    /// A block is stored.
    pub(in super::super) fn on_block_stored(
        &mut self,
        id: ReceiptId,
        number: u64,
        out: &mut Outbox<RaftOutput>,
    ) {
        let shared = &mut self.shared;
        let Some(receipt) = &mut shared.snapshots.receipt else { return };
        if receipt.id != id {
            return;
        }
        receipt.stored = receipt.stored.max(number + 1);
        let (answer, next) = (receipt.answer, receipt.stored);
        let body = Body::SnapshotAnswer { snapshot: receipt.source.1, next };
        shared.send(answer, body, out);
    }

    /// What arrived is no snapshot, though all of it came: its leader begins again.
    pub(in super::super) fn on_receipt_refused(&mut self, id: ReceiptId) {
        let receipt = &mut self.shared.snapshots.receipt;
        if receipt.as_ref().is_some_and(|receipt| receipt.id == id) {
            *receipt = None;
        }
    }

    /// The disk has no space for a snapshot: for some time none is taken from a leader, who is told
    /// so, or of what is applied here.
    pub(in super::super) fn on_no_room(&mut self, now: Instant, receipt: Option<ReceiptId>) {
        mark!("raft.snapshot.no_room");
        let shared = &mut self.shared;
        let until = now + shared.settings.limits.snapshot_interval;
        match receipt {
            Some(id) => {
                shared.snapshots.no_room_until = Some(until);
                self.on_receipt_refused(id);
            }
            None => shared.snapshots.not_taken(until),
        }
    }

    /// The whole snapshot is durable: replaces the log by it, unless the log has caught up.
    pub(in super::super) fn on_receipt_durable(
        &mut self,
        now: Instant,
        id: ReceiptId,
        out: &mut Outbox<RaftOutput>,
    ) {
        let follows = matches!(self.role, Role::Follower(_));
        let shared = &mut self.shared;
        let Some(receipt) = shared.snapshots.receipt.take_if(|receipt| receipt.id == id) else {
            return;
        };
        let Receipt { meta, answer, .. } = receipt;
        let standing = standing(shared, &meta);
        if !follows || !matches!(standing, Standing::Lacking) {
            mark!("raft.snapshot.came_late");
            out.push(RaftOutput::Snapshot(SnapshotOutput::Drop { receipt: id }));
            return match standing {
                Standing::Held => acknowledge(shared, now, (answer, &meta), out),
                Standing::Contradicted => contradict(shared, &meta, out),
                Standing::Lacking => {}
            };
        }
        mark!("raft.snapshot.installed");
        if meta.index < shared.log.last_index() {
            mark!("raft.snapshot.conflicting_log_dropped");
        }
        let index = meta.index;
        trace!(out, Level::Info, RaftTrace::SnapshotInstalled { index });
        shared.stats.snapshots_installed += 1;
        let behind =
            if mutant!(M28) { shared.log.range(index, shared.log.last_index()) } else { &[] };
        shared.log = Log::restore(Some(meta.position()), behind.to_vec());
        shared.configs = Configurations::after(&meta);
        shared.persist.reset(index);
        shared.snapshots.installed(index);
        (shared.commit, shared.handed, shared.applied) = (index, index, index);
        out.push(RaftOutput::Snapshot(SnapshotOutput::Install { receipt: id }));
        shared.tell_configuration(out);
        shared.hand_out(out);
        say_held(shared, now, (answer, &meta), out);
    }
}

/// Whether a correct leader could send this.
fn well_formed(header: &Header, meta: &SnapshotMeta) -> bool {
    (LogIndex::new(1)..=INDEX_MAX).contains(&meta.index)
        && meta.term <= header.term
        && meta.configuration_index <= meta.index
        && meta.configuration_index > LogIndex::ZERO
        && meta.configuration.is_sound()
}

/// This log holds what the snapshot covers.
fn acknowledge(
    shared: &mut Shared,
    now: Instant,
    (answer, meta): (Destination, &SnapshotMeta),
    out: &mut Outbox<RaftOutput>,
) {
    shared.advance_commit(meta.index, out);
    if shared.snapshots.receipt.as_ref().is_some_and(|receipt| receipt.meta.index <= meta.index) {
        drop_receipt(shared, out);
    }
    say_held(shared, now, (answer, meta), out);
}

/// Says so once all that was asked of the disk is done: the entries up to there, or the reset of
/// the log, are then durable too (raft.md §11.4).
fn say_held(
    shared: &mut Shared,
    now: Instant,
    (answer, meta): (Destination, &SnapshotMeta),
    out: &mut Outbox<RaftOutput>,
) {
    let body = Body::AppendOk { match_index: meta.index, condition: shared.condition(now) };
    let needs = shared.persist.newest();
    shared.send_after(answer, body, needs, out);
}

fn drop_receipt(shared: &mut Shared, out: &mut Outbox<RaftOutput>) {
    if let Some(receipt) = shared.snapshots.receipt.take() {
        mark!("raft.snapshot.receipt_dropped");
        out.push(RaftOutput::Snapshot(SnapshotOutput::Drop { receipt: receipt.id }));
    }
}

fn contradict(shared: &mut Shared, meta: &SnapshotMeta, out: &mut Outbox<RaftOutput>) {
    let rule = format!("INV-RAFT-3: histories differ up to the snapshot's entry {}", meta.index);
    shared.fatal(rule, out);
}
