//! What programs and people ask of an agent, and what it answers.
//!
//! A request carries its whole context from the first line: token, datacenter, consistency, wait
//! index and time, source. What a server must answer is forwarded with that context.

use crate::catalog::command::Command;
use crate::catalog::model::CheckStatus;
use crate::catalog::prepared::{Executed, Execution};
use crate::catalog::query::{Consistency, Query, QueryAnswer, RaftConfiguration, Rows};
use crate::catalog::transaction::TransactionResult;
use crate::coordinate::Coordinate;
use crate::event::{Event, FireEvent};
use crate::id::{
    CheckId, Datacenter, LogIndex, ModifyIndex, NodeId, NodeName, PoolName, ServiceId, SessionId,
    Term,
};
use crate::local::Maintenance;
use crate::local::definition::{CheckDefinition, ServiceDefinition};
use crate::node::NodeStatus;
use crate::reconcile::Health;
use crate::rpc::RequestRate;
use crate::serf::{KeyOperation, SerfRefusal, SerfReply, SerfRequest};
use crate::trace::Level;
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Who asks, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// The secret given, if any; carried, not yet judged.
    pub token: Option<String>,
    /// The datacenter asked; `None` for the agent's own.
    pub datacenter: Option<Datacenter>,
    /// How fresh a read must be.
    pub consistency: Consistency,
    /// Answer only once the index is above this; zero answers at once.
    pub min_index: ModifyIndex,
    /// How long to wait for that.
    pub wait: Option<Duration>,
    /// Where the request came from, if it came over a socket.
    pub source: Option<SocketAddr>,
}
/// The longest wait of a read, and the wait if it names none (http-api.md §1.6).
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// See [`WAIT_MAX`].
pub const WAIT_DEFAULT: Duration = Duration::from_secs(300);

impl RequestContext {
    /// How long a read may wait for a change; `None` if it is to be answered at once.
    pub fn waits(&self) -> Option<Duration> {
        let blocks = self.min_index > ModifyIndex::ZERO;
        blocks.then(|| self.wait.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX))
    }
}

pack_struct!(RequestContext { token, datacenter, consistency, min_index, wait, source });

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks, and how.
    pub context: RequestContext,
    /// What is asked.
    pub body: RequestBody,
}
pack_struct!(Request { context, body });

