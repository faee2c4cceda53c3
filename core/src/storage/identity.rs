//! Who this agent and this data directory are: `node-id` and `raft/identity`.
//!
//! Source: raft.md §11.2, agent-config.md §10. `node-id` is Consul's file: 36 bytes of UUID text.
//! `raft/identity` exists on servers, is written before anything of the store is used, and changes
//! by atomic replacement: a cluster adopted, a bootstrap promise made (raft.md §10.5), a longer
//! heartbeat timeout, a recovery begun or ended (`raft::recovering`). The operations stand first in
//! the batch that changes it, but last where it founds a cluster.
//!
//! `raft/identity`: magic `TFIDENT\n`, version u32, payload length u32, payload (msgpack map),
//! CRC-32 of all bytes before.

use super::op::{FileOp, FilePath};
use super::{StorageDamage, replace_file, temporary};
use crate::id::{ClusterId, NameError, NodeId, StoreId, Term};
use crate::pack_struct;
use crate::raft::IdentityChange;
use crate::wire::pack;
use bytes::Bytes;
use std::time::Duration;
use thiserror::Error;

const MAGIC: [u8; 8] = *b"TFIDENT\n";
const VERSION: u32 = 1;
/// Bytes of the file at most: a block of most disks.
const BYTES_MAX: u64 = 4096;

/// The content of `raft/identity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The server that owns the store.
    pub(super) node: NodeId,
    /// The store: new for every data directory.
    pub(super) store: StoreId,
    /// The cluster, once known.
    pub(super) cluster: Option<ClusterId>,
    /// The hash of the configuration this blank server promised to bootstrap with.
    pub(super) promise: Option<Bytes>,
    /// The largest heartbeat timeout any run used; sets the vote embargo (raft.md §4.6).
    pub(super) heartbeat_timeout: Duration,
    /// The term in which a part of the log was found lost that is not held again yet.
    pub(super) recovering: Option<Term>,
}
pack_struct!(Identity { node, store, cluster, promise, heartbeat_timeout, recovering });

/// Why `raft/identity` could not be read. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum IdentityError {
    /// The file is damaged.
    #[error(transparent)]
    Damage(#[from] StorageDamage),
    /// A later release wrote it.
    #[error("unknown version {0}")]
    Version(u32),
}

/// The path of `raft/identity`.
pub(super) fn identity_file() -> FilePath {
    FilePath::new("raft/identity")
}

/// The path of `node-id`.
pub(super) fn node_id_file() -> FilePath {
    FilePath::new("node-id")
}

impl Identity {
    /// Takes over what `change` holds; says whether anything is different from before.
    pub(super) fn change(&mut self, change: &IdentityChange) -> bool {
        let before = self.clone();
        self.cluster = change.cluster.or(self.cluster);
        self.promise = change.promise.clone().or_else(|| self.promise.take());
        self.heartbeat_timeout = change.heartbeat_timeout.unwrap_or(self.heartbeat_timeout);
        self.recovering = self.recovering.filter(|_| !change.recovered);
        *self != before
    }

    /// The operations that make this the durable identity.
    pub(super) fn write(&self) -> Vec<FileOp> {
        let payload = pack::to_bytes(self);
        let length = u32::try_from(payload.len()).expect("an identity takes some hundred bytes");
        let mut out = Vec::with_capacity(payload.len() + 20);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&payload);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        replace_file(&identity_file(), out.into())
    }

    /// The operation that sets space aside for [`Identity::write`].
    pub(super) fn set_space_aside() -> FileOp {
        FileOp::Allocate { file: temporary(&identity_file()), len: BYTES_MAX }
    }

    /// Reads the content of `raft/identity`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, IdentityError> {
        let damage = |rule| StorageDamage { file: identity_file(), offset: 0, rule };
        let cut = || damage("the file is too short");
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(cut)?;
        if u32::from_be_bytes(*crc) != crc32fast::hash(body) {
            return Err(damage("the checksum does not match").into());
        }
        let (magic, rest) = body.split_first_chunk::<8>().ok_or_else(cut)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (length, payload) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        if *magic != MAGIC {
            return Err(damage("the file does not begin as an identity does").into());
        }
        if u32::from_be_bytes(*version) != VERSION {
            return Err(IdentityError::Version(u32::from_be_bytes(*version)));
        }
        if usize::try_from(u32::from_be_bytes(*length)) != Ok(payload.len()) {
            return Err(damage("the length does not match").into());
        }
        pack::from_bytes(payload).map_err(|_| damage("the content is not an identity").into())
    }
}

/// The operations that store a new node's identity.
pub(super) fn write_node_id(id: NodeId) -> Vec<FileOp> {
    replace_file(&node_id_file(), id.to_string().into())
}

/// Reads the content of `node-id`; white space around the text is ignored, as Consul does.
pub(super) fn read_node_id(bytes: &[u8]) -> Result<NodeId, NameError> {
    NodeId::parse(String::from_utf8_lossy(bytes).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            node: NodeId::from_bytes([1; 16]),
            store: StoreId::from_bytes([2; 16]),
            cluster: Some(ClusterId::from_bytes([3; 16])),
            promise: None,
            heartbeat_timeout: Duration::from_secs(1),
            recovering: Some(Term::new(7)),
        }
    }

    fn content(identity: &Identity) -> Bytes {
        let first = identity.write().into_iter().next();
        let Some(FileOp::Write { data, .. }) = first else { panic!("a write comes first") };
        data
    }

    #[test]
    fn an_identity_survives_its_file() {
        assert_eq!(Identity::read(&content(&identity())), Ok(identity()));
    }

    #[test]
    fn every_flipped_bit_of_an_identity_is_noticed() {
        let good = content(&identity());
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::read(&bad).is_err(), "bit {bit}");
        }
        (0..good.len()).for_each(|len| assert!(Identity::read(&good[..len]).is_err()));
    }

    #[test]
    fn a_node_id_is_consuls_text() {
        let id = NodeId::from_bytes([5; 16]);
        assert_eq!(read_node_id(format!("{id}\n").as_bytes()), Ok(id));
        assert!(read_node_id(b"").is_err());
        assert!(read_node_id(b"\xff\xfe").is_err());
    }
}
