//! The start: from the files of a data directory to everything a node begins with.
//!
//! A machine of steps: it asks the host to list a folder, read a file or perform operations, and
//! ends in [`Restored`] or a typed refusal. All decisions are here, so the simulator recovers from
//! its faulty disks with the code that ships (DESIGN.md §8; raft.md §11.5).
//!
//! Nothing is written before everything has been read and judged, so a refusal changes nothing. A
//! server that has lost a part of what it acknowledged goes on as a recovering one if others may
//! hold it (`lost`).
//! What is written is done in one list of operations whose order makes a crash within it harmless:
//! the next recovery finds the old state or the new one. `raft/identity` comes last of a new
//! store's files, so a store without it was never used. A client agent leaves `raft/` alone.

mod host;
mod lost;
mod note;
mod peers;
mod snapshots;

pub use lost::Loss;
pub use note::RecoveryNote;
pub use peers::{Peer, PeersError, peers_file};

use super::StorageDamage;
use super::hard::{self, Chosen, HardSlots};
use super::identity::{self, Identity, IdentityError};
use super::op::{FileOp, FilePath, StorageFault};
use super::registrations::{RegistrationLog, RegistrationsError, registrations_file};
use super::scan::{ScanError, Scanned, Scanner};
use super::snapshot::{self, Snapshot, SnapshotFiles, snap_dir};
use super::wal::{SEGMENT_HEAD_BYTES, Tail, Wal, WalConfig, segment_file, segment_number, wal_dir};
use crate::catalog::Tables;
use crate::gossip::keyring::{KEYRING_BYTES_MAX, Keyring, KeyringFileError, keyring_file};
use crate::gossip::retired::retired_file;
use crate::id::{LogIndex, NameError, NodeId, PoolName, StoreId};
use crate::raft::{Configuration, Entry, EntryKind, HardState, RestoredRaft};
use crate::rng::Rng;
use crate::serf::snapshot_file;
use crate::{mark, mutant, pack_enum, pack_struct};
use bytes::Bytes;
use snapshots::{Beginning, Progress, Search};
use std::collections::VecDeque;
use std::time::Duration;
use thiserror::Error;

/// Bytes of a log segment that are read at most; sixteen times what is usual.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of the registrations and of the Serf snapshot that are read at most.
const STATE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a file with one value that are read at most.
const VALUE_BYTES_MAX: u64 = 64 << 10;

/// What a recovery is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Whether the agent is a server.
    pub server: bool,
    /// The configured identity; wins over the file `node-id`, which is then neither read nor
    /// written.
    pub node_id: Option<NodeId>,
    /// Sizes of the log's files.
    pub wal: WalConfig,
    /// The servers that `raft/peers.json` names, if there is such a file: those that a new cluster
    /// begins with.
    pub peers: Option<Vec<Peer>>,
    /// What the machine says of its identity, the best first. A new data directory gets one that is
    /// made of it; without any, one is drawn.
    pub host: Vec<String>,
}
pack_struct!(RecoveryConfig { server, node_id, wal, peers, host });

/// What the host is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// List the names in a folder (`None`: the data directory); a missing one has none. Answered by
    /// `Names`.
    List(Option<FilePath>),
    /// Read a whole file of at most `limit` bytes. Answered by `Content` or `TooLarge`.
    Read {
        /// The file.
        file: FilePath,
        /// Bytes.
        limit: u64,
    },
    /// Read a part of a file: `limit` bytes, or fewer if it ends before. Answered by `Content`.
    ReadPart {
        /// The file.
        file: FilePath,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Bytes.
        limit: u64,
    },
    /// Perform these in order. Answered by `Performed`.
    Perform(Vec<FileOp>),
    /// The end: the node can be made.
    Done(Box<Restored>),
    /// The end: this data directory cannot be used.
    Refused(RecoveryError),
}

/// What the host did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The names in the folder, in any order.
    Names(Vec<String>),
    /// The content of the file or part; `None` if the file is missing.
    Content(Option<Bytes>),
    /// The file has this many bytes, more than wanted.
    TooLarge(u64),
    /// All operations are done.
    Performed,
    /// The disk failed.
    Failed(StorageFault),
}
pack_enum!(Answer {
    1 => Names(Vec<String>), 2 => Content(Option<Bytes>), 3 => TooLarge(u64), 4 => Performed,
    5 => Failed(StorageFault),
});

