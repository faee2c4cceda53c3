//! Sending a snapshot to a server whose next entry is not kept any more (raft.md §9).
//!
//! Blocks are asked for one after the other and kept until they are acknowledged; whoever loses
//! one is sent all of them again. A receiver that has forgotten blocks gets a new snapshot.

use super::super::leader::Leader;
use super::super::progress::Flow;
use super::super::shared::{Destination, Shared};
use super::super::{
    Body, Header, Raft, RaftOutput, RaftTrace, Role, SnapshotBlock, SnapshotMeta, SnapshotOutput,
};
use super::ImageId;
use crate::id::{LogIndex, NodeId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::{buggify, mark, trace};
use bytes::Bytes;
use std::collections::VecDeque;

/// A snapshot on its way to one server.
#[derive(Clone, Debug)]
pub(in super::super) struct Sending {
    image: ImageId,
    meta: SnapshotMeta,
    /// Blocks that were sent and not acknowledged, oldest first.
    window: VecDeque<Block>,
    /// The number of the block that is asked for next.
    next: u64,
    /// Whether it is asked for and has not come.
    asked: bool,
    /// Whether the last one came.
    whole: bool,
    /// Whether anything was acknowledged since the last heartbeat.
    moved: bool,
}

#[derive(Clone, Debug)]
struct Block {
    number: u64,
    data: Bytes,
    last: bool,
}

impl Raft {
    /// The next block of an image.
    pub(in super::super) fn on_image_block(
        &mut self,
        now: Instant,
        image: ImageId,
        (data, last): (Bytes, bool),
        out: &mut Outbox<RaftOutput>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let found = leader.sendings.iter_mut().find(|(_, sending)| sending.image == image);
        let Some((to, sending)) = found else { return };
        let block = Block { number: sending.next, data, last };
        sending.next += 1;
        sending.asked = false;
        sending.whole = last;
        sending.window.push_back(block.clone());
        let to = *to;
        leader.send_block(&mut self.shared, now, to, block, out);
        leader.ask_for_block(&self.shared, to, out);
    }

    /// A server has stored the blocks before `next`.
    pub(in super::super) fn on_snapshot_answer(
        &mut self,
        now: Instant,
        header: &Header,
        (snapshot, next): (u64, u64),
        out: &mut Outbox<RaftOutput>,
    ) {
        if !self.counts_as_answer(now, header, out) {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&header.from) else { return };
        let Some(sending) = leader.sendings.get_mut(&header.from) else { return };
        if sending.image.0 != snapshot || next > sending.next {
            return;
        }
        peer.progress.active_at = now;
        let oldest = sending.window.front().map_or(sending.next, |block| block.number);
        if next == 0 && oldest > 0 {
            mark!("raft.snapshot.receiver_forgot");
            leader.close(header.from, out);
            return leader.replicate(&mut self.shared, now, header.from, out);
        }
        // The last one stays until the whole is installed, so that it can be sent again.
        let stored = |block: &Block| block.number < next && !block.last;
        while sending.window.front().is_some_and(stored) {
            sending.window.pop_front();
            sending.moved = true;
        }
        leader.ask_for_block(&self.shared, header.from, out);
    }
}

impl Leader {
    /// Sets the applied state aside for a server, if that is there to receive it.
    pub(in super::super) fn begin_snapshot(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: NodeId,
        out: &mut Outbox<RaftOutput>,
    ) {
        if self.sendings.contains_key(&to) || !self.hears(shared, to, now) {
            return;
        }
        let Some(position) = shared.log.position(shared.handed) else { return };
        let Some(peer) = self.peers.get_mut(&to).filter(|peer| !peer.progress.is_full()) else {
            return;
        };
        mark!("raft.snapshot.sent");
        peer.progress.snapshot(position.index);
        shared.snapshots.images += 1;
        shared.stats.snapshots_sent += 1;
        let image = ImageId(shared.snapshots.images);
        let meta = shared.snapshot_meta(position);
        trace!(out, Level::Info, RaftTrace::SendingSnapshot { to, index: position.index });
        out.push(RaftOutput::Snapshot(SnapshotOutput::Open { image }));
        let sending = Sending {
            image,
            meta,
            window: VecDeque::new(),
            next: 0,
            asked: false,
            whole: false,
            moved: true,
        };
        self.sendings.insert(to, sending);
        self.ask_for_block(shared, to, out);
    }

    fn ask_for_block(&mut self, shared: &Shared, to: NodeId, out: &mut Outbox<RaftOutput>) {
        let Some(sending) = self.sendings.get_mut(&to) else { return };
        let room = sending.window.len() < shared.settings.limits.blocks_max;
        if room && !sending.asked && !sending.whole {
            sending.asked = true;
            out.push(RaftOutput::Snapshot(SnapshotOutput::Read { image: sending.image }));
        }
    }

    fn send_block(
        &self,
        shared: &mut Shared,
        now: Instant,
        to: NodeId,
        block: Block,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Some((peer, sending)) = self.peers.get(&to).zip(self.sendings.get(&to)) else { return };
        let Block { number, data, last } = block;
        let (snapshot, meta) = (sending.image.0, sending.meta.clone());
        let body = Body::SnapshotBlock(SnapshotBlock { snapshot, meta, number, data, last });
        shared.send(Destination::request(to, peer.address, now), body, out);
    }

    /// The server answers heartbeats: if it acknowledged nothing for as long as one takes, what is
    /// on its way may be lost.
    pub(in super::super) fn resend_blocks(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: NodeId,
        out: &mut Outbox<RaftOutput>,
    ) {
        let Some(sending) = self.sendings.get_mut(&to) else { return };
        if self.peers.get(&to).is_some_and(|peer| peer.progress.is_full()) {
            return self.close(to, out);
        }
        let moved = std::mem::replace(&mut sending.moved, false);
        if moved && !buggify!("raft.snapshot.sent_twice") {
            return;
        }
        mark!("raft.snapshot.sent_again");
        for block in sending.window.clone() {
            self.send_block(shared, now, to, block, out);
        }
    }

    /// Ends the snapshot for a server; one that waits for it is searched for anew.
    fn close(&mut self, to: NodeId, out: &mut Outbox<RaftOutput>) {
        if let Some(Sending { image, .. }) = self.sendings.remove(&to) {
            out.push(RaftOutput::Snapshot(SnapshotOutput::Close { image }));
        }
        if let Some(peer) = self.peers.get_mut(&to)
            && peer.progress.flow == Flow::Snapshot
        {
            peer.progress.probe(LogIndex::ZERO);
        }
    }

    /// The term is over: nothing is sent any more.
    pub(in super::super) fn close_all(&mut self, out: &mut Outbox<RaftOutput>) {
        let receivers: Vec<NodeId> = self.sendings.keys().copied().collect();
        receivers.into_iter().for_each(|to| self.close(to, out));
    }

    /// Gives up what nobody waits for any more: the server has caught up, is gone, or is silent.
    pub(in super::super) fn close_sendings(
        &mut self,
        shared: &Shared,
        now: Instant,
        out: &mut Outbox<RaftOutput>,
    ) {
        let waits = |to: &NodeId| {
            let flow = self.peers.get(to).map(|peer| peer.progress.flow);
            flow == Some(Flow::Snapshot) && self.hears(shared, *to, now)
        };
        let over: Vec<NodeId> = self.sendings.keys().filter(|to| !waits(to)).copied().collect();
        over.into_iter().for_each(|to| self.close(to, out));
    }

    /// Below this position no entry is to be forgotten: a server that is there still lacks it.
    pub(in super::super) fn pin(&self, shared: &Shared, now: Instant) -> Option<LogIndex> {
        let there = self.peers.iter().filter(|(id, _)| self.hears(shared, **id, now));
        let needed = there.map(|(id, peer)| match self.sendings.get(id) {
            Some(sending) => sending.meta.index,
            None => peer.progress.matched,
        });
        needed.min()
    }
}