impl Request {
    /// A request of this agent in the default context.
    pub fn new(body: RequestBody) -> Self {
        Self { context: RequestContext::default(), body }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Read the catalog. Answered by `Response::Answer`.
    Query(Query),
    /// Change the catalog. Answered once committed and applied: by `Response::Done`, by
    /// `Response::Unmet` if it has a condition, by `Response::Transaction`.
    Write(Command),
    /// Join other agents. Answered by `Response::Joined`.
    Join {
        /// Which pool; servers alone join the WAN pool.
        pool: PoolName,
        /// Through whom.
        addresses: Vec<SocketAddr>,
        /// Whether user events from before the join are delivered here.
        replay: bool,
    },
    /// Something of the Serf layer. Answered by `Response::Serf`, queries when they are over.
    Serf(SerfRequest),
    /// Do something with the keyrings of all members of a pool, of the WAN pool only on servers in
    /// it; in another datacenter through a server there. Answered by `Response::Serf` once the
    /// members have answered.
    Keys(KeyringRequest),
    /// Change who takes part in consensus, or who leads it. Answered by `Response::Done`.
    Operator(OperatorRequest),
    /// Give a session its full time again. Answered as the query for it, by its leader.
    RenewSession(SessionId),
    /// Find what a prepared query wants, in other datacenters too. Answered by
    /// `Response::Executed`.
    ExecutePrepared(Box<Execution>),
    /// Read everything as a backup, block by block. Answered by `Response::Backup`, and closing by
    /// `Response::Done`. Steps of a restore are writes.
    Backup(BackupRequest),
    /// Tell nodes something once, chosen by filters; in another datacenter by a server there.
    /// Answered by `Response::Event`.
    FireEvent(Box<FireEvent>),
    /// Where members are. Answered by `Response::Coordinates`.
    Coordinates,
    /// Make a failed member leave, of the LAN pool, and of the WAN pool if it is there.
    ForceLeave {
        /// The member: the name of a node, or in the WAN pool with its datacenter behind it.
        node: NodeName,
        /// Whether to forget it at once.
        prune: bool,
    },
    /// Leave the cluster and stop; `force` even if the quorum would be lost.
    Leave {
        /// Whether to leave even if the remaining servers cannot go on.
        force: bool,
    },
    /// Register a service on this agent.
    RegisterService {
        /// The service with its checks.
        definition: Box<ServiceDefinition>,
        /// Whether checks not named here go away.
        replace_existing_checks: bool,
    },
    /// Remove a service from this agent; an unknown one is no error.
    DeregisterService(ServiceId),
    /// Register a check on this agent.
    RegisterCheck(Box<CheckDefinition>),
    /// Remove a check from this agent; an unknown one is no error.
    DeregisterCheck(CheckId),
    /// Report the state of a TTL check.
    UpdateTtl {
        /// The check.
        check: CheckId,
        /// Its state.
        status: CheckStatus,
        /// What to show.
        output: String,
    },
    /// Put this node or a service of it into maintenance, or take it out.
    Maintenance(Box<Maintenance>),
    /// Replace what came from configuration files.
    Reload(Box<Reloadable>),
    /// Sections of numbers and states for people (`info`). Answered by `Response::Info`.
    Info,
    /// Numbers for whoever measures this agent. Answered by `Response::Status`.
    Status,
    /// Trace for monitors that want this level too, or for none any more. Answered by
    /// `Response::Done`.
    Monitor(Option<Level>),
}
// What is forwarded has the first tags; the others are never sent.
pack_enum!(RequestBody {
    1 => Query(Query),
    2 => Write(Command),
    3 => FireEvent(Box<FireEvent>),
    4 => Keys(KeyringRequest),
    5 => Operator(OperatorRequest),
    6 => Backup(BackupRequest),
    7 => RenewSession(SessionId),
    8 => ExecutePrepared(Box<Execution>),
    100 => Join { pool, addresses, replay },
    101 => Serf(SerfRequest),
    102 => Coordinates,
    103 => ForceLeave { node, prune },
    104 => Leave { force },
    105 => RegisterService { definition, replace_existing_checks },
    106 => DeregisterService(ServiceId),
    107 => RegisterCheck(Box<CheckDefinition>),
    108 => DeregisterCheck(CheckId),
    109 => UpdateTtl { check, status, output },
    110 => Reload(Box<Reloadable>),
    111 => Info,
    112 => Maintenance(Box<Maintenance>),
    113 => Status,
    114 => Monitor(Option<Level>),
});

/// Something to be done with the keyrings of all members of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringRequest {
    /// Which pool.
    pub pool: PoolName,
    /// What.
    pub operation: KeyOperation,
    /// Members that pass each answer on.
    pub relay_factor: u8,
}
pack_struct!(KeyringRequest { pool, operation, relay_factor });

/// What an operator asks of consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorRequest {
    /// Take a server out of the configuration, if the others can go on without it.
    RemovePeer(PeerName),
    /// Let this voter lead, or whichever is fit for it best.
    TransferLeadership(Option<NodeId>),
    /// Tell how the servers do.
    Health,
}
pack_enum!(OperatorRequest {
    1 => RemovePeer(PeerName), 2 => TransferLeadership(Option<NodeId>), 3 => Health,
});

/// How a server of the configuration is named, by the text that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    /// By its identity.
    Id(String),
    /// By its server port, `ip:port`.
    Address(String),
}
pack_enum!(PeerName { 1 => Id(String), 2 => Address(String) });

