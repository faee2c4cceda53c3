//! What clients of the key-value table asked, and what they were told: a history to be judged.
//!
//! Source: simulation.md §8. Every operation has a number, and whatever it stores carries that
//! number: a put as its value, a transaction in the name of a key that never exists. So a value
//! that is seen names the operation that wrote it. Deletions carry nothing.

use super::backup::Backup;
use super::session::maker_of;
use bytes::Bytes;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::kv::{KvPut, KvWrite};
use terraform_core::catalog::lock::KvLock;
use terraform_core::catalog::query::{Consistency, Query, Rows};
use terraform_core::catalog::session::Session;
use terraform_core::catalog::transaction::Operation;
use terraform_core::id::{ModifyIndex, SessionId};
use terraform_core::node::request::Response;
use terraform_core::time::Instant;

/// The number of an operation: its place in the history.
pub type OpId = u64;

/// What begins the name of a transaction's own key.
const MARKER: &str = "never/";

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// One change.
    Write(KvWrite),
    /// Several operations as one, the marker first.
    Transaction(Vec<Operation>),
    /// A backup takes the place of everything.
    Restore(Backup),
    /// A backup is read.
    Save,
    /// A read, and how fresh it must be.
    Read(Query, Consistency),
    /// A session begins.
    Open(Box<Session>),
    /// A session is to live on.
    Renew(SessionId),
    /// A session ends.
    Close(SessionId),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Without a word: it may take effect at any later time, or never.
    Open,
    /// Nothing happened, the client was told.
    NotDone,
    /// Nothing happened: it breaks a rule, or could not be done.
    Refused,
    /// Nothing happened: there is no such session.
    NoSession,
    /// With this answer.
    Answered(Response),
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which client.
    pub client: usize,
    /// What.
    pub call: Call,
    /// The operation whose value the client saw at the index it makes a condition of; `None` if
    /// it saw no entry.
    pub believed: Option<OpId>,
    /// The position in the log that the answer must not be below.
    pub floor: u64,
    /// When, on the clock of the history.
    pub invoked: u64,
    /// When, in true time.
    pub asked: Instant,
    /// When it was answered.
    pub returned: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
}

/// All operations, with a clock that tells which were over before others began.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Vec<Record>,
    clock: u64,
}

impl History {
    /// The number that the next operation gets.
    pub fn next_id(&self) -> OpId {
        self.records.len() as OpId
    }

    /// All operations by number.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// An operation begins. Its answer may be anything that is true from position `floor` on.
    pub fn invoke(
        &mut self,
        client: usize,
        (call, asked): (Call, Instant),
        believed: Option<OpId>,
        floor: u64,
    ) {
        self.clock += 1;
        let (invoked, returned, outcome) = (self.clock, None, Outcome::Open);
        let record = Record { client, call, believed, floor, invoked, asked, returned, outcome };
        self.records.push(record);
    }

    /// An operation ends.
    ///
    /// Panics if it never began.
    pub fn finish(&mut self, id: OpId, outcome: Outcome) -> &Record {
        self.clock += 1;
        let at = usize::try_from(id).expect("operations are counted in memory");
        let record = &mut self.records[at];
        record.returned = Some(self.clock);
        record.outcome = outcome;
        record
    }
}

/// The value that operation `id` stores.
pub fn value_of(id: OpId) -> Bytes {
    id.to_string().into()
}

/// The operation that stored a value; more words may follow its number.
pub fn writer_of(value: &[u8]) -> Option<OpId> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

/// What transaction `id` begins with.
pub fn marker_of(id: OpId) -> Operation {
    Operation::CheckNotExists(format!("{MARKER}{id}"))
}

/// Whether a key is that of a transaction.
pub fn is_marker(key: &str) -> bool {
    key.starts_with(MARKER)
}

/// The operation that a committed command comes from; a deletion does not tell.
pub fn origin_of(command: &Command) -> Option<OpId> {
    match command {
        Command::Kv(
            KvWrite::Put(KvPut { value, .. })
            | KvWrite::Acquire(KvLock { value, .. })
            | KvWrite::Release(KvLock { value, .. }),
        ) => writer_of(value),
        Command::CreateSession(session) => maker_of(session.id),
        Command::Transaction(operations) => match operations.first() {
            Some(Operation::CheckNotExists(key)) => key.strip_prefix(MARKER)?.parse().ok(),
            _ => None,
        },
        Command::RestoreCommit(commit) => Backup::operation_of(commit.restore),
        Command::Kv(KvWrite::Delete(_) | KvWrite::DeleteTree(_))
        | Command::Register(_)
        | Command::Deregister(_)
        | Command::Coordinates(_)
        | Command::Autopilot(_)
        | Command::ReapTombstones(_)
        | Command::EndSessions(_)
        | Command::EndLockDelays(_)
        | Command::Prepared(_)
        | Command::RestoreBlock(_)
        | Command::RestoreAbort(_) => None,
    }
}

/// What the answer to a read of one key says: the index and the writer of its entry; the outer
/// `None` if the answer is another one.
pub fn seen_in(rows: &Rows) -> Option<Option<(ModifyIndex, Option<OpId>)>> {
    let Rows::Entries(entries) = rows else { return None };
    Some(entries.first().map(|entry| (entry.modify_index, writer_of(&entry.value))))
}