/// Everything a node begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// Who this agent is.
    pub node_id: NodeId,
    /// Set on servers.
    pub server: Option<RestoredServer>,
    /// What is registered here, and the writer of it.
    pub registrations: RegistrationLog,
    /// What is known of the LAN pool.
    pub lan: RestoredPool,
    /// What was unusual, for the log.
    pub notes: Vec<RecoveryNote>,
}

/// What an earlier run left of one gossip pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoredPool {
    /// The content of its snapshot, if there is one; broken UTF-8 is replaced.
    pub snapshot: Option<String>,
    /// Its keys, if they were stored.
    pub keyring: Option<Keyring>,
}

/// What a server begins with beside that.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoredServer {
    /// Term, vote and log.
    pub raft: RestoredRaft,
    /// The catalog as the snapshot has it that `raft` begins with; empty without one.
    pub tables: Tables,
    /// The snapshots that are stored.
    pub snapshots: SnapshotFiles,
    /// The writer of all of it.
    pub wal: Wal,
    /// What is known of the WAN pool.
    pub wan: RestoredPool,
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// It is Consul's. The operator chose the wrong directory.
    #[error("the data directory belongs to Consul, whose files are not read: it holds {file}")]
    Consul {
        /// The file or folder that shows it.
        file: String,
    },
    /// `node-id` holds something else. The operator must repair or remove it.
    #[error("the file node-id is not usable: {0}")]
    NodeId(#[source] NameError),
    /// A file of keys holds none. The operator must repair it, or remove it and give the key anew;
    /// going on without would send gossip in clear.
    #[error("the file {file} is not usable: {source}")]
    Keyring {
        /// The file.
        file: FilePath,
        /// The rule it breaks.
        source: KeyringFileError,
    },
    /// The data belong to another server. The operator must give the matching identity.
    #[error("raft/identity belongs to the node {stored}, but this agent's node id is {configured}")]
    OtherNode {
        /// The owner.
        stored: NodeId,
        /// This agent.
        configured: NodeId,
    },
    /// A file was written by a later release.
    #[error("{file} has the unknown format version {version}; a later release wrote it")]
    Version {
        /// The file.
        file: FilePath,
        /// What it says.
        version: u64,
    },
    /// Something that was durable is not readable. The disk is at fault.
    #[error(transparent)]
    Damage(#[from] StorageDamage),
    /// Term and vote are unreadable in both places. The disk is at fault.
    #[error(
        "raft/hard.a and raft/hard.b are both unreadable: this server's vote is lost and it could \
         vote twice; remove the data directory and let the server join anew"
    )]
    HardStateLost,
    /// A part of the log or of the snapshots is lost, and no other voter is known that could hold
    /// it. The disk is at fault; the operator chooses what to go on with.
    #[error(
        "{0}; no other server is known that holds what is lost: put a copy of this data directory \
         in its place, or start on an empty one and load a backup (`terraform snapshot restore`), \
         or give up what is lost by a raft/peers.json that names this server"
    )]
    Alone(#[source] Loss),
    /// `raft/peers.json` cannot be followed.
    #[error("raft/peers.json cannot be followed: {0}")]
    Peers(#[source] PeersError),
    /// `raft/identity` is missing where a server has run before.
    #[error("raft/identity is missing, but {file} holds a server's state")]
    IdentityLost {
        /// The file that shows it.
        file: FilePath,
    },
    /// A file is larger than any the agent writes.
    #[error("{file} has {bytes} bytes, at most {limit} are read")]
    TooLarge {
        /// The file.
        file: FilePath,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk failed.
    #[error("{during}: {fault}")]
    Disk {
        /// What was being done.
        during: String,
        /// How it failed.
        fault: StorageFault,
    },
}

impl From<ScanError> for RecoveryError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damage(damage) => Self::Damage(damage),
            ScanError::Version { file, version } => {
                Self::Version { file, version: u64::from(version) }
            }
        }
    }
}

