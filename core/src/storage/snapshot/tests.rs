//! A snapshot is read as it was written, or not at all.

use super::read::Content;
use super::*;
use crate::raft::Configuration;
use crate::storage::StorageDamage;
use crate::storage::recovery::Step;
use crate::storage::testing::{MemDisk, snapshot_meta, snapshot_of_version};
use bytes::Bytes;
use proptest::prelude::*;

const STORE: StoreId = StoreId::from_bytes([6; 16]);

type Reader = SnapshotReader<Vec<Bytes>>;

/// Blocks as they are; what a catalog makes of them is its own matter.
impl Content for Vec<Bytes> {
    type Whole = Self;

    fn block(&mut self, block: &[u8]) -> Result<(), &'static str> {
        self.push(Bytes::copy_from_slice(block));
        Ok(())
    }

    fn finish(self) -> Result<Self, &'static str> {
        Ok(self)
    }
}

fn write(meta: &SnapshotMeta, blocks: &[Bytes]) -> MemDisk {
    let mut disk = MemDisk::default();
    disk.write_snapshot(STORE, Purpose::Own, meta, blocks);
    disk
}

/// Reads the snapshot with this identity; also says in how many parts.
fn read(disk: &MemDisk, id: SnapshotId) -> Result<(Snapshot<Vec<Bytes>>, usize), SnapshotFault> {
    let mut reader = Reader::new(STORE, id);
    for parts in 1.. {
        let Step::ReadPart { file, offset, limit } = reader.wanted() else {
            panic!("a reader wants parts")
        };
        let part = disk.part(&file, offset, limit).expect("the file is there");
        if let Some(snapshot) = reader.part(&part)? {
            return Ok((snapshot, parts));
        }
    }
    unreachable!("a file has an end");
}

fn rule(disk: &MemDisk, id: SnapshotId) -> &'static str {
    match read(disk, id) {
        Err(SnapshotFault::Damage(StorageDamage { rule, .. })) => rule,
        other => panic!("{other:?} is no damage"),
    }
}

#[test]
fn names_sort_by_position_and_are_read_back() {
    let id = |index, term| SnapshotId { index: LogIndex::new(index), term: Term::new(term) };
    let ids = [id(9, 20), id(10, 3), id(10, 20), id(u64::MAX, 1)];
    let names = ids.map(|id| id.file().to_string());
    assert!(names.is_sorted());
    for (id, name) in ids.into_iter().zip(&names) {
        assert_eq!(
            SnapshotId::from_name(name.strip_prefix("raft/snap/").unwrap(), "snap"),
            Some(id)
        );
    }
    for name in ["own.tmp", "1-1.snap", "00000000000000000001-0000000000000000000x.snap", ".snap"] {
        assert_eq!(SnapshotId::from_name(name, "snap"), None, "{name}");
    }
}

#[test]
fn a_snapshot_gets_its_name_once_its_content_is_durable() {
    let meta = snapshot_meta(7, 2);
    let (mut writer, begin) = SnapshotWriter::begin(STORE, Purpose::Received, &meta);
    let temporary = FilePath::new("raft/snap/received.tmp");
    assert!(matches!(&begin[..], [FileOp::Write { file, offset: 0, .. }] if *file == temporary));
    let block = writer.block(b"content");
    assert!(matches!(&block[..], [FileOp::Write { file, .. }] if *file == temporary));
    let bytes = writer.bytes();
    assert_eq!(writer.clone().discard(), [FileOp::Remove(temporary.clone())]);
    let finish = writer.finish();
    assert!(matches!(&finish[0], FileOp::Write { offset, .. } if *offset == bytes));
    let to = SnapshotId::of(&meta).file();
    let FileOp::Write { data, .. } = &finish[0] else { unreachable!() };
    let rest = [
        FileOp::SetLen { file: temporary.clone(), len: bytes + data.len() as u64 },
        FileOp::Sync(temporary.clone()),
        FileOp::Rename { from: temporary, to },
        FileOp::SyncDir(Some(snap_dir())),
    ];
    assert_eq!(finish[1..], rest);
}

