//! Two members of one name: the others say whom they know, and the minority gives way.
//!
//! Implements the Serf part of gossip-protocol.md §8 with the query `_serf_conflict`. Only a claim
//! on this member's own name is acted on, and one query at a time is enough for any number of them.
//!
//! Differs: without a single answer nobody outvotes this member, so it stays. Otherwise a second
//! agent of the same name, started by mistake or forged in one datagram, would stop an agent that
//! has no other members to speak for it.

use super::query::Purpose;
use super::request::QueryParameters;
use super::{Serf, SerfOutput, SerfTrace};
use crate::id::{NodeName, PoolName};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::serf::{MemberRecord, SerfMessage};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;

impl Serf {
    /// Another member claims `name` from another address.
    pub(super) fn conflict(&mut self, now: Instant, name: &NodeName, out: &mut Outbox<SerfOutput>) {
        let asked = self.running.values().any(|running| running.purpose == Purpose::Conflict);
        if *name != self.local || asked || !self.is_active() {
            return;
        }
        crate::mark!("serf.conflict");
        let parameters = QueryParameters {
            name: "_serf_conflict".to_owned(),
            payload: Bytes::copy_from_slice(name.as_str().as_bytes()),
            ..QueryParameters::default()
        };
        if let Err(refusal) = self.ask(now, Purpose::Conflict, parameters, out) {
            crate::trace!(out, Level::Error, SerfTrace::ConflictNotResolved { refusal });
        }
    }

    /// What is known of the member a conflict is about; nothing is said about this member itself.
    pub(super) fn conflict_answer(&self, name: &[u8]) -> Option<Bytes> {
        let name = NodeName::parse(std::str::from_utf8(name).ok()?).ok()?;
        if name == self.local {
            return None;
        }
        let record = self.members.get(&name).map(|entry| MemberRecord::from(&*entry.member));
        Some(SerfMessage::ConflictResponse(record).encode())
    }

    /// Decides by majority whether this member keeps its name.
    pub(super) fn resolve_conflict(
        &self,
        answers: BTreeMap<NodeName, Bytes>,
        out: &mut Outbox<SerfOutput>,
    ) {
        let own = self.own_address();
        let known = answers.values().filter_map(|answer| match SerfMessage::decode(answer) {
            Ok(SerfMessage::ConflictResponse(record)) => record,
            Ok(_) | Err(_) => None,
        });
        let (mine, others): (Vec<MemberRecord>, Vec<MemberRecord>) =
            known.partition(|record| Some(SocketAddr::new(record.address, record.port)) == own);
        let (total, matching) = (answers.len(), mine.len());
        let name = self.local.clone();
        if total > 0 && matching < total / 2 + 1 {
            // A server whose name is taken in the WAN pool goes on in its datacenter.
            if self.config.pool == PoolName::Lan {
                crate::trace!(out, Level::Error, SerfTrace::ConflictLost { name, matching, total });
            }
            let other = others.into_iter().next().map(Box::new);
            out.push(SerfOutput::NameLost { matching, total, other });
        } else {
            crate::trace!(out, Level::Info, SerfTrace::ConflictWon { name, matching, total });
        }
    }
}