/// What the machine waits for.
#[derive(Clone, Debug)]
enum Phase {
    Start,
    /// The names of a folder that Consul also has.
    Folder(Option<FilePath>),
    NodeId,
    Registrations,
    SerfSnapshot(PoolName),
    Keyring(PoolName),
    RetiredKeys(PoolName),
    Identity,
    HardA,
    HardB,
    Segments,
    Segment(u64),
    Snapshots,
    Snapshot,
    Performing,
    Ended,
}

/// The machine; drive it with [`Recovery::step`] until it ends.
#[derive(Clone, Debug)]
pub struct Recovery {
    config: RecoveryConfig,
    rng: Rng,
    phase: Phase,
    asked: Option<Step>,
    folders: VecDeque<&'static str>,
    node_id: Option<NodeId>,
    registrations: Option<RegistrationLog>,
    lan: RestoredPool,
    wan: RestoredPool,
    identity: Option<Identity>,
    hard: [Option<Bytes>; 2],
    segments: VecDeque<u64>,
    scanner: Option<Scanner>,
    scanned: Option<Scanned>,
    search: Option<Search>,
    server: Option<RestoredServer>,
    ops: Vec<FileOp>,
    notes: Vec<RecoveryNote>,
}

/// Names in the data directory and below it that only Consul's agents make.
const CONSUL_ROOT: [&str; 5] =
    ["state.bin", "acl-tokens.json", "acl-bootstrap-reset", "checkpoint-signature", "proxy"];
const CONSUL_RAFT: [&str; 3] = ["raft.db", "peers.info", "snapshots"];

