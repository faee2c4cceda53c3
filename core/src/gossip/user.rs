//! Messages of the Serf layer to one address: answers to queries, and what is relayed.
//!
//! Implements the point-to-point part of gossip-wire.md §11: a datagram without piggyback; what
//! is too large for one goes on a stream of its own (gossip-protocol.md §28, size of answers).

use super::push_pull::Purpose;
use super::{Gossip, GossipOutput, GossipTrace};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::gossip::Message;
use bytes::Bytes;
use std::net::SocketAddr;

/// Streams with one message each that may be on their way at once.
const STREAMS_MAX: usize = 64;

impl Gossip {
    /// Sends one message to one address.
    pub(super) fn send_user(
        &mut self,
        now: Instant,
        to: SocketAddr,
        payload: Bytes,
        out: &mut Outbox<GossipOutput>,
    ) {
        let message = Message::User(payload.clone()).encode();
        if message.len() <= self.parts_bytes_max() {
            self.send(to, self.versions_at(&to), &message, out);
            return;
        }
        let streams = self.exchanges.values().filter(|exchange| exchange.is_user()).count();
        if streams >= STREAMS_MAX {
            let reason = "too many messages are on their way".to_owned();
            crate::trace!(out, Level::Warn, GossipTrace::MessageFailed { peer: to, reason });
            return;
        }
        crate::mark!("gossip.user_stream");
        let deadline = now + self.config.stream_timeout;
        self.open_exchange(now, to, Purpose::User(payload), deadline, out);
    }
}
