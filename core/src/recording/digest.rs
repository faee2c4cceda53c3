//! What a node wants, shortened to a number that two runs can be compared by.

use crate::id::PoolName;
use crate::node::output::Output;
use crate::node::request::{RequestError, Response};
use crate::serf::{Member, QueryHeard, QueryOutcome, SerfEvent, SerfReply};
use crate::storage::op::{FileOp, FilePath, Lane, StorageOp};
use crate::storage::recovery::Step;
use crate::view::{ConsensusView, View};
use crate::wire::DecodeError;
use crate::wire::pack::{Pack, Reader, put_unsigned, to_bytes};
use crate::wire::serf::UserEvent;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

/// An output's kind and a checksum over all of it. Of a [`View`], which is large and made of what
/// other outputs show as well, it covers what distinguishes two views of one run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OutputDigest(u64);

/// The kinds, by number.
const KINDS: [&str; 12] = [
    "SendDatagram",
    "OpenStream",
    "SendStream",
    "CloseStream",
    "Persist",
    "RunCheck",
    "Reply",
    "QueryHeard",
    "Event",
    "Publish",
    "Trace",
    "Stopped",
];

impl OutputDigest {
    /// The digest of `output`.
    ///
    /// - Cost: that of a CRC-32 over its bytes; answers and traces are encoded for it.
    pub fn of(output: &Output) -> Self {
        let mut digest = Digest::default();
        let kind = digest.output(output);
        Self(kind << 32 | u64::from(digest.0.finalize()))
    }

    /// What kind of output it is of: the name of a variant of [`Output`].
    pub fn kind(self) -> &'static str {
        let kind = usize::try_from(self.0 >> 32).ok();
        kind.and_then(|kind| KINDS.get(kind)).copied().unwrap_or("unknown")
    }
}

impl fmt::Debug for OutputDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:08x}", self.kind(), self.0 & u64::from(u32::MAX))
    }
}

impl Pack for OutputDigest {
    fn pack(&self, out: &mut Vec<u8>) {
        put_unsigned(out, self.0);
    }
    fn unpack(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.unsigned().map(Self)
    }
}

/// What recovery wants, shortened to a number.
pub fn step_digest(step: &Step) -> u32 {
    let mut digest = Digest::default();
    digest.step(step);
    digest.0.finalize()
}