impl Recovery {
    /// A recovery that has not begun; `rng` makes the identities of a new data directory.
    pub const fn new(config: RecoveryConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            phase: Phase::Start,
            asked: None,
            folders: VecDeque::new(),
            node_id: None,
            registrations: None,
            lan: RestoredPool { snapshot: None, keyring: None },
            wan: RestoredPool { snapshot: None, keyring: None },
            identity: None,
            hard: [None, None],
            segments: VecDeque::new(),
            scanner: None,
            scanned: None,
            search: None,
            server: None,
            ops: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes the answer to the last step (`None` at first) and says what is next.
    ///
    /// Panics if the answer does not belong to the step, or after the end: host bugs.
    pub fn step(&mut self, answer: Option<Answer>) -> Step {
        let step = match self.judge(answer) {
            Ok(step) => step,
            Err(error) => {
                self.phase = Phase::Ended;
                Step::Refused(error)
            }
        };
        self.asked = Some(step.clone());
        step
    }

    fn judge(&mut self, answer: Option<Answer>) -> Result<Step, RecoveryError> {
        match answer {
            None => {
                assert!(matches!(self.phase, Phase::Start), "only the first step has no answer");
                self.phase = Phase::Folder(None);
                Ok(Step::List(None))
            }
            Some(Answer::Names(names)) => {
                if let Phase::Folder(folder) = &self.phase {
                    return self.folder(folder.clone().as_ref(), names);
                }
                if matches!(self.phase, Phase::Segments) {
                    return Ok(self.segment_names(&names));
                }
                assert!(matches!(self.phase, Phase::Snapshots), "names answer a wish for them");
                self.snapshot_names(&names)
            }
            Some(Answer::Content(content)) => self.content(content),
            Some(Answer::TooLarge(bytes)) => match self.asked.take() {
                Some(Step::Read { file, limit }) => {
                    Err(RecoveryError::TooLarge { file, bytes, limit })
                }
                other => panic!("a size does not answer {other:?}"),
            },
            Some(Answer::Performed) => self.finish(),
            Some(Answer::Failed(fault)) => {
                let during = match self.asked.take() {
                    Some(Step::List(Some(folder))) => format!("listing {folder}"),
                    Some(Step::Read { file, .. } | Step::ReadPart { file, .. }) => {
                        format!("reading {file}")
                    }
                    Some(Step::Perform(_)) => "writing".to_owned(),
                    _ => "listing the data directory".to_owned(),
                };
                Err(RecoveryError::Disk { during, fault })
            }
        }
    }

    fn content(&mut self, content: Option<Bytes>) -> Result<Step, RecoveryError> {
        match self.phase {
            Phase::NodeId => self.read_node_id(content.as_deref()),
            Phase::Registrations => self.read_registrations(content.as_deref()),
            Phase::SerfSnapshot(pool) => {
                let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
                self.pool(pool).snapshot = content.map(text);
                Ok(self.read(Phase::Keyring(pool), keyring_file(pool), KEYRING_BYTES_MAX))
            }
            Phase::Keyring(pool) => {
                let keyring = content.as_deref().map(Keyring::from_file).transpose();
                let unusable = |source| RecoveryError::Keyring { file: keyring_file(pool), source };
                let keyring = keyring.map_err(unusable)?;
                // Retired keys without a keyring are those of one that the operator removed.
                let wants_retired = keyring.is_some();
                self.pool(pool).keyring = keyring;
                Ok(if wants_retired {
                    self.read(Phase::RetiredKeys(pool), retired_file(pool), KEYRING_BYTES_MAX)
                } else {
                    self.after_keys(pool)
                })
            }
            Phase::RetiredKeys(pool) => {
                let unusable = |source| RecoveryError::Keyring { file: retired_file(pool), source };
                if let (Some(ring), Some(content)) = (&mut self.pool(pool).keyring, content) {
                    ring.retire_from_file(&content).map_err(unusable)?;
                }
                Ok(self.after_keys(pool))
            }
            Phase::Identity => self.read_identity(content.as_deref()),
            Phase::HardA => {
                self.hard[0] = content;
                let [_, b] = hard::files();
                Ok(self.read(Phase::HardB, b, VALUE_BYTES_MAX))
            }
            Phase::HardB => {
                self.hard[1] = content;
                self.phase = Phase::Segments;
                Ok(Step::List(Some(wal_dir())))
            }
            Phase::Segment(number) => self.read_segment(number, content),
            Phase::Snapshot => {
                let search = self.search.as_mut().expect("a part is read for a search");
                let progress = search.part(content)?;
                self.after_part(progress)
            }
            Phase::Start
            | Phase::Folder(_)
            | Phase::Segments
            | Phase::Snapshots
            | Phase::Performing
            | Phase::Ended => panic!("a file's content does not answer {:?}", self.phase),
        }
    }

    /// What comes after the keys of a pool.
    fn after_keys(&mut self, pool: PoolName) -> Step {
        match pool {
            PoolName::Lan if self.config.server => self.read_snapshot(PoolName::Wan),
            PoolName::Lan => self.perform(),
            PoolName::Wan => self.read(Phase::Identity, identity::identity_file(), VALUE_BYTES_MAX),
        }
    }

    fn read(&mut self, phase: Phase, file: FilePath, limit: u64) -> Step {
        self.phase = phase;
        Step::Read { file, limit }
    }

    /// Refuses Consul's files; then looks into the next folder.
    fn folder(
        &mut self,
        folder: Option<&FilePath>,
        names: Vec<String>,
    ) -> Result<Step, RecoveryError> {
        let has = |name: &str| names.iter().any(|found| found == name);
        let foreign = match folder.map(FilePath::as_str) {
            None => {
                let shared = ["raft", "services", "checks"];
                self.folders = shared.into_iter().filter(|name| has(name)).collect();
                CONSUL_ROOT.into_iter().find(|name| has(name)).map(str::to_owned)
            }
            Some("raft") => {
                let name = CONSUL_RAFT.into_iter().find(|name| has(name));
                name.map(|name| format!("raft/{name}"))
            }
            Some(folder) => names.into_iter().min().map(|name| format!("{folder}/{name}")),
        };
        if let Some(file) = foreign {
            return Err(RecoveryError::Consul { file });
        }
        if let Some(next) = self.folders.pop_front() {
            let folder = FilePath::new(next);
            self.phase = Phase::Folder(Some(folder.clone()));
            return Ok(Step::List(Some(folder)));
        }
        if self.config.node_id.is_some() {
            self.node_id = self.config.node_id;
            return Ok(self.want_registrations());
        }
        Ok(self.read(Phase::NodeId, identity::node_id_file(), VALUE_BYTES_MAX))
    }

    fn want_registrations(&mut self) -> Step {
        self.read(Phase::Registrations, registrations_file(), STATE_BYTES_MAX)
    }

    fn read_node_id(&mut self, content: Option<&[u8]>) -> Result<Step, RecoveryError> {
        let id = if let Some(bytes) = content {
            identity::read_node_id(bytes).map_err(RecoveryError::NodeId)?
        } else {
            let drawn = NodeId::from_random(self.rng.bytes16());
            let id = host::identity(&self.config.host).unwrap_or(drawn);
            self.ops.extend(identity::write_node_id(id));
            id
        };
        self.node_id = Some(id);
        Ok(self.want_registrations())
    }

    fn read_registrations(&mut self, content: Option<&[u8]>) -> Result<Step, RecoveryError> {
        let (mut log, torn) = RegistrationLog::read(content).map_err(|error| match error {
            RegistrationsError::Damage(damage) => RecoveryError::Damage(damage),
            RegistrationsError::Version(version) => {
                RecoveryError::Version { file: registrations_file(), version }
            }
        })?;
        if torn {
            self.notes.push(RecoveryNote::TornRegistrations);
        }
        // The end of what was read may have been in the page cache only.
        self.ops.extend(log.compact());
        self.registrations = Some(log);
        let folder = FilePath::new("serf");
        self.ops.push(FileOp::CreateDir(folder));
        self.ops.push(FileOp::SyncDir(None));
        Ok(self.read_snapshot(PoolName::Lan))
    }

    fn read_snapshot(&mut self, pool: PoolName) -> Step {
        self.read(Phase::SerfSnapshot(pool), snapshot_file(pool), STATE_BYTES_MAX)
    }

    const fn pool(&mut self, pool: PoolName) -> &mut RestoredPool {
        match pool {
            PoolName::Lan => &mut self.lan,
            PoolName::Wan => &mut self.wan,
        }
    }

    fn read_identity(&mut self, content: Option<&[u8]>) -> Result<Step, RecoveryError> {
        let identity = content.map(Identity::read).transpose().map_err(|error| match error {
            IdentityError::Damage(damage) => RecoveryError::Damage(damage),
            IdentityError::Version(version) => {
                RecoveryError::Version { file: identity::identity_file(), version: version.into() }
            }
        })?;
        if let Some(identity) = &identity {
            let (stored, configured) = (identity.node, self.node());
            if stored != configured {
                return Err(RecoveryError::OtherNode { stored, configured });
            }
            self.scanner = Some(Scanner::new(identity.store));
        }
        self.identity = identity;
        let [a, _] = hard::files();
        Ok(self.read(Phase::HardA, a, VALUE_BYTES_MAX))
    }

    fn node(&self) -> NodeId {
        self.node_id.expect("the identity is known before any file that depends on it is read")
    }

    fn segment_names(&mut self, names: &[String]) -> Step {
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        self.segments = numbers.into();
        self.next_segment()
    }

    fn next_segment(&mut self) -> Step {
        if let Some(number) = self.segments.pop_front() {
            let file = segment_file(number);
            return self.read(Phase::Segment(number), file, SEGMENT_BYTES_MAX);
        }
        self.scanned = self.scanner.take().map(Scanner::finish);
        self.phase = Phase::Snapshots;
        Step::List(Some(snap_dir()))
    }

    fn snapshot_names(&mut self, names: &[String]) -> Result<Step, RecoveryError> {
        let (Some(identity), Some(scanned)) = (&self.identity, &self.scanned) else {
            if let Some(id) = snapshots::snapshots(names, "snap").last() {
                return Err(RecoveryError::IdentityLost { file: id.file() });
            }
            self.server = Some(self.create()?);
            return Ok(self.perform());
        };
        let search = Search::new(identity.store, scanned.base, names);
        let progress = self.search.insert(search).begin();
        self.after_part(progress)
    }

    fn after_part(&mut self, progress: Progress) -> Result<Step, RecoveryError> {
        match progress {
            Progress::Wanted(step) => {
                self.phase = Phase::Snapshot;
                Ok(step)
            }
            Progress::Ended(chosen) => {
                self.server = Some(self.resume(chosen.map(|chosen| *chosen))?);
                Ok(self.perform())
            }
        }
    }

    fn read_segment(&mut self, number: u64, content: Option<Bytes>) -> Result<Step, RecoveryError> {
        let bytes = content.unwrap_or_default();
        match &mut self.scanner {
            Some(scanner) => scanner.segment(number, bytes)?,
            // Without an identity nothing may be here but an interrupted creation, whose only
            // segment holds one seal.
            None => {
                let one_seal = SEGMENT_HEAD_BYTES + 128;
                if number > 1 || bytes.iter().skip(one_seal).any(|byte| *byte != 0) {
                    return Err(RecoveryError::IdentityLost { file: segment_file(number) });
                }
            }
        }
        Ok(self.next_segment())
    }

    /// A server that has run before.
    fn resume(
        &mut self,
        snapshot: Option<Snapshot<Tables>>,
    ) -> Result<RestoredServer, RecoveryError> {
        let mut identity = self.identity.clone().expect("a scan needs the store's identity");
        identity.recovering = identity.recovering.filter(|_| !mutant!(M57));
        let mut scanned = self.scanned.take().expect("the log is scanned before snapshots are");
        let search = self.search.take().expect("a search led here");
        let known = lost::newest_configuration(&scanned, snapshot.as_ref(), &search);
        let beginning = search.end(snapshot.as_ref(), &mut scanned);
        let Beginning { files: snapshots, reset, loss, ops: snapshot_ops, notes } = beginning;
        let mut chosen =
            hard::choose(identity.store, &self.hard).ok_or(RecoveryError::HardStateLost)?;
        let lost = scanned.lost.take().filter(|_| !mutant!(M32));
        let told = lost.as_ref().and_then(|lost| lost.last);
        let loss = lost.map(|lost| Loss::Log(lost.damage)).or(loss);
        if let Some(loss) = loss.clone().filter(|_| self.config.peers.is_none()) {
            let begin = lost::begin(loss.clone(), known.as_ref(), &mut identity, &mut chosen)?;
            self.ops.extend(begin);
            let start = snapshot.as_ref().map_or(scanned.base, |snapshot| snapshot.meta.index);
            let kept = scanned.entries.last().map_or(start, |entry| entry.index);
            self.notes.push(RecoveryNote::Lost { loss, kept, known: told });
        }
        let Chosen { hard, slots, ops } = chosen;
        self.ops.extend(ops);
        self.ops.extend(snapshot_ops);
        // The last first: at no time may a number be missing below another.
        let remove = |file| [FileOp::Remove(file), FileOp::SyncDir(Some(wal_dir()))];
        self.ops.extend(scanned.unused.into_iter().rev().flat_map(remove));
        self.notes.extend(scanned.torn.map(RecoveryNote::TornTail));
        self.notes.extend(notes);
        let founded = identity.cluster.is_none() && is_founded(&scanned.entries);
        if founded {
            mark!("storage.founding_interrupted");
            identity.cluster = Some(identity.store.own_cluster());
        }
        let name = if founded { identity.write() } else { Vec::new() };
        let mut raft = restored_raft(&identity, hard);
        let (meta, tables) = snapshot.map(|snapshot| (snapshot.meta, snapshot.content)).unzip();
        (raft.snapshot, raft.entries) = (meta, scanned.entries);
        check_connected(&raft);
        let (mut wal, ops) = Wal::resume(self.config.wal, identity, slots, scanned.tail, reset);
        self.ops.extend(ops);
        self.ops.extend(name);
        if let Some(peers) = self.config.peers.take() {
            self.begin_anew(&peers, known.as_ref(), (&mut raft, &mut wal), loss)?;
        }
        let (tables, wan) = (tables.unwrap_or_default(), std::mem::take(&mut self.wan));
        Ok(RestoredServer { raft, tables, snapshots, wal, wan })
    }

    /// Follows `raft/peers.json`.
    fn begin_anew(
        &mut self,
        peers: &[Peer],
        known: Option<&Configuration>,
        (raft, wal): (&mut RestoredRaft, &mut Wal),
        lost: Option<Loss>,
    ) -> Result<(), RecoveryError> {
        let next = peers::configuration(peers, known, (self.node(), raft.store));
        let next = next.map_err(RecoveryError::Peers)?;
        self.ops.extend(peers::begin(&next, raft, wal)?);
        let servers = next.servers().map(|(id, _)| *id).collect();
        let last = raft.entries.last().map_or(LogIndex::ZERO, |entry| entry.index);
        self.notes.push(RecoveryNote::Peers { servers, last, lost });
        Ok(())
    }

    /// A server that has never run on this data directory.
    fn create(&mut self) -> Result<RestoredServer, RecoveryError> {
        if self.config.peers.is_some() {
            return Err(RecoveryError::Peers(PeersError::NoState));
        }
        for (file, slot) in hard::files().into_iter().zip(&self.hard) {
            if slot.as_deref().is_some_and(hard::holds_state) {
                return Err(RecoveryError::IdentityLost { file });
            }
        }
        mark!("storage.store_created");
        let store = StoreId::from_random(self.rng.bytes16());
        self.ops.extend([wal_dir(), snap_dir()].map(FileOp::CreateDir));
        self.ops.push(FileOp::SyncDir(None));
        let (slots, ops) = HardSlots::create(store);
        self.ops.extend(ops);
        let identity = Identity {
            node: self.node(),
            store,
            cluster: None,
            promise: None,
            heartbeat_timeout: Duration::ZERO,
            recovering: None,
        };
        let raft = restored_raft(&identity, HardState::default());
        let write_identity = identity.write();
        let (wal, ops) = Wal::resume(self.config.wal, identity, slots, Tail::empty(store), None);
        self.ops.extend(ops);
        // The slots, `wal` and `snap` are in the folder before the identity is.
        self.ops.push(FileOp::SyncDir(Some(FilePath::new("raft"))));
        self.ops.extend(write_identity);
        let (snapshots, wan) = (SnapshotFiles::default(), std::mem::take(&mut self.wan));
        Ok(RestoredServer { raft, tables: Tables::default(), snapshots, wal, wan })
    }

    fn perform(&mut self) -> Step {
        self.phase = Phase::Performing;
        let mut ops = std::mem::take(&mut self.ops);
        if self.config.server {
            // First of all, so that the rest finds space on a full disk.
            ops.insert(0, snapshot::Purpose::Own.discard());
        }
        Step::Perform(ops)
    }

    fn finish(&mut self) -> Result<Step, RecoveryError> {
        assert!(matches!(self.phase, Phase::Performing), "operations were asked for");
        self.phase = Phase::Ended;
        let registrations = self.registrations.take();
        Ok(Step::Done(Box::new(Restored {
            node_id: self.node(),
            server: self.server.take(),
            registrations: registrations.expect("registrations are read before anything is done"),
            lan: std::mem::take(&mut self.lan),
            notes: std::mem::take(&mut self.notes),
        })))
    }
}

/// Whether this log, in a store without a cluster, is the beginning of one: whoever joins a cluster
/// says so before it takes its entries, and whoever founds one writes its first entry before.
fn is_founded(entries: &[Entry]) -> bool {
    matches!(entries, [Entry { index, kind: EntryKind::Config, .. }] if *index == LogIndex::new(1))
}

/// Checks INV-STORAGE-1: entries are consecutive and begin right behind the snapshot at the latest.
fn check_connected(raft: &RestoredRaft) {
    let covered = raft.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.index);
    let gap = raft.entries.first().is_some_and(|entry| entry.index > covered.next());
    assert!(!gap, "INV-STORAGE-1: no gap between a snapshot and the log");
    let consecutive = |pair: &[Entry]| matches!(pair, [a, b] if b.index == a.index.next());
    assert!(
        raft.entries.windows(2).all(consecutive),
        "INV-STORAGE-1: the entries of a log are consecutive"
    );
}

/// The consensus state without a log.
fn restored_raft(identity: &Identity, hard: HardState) -> RestoredRaft {
    RestoredRaft {
        store: identity.store,
        cluster: identity.cluster,
        promise: identity.promise.clone(),
        hard,
        snapshot: None,
        entries: Vec::new(),
        heartbeat_timeout: identity.heartbeat_timeout,
        recovering: identity.recovering,
    }
}

#[cfg(test)]
mod tests;
