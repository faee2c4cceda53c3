//! Beginning anew with the servers that are left, once a quorum is lost for good (raft.md §10.6).
//!
//! The operator stops all servers and names in `raft/peers.json` those that are to vote. The start
//! then appends that configuration to the log, as it stands, and makes the store one of a new
//! cluster, named after the file and the whole history up to there. So servers that begin with the
//! same file and the same log are one cluster, and everybody else is a stranger to them: servers
//! that return from the old cluster, and servers whose log is another one, however much of it is
//! the same. The operator wipes those, and they join.
//!
//! Whatever the log holds counts as committed from then on, whether it was or not. A part of it
//! that was lost is given up.
//!
//! The entry is durable before the identity, and the file is removed last. A start that was
//! interrupted finds its own entry at the end of the log and goes on from there.
//!
//! Differs: raft.md counts epochs and trusts the recovered base only once a leader has confirmed
//! it, as servers of one epoch may differ. A cluster named after its history needs neither.

use super::RecoveryError;
use crate::id::{ClusterId, NodeId, StoreId};
use crate::log::{Log, Position};
use crate::pack_struct;
use crate::raft::{
    Configuration, Entry, EntryKind, IdentityChange, PersistBatch, RestoredRaft, Server,
};
use crate::storage::op::{FileOp, FilePath};
use crate::storage::wal::Wal;
use crate::wire::pack;
use std::net::SocketAddr;
use thiserror::Error;

/// The path of the file.
pub fn peers_file() -> FilePath {
    FilePath::new("raft/peers.json")
}

/// One server of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its identity; without one it is found by its address.
    pub id: Option<NodeId>,
    /// Its server port.
    pub address: SocketAddr,
    /// Whether it is to vote.
    pub votes: bool,
}
pack_struct!(Peer { id, address, votes });

/// Why the file cannot be followed. Nothing was changed; the operator is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeersError {
    /// Nothing was ever stored here.
    #[error("this server has no state to begin with; start it without the file")]
    NoState,
    /// It leaves this server out.
    #[error("it does not name this server, {0}")]
    SelfMissing(NodeId),
    /// It names a server that the newest configuration does not.
    #[error(
        "it names {0}, which is no server of the newest configuration here: name those that are \
         left, and let others join"
    )]
    Stranger(String),
    /// The servers are no configuration.
    #[error("somebody must vote, and no identity or address may be there twice")]
    Unsound,
}

/// The configuration that the file asks for, with the stores that `known` names.
pub(super) fn configuration(
    peers: &[Peer],
    known: Option<&Configuration>,
    (own, store): (NodeId, StoreId),
) -> Result<Configuration, PeersError> {
    let mut next = Configuration::default();
    let mut count = 0;
    for peer in peers {
        let mut known = known.into_iter().flat_map(Configuration::servers);
        let found = known.find(|(id, server)| match peer.id {
            Some(wanted) => **id == wanted,
            None => server.address == peer.address,
        });
        // This server is known, also where no configuration can be read any more.
        let (id, store) = match found {
            _ if peer.id == Some(own) => (own, store),
            Some((id, _)) if *id == own => (own, store),
            Some((id, server)) => (*id, server.store),
            None => {
                let name = peer.id.map_or_else(|| peer.address.to_string(), |id| id.to_string());
                return Err(PeersError::Stranger(name));
            }
        };
        let role = if peer.votes { &mut next.voters } else { &mut next.learners };
        role.insert(id, Server { address: peer.address, store });
        count += 1;
    }
    if !next.contains(own) {
        return Err(PeersError::SelfMissing(own));
    }
    let whole = next.servers().count() == count;
    if whole && next.is_sound() { Ok(next) } else { Err(PeersError::Unsound) }
}

/// Makes `raft` the beginning of the new cluster; returns the operations that do so on the disk.
pub(super) fn begin(
    next: &Configuration,
    raft: &mut RestoredRaft,
    wal: &mut Wal,
) -> Result<Vec<FileOp>, RecoveryError> {
    let covered = raft.snapshot.as_ref().map(crate::raft::SnapshotMeta::position);
    let last = raft.entries.last().map(Entry::position).or(covered);
    let Some(last) = last else { return Err(RecoveryError::Peers(PeersError::NoState)) };
    let payload = pack::to_bytes(next);
    let stands = |entry: &&Entry| entry.kind == EntryKind::Config && entry.payload == payload;
    let mut ops = Vec::new();
    let position = if let Some(entry) = raft.entries.last().filter(stands) {
        crate::mark!("storage.peers_interrupted");
        entry.position()
    } else {
        crate::mark!("storage.peers_begun");
        let mut log = Log::restore(Some(last), Vec::new());
        let entry = log.append_new(last.term, EntryKind::Config, payload.clone());
        ops.extend(
            wal.append(&PersistBatch { entries: vec![entry.clone()], ..PersistBatch::default() }),
        );
        let position = entry.position();
        raft.entries.push(entry);
        position
    };
    let cluster = named_after(position, &payload);
    let identity = IdentityChange { cluster: Some(cluster), recovered: true, ..Default::default() };
    ops.extend(wal.append(&PersistBatch { identity, ..PersistBatch::default() }));
    ops.push(FileOp::Remove(peers_file()));
    ops.push(FileOp::SyncDir(peers_file().parent()));
    (raft.cluster, raft.recovering) = (Some(cluster), None);
    Ok(ops)
}

/// The cluster of those whose history up to this position is the same.
fn named_after(position: Position, configuration: &[u8]) -> ClusterId {
    let Position { index, term, chain } = position;
    let half = |first| crate::log::chain(first, index, term, &EntryKind::Config, configuration);
    let halves = [half(chain), half(!chain)].map(u64::to_be_bytes);
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(halves.iter().flatten()) {
        *to = *from;
    }
    ClusterId::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