#[test]
fn two_snapshots_can_be_written_at_once() {
    let mut disk = MemDisk::default();
    let metas = [snapshot_meta(7, 2), snapshot_meta(9, 2)];
    let (mut own, own_begin) = SnapshotWriter::begin(STORE, Purpose::Own, &metas[0]);
    let (mut received, begin) = SnapshotWriter::begin(STORE, Purpose::Received, &metas[1]);
    let lists = [own_begin, begin, own.block(b"own"), received.block(b"received")];
    lists.into_iter().for_each(|ops| disk.perform(ops));
    disk.perform(received.finish());
    disk.perform(own.finish());
    for (meta, block) in metas.iter().zip(["own", "received"]) {
        let (snapshot, _) = read(&disk, SnapshotId::of(meta)).unwrap();
        assert_eq!((&snapshot.meta, &snapshot.content[..]), (meta, &[Bytes::from(block)][..]));
    }
}

#[test]
fn an_older_unfinished_file_leaves_nothing_behind() {
    let meta = snapshot_meta(7, 2);
    let mut disk = MemDisk::default();
    disk.put("raft/snap/own.tmp", &[7; 5000]);
    disk.write_snapshot(STORE, Purpose::Own, &meta, &[Bytes::from_static(b"a")]);
    assert!(read(&disk, SnapshotId::of(&meta)).is_ok());
}

#[test]
fn a_snapshot_longer_than_a_part_is_read_in_several() {
    let meta = snapshot_meta(7, 2);
    let sizes = [2 << 20, 1, 2 << 20, BLOCK_BYTES_MAX, 2 << 20, 100];
    let block = |(number, size): (u8, usize)| Bytes::from(vec![number; size]);
    let blocks: Vec<Bytes> = (1..).zip(sizes).map(block).collect();
    let disk = write(&meta, &blocks);
    let (snapshot, parts) = read(&disk, SnapshotId::of(&meta)).unwrap();
    assert!(snapshot.content == blocks, "the blocks are another's");
    // The largest block takes a part alone.
    assert_eq!(parts, 4);
}

#[test]
fn a_snapshot_that_ends_with_a_part_is_whole() {
    let meta = snapshot_meta(7, 2);
    let rest = write(&meta, &[]).files[SnapshotId::of(&meta).file().as_str()].len();
    let block = Bytes::from(vec![1; PART_BYTES - rest - record::HEAD_BYTES]);
    let mut disk = write(&meta, &[block]);
    let id = SnapshotId::of(&meta);
    assert_eq!(disk.files[id.file().as_str()].len(), PART_BYTES);
    assert!(matches!(read(&disk, id), Ok((_, 2))));
    disk.files.get_mut(id.file().as_str()).unwrap().extend([0; 48]);
    assert_eq!(rule(&disk, id), "there is no record header");
}

#[test]
fn every_flipped_byte_every_cut_and_every_addition_is_noticed() {
    let meta = snapshot_meta(7, 2);
    let id = SnapshotId::of(&meta);
    let path = id.file().to_string();
    let good = write(&meta, &[Bytes::from_static(b"first"), Bytes::from_static(b"second")]);
    let bytes = good.files[&path].clone();
    let unusable = |bytes: &[u8]| {
        let mut disk = MemDisk::default();
        disk.put(&path, bytes);
        matches!(read(&disk, id), Err(SnapshotFault::Damage(_)))
    };
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(unusable(&bad), "byte {at}");
        assert!(unusable(&bytes[..at]), "cut at {at}");
    }
    assert!(unusable(&[&bytes[..], b"\0"].concat()));
    assert!(unusable(&[&bytes[..], &bytes[..]].concat()));
}

/// The records of the file, taken apart.
fn records(disk: &MemDisk, id: SnapshotId) -> Vec<Vec<u8>> {
    let bytes = &disk.files[id.file().as_str()];
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() {
        let end = record::read(bytes, at, id.binding(STORE)).unwrap().end;
        records.push(bytes[at..end].to_vec());
        at = end;
    }
    records
}

