//! A server that lost a part of what it acknowledged, until it holds that again (raft.md K12,
//! §11.5).
//!
//! Whoever counted its acknowledgements may have committed what it lost. So it takes entries and
//! snapshots and acknowledges them, but neither votes nor campaigns: whoever is elected meanwhile
//! has the votes of a quorum without it, and that shares with every quorum that committed an entry
//! a server that holds it. Invariant: INV-RAFT-4 holds as long as fewer than half of the voters
//! recover at a time.
//!
//! When its disk is found damaged in term T, storage moves it on to term T + 1 before anything else
//! (`storage::recovery`). It said nothing in any term above T, so a leader of such a term was
//! elected without it, and holds from its first entry on everything it may have acknowledged. Once
//! an entry of such a term is committed and durable here, all in front of it is, and the recovery
//! ends.
//!
//! Differs from raft.md §11.5, where it ends at the last entry that the leader had at first
//! contact. That needs the position on the wire, safe from heartbeats that were sent before the
//! damage, and a leader of term T that takes back what it knows of this server's log. A new term
//! gives both for one election, once for each damage.

use super::shared::Shared;
use super::{IdentityChange, RaftOutput, RaftTrace};
use crate::machine::Outbox;
use crate::trace::Level;
use crate::{mark, mutant, trace};

impl Shared {
    /// Whether this server may neither vote nor campaign, since it lost a part of its log.
    pub(super) fn is_recovering(&self) -> bool {
        self.recovering.is_some() && !mutant!(M56)
    }

    /// Ends the recovery if what was handed out, which is committed and durable, reaches into a
    /// later term.
    pub(super) fn recover(&mut self, out: &mut Outbox<RaftOutput>) {
        let Some(lost_in) = self.recovering else { return };
        if self.log.term(self.handed).is_some_and(|term| term > lost_in) {
            mark!("raft.recovering.ended");
            self.recovering = None;
            self.save_identity(IdentityChange { recovered: true, ..Default::default() });
            trace!(out, Level::Info, RaftTrace::Recovered { last: self.handed });
        }
    }
}
