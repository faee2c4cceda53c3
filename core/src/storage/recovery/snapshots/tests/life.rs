//! A server's life with snapshots: whatever it is interrupted in, nothing committed is lost.

use super::*;
use crate::storage::op::FileOp;
use crate::storage::snapshot::SnapshotWriter;
use proptest::prelude::*;

/// The terms of all positions from 1 on, also of those that only a snapshot covers.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    terms: Vec<u64>,
    /// Up to here nothing changes any more.
    committed: u64,
}

impl State {
    fn term_at(&self, index: u64) -> u64 {
        self.terms[usize::try_from(index - 1).unwrap()]
    }

    /// Keeps positions up to `kept`.
    fn truncate(&mut self, kept: u64) {
        self.terms.truncate(usize::try_from(kept).unwrap());
    }

    /// Whether this is what a server begins with, as far as no snapshot covers it.
    fn is(&self, server: &RestoredServer) -> bool {
        let position = server.raft.snapshot.as_ref().map_or(0, |meta| meta.index.get());
        if position > self.committed {
            return false;
        }
        if let Some(meta) = &server.raft.snapshot {
            assert_eq!(*meta, snapshot_meta(position, self.term_at(position)));
            assert_eq!(server.tables, state(meta));
        }
        let entries = &server.raft.entries;
        let first = entries.first().map_or(position + 1, |entry| entry.index.get());
        assert!(first <= position + 1, "entries are lost behind the snapshot");
        let found = entries.iter().map(|entry| entry.term.get());
        self.terms.iter().skip(usize::try_from(first - 1).unwrap()).copied().eq(found)
    }
}

struct Life {
    server: Server,
    snapshots: SnapshotFiles,
    /// What was acknowledged.
    state: State,
    /// What is once the event is done.
    wanted: State,
    term: u64,
}

#[derive(Clone, Debug)]
enum Event {
    /// Entries of a new term take the place of all but so many that are not committed.
    Append(u64, Vec<usize>),
    Commit(u64),
    /// A snapshot so far below what is committed.
    Own(u64),
    /// A leader's snapshot so far above it, whose log is another one.
    Received(u64),
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let lengths = prop::collection::vec(0usize..300, 1..5);
    let event = prop_oneof![
        5 => (0u64..6, lengths).prop_map(|(kept, lengths)| Event::Append(kept, lengths)),
        3 => (1u64..8).prop_map(Event::Commit),
        3 => (0u64..3).prop_map(Event::Own),
        1 => (1u64..12).prop_map(Event::Received),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 1..40)
}

impl Life {
    fn new() -> Self {
        Self {
            server: Server::with([]),
            snapshots: SnapshotFiles::default(),
            state: State::default(),
            wanted: State::default(),
            term: 0,
        }
    }

    /// Performs operations as long as any are `left`; false if the process ends within them.
    fn perform(&mut self, ops: Vec<FileOp>, left: &mut usize) -> bool {
        let done = ops.len().min(*left);
        let whole = done == ops.len();
        self.server.disk.perform(ops.into_iter().take(done).collect());
        *left -= done;
        whole
    }

    /// A snapshot, then the reset if there is one, then what may go; false if the process ends.
    fn store(&mut self, purpose: Purpose, meta: &SnapshotMeta, left: &mut usize) -> bool {
        let (mut writer, mut ops) = SnapshotWriter::begin(self.server.wal.store(), purpose, meta);
        blocks(meta).iter().for_each(|block| ops.extend(writer.block(block)));
        ops.extend(writer.finish());
        if !self.perform(ops, left) {
            return false;
        }
        let reset = (purpose == Purpose::Received).then_some(meta.index);
        let ops = self.server.wal.append(&PersistBatch { reset, ..Default::default() });
        if !self.perform(ops, left) {
            return false;
        }
        let retention = self.snapshots.add(SnapshotId::of(meta));
        let compaction = retention.compact.map(|to| self.server.wal.compact(to));
        // In either order: the one does not wait for the other.
        let mut lists = [retention.remove, compaction.unwrap_or_default()];
        if meta.index.get().is_multiple_of(2) {
            lists.reverse();
        }
        lists.into_iter().all(|ops| self.perform(ops, left))
    }

    fn append(&mut self, kept: u64, lengths: &[usize], left: &mut usize) -> bool {
        let last = self.state.terms.len() as u64;
        let kept = last.min(self.state.committed + kept);
        self.term += 1;
        self.wanted.truncate(kept);
        self.wanted.terms.extend(lengths.iter().map(|_| self.term));
        let entries = (kept + 1..).zip(lengths);
        let batch = PersistBatch {
            truncate_from: (kept < last).then(|| LogIndex::new(kept + 1)),
            entries: entries.map(|(index, len)| entry(index, self.term, *len)).collect(),
            ..PersistBatch::default()
        };
        let ops = self.server.wal.append(&batch);
        self.perform(ops, left)
    }

    /// Does the first `left` operations of an event; false if the process ends.
    fn live(&mut self, event: &Event, mut left: usize) -> bool {
        let alive = match event {
            Event::Append(kept, lengths) => self.append(*kept, lengths, &mut left),
            Event::Commit(count) => {
                let last = self.state.terms.len() as u64;
                self.wanted.committed = last.min(self.state.committed + count);
                true
            }
            Event::Own(below) => {
                let newest = self.snapshots.newest().map_or(0, |id| id.index.get());
                let index = self.state.committed.saturating_sub(*below);
                index <= newest || {
                    let meta = snapshot_meta(index, self.state.term_at(index));
                    self.store(Purpose::Own, &meta, &mut left)
                }
            }
            Event::Received(above) => {
                self.term += 1;
                let index = self.state.committed + above;
                self.wanted.truncate(self.state.committed);
                self.wanted.terms.resize(usize::try_from(index).unwrap(), self.term);
                self.wanted.committed = index;
                let meta = snapshot_meta(index, self.term);
                self.store(Purpose::Received, &meta, &mut left)
            }
            Event::Restart => false,
        };
        if alive {
            self.state = self.wanted.clone();
            self.server.persist(&PersistBatch::default());
        }
        alive
    }

    /// Starts again with what was acknowledged or was on its way.
    fn restart(&mut self) {
        let (server, _) = self.server.recover().expect("a crash is no damage");
        if self.wanted.is(&server) {
            self.state = self.wanted.clone();
        }
        assert!(self.state.is(&server), "{:?} is not {:?}", server.raft, self.state);
        self.wanted = self.state.clone();
        self.snapshots = server.snapshots;
    }
}

proptest! {
    #[test]
    fn a_crash_at_any_operation_loses_nothing(
        events in events(),
        crashes in prop::collection::vec(prop::option::weighted(0.3, 0usize..14), 40),
    ) {
        let mut life = Life::new();
        for (event, crash) in events.iter().zip(crashes) {
            if !life.live(event, crash.unwrap_or(usize::MAX)) {
                life.restart();
            }
        }
        life.restart();
    }

    /// Only a snapshot that was received just now has no older one beside it that connects.
    #[test]
    fn a_rotten_newest_snapshot_loses_nothing(events in events(), at: prop::sample::Index) {
        let mut life = Life::new();
        for event in &events {
            if matches!(event, Event::Received(_)) || !life.live(event, usize::MAX) {
                life.restart();
            }
        }
        if let Some(newest) = life.snapshots.newest() {
            let file = life.server.file(newest.index.get(), newest.term.get());
            let at = at.index(file.len());
            file[at] ^= 1;
            life.restart();
            prop_assert!(life.snapshots.newest() < Some(newest));
        }
        life.restart();
    }
}