#[test]
fn valid_records_in_a_wrong_composition_are_noticed() {
    let meta = snapshot_meta(7, 2);
    let id = SnapshotId::of(&meta);
    let blocks = ["one", "two"].map(Bytes::from);
    let whole = records(&write(&meta, &blocks), id);
    let other = records(&write(&meta, &["one", "TWO"].map(Bytes::from)), id);
    let compose = |parts: &[&Vec<u8>]| {
        let mut disk = MemDisk::default();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        disk.put(id.file().as_str(), &bytes);
        rule(&disk, id)
    };
    let mixed = compose(&[&whole[0], &whole[1], &other[2], &whole[3]]);
    assert_eq!(mixed, "the blocks are not those that the end tells of");
    assert_eq!(compose(&[&whole[0], &whole[1], &whole[2]]), "the end of the snapshot is missing");
    assert_eq!(compose(&[]), "the end of the snapshot is missing");
}

#[test]
fn a_snapshot_under_the_name_or_in_the_folder_of_another_is_unusable() {
    let meta = snapshot_meta(7, 2);
    let mut disk = write(&meta, &[]);
    let bytes = disk.files[SnapshotId::of(&meta).file().as_str()].clone();
    let header = "the checksum of the record header does not match";
    for (index, term, expected) in
        [(8, 2, header), (7, 3, "a record is not the one that comes next")]
    {
        let id = SnapshotId { index: LogIndex::new(index), term: Term::new(term) };
        disk.put(id.file().as_str(), &bytes);
        assert_eq!(rule(&disk, id), expected);
    }
    let mut reader = Reader::new(StoreId::from_bytes([7; 16]), SnapshotId::of(&meta));
    assert!(reader.part(&bytes).is_err());
}

#[test]
fn a_later_format_version_is_told_from_damage() {
    let meta = snapshot_meta(7, 2);
    let bytes = snapshot_of_version(STORE, &meta, 9);
    let mut reader = Reader::new(STORE, SnapshotId::of(&meta));
    assert_eq!(reader.part(&bytes), Err(SnapshotFault::Version(9)));
}

#[test]
fn a_snapshot_without_blocks_or_configuration_is_legal() {
    let meta = SnapshotMeta { configuration: Configuration::default(), ..snapshot_meta(1, 1) };
    let disk = write(&meta, &[]);
    let (snapshot, _) = read(&disk, SnapshotId::of(&meta)).unwrap();
    assert_eq!(snapshot, Snapshot { meta, content: Vec::new() });
}

#[test]
fn two_snapshots_are_kept_and_the_log_behind_the_older() {
    let id = |index| SnapshotId { index: LogIndex::new(index), term: Term::new(1) };
    let mut files = SnapshotFiles::default();
    let nothing = |compact: Option<u64>| Retention {
        remove: Vec::new(),
        compact: compact.map(LogIndex::new),
    };
    assert_eq!(files.add(id(10)), nothing(None));
    assert_eq!(files.add(id(20)), nothing(Some(10)));
    assert_eq!(files.add(id(20)), nothing(Some(10)));
    let remove = |index| vec![FileOp::Remove(id(index).file()), FileOp::SyncDir(Some(snap_dir()))];
    let next = files.add(id(30));
    assert_eq!(next, Retention { remove: remove(10), compact: Some(LogIndex::new(20)) });
    // An own one that took longer than a received one that is newer.
    let late = files.add(id(25));
    assert_eq!(late, Retention { remove: remove(20), compact: Some(LogIndex::new(25)) });
    let too_late = files.add(id(5));
    assert_eq!(too_late, Retention { remove: remove(5), compact: Some(LogIndex::new(25)) });
    assert_eq!(files.newest(), Some(id(30)));
}

proptest! {
    #[test]
    fn a_snapshot_is_read_as_it_was_written(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
        index in 1u64..1 << 50, term in 1u64..1 << 50,
    ) {
        let blocks: Vec<Bytes> = blocks.into_iter().map(Bytes::from).collect();
        let meta = snapshot_meta(index, term);
        let disk = write(&meta, &blocks);
        let (snapshot, _) = read(&disk, SnapshotId::of(&meta)).unwrap();
        prop_assert_eq!(snapshot, Snapshot { meta, content: blocks });
    }

    #[test]
    fn arbitrary_bytes_are_no_snapshot(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = Reader::new(STORE, SnapshotId::of(&snapshot_meta(7, 2)));
        prop_assert!(reader.part(&bytes).is_err());
    }
}
