//! `/v1/snapshot` with a node that answers from a script.

use super::*;
use crate::archive;
use std::io::Read as _;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::image::ImageEncoder;
use terraform_core::catalog::query::RaftConfiguration;
use terraform_core::id::{LogIndex, Term};
use terraform_core::node::request::{
    BackupBlock, BackupId, BackupOpened, BackupRead, BackupReply, BackupRequest,
};

const BACKUP: BackupId = BackupId { server: NodeId::from_bytes([7; 16]), number: 3 };

fn opened() -> Answer {
    let opened = BackupOpened {
        backup: BACKUP,
        applied: LogIndex::new(40),
        term: Term::new(2),
        index: ModifyIndex::new(42),
        configuration: RaftConfiguration { index: LogIndex::new(1), servers: Vec::new() },
        known_leader: true,
        last_contact: Duration::from_millis(3),
    };
    Ok(Response::Backup(BackupReply::Opened(Box::new(opened))))
}

fn image() -> Vec<Bytes> {
    let mut encoder = ImageEncoder::of_backup(Tables::default());
    std::iter::from_fn(|| encoder.next_block(1)).collect()
}

fn block(data: &Bytes, last: bool) -> Answer {
    Ok(Response::Backup(BackupReply::Block(BackupBlock { data: data.clone(), last })))
}

fn save(world: &World, query: &str) -> (Reply, Vec<Request>) {
    let image = image();
    let [first, second] = image.as_slice() else { panic!("a head and an end: {image:?}") };
    let answers = vec![opened(), block(first, false), block(second, true), Ok(Response::Done)];
    world.exchange(&format!("GET /v1/snapshot{query}"), answers)
}

fn content(reply: &Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply.file.as_ref().unwrap().reader().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The answer to a `PUT` of `body` and what the node was asked.
fn restore(world: &World, body: &[u8], answers: Vec<Answer>) -> (Reply, Vec<Command>) {
    let mut request = request("PUT /v1/snapshot");
    request.file = smol::block_on(async {
        let file = world.api.files().begin().await.unwrap();
        file.append(Bytes::copy_from_slice(body)).await.unwrap();
        Some(file)
    });
    let (reply, asked) = world.exchange_request(&request, answers);
    let command = |request: Request| {
        let RequestBody::Write(command) = request.body else { panic!("{:?}", request.body) };
        command
    };
    (reply, asked.into_iter().map(command).collect())
}

#[test]
fn a_backup_is_answered_as_an_archive() {
    let world = server();
    let (reply, asked) = save(&world, "?stale");
    assert_eq!(reply.status, 200);
    let meta = reply.meta.unwrap();
    assert_eq!((meta.index, meta.known_leader, meta.last_contact.as_millis()), (42, true, 3));
    let read = |block| BackupRequest::Read(BackupRead { backup: BACKUP, block });
    let wanted = [BackupRequest::Open, read(0), read(1), BackupRequest::Close(BACKUP)];
    assert_eq!(asked.len(), wanted.len());
    for (asked, wanted) in asked.into_iter().zip(wanted) {
        assert_eq!(asked.context.consistency, Consistency::Stale);
        assert_eq!(asked.body, RequestBody::Backup(wanted));
    }
    let meta = archive::verify(&*content(&reply)).unwrap();
    assert_eq!((meta.index, meta.term), (40, 2));
}

#[test]
fn a_backup_that_breaks_off_is_closed_and_no_archive() {
    let world = server();
    let gone = RequestError::NotFound("the backup is not open any more".to_owned());
    let answers = vec![opened(), Err(gone), Ok(Response::Done)];
    let (reply, asked) = world.exchange("GET /v1/snapshot", answers);
    assert_eq!((reply.status, body(&reply).as_str()), (500, "the backup is not open any more"));
    let closed = RequestBody::Backup(BackupRequest::Close(BACKUP));
    assert_eq!(asked.last().unwrap().body, closed);
    let answers = vec![Err(RequestError::NoLeader)];
    let (reply, _) = world.exchange("GET /v1/snapshot", answers);
    assert_eq!((reply.status, body(&reply).as_str()), (500, "No cluster leader"));
}

#[test]
fn the_blocks_of_an_archive_are_written_and_take_effect_together() {
    let world = server();
    let archive = content(&save(&world, "").0);
    let done = || Ok(Response::Done);
    let busy = || Err(RequestError::Overloaded("queue".to_owned()));
    let (reply, asked) = restore(&world, &archive, vec![done(), busy(), done(), done()]);
    assert_eq!((reply.status, body(&reply).as_str()), (200, ""));
    let mut blocks = Vec::new();
    for command in &asked[..3] {
        let Command::RestoreBlock(block) = command else { panic!("{command:?}") };
        blocks.push((block.number, block.block.clone()));
    }
    let image = image();
    let (first, second) = (image[0].clone(), image[1].clone());
    assert_eq!(blocks, [(0, first), (1, second.clone()), (1, second)]);
    assert!(matches!(&asked[3], Command::RestoreCommit(commit) if commit.blocks == 2));
}

#[test]
fn a_restore_that_fails_is_aborted() {
    let world = server();
    let archive = content(&save(&world, "").0);
    let refused = Err(RequestError::Refused("failed restoring: no".to_owned()));
    let done = || Ok(Response::Done);
    let (reply, asked) = restore(&world, &archive, vec![done(), refused, done()]);
    assert_eq!((reply.status, body(&reply).as_str()), (500, "failed restoring: no"));
    let Command::RestoreBlock(first) = &asked[0] else { panic!("{:?}", asked[0]) };
    assert_eq!(asked[2], Command::RestoreAbort(first.restore));
}

#[test]
fn a_damaged_archive_is_refused_before_anything_is_written() {
    let world = server();
    let mut archive = content(&save(&world, "").0);
    let cut = archive.len() - 30;
    let (reply, asked) = restore(&world, &archive[..cut], Vec::new());
    let text = body(&reply);
    assert_eq!(reply.status, 500);
    assert!(text.starts_with("failed to read snapshot file: "), "{text}");
    assert!(asked.is_empty());
    archive.push(0);
    let (reply, _) = restore(&world, &archive, Vec::new());
    let expected = "failed to read snapshot file: data follows the end of the archive";
    assert_eq!((reply.status, body(&reply).as_str()), (500, expected));
    let (reply, _) = world.exchange("PUT /v1/snapshot", Vec::new());
    let expected = "failed to decompress snapshot: EOF";
    assert_eq!((reply.status, body(&reply).as_str()), (500, expected));
}

#[test]
fn files_that_wait_for_their_clients_are_few() {
    let world = server();
    let kept: Vec<Reply> = (0..4).map(|_| save(&world, "").0).collect();
    let (reply, _) = world.exchange("GET /v1/snapshot", Vec::new());
    let expected = "snapshot: too many snapshots are on their way, please try again later";
    assert_eq!((reply.status, body(&reply).as_str()), (503, expected));
    drop(kept);
    assert_eq!(save(&world, "").0.status, 200);
}