/// A checksum over values, each of which is taken in so that its end is certain.
#[derive(Default)]
struct Digest(crc32fast::Hasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Digest {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn packed(&mut self, value: &impl Pack) {
        self.bytes(&to_bytes(value));
    }

    fn text(&mut self, text: impl fmt::Display) {
        writeln!(self, "{text}").expect("a checksum takes everything");
    }

    fn address(&mut self, address: SocketAddr) {
        self.packed(&address);
    }

    /// Takes in an output; the number of its kind.
    fn output(&mut self, output: &Output) -> u64 {
        match output {
            Output::SendDatagram { pool, to, payload } => {
                self.number(u64::from(*pool == PoolName::Wan));
                self.address(*to);
                self.bytes(payload);
                0
            }
            Output::OpenStream { stream, kind, to } => {
                self.number(stream.get());
                self.packed(kind);
                self.address(*to);
                1
            }
            Output::SendStream { stream, data } => {
                self.number(stream.get());
                self.bytes(data);
                2
            }
            Output::CloseStream { stream } => {
                self.number(stream.get());
                3
            }
            Output::Persist { write, op: StorageOp { lane, ops, deferrable } } => {
                self.number(write.get());
                self.number(u64::from(*lane == Lane::State));
                self.operations(ops);
                self.number(u64::from(*deferrable));
                4
            }
            Output::RunCheck { check, run, kind, output_max_size } => {
                self.text(check);
                self.number(*run);
                self.packed(kind);
                self.number(*output_max_size as u64);
                5
            }
            Output::Reply { id, result } => {
                self.number(id.get());
                self.result(result);
                6
            }
            Output::QueryHeard { id, heard: QueryHeard { from, answer } } => {
                self.number(id.get());
                self.text(from);
                self.packed(answer);
                7
            }
            Output::Event(event) => {
                self.event(event);
                8
            }
            Output::Publish(view) => {
                self.view(view);
                9
            }
            Output::Trace(event) => {
                self.text(event);
                10
            }
            Output::Stopped(reason) => {
                self.text(format_args!("{reason:?}"));
                11
            }
        }
    }

    fn result(&mut self, result: &Result<Response, RequestError>) {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                self.number(0);
                return self.packed(error);
            }
        };
        match response {
            Response::Done => self.number(1),
            Response::Answer(answer) => self.packed(answer),
            Response::Joined(count) => self.number(*count as u64),
            Response::Info(sections) => self.packed(sections),
            Response::Serf(reply) => self.serf_reply(reply),
            Response::Event(event) => self.packed(event),
            Response::Coordinates(coordinates) => self.packed(coordinates),
            Response::Unmet => self.number(2),
            Response::Transaction(result) => self.packed(result),
            Response::Backup(reply) => self.packed(reply),
            Response::Health(health) => self.packed(health),
            Response::Executed(executed) => self.packed(executed),
            Response::Status(status) => self.text(format_args!("{status:?}")),
        }
    }

    fn serf_reply(&mut self, reply: &SerfReply) {
        match reply {
            SerfReply::Done => self.number(1),
            SerfReply::Fired(time) => self.packed(time),
            SerfReply::Query(QueryOutcome { acks, answers }) => {
                acks.iter().for_each(|from| self.text(from));
                self.packed(answers);
            }
            SerfReply::Keys(report) => self.packed(report),
        }
    }

    fn event(&mut self, event: &SerfEvent) {
        match event {
            SerfEvent::Members { kind, members } => {
                self.number(*kind as u64);
                members.iter().for_each(|member| self.member(member));
            }
            SerfEvent::User(UserEvent { coalesce, time, name, payload }) => {
                self.packed(coalesce);
                self.packed(time);
                self.bytes(name.as_bytes());
                self.packed(payload);
            }
            SerfEvent::Query { query, time, name, payload } => {
                self.packed(query);
                self.packed(time);
                self.bytes(name.as_bytes());
                self.bytes(payload);
            }
        }
    }

    fn member(&mut self, member: &Member) {
        let Member { name, address, tags, status, status_time, versions } = member;
        self.text(name);
        self.address(*address);
        self.packed(&tags.to_map());
        self.text(status.as_str());
        self.packed(status_time);
        self.text(format_args!("{versions:?}"));
    }

    fn view(&mut self, view: &View) {
        let View {
            // The same in all views of a run.
            name: _,
            id: _,
            datacenter: _,
            members,
            wan_members,
            datacenters,
            local,
            events,
            consensus,
            // What applied entries make of it; their position is in `consensus`.
            catalog: _,
            version,
        } = view;
        self.number(*version);
        let sizes = [
            members.len(),
            wan_members.as_ref().map_or(0, |members| members.len()),
            datacenters.len(),
            local.services.len(),
            local.checks.len(),
            events.len(),
        ];
        sizes.iter().for_each(|size| self.number(*size as u64));
        if let Some(consensus) = consensus {
            self.consensus(consensus);
        }
    }

    fn consensus(&mut self, view: &ConsensusView) {
        let ConsensusView {
            role,
            term,
            leader,
            leader_contact_at,
            lease_until,
            commit,
            applied,
            last,
            last_term,
            configuration,
            configuration_index,
        } = view;
        self.text(role);
        [term, last_term].iter().for_each(|term| self.number(term.get()));
        [commit, applied, last, configuration_index].iter().for_each(|at| self.number(at.get()));
        self.packed(&leader.as_ref().map(|leader| (leader.id, leader.address)));
        self.packed(leader_contact_at);
        self.packed(lease_until);
        self.packed(configuration);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::List(folder) => {
                self.number(1);
                folder.iter().for_each(|folder| self.path(folder));
            }
            Step::Read { file, limit } => {
                self.number(2);
                self.path(file);
                self.number(*limit);
            }
            Step::ReadPart { file, offset, limit } => {
                self.number(3);
                self.path(file);
                self.number(*offset);
                self.number(*limit);
            }
            Step::Perform(ops) => {
                self.number(4);
                self.operations(ops);
            }
            // What is made of it shows in the node's outputs.
            Step::Done(_) => self.number(5),
            Step::Refused(error) => self.text(error),
        }
    }

    fn operations(&mut self, ops: &[FileOp]) {
        self.number(ops.len() as u64);
        ops.iter().for_each(|op| self.operation(op));
    }

    fn operation(&mut self, op: &FileOp) {
        match op {
            FileOp::CreateDir(folder) => {
                self.number(1);
                self.path(folder);
            }
            FileOp::Write { file, offset, data } => {
                self.number(2);
                self.path(file);
                self.number(*offset);
                self.bytes(data);
            }
            FileOp::WriteZeros { file, offset, len } => {
                self.number(3);
                self.path(file);
                self.number(*offset);
                self.number(*len);
            }
            FileOp::SetLen { file, len } => {
                self.number(4);
                self.path(file);
                self.number(*len);
            }
            FileOp::Sync(file) => {
                self.number(5);
                self.path(file);
            }
            FileOp::SyncDir(folder) => {
                self.number(6);
                folder.iter().for_each(|folder| self.path(folder));
            }
            FileOp::Rename { from, to } => {
                self.number(7);
                self.path(from);
                self.path(to);
            }
            FileOp::Remove(file) => {
                self.number(8);
                self.path(file);
            }
            FileOp::Allocate { file, len } => {
                self.number(9);
                self.path(file);
                self.number(*len);
            }
        }
    }

    fn path(&mut self, path: &FilePath) {
        self.bytes(path.as_str().as_bytes());
    }
}
