//! Backups are few, are forgotten in time, and come back through the log of a server.

use super::*;
use crate::catalog::command::Command;
use crate::catalog::image::ImageDecoder;
use crate::catalog::kv::{KvPut, KvWrite};
use crate::catalog::restore::{RestoreBlock, RestoreCommit};
use crate::config::{Bootstrap, ServerConfig};
use crate::id::{LogIndex, NodeId, RequestId, RestoreId};
use crate::node::input::Input;
use crate::node::output::Output;
use crate::node::request::{BackupRequest, Request, RequestBody};
use crate::node::tests::node_of;
use crate::storage::testing::restored_server;
use crate::time::WallClock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

const NOW: Instant = Instant::from_nanos(1);

fn backup_read(number: u64, block: u64) -> BackupRead {
    BackupRead { backup: BackupId { server: NodeId::from_bytes([1; 16]), number }, block }
}

fn put(key: &str, bytes: usize) -> Command {
    let (key, value) = (key.to_owned(), Bytes::from(vec![b'v'; bytes]));
    Command::Kv(KvWrite::Put(KvPut { key, value, flags: 0, only_at: None }))
}

fn has(tables: &Tables, key: &str) -> bool {
    tables.key(key).0 != Rows::Entries(Vec::new())
}

fn tables() -> Tables {
    let mut tables = Tables::default();
    for (index, key) in (1..).zip(["a", "b", "c"]) {
        tables.apply(LogIndex::new(index), put(key, BLOCK_BYTES / 2)).unwrap();
    }
    tables
}

#[test]
fn one_backup_too_many_is_refused_until_another_is_closed() {
    let mut backups = Backups::default();
    for number in 0..4 {
        backups.open(NOW, number, tables(), false).unwrap();
    }
    let refused = backups.open(NOW, 4, tables(), false).unwrap_err();
    assert_eq!(refused.to_string(), "overloaded: 4 backups are being read from this server");
    backups.close(2);
    backups.close(77);
    backups.open(NOW, 4, tables(), false).unwrap();
}

#[test]
fn a_backup_that_nobody_reads_is_forgotten_after_a_minute() {
    let mut backups = Backups::default();
    backups.open(NOW, 1, tables(), false).unwrap();
    backups.open(NOW, 2, tables(), false).unwrap();
    let later = NOW + Duration::from_secs(59);
    backups.read(later, backup_read(2, 0)).unwrap();
    assert_eq!(backups.next_timeout(), Some(NOW + IDLE));
    backups.handle_timeout(NOW + IDLE);
    let gone = backups.read(NOW + IDLE, backup_read(1, 0)).unwrap_err();
    assert!(matches!(gone, RequestError::NotFound(_)), "{gone}");
    assert_eq!(backups.next_timeout(), Some(later + IDLE));
    backups.read(NOW + IDLE, backup_read(2, 1)).unwrap();
}

#[test]
fn the_last_block_alone_is_handed_out_again() {
    let mut backups = Backups::default();
    backups.open(NOW, 1, tables(), false).unwrap();
    let first = backups.read(NOW, backup_read(1, 0)).unwrap();
    assert_eq!(backups.read(NOW, backup_read(1, 0)), Ok(first.clone()));
    let second = backups.read(NOW, backup_read(1, 1)).unwrap();
    assert_ne!(first, second);
    let mut decoder = ImageDecoder::default();
    decoder.block(&first.data).unwrap();
    decoder.block(&second.data).unwrap();
    for block in [0, 3, u64::MAX] {
        let refused = backups.read(NOW, backup_read(1, block)).unwrap_err();
        assert!(refused.to_string().ends_with("2 is the next one"), "{refused}");
    }
    let mut last = second;
    for block in 2.. {
        if last.last {
            let beyond = backups.read(NOW, backup_read(1, block)).unwrap_err();
            assert!(matches!(beyond, RequestError::Refused(_)), "{beyond}");
            assert_eq!(backups.read(NOW, backup_read(1, block - 1)), Ok(last));
            break;
        }
        last = backups.read(NOW, backup_read(1, block)).unwrap();
        decoder.block(&last.data).unwrap();
    }
    assert_eq!(decoder.finish(), Ok(tables()));
}

#[test]
fn a_server_that_stops_leading_keeps_stale_backups_alone() {
    let mut backups = Backups::default();
    backups.open(NOW, 1, tables(), false).unwrap();
    backups.open(NOW, 2, tables(), true).unwrap();
    backups.end_of_leader();
    assert!(backups.read(NOW, backup_read(1, 0)).is_err());
    backups.read(NOW, backup_read(2, 0)).unwrap();
    assert_eq!(backups.next_timeout(), Some(NOW + IDLE));
}

/// The only server of its datacenter, on a disk that does everything at once.
struct Server {
    node: Node,
    now: Instant,
    requests: u64,
    replies: VecDeque<Result<Response, RequestError>>,
}

