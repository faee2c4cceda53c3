//! What a log entry asks of the catalog, and what became of it.
//!
//! An entry's payload is one version byte followed by the msgpack form of a [`Command`].

use super::autopilot::AutopilotWrite;
use super::kv::KvWrite;
use super::lock::{KeyRefusal, LockDelayEnd};
use super::model::{Check, CheckStatus, Node, NodeCoordinate, Service};
use super::prepared::{PreparedQueryError, PreparedWrite};
use super::restore::{RestoreBlock, RestoreCommit, RestoreError};
use super::session::{Session, SessionError};
use super::transaction::{Operation, TransactionResult};
use crate::id::{CheckId, ModifyIndex, NodeName, RestoreId, ServiceId, SessionId};
use crate::wire::{DecodeError, pack};
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use thiserror::Error;

/// The version byte in front of every command.
const VERSION: u8 = 1;
/// Bytes that most commands fit in.
const ENCODED_BYTES: usize = 512;

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stores a node, and with it a service and checks (http-api.md §7.1).
    Register(Box<Registration>),
    /// Removes a service, a check or a whole node (http-api.md §7.2).
    Deregister(Deregistration),
    /// Stores where nodes are; those of nodes that do not exist are dropped (http-api.md §13).
    Coordinates(Vec<NodeCoordinate>),
    /// Changes the key-value table (http-api.md §9).
    Kv(KvWrite),
    /// Does several operations, or none of them (http-api.md §12).
    Transaction(Vec<Operation>),
    /// Forgets what was deleted from the key-value table up to this index.
    ReapTombstones(ModifyIndex),
    /// Takes one block of a backup; the first one begins a restore (raft.md §9).
    RestoreBlock(RestoreBlock),
    /// Puts the backup in the place of everything.
    RestoreCommit(RestoreCommit),
    /// Discards what came of this restore; one that is not under way is no failure.
    RestoreAbort(RestoreId),
    /// Changes how the leader cares for the servers (http-api.md §16).
    Autopilot(AutopilotWrite),
    /// Stores a session (http-api.md §10).
    CreateSession(Box<Session>),
    /// Ends sessions; one that does not exist is no failure.
    EndSessions(Vec<SessionId>),
    /// Lets keys be acquired again.
    EndLockDelays(Vec<LockDelayEnd>),
    /// Changes the prepared queries (http-api.md §14).
    Prepared(PreparedWrite),
}
pack_enum!(Command {
    1 => Register(Box<Registration>), 2 => Deregister(Deregistration),
    3 => Coordinates(Vec<NodeCoordinate>), 4 => Kv(KvWrite), 5 => Transaction(Vec<Operation>),
    6 => ReapTombstones(ModifyIndex), 7 => RestoreBlock(RestoreBlock),
    8 => RestoreCommit(RestoreCommit), 9 => RestoreAbort(RestoreId),
    10 => Autopilot(AutopilotWrite), 11 => CreateSession(Box<Session>),
    12 => EndSessions(Vec<SessionId>), 13 => EndLockDelays(Vec<LockDelayEnd>),
    14 => Prepared(PreparedWrite),
});

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// What it asked for.
    Done,
    /// Nothing: the condition it came with is not met.
    Unmet,
    /// What became of a transaction.
    Transaction(TransactionResult),
}

/// What a registration stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The node's record; its indexes are ignored.
    pub node: Node,
    /// Leaves an existing node's record alone; a missing one is still created.
    pub skip_node_update: bool,
    /// A service instance.
    pub service: Option<Service>,
    /// Checks of the node or of its services.
    pub checks: Vec<Check>,
}
pack_struct!(Registration { node, skip_node_update, service, checks });

/// What a deregistration removes: the service if named, else the check if named, else the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deregistration {
    /// The node.
    pub node: NodeName,
    /// One of its services.
    pub service: Option<ServiceId>,
    /// One of its checks.
    pub check: Option<CheckId>,
}
pack_struct!(Deregistration { node, service, check });

impl Command {
    /// The payload of a log entry.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(ENCODED_BYTES);
        out.push(VERSION);
        pack::Pack::pack(self, &mut out);
        // The log keeps it, so it takes no more room than it needs.
        Bytes::copy_from_slice(&out)
    }

    /// Reads the payload of a log entry.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let field = "command";
        let (version, body) = payload.split_first().ok_or(DecodeError::Truncated { field })?;
        if *version != VERSION {
            return Err(DecodeError::Unknown { field, value: u64::from(*version) });
        }
        pack::from_bytes(body)
    }
}

/// Why the catalog refused a command. Nothing changed, except as a [`RestoreError`] says; the texts
/// are what clients see.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// A check names a service its node does not have.
    #[error("failed inserting check: Missing service registration on node {node:?}")]
    MissingService {
        /// The node.
        node: NodeName,
    },
    /// A check names another node than the registration.
    #[error("check node {check:?} does not match node {node:?}")]
    CheckOfOtherNode {
        /// The check's node.
        check: NodeName,
        /// The registration's node.
        node: NodeName,
    },
    /// The name belongs to another, healthy node.
    #[error(
        "failed inserting node: Error while renaming Node ID: {id:?} ({address}): \
         Node name {name} is reserved by node {owner} with name {name} ({owner_address})"
    )]
    NameReserved {
        /// The identity that wants the name.
        id: String,
        /// Its address.
        address: String,
        /// The name.
        name: NodeName,
        /// The identity that has it.
        owner: String,
        /// Its address.
        owner_address: String,
    },
    /// A session breaks a rule.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A write of a key names a session that does not exist.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
    /// A change of the prepared queries.
    #[error(transparent)]
    Prepared(#[from] PreparedQueryError),
    /// A step of a restore.
    #[error("failed restoring: {0}")]
    Restore(#[from] RestoreError),
    /// The entry cannot be read: written by a later release.
    #[error("unreadable command: {0}")]
    Unreadable(DecodeError),
}

/// The check the leader keeps for every member (cluster-behaviour.md §2).
pub const SERF_HEALTH: &str = "serfHealth";

/// Whether `status` is the one status that counts as healthy.
pub fn is_passing(status: &CheckStatus) -> bool {
    *status == CheckStatus::Passing
}