/// One step of reading everything as a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupRequest {
    /// Begin one, of a state as fresh as a read would be. Answered by `BackupReply::Opened`.
    Open,
    /// Hand out one of its blocks: the next, or once more the last. Answered by
    /// `BackupReply::Block`.
    Read(BackupRead),
    /// Forget it; one that is not open is no error.
    Close(BackupId),
}
pack_enum!(BackupRequest { 1 => Open, 2 => Read(BackupRead), 3 => Close(BackupId) });

impl BackupRequest {
    /// The server that alone can answer it.
    pub const fn server(&self) -> Option<NodeId> {
        match self {
            Self::Open => None,
            Self::Read(BackupRead { backup, .. }) | Self::Close(backup) => Some(backup.server),
        }
    }
}

/// One open backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupId {
    /// The server that has it.
    pub server: NodeId,
    /// Which of its backups; drawn, so that a server that started anew takes none for another.
    pub number: u64,
}
pack_struct!(BackupId { server, number });

/// Which block of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupRead {
    /// The backup.
    pub backup: BackupId,
    /// The place of the block, from 0.
    pub block: u64,
}
pack_struct!(BackupRead { backup, block });

/// What a step of reading a backup gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupReply {
    /// To `Open`.
    Opened(Box<BackupOpened>),
    /// To `Read`.
    Block(BackupBlock),
}
pack_enum!(BackupReply { 1 => Opened(Box<BackupOpened>), 2 => Block(BackupBlock) });

/// What a backup stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOpened {
    /// The backup.
    pub backup: BackupId,
    /// The last entry of the log that is in it.
    pub applied: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// The catalog index of that entry.
    pub index: ModifyIndex,
    /// Who takes part in consensus.
    pub configuration: RaftConfiguration,
    /// Whether the server knew a leader.
    pub known_leader: bool,
    /// How long ago it had heard from the leader.
    pub last_contact: Duration,
}
pack_struct!(BackupOpened {
    backup,
    applied,
    term,
    index,
    configuration,
    known_leader,
    last_contact,
});

/// One block of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupBlock {
    /// The block of the image.
    pub data: Bytes,
    /// Whether it is the last one.
    pub last: bool,
}
pack_struct!(BackupBlock { data, last });

impl RequestBody {
    /// Whether another agent may answer it: a server, for everything that is not the asked agent's
    /// own.
    pub const fn is_forwarded(&self) -> bool {
        matches!(
            self,
            Self::Query(_)
                | Self::Write(_)
                | Self::FireEvent(_)
                | Self::Keys(_)
                | Self::Operator(_)
                | Self::Backup(_)
                | Self::RenewSession(_)
                | Self::ExecutePrepared(_)
        )
    }
}

/// What a reload may change without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloadable {
    /// Services of the configuration files.
    pub services: Vec<ServiceDefinition>,
    /// Node checks and further service checks of the configuration files.
    pub checks: Vec<CheckDefinition>,
    /// Metadata of the node.
    pub node_meta: BTreeMap<String, String>,
    /// Whether nothing is kept of what checks say.
    pub discard_check_output: bool,
    /// How many requests a client agent may send to servers; `None` for no limit.
    pub rpc_rate: Option<RequestRate>,
    /// The level of traces wanted.
    pub level: Level,
}
pack_struct!(Reloadable { services, checks, node_meta, discard_check_output, rpc_rate, level });

/// Sections of `key = value`, all text.
pub type InfoSections = BTreeMap<String, BTreeMap<String, String>>;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is done.
    Done,
    /// The answer to a query.
    Answer(Arc<QueryAnswer>),
    /// How many of the addresses were joined; at least one.
    Joined(usize),
    /// The sections of `info`.
    Info(InfoSections),
    /// What the Serf layer answers.
    Serf(SerfReply),
    /// The event that was fired.
    Event(Box<Event>),
    /// Members that have told where they are, this one among them, by name.
    Coordinates(BTreeMap<NodeName, Coordinate>),
    /// The condition of a write is not met. Nothing changed.
    Unmet,
    /// What became of a transaction.
    Transaction(TransactionResult),
    /// Something of a backup.
    Backup(BackupReply),
    /// How the servers do.
    Health(Box<Health>),
    /// What a prepared query found.
    Executed(Box<Executed>),
    /// Numbers of this agent.
    Status(Box<NodeStatus>),
}