impl Server {
    fn new() -> Self {
        let node = node_of(Some(ServerConfig::new(Bootstrap::Alone)), restored_server());
        let mut server = Self { node, now: Instant::ZERO, requests: 0, replies: VecDeque::new() };
        server.drain();
        server.run(10);
        assert!(server.node.raft().unwrap().lease_until(server.now).is_some(), "it leads");
        server
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            if let Output::Persist { write, .. } = output {
                self.node.handle(self.now, Input::Persisted { write });
            } else if let Output::Reply { result, .. } = output {
                self.replies.push_back(result);
            }
        }
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some((at, _)) = self.node.next_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.node.handle(self.now, Input::Timeout);
            self.drain();
        }
        self.now = end;
    }

    fn ask(&mut self, body: RequestBody) -> Result<Response, RequestError> {
        self.requests += 1;
        let wall = WallClock::from_millis(1_700_000_000_000);
        let (id, request) = (RequestId::new(self.requests), Arc::new(Request::new(body)));
        self.node.handle(self.now, Input::Request { id, wall, request });
        self.drain();
        self.replies.pop_front().expect("the only server answers at once")
    }

    fn write(&mut self, command: Command) -> Result<Response, RequestError> {
        self.ask(RequestBody::Write(command))
    }

    fn open(&mut self) -> BackupOpened {
        match self.ask(RequestBody::Backup(BackupRequest::Open)) {
            Ok(Response::Backup(BackupReply::Opened(opened))) => *opened,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, backup: BackupId, block: u64) -> Result<BackupBlock, RequestError> {
        let read = BackupRequest::Read(BackupRead { backup, block });
        let response = self.ask(RequestBody::Backup(read))?;
        let Response::Backup(BackupReply::Block(block)) = response else { panic!("{response:?}") };
        Ok(block)
    }

    /// A whole backup.
    fn save(&mut self) -> (BackupOpened, Vec<Bytes>) {
        let opened = self.open();
        let mut blocks = Vec::new();
        loop {
            let block = self.read(opened.backup, blocks.len() as u64).unwrap();
            blocks.push(block.data);
            if block.last {
                break;
            }
        }
        let close = RequestBody::Backup(BackupRequest::Close(opened.backup));
        assert_eq!(self.ask(close), Ok(Response::Done));
        (opened, blocks)
    }
}

#[test]
fn a_backup_of_a_server_comes_back_through_its_log() {
    let mut server = Server::new();
    for key in ["a", "b", "c", "d"] {
        server.write(put(key, BLOCK_BYTES / 2)).unwrap();
    }
    let (opened, blocks) = server.save();
    assert!(blocks.len() > 2);
    let raft = server.node.raft().unwrap();
    assert_eq!((opened.applied, opened.term), (raft.applied(), raft.term()));
    assert_eq!(opened.index.get(), opened.applied.get());
    assert!(opened.known_leader);
    assert_eq!(opened.configuration.servers.len(), 1);
    let closed = server.read(opened.backup, 0).unwrap_err();
    assert!(matches!(closed, RequestError::NotFound(_)), "{closed}");

    server.write(put("later", 1)).unwrap();
    let restore = RestoreId::from_bytes([5; 16]);
    for (number, block) in (0..).zip(&blocks) {
        let block = RestoreBlock { restore, number, block: block.clone() };
        assert_eq!(server.write(Command::RestoreBlock(block)), Ok(Response::Done));
    }
    let commit = |blocks| Command::RestoreCommit(RestoreCommit { restore, blocks });
    let refused = server.write(commit(1)).unwrap_err();
    let expected = format!("failed restoring: the restore has {} blocks, not 1", blocks.len());
    assert_eq!(refused, RequestError::Refused(expected));
    assert!(server.node.tables().unwrap().key("later").1 > opened.index, "nothing changed");
    assert_eq!(server.write(commit(blocks.len() as u64)), Ok(Response::Done));
    let tables = server.node.tables().unwrap();
    assert!(["a", "b", "c", "d"].into_iter().all(|key| has(tables, key)));
    assert!(!has(tables, "later"));
}

#[test]
fn a_backup_is_of_the_moment_it_was_opened() {
    let mut server = Server::new();
    server.write(put("a", BLOCK_BYTES)).unwrap();
    let opened = server.open();
    let first = server.read(opened.backup, 0).unwrap();
    server.write(put("b", 1)).unwrap();
    let mut decoder = ImageDecoder::default();
    decoder.block(&first.data).unwrap();
    let mut last = first.last;
    for block in 1.. {
        if last {
            break;
        }
        let block = server.read(opened.backup, block).unwrap();
        decoder.block(&block.data).unwrap();
        last = block.last;
    }
    let tables = decoder.finish().unwrap();
    assert!(has(&tables, "a") && !has(&tables, "b"));
}
