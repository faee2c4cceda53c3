//! An archive comes back whole; a damaged one is refused with the reason.

use super::*;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::time::Duration;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::Command;
use terraform_core::catalog::image::{BLOCK_BYTES, ImageEncoder};
use terraform_core::catalog::kv::{KvPut, KvWrite};
use terraform_core::catalog::query::{RaftConfiguration, RaftServer};
use terraform_core::catalog::restore::RESTORE_BYTES_MAX;
use terraform_core::id::{LogIndex, ModifyIndex, NodeId, Term};
use terraform_core::node::request::{BackupId, BackupOpened};
use terraform_core::time::WallClock;

const WALL: WallClock = WallClock::from_millis(1_795_356_593_374);

fn opened() -> BackupOpened {
    let id = NodeId::from_bytes([9; 16]);
    let address = ([127, 0, 0, 1], 8300).into();
    let servers = vec![RaftServer { id, name: None, address, leader: true, voter: true }];
    BackupOpened {
        backup: BackupId { server: id, number: 1 },
        applied: LogIndex::new(124),
        term: Term::new(2),
        index: ModifyIndex::new(124),
        configuration: RaftConfiguration { index: LogIndex::new(1), servers },
        known_leader: true,
        last_contact: Duration::ZERO,
    }
}

fn blocks() -> Vec<Bytes> {
    let mut tables = Tables::default();
    for (index, key) in (1..).zip(["a", "b", "c", "d"]) {
        let (key, value) = (key.to_owned(), Bytes::from(vec![b'v'; BLOCK_BYTES / 2]));
        let put = KvWrite::Put(KvPut { key, value, flags: 0, only_at: None });
        tables.apply(LogIndex::new(index), Command::Kv(put)).unwrap();
    }
    let mut encoder = ImageEncoder::of_backup(tables);
    std::iter::from_fn(|| encoder.next_block(BLOCK_BYTES)).collect()
}

fn spool(blocks: &[Bytes]) -> Spool {
    let mut spool = Spool::new(scratch(&std::env::temp_dir()).unwrap()).unwrap();
    for block in blocks {
        spool.block(block).unwrap();
    }
    spool
}

fn archive(blocks: &[Bytes]) -> Vec<u8> {
    let spool = spool(blocks);
    let meta = Meta::new(&opened(), WALL, spool.bytes());
    write(Vec::new(), &meta, spool, WALL).unwrap()
}

fn unpacked(archive: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(archive).read_to_end(&mut tar).unwrap();
    tar
}

fn packed(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

fn refusal(archive: &[u8]) -> String {
    verify(archive).unwrap_err().to_string()
}

/// An archive of these files, in this order.
fn of_files(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    packed(&builder.into_inner().unwrap())
}

fn with_sums(meta: &[u8], state: &[u8]) -> Vec<u8> {
    let sums = format!(
        "{}  state.bin\n{}  meta.json\n",
        hex(&Sha256::digest(state)),
        hex(&Sha256::digest(meta))
    );
    of_files(&[("SHA256SUMS", sums.as_bytes()), ("state.bin", state), ("meta.json", meta)])
}

fn meta_json(size: usize) -> Vec<u8> {
    Meta::new(&opened(), WALL, size as u64).encode()
}

#[test]
fn an_archive_comes_back_whole() {
    let blocks = blocks();
    assert!(blocks.len() > 2);
    let archive = archive(&blocks);
    let meta = verify(&*archive).unwrap();
    assert_eq!((meta.id.as_str(), meta.index, meta.term), ("2-124-1795356593374", 124, 2));
    let mut again = Vec::new();
    let take = |block: &[u8]| {
        again.push(Bytes::copy_from_slice(block));
        Ok(())
    };
    assert_eq!(read(&*archive, take).unwrap(), meta);
    assert_eq!(again, blocks);
}

#[test]
fn an_archive_has_the_files_of_the_reference() {
    let tar = unpacked(&archive(&blocks()));
    let mut archive = tar::Archive::new(&*tar);
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        assert_eq!(entry.header().mtime().unwrap(), 1_795_356_593);
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        files.push((String::from_utf8_lossy(&entry.path_bytes()).into_owned(), data));
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["meta.json", "state.bin", "SHA256SUMS"]);
    let meta = String::from_utf8(files[0].1.clone()).unwrap();
    let size = files[1].1.len();
    let expected = format!(
        "{{\"Version\":1,\"ID\":\"2-124-1795356593374\",\"Index\":124,\"Term\":2,\
         \"Peers\":\"ka4xMjcuMC4wLjE6ODMwMA==\",\"Configuration\":{{\"Servers\":[{{\"Suffrage\":0,\
         \"ID\":\"09090909-0909-0909-0909-090909090909\",\"Address\":\"127.0.0.1:8300\"}}]}},\
         \"ConfigurationIndex\":1,\"Size\":{size}}}\n"
    );
    assert_eq!(meta, expected);
}

#[test]
fn what_is_no_archive_is_refused_as_the_reference_does() {
    assert_eq!(refusal(b""), "failed to decompress snapshot: EOF");
    assert_eq!(refusal(b"garbage"), "failed to decompress snapshot: unexpected EOF");
    assert_eq!(refusal(&[b'x'; 99]), "failed to decompress snapshot: gzip: invalid header");
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let whole = archive(&blocks()[..]);
    for at in (0..whole.len()).step_by(whole.len() / 97 + 1).chain([whole.len() - 1]) {
        let text = refusal(&whole[..at]);
        assert!(text.contains("EOF") || text.contains("deflate"), "cut at {at}: {text}");
    }
}