impl Response {
    /// The rows that answer a query.
    ///
    /// - Errors: it answers something else; whoever sent it broke its contract.
    pub fn rows(self) -> Result<Rows, RequestError> {
        match self {
            Self::Answer(answer) => Ok(Arc::unwrap_or_clone(answer).rows),
            other @ (Self::Done
            | Self::Joined(_)
            | Self::Info(_)
            | Self::Serf(_)
            | Self::Event(_)
            | Self::Coordinates(_)
            | Self::Unmet
            | Self::Transaction(_)
            | Self::Backup(_)
            | Self::Health(_)
            | Self::Executed(_)
            | Self::Status(_)) => {
                Err(RequestError::Unknown(format!("a query was answered with {other:?}")))
            }
        }
    }
}

/// Why a request was not answered. Texts are what clients see (http-api.md §1.4).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// No leader is known, or it could not be reached in time. Nothing changed.
    #[error("No cluster leader")]
    NoLeader,
    /// A client agent knows no server. Nothing changed.
    #[error("No known Consul servers")]
    NoServers,
    /// The datacenter is not known. Nothing changed.
    #[error("No path to datacenter")]
    NoPath,
    /// The datacenter is known, but none of its servers could be reached. Nothing changed.
    #[error("Remote DC has no server currently reachable")]
    NoServerReachable,
    /// A queue or limit is full; try again. Nothing changed.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// More requests were sent to servers than this client agent may send. Nothing changed.
    #[error("RPC rate limit exceeded")]
    RateExceeded,
    /// The outcome is not known: it may have happened or may still happen.
    #[error("{0}")]
    Unknown(String),
    /// Refused by a rule; the text names it. Nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The thing named does not exist. Nothing changed.
    #[error("{0}")]
    NotFound(String),
    /// The agent is stopping. Nothing changed.
    #[error("the agent is shutting down")]
    Stopping,
    /// Something is not built yet; the text names it. Nothing changed.
    #[error("{0} is not built yet")]
    NotBuilt(String),
}

/// Several errors in the one text that clients know (http-api.md §1.4).
pub fn multi_error(errors: &[String]) -> String {
    let count = match errors.len() {
        1 => "1 error occurred".to_owned(),
        count => format!("{count} errors occurred"),
    };
    let lines: String = errors.iter().map(|error| format!("\n\t* {error}")).collect();
    format!("{count}:{lines}\n\n")
}

impl From<SerfRefusal> for RequestError {
    fn from(refusal: SerfRefusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            SerfRefusal::TooManyQueries => Self::Overloaded(text),
            SerfRefusal::UnknownQuery => Self::NotFound(text),
            SerfRefusal::Leaving => Self::Stopping,
            SerfRefusal::EventTooLarge { .. }
            | SerfRefusal::EncodedEventTooLarge { .. }
            | SerfRefusal::QueryTooLarge { .. }
            | SerfRefusal::ReservedQuery
            | SerfRefusal::BadExpression { .. }
            | SerfRefusal::TimeoutTooLong
            | SerfRefusal::RelayFactor
            | SerfRefusal::AlreadyAnswered
            | SerfRefusal::TooLate
            | SerfRefusal::AnswerTooLarge { .. }
            | SerfRefusal::TagsTooLong { .. } => Self::Refused(text),
        }
    }
}

pack_enum!(RequestError {
    1 => NoLeader, 2 => NoServers, 3 => NoPath, 4 => Overloaded(String), 5 => Unknown(String),
    6 => Refused(String), 7 => NotFound(String), 8 => Stopping, 9 => NotBuilt(String),
    10 => NoServerReachable, 11 => RateExceeded,
});
