//! The published snapshot of a node: everything that readers on other threads may use.
//!
//! A view is a plain value. Readers take the view first and the clock after it, so a lease that
//! they find valid was valid when the state was read (DESIGN.md §8).

use crate::catalog::query::{Query, QueryAnswer};
use crate::id::{Datacenter, LogIndex, NodeId, NodeName, Term};
use crate::local::LocalView;
use crate::node::request::{RequestContext, RequestError};
use crate::serf::Member;
use crate::time::Instant;
use std::net::SocketAddr;
use std::sync::Arc;

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its identity.
    pub id: NodeId,
    /// Its server port.
    pub address: SocketAddr,
}

/// What a server knows of consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsensusView {
    /// `Leader`, `Follower` or `Candidate`.
    pub role: &'static str,
    /// The current term.
    pub term: Term,
    /// The leader, if known.
    pub leader: Option<Leader>,
    /// When it was last heard of.
    pub leader_contact_at: Option<Instant>,
    /// Until when this server may answer reads as the leader.
    pub lease_until: Option<Instant>,
    /// The newest committed entry.
    pub commit: LogIndex,
    /// The newest applied entry.
    pub applied: LogIndex,
    /// The newest entry.
    pub last: LogIndex,
    /// Its term.
    pub last_term: Term,
    /// The voters' addresses, by identity.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// The position of the newest configuration.
    pub configuration_index: LogIndex,
}

/// One node's published state.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The node's name.
    pub name: NodeName,
    /// Its identity.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// All known members, by name.
    pub members: Arc<[Member]>,
    /// Its own registrations.
    pub local: LocalView,
    /// On servers, consensus.
    pub consensus: Option<ConsensusView>,
    /// On servers, the catalog.
    pub catalog: Option<crate::catalog::Tables>,
    /// Counts the publications of this run.
    pub version: u64,
}

impl View {
    /// Answers a read from this snapshot, if its rules allow: a stale read on any server, a default
    /// read on a leader whose lease holds at `now`. `None` sends the reader to the node.
    ///
    /// `now` must have been read after the view was taken.
    pub fn answer(
        &self,
        _context: &RequestContext,
        _query: &Query,
        _now: Instant,
    ) -> Option<Result<QueryAnswer, RequestError>> {
        None
    }
}