#[test]
fn a_byte_that_is_flipped_anywhere_is_refused() {
    let whole = archive(&blocks()[..]);
    // The time, the system and the extra flags of the head of a gzip are nobody's.
    for at in (10..whole.len()).step_by(whole.len() / 97 + 1) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        if verify(&*damaged).is_ok() {
            // A block of the packing ends within a byte; its last bits are nobody's either.
            assert_eq!(unpacked(&damaged), unpacked(&whole), "flipped at {at}");
        }
    }
    let tar = unpacked(&whole);
    let state = tar.windows(8).position(|bytes| bytes == MAGIC).unwrap();
    for at in [state, state + 9, state + 100_000] {
        let mut damaged = tar.clone();
        damaged[at] ^= 1;
        let expected = "failed to read snapshot file: failed checking integrity of snapshot: \
                        hash check failed for \"state.bin\"";
        assert_eq!(refusal(&packed(&damaged)), expected);
    }
}

#[test]
fn files_that_are_too_many_or_missing_are_refused() {
    let state = MAGIC;
    let meta = meta_json(state.len());
    let meta = ("meta.json", &*meta);
    let of = |files: &[(&str, &[u8])]| {
        let text = refusal(&of_files(files));
        text.strip_prefix("failed to read snapshot file: ").unwrap().to_owned()
    };
    assert_eq!(of(&[meta, ("extra", b"x")]), "unexpected file \"extra\" in snapshot");
    assert_eq!(of(&[meta, meta]), "unexpected file \"meta.json\" in snapshot");
    let integrity = "failed checking integrity of snapshot: ";
    assert_eq!(of(&[meta]), format!("{integrity}file missing for \"state.bin\""));
    let none = of(&[meta, ("state.bin", &state), ("SHA256SUMS", b"")]);
    assert_eq!(none, format!("{integrity}list missing hash for \"meta.json\""));
    let other = of(&[meta, ("state.bin", &state), ("SHA256SUMS", b"00  other\n")]);
    assert_eq!(other, format!("{integrity}list has a hash for \"other\""));
    let large = vec![b' '; 65 * 1024];
    assert_eq!(of(&[("meta.json", &large)]), "\"meta.json\" is larger than 65536 bytes");
}

#[test]
fn what_follows_the_end_is_refused() {
    let whole = archive(&blocks());
    let trailing = "failed to read snapshot file: data follows the end of the archive";
    assert_eq!(refusal(&[&*whole, b"x"].concat()), trailing);
    let tar = unpacked(&whole);
    assert_eq!(refusal(&packed(&[&*tar, b"x"].concat())), trailing);
    verify(&*packed(&[&*tar, &[0; 512]].concat())).unwrap();
}

#[test]
fn a_state_that_no_server_would_take_is_refused() {
    let of = |state: &[u8]| {
        let text = refusal(&with_sums(&meta_json(state.len()), state));
        text.strip_prefix("failed to read snapshot file: ").unwrap().to_owned()
    };
    let foreign = "\"state.bin\" is not in the form of this program";
    assert_eq!(of(b"\x81\xa9LastIndex\x07"), foreign);
    assert_eq!(of(b"TFSTATE\x02"), foreign);
    assert_eq!(of(b""), foreign);
    let with = |bytes: &[u8]| [&MAGIC, bytes].concat();
    assert_eq!(of(&with(&[0, 0, 0, 9, 1])), "\"state.bin\" has a block of 9 bytes");
    assert_eq!(of(&with(&[0xff; 9])), "\"state.bin\" has a block of 4294967295 bytes");
    assert_eq!(of(&with(&[0; 4])), "\"state.bin\" has a block of 0 bytes");
    assert!(of(&with(&[0, 0, 0, 1, 1])).starts_with("record 0 of the image"));
    let early = &blocks()[..1];
    let text = refusal(&archive(early));
    assert!(text.contains("the image ends early"), "{text}");
    let size = with_sums(&meta_json(7), &MAGIC);
    assert!(refusal(&size).contains("\"Size\" is 7, \"state.bin\" has 8 bytes"));
    let version = with_sums(b"{\"Version\":2}", &MAGIC);
    assert!(refusal(&version).ends_with("snapshot metadata: version 2 is not supported"));
}

#[test]
fn a_scratch_file_has_no_name() {
    let folder = std::env::temp_dir().join(format!("scratch-{}", std::process::id()));
    let mut file = scratch(&folder).unwrap();
    file.write_all(b"x").unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    clear(&folder).unwrap();
    assert!(!folder.exists());
    clear(&folder).unwrap();
}

#[test]
fn what_is_unpacked_is_bounded_whatever_it_is_packed_to() {
    let mut tar = unpacked(&archive(&blocks()));
    tar.resize(tar.len() + 8192, 0);
    assert!(verify(&packed(&tar)[..]).is_ok(), "some padding is usual");
    tar.resize(tar.len() + (1 << 20), 0);
    let trailing = "failed to read snapshot file: data follows the end of the archive";
    assert_eq!(refusal(&packed(&tar)), trailing);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_path("state.bin").unwrap();
    header.set_size(RESTORE_BYTES_MAX + 1);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    let huge = packed(&builder.into_inner().unwrap());
    let expected = "failed to read snapshot file: \"state.bin\" has 2147483649 bytes, at most \
                    2147483648 are allowed";
    assert_eq!(refusal(&huge), expected);
}
