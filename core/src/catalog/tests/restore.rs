//! Backups come back through the log, whole or not at all, and no index goes back.

use super::super::image::{BLOCK_BYTES, ImageDecoder, ImageEncoder, ImageError};
use super::super::kv::{KvPut, KvWrite};
use super::super::restore::{RESTORE_BYTES_MAX, RestoreBlock, RestoreCommit, RestoreError};
use super::image::{any_commands, blocks, decoded, everything, tables_of};
use super::*;
use crate::id::RestoreId;
use bytes::Bytes;
use proptest::prelude::*;

const ONE: RestoreId = RestoreId::from_bytes([1; 16]);
const TWO: RestoreId = RestoreId::from_bytes([2; 16]);

fn backup(tables: &Tables, bytes_max: usize) -> Vec<Bytes> {
    let mut encoder = ImageEncoder::of_backup(tables.clone());
    std::iter::from_fn(|| encoder.next_block(bytes_max)).collect()
}

fn apply(tables: &mut Tables, index: u64, command: Command) -> Result<(), RestoreError> {
    match tables.apply(LogIndex::new(index), command) {
        Ok(_) => Ok(()),
        Err(ApplyError::Restore(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn block(restore: RestoreId, number: u64, block: &Bytes) -> Command {
    Command::RestoreBlock(RestoreBlock { restore, number, block: block.clone() })
}

fn commit(restore: RestoreId, blocks: usize) -> Command {
    Command::RestoreCommit(RestoreCommit { restore, blocks: blocks as u64 })
}

fn put(key: &str) -> Command {
    let (key, value) = (key.to_owned(), Bytes::from_static(b"new"));
    Command::Kv(KvWrite::Put(KvPut { key, value, flags: 0, only_at: None }))
}

/// Applies all blocks of a backup, the first at `index`; the position after them.
fn send(tables: &mut Tables, index: u64, image: &[Bytes]) -> u64 {
    for (number, part) in (0..).zip(image) {
        apply(tables, index + number, block(ONE, number, part)).unwrap();
    }
    index + image.len() as u64
}

/// Restores `of` into `tables`, the first block at `index`; the position of the commit.
pub(crate) fn restore(tables: &mut Tables, index: u64, of: &Tables) -> u64 {
    let image = backup(of, 200);
    let end = send(tables, index, &image);
    apply(tables, end, commit(ONE, image.len())).unwrap();
    end
}

/// The same rows and indexes, whatever else the tables know.
fn bare(tables: &Tables) -> Tables {
    Tables { index_base: 0, restored_at: ModifyIndex::ZERO, restoring: None, ..tables.clone() }
}

fn index_of_put(tables: &mut Tables, position: u64) -> u64 {
    apply(tables, position, put("after")).unwrap();
    tables.key("after").1.get()
}

#[test]
fn a_backup_replaces_everything_in_one_step() {
    let mut tables = tables_of(1, &[put("old"), put("a")]);
    register(&mut tables, 3, registration(node("gone", Some(9)))).unwrap();
    let image = backup(&everything(), 300);
    assert!(image.len() > 3);
    let before = bare(&tables);
    let end = send(&mut tables, 10, &image);
    assert_eq!(bare(&tables), before, "until the commit nothing changes");
    apply(&mut tables, end, commit(ONE, image.len())).unwrap();
    assert_eq!(bare(&tables), everything());
    assert_eq!(tables.restoring, None);
}

#[test]
fn an_old_backup_leaves_the_index_at_the_position() {
    let mut tables = tables_of(1, &[put("old")]);
    let end = restore(&mut tables, 100, &everything());
    assert_eq!((tables.index_base, tables.restored_at().get()), (0, end));
    assert_eq!(index_of_put(&mut tables, end + 1), end + 1);
}

#[test]
fn a_backup_of_an_older_cluster_lifts_the_index_above_its_own() {
    let old = tables_of(5_000, &[put("a"), put("b")]);
    let mut tables = tables_of(1, &[put("old")]);
    let end = restore(&mut tables, 10, &old);
    assert_eq!(tables.restored_at().get(), 5_002);
    assert_eq!(index_of_put(&mut tables, end + 1), 5_003);
    // The base never falls, and a backup's own base is no other's.
    let end = restore(&mut tables, end + 2, &tables_of(1, &[put("x")]));
    assert_eq!(tables.restored_at().get(), end + tables.index_base);
    assert!(tables.restored_at().get() > 5_003);
    let mut young = Tables::default();
    restore(&mut young, 1, &tables);
    assert_eq!(young.restored_at(), tables.restored_at().next());
}

#[test]
fn steps_out_of_order_change_nothing() {
    let image = backup(&everything(), 300);
    let mut tables = tables_of(1, &[put("old")]);
    apply(&mut tables, 2, block(ONE, 0, &image[0])).unwrap();
    let before = tables.clone();
    let mut refused = |command: Command| {
        let error = apply(&mut tables, 3, command).unwrap_err();
        assert_eq!(tables, before, "{error}");
        error
    };
    let next = |number| RestoreError::OutOfOrder { number, next: 1 };
    assert_eq!(refused(block(ONE, 2, &image[2])), next(2));
    assert_eq!(refused(block(ONE, u64::MAX, &image[2])), next(u64::MAX));
    let other = RestoreError::NotUnderWay { restore: TWO };
    assert_eq!(refused(block(TWO, 1, &image[1])), other);
    assert_eq!(refused(commit(TWO, 1)), other);
    let count = RestoreError::OtherCount { blocks: image.len() as u64, next: 1 };
    assert_eq!(refused(commit(ONE, image.len())), count);
    let error = refused(commit(ONE, 1));
    assert!(matches!(error, RestoreError::Image(ImageError::Unfinished { .. })), "{error}");
    apply(&mut tables, 3, Command::RestoreAbort(TWO)).unwrap();
    assert_eq!(tables, before, "another restore was aborted");
}

#[test]
fn a_block_that_is_refused_ends_its_restore_and_nothing_else() {
    let image = backup(&everything(), 300);
    for at in 0..image.len() {
        let mut tables = tables_of(1, &[put("old")]);
        let before = tables.clone();
        send(&mut tables, 2, &image[..at]);
        let mut damaged = image[at].to_vec();
        damaged[0] ^= 1;
        let error = apply(&mut tables, 50, block(ONE, at as u64, &damaged.into())).unwrap_err();
        assert!(matches!(error, RestoreError::Image(_)), "{error}");
        assert_eq!(tables, before);
    }
}

#[test]
fn an_abort_and_a_newer_restore_discard_what_is_under_way() {
    let image = backup(&everything(), 300);
    let mut tables = tables_of(1, &[put("old")]);
    let before = tables.clone();
    send(&mut tables, 2, &image);
    apply(&mut tables, 50, Command::RestoreAbort(ONE)).unwrap();
    assert_eq!(tables, before);
    send(&mut tables, 51, &image[..2]);
    apply(&mut tables, 60, block(TWO, 0, &image[0])).unwrap();
    let over = RestoreError::NotUnderWay { restore: ONE };
    assert_eq!(apply(&mut tables, 61, block(ONE, 2, &image[2])), Err(over));
    apply(&mut tables, 62, block(TWO, 1, &image[1])).unwrap();
}

#[test]
fn a_backup_is_bounded_in_bytes_and_in_indexes() {
    let image = backup(&everything(), 300);
    let mut tables = Tables::default();
    apply(&mut tables, 1, block(ONE, 0, &image[0])).unwrap();
    tables.restoring.as_mut().unwrap().bytes = RESTORE_BYTES_MAX - image[1].len() as u64;
    let mut longer = tables.clone();
    longer.restoring.as_mut().unwrap().bytes += 1;
    apply(&mut tables, 2, block(ONE, 1, &image[1])).unwrap();
    assert_eq!(apply(&mut longer, 2, block(ONE, 1, &image[1])), Err(RestoreError::TooLarge));
    assert_eq!(longer, Tables::default());

    let index = ModifyIndex::new(u64::MAX - 9);
    let image = backup(&tables_of(index.get(), &[put("a")]), BLOCK_BYTES);
    let mut tables = Tables::default();
    let end = send(&mut tables, 1, &image);
    let refused = apply(&mut tables, end, commit(ONE, image.len()));
    assert_eq!(refused, Err(RestoreError::IndexTooLarge { index }));
    let mut tables = Tables::default();
    let end = restore(&mut tables, 1, &tables_of(1 << 62, &[put("a")]));
    assert_eq!(tables.restored_at().get(), (1 << 62) + 1);
    assert_eq!(decoded(&blocks(&tables, 0)).as_ref(), Ok(&tables));
    index_of_put(&mut tables, end + 1);
}

#[test]
fn a_backup_made_during_a_restore_leaves_that_out_and_another_image_is_refused() {
    let mut tables = tables_of(1, &[put("old")]);
    let plain = tables.clone();
    send(&mut tables, 2, &backup(&everything(), 300)[..2]);
    assert_eq!(decoded(&backup(&tables, 100)), Ok(plain));
    let image = blocks(&tables, BLOCK_BYTES);
    let mut other = Tables::default();
    assert_eq!(apply(&mut other, 1, block(ONE, 0, &image[0])), Err(RestoreError::Nested));
    assert_eq!(other, Tables::default());
}

#[test]
fn the_counts_of_a_restore_in_an_image_are_in_range() {
    let image = backup(&everything(), 300);
    let mut tables = Tables::default();
    send(&mut tables, 1, &image[..2]);
    let changed = |change: fn(&mut Tables)| {
        let mut tables = tables.clone();
        change(&mut tables);
        decoded(&blocks(&tables, 50)).is_ok()
    };
    assert!(changed(|_| {}));
    assert!(!changed(|it| it.restoring.as_mut().unwrap().next = 0));
    assert!(!changed(|it| it.restoring.as_mut().unwrap().next = u64::MAX));
    assert!(!changed(|it| it.restoring.as_mut().unwrap().bytes = RESTORE_BYTES_MAX + 1));
}

proptest! {
    /// A server that gets the state in the middle of a restore ends up like those that saw it all.
    #[test]
    fn a_restore_goes_on_after_an_image_of_its_middle(
        here in any_commands(),
        there in any_commands(),
        bytes_max in 0..400_usize,
        image_bytes_max in 0..400_usize,
    ) {
        let image = backup(&tables_of(10, &there), bytes_max);
        let mut tables = tables_of(1, &here);
        let mut carried: Vec<Tables> = Vec::new();
        for (number, part) in (0..).zip(&image) {
            let command = block(ONE, number, part);
            for tables in carried.iter_mut().chain([&mut tables]) {
                apply(tables, 50 + number, command.clone()).unwrap();
            }
            let mid = blocks(&tables, image_bytes_max);
            let read = decoded(&mid).unwrap();
            prop_assert_eq!(&read, &tables);
            prop_assert_eq!(blocks(&read, image_bytes_max), mid);
            if number % 7 == 0 {
                carried.push(read);
            } else {
                carried[0] = read;
            }
        }
        for tables in carried.iter_mut().chain([&mut tables]) {
            apply(tables, 1_000, commit(ONE, image.len())).unwrap();
        }
        prop_assert!(carried.iter().all(|it| *it == tables));
        prop_assert_eq!(bare(&tables), tables_of(10, &there));
    }

    #[test]
    fn a_damaged_middle_is_refused_or_legal(
        there in any_commands(),
        share in 0..100_usize,
        place: u16,
        byte: u8,
    ) {
        let image = backup(&tables_of(10, &there), 60);
        let mut tables = everything();
        send(&mut tables, 50, &image[..=share * (image.len() - 1) / 100]);
        let mut whole = blocks(&tables, BLOCK_BYTES).concat();
        let place = usize::from(place) % whole.len();
        let was = std::mem::replace(&mut whole[place], byte);
        let mut decoder = ImageDecoder::default();
        let read = decoder.block(&whole);
        prop_assert_eq!(read.is_ok(), was == byte);
    }
}
