//! Images: what is read back is what was written, and nothing else is read.

use super::super::image::{BLOCK_BYTES, ImageDecoder, ImageEncoder, ImageError};
use super::super::kv::{KvDelete, KvPut, KvWrite};
use super::super::model::NodeCoordinate;
use super::super::session::Session;
use super::model_check::commands;
use super::prepared::{any_prepared_write, prepared_command};
use super::session::{any_session_command, id, lock, session};
use super::*;
use crate::coordinate::Coordinate;
use crate::wire::checksum::crc32;
use crate::wire::pack::to_bytes;
use bytes::Bytes;
use proptest::prelude::*;

/// Commands about everything that the tables hold.
pub(super) fn any_command() -> impl Strategy<Value = Command> {
    let key = "[ab]{1,2}(/[ab])?";
    let put = (key, "[xy]{0,40}", 0..3_u64).prop_map(|(key, value, flags)| {
        Command::Kv(KvWrite::Put(KvPut { key, value: value.into(), flags, only_at: None }))
    });
    let delete = key.prop_map(|key| Command::Kv(KvWrite::Delete(KvDelete { key, only_at: None })));
    let delete_tree = "[ab]{0,2}/?".prop_map(|prefix| Command::Kv(KvWrite::DeleteTree(prefix)));
    let reap = (10..40_u64).prop_map(|index| Command::ReapTombstones(ModifyIndex::new(index)));
    let of_keys = prop_oneof![4 => put, 2 => delete, 1 => delete_tree, 1 => reap];
    prop_oneof![
        5 => commands(),
        8 => of_keys,
        5 => any_session_command(),
        3 => any_prepared_write(),
    ]
}

pub(super) fn any_commands() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(any_command(), 0..30)
}

/// The tables after these commands, the first of which has the index `first`.
pub(super) fn tables_of(first: u64, commands: &[Command]) -> Tables {
    let mut tables = Tables::default();
    for (index, command) in (first..).zip(commands) {
        let _outcome = tables.apply(LogIndex::new(index), command.clone());
    }
    tables
}

pub(super) fn blocks(tables: &Tables, bytes_max: usize) -> Vec<Bytes> {
    let mut encoder = ImageEncoder::new(tables.clone());
    std::iter::from_fn(|| encoder.next_block(bytes_max)).collect()
}

pub(super) fn decoded<B: AsRef<[u8]>>(blocks: &[B]) -> Result<Tables, ImageError> {
    let mut decoder = ImageDecoder::default();
    for block in blocks {
        decoder.block(block.as_ref())?;
    }
    decoder.finish()
}

/// Tables with something of every kind.
pub(super) fn everything() -> Tables {
    let mut tables = Tables::default();
    for (index, name, id) in [(1, "n1", Some(1)), (2, "N2", None)] {
        let mut wanted = registration(node(name, id));
        wanted.service = Some(service("s1", "web"));
        wanted.checks = vec![
            check(name, "c1", Some("s1"), CheckStatus::Passing),
            check(name, "serfHealth", None, CheckStatus::Passing),
        ];
        register(&mut tables, index, wanted).unwrap();
    }
    let row = |name: &str| NodeCoordinate {
        node: NodeName::parse(name).unwrap(),
        segment: String::new(),
        coordinate: Coordinate::ORIGIN,
    };
    let mut wanted = registration(node("n1", Some(1)));
    wanted.service = Some(service("s2", "db"));
    register(&mut tables, 3, wanted).unwrap();
    let put = |key: &str| {
        let (key, value) = (key.to_owned(), Bytes::from_static(b"value"));
        Command::Kv(KvWrite::Put(KvPut { key, value, flags: 7, only_at: None }))
    };
    let delete =
        |key: &str| Command::Kv(KvWrite::Delete(KvDelete { key: key.to_owned(), only_at: None }));
    let rest = [
        Command::Coordinates(vec![row("n1"), row("n2")]),
        put("a"),
        put("b"),
        delete("a"),
        put("b/c"),
        put("d"),
        delete("d"),
    ];
    let of_sessions = [
        Command::CreateSession(Box::new(session(1, "n1", &["c1"]))),
        Command::CreateSession(Box::new(session(2, "n2", &[]))),
        Command::Kv(KvWrite::Acquire(lock("b", "1", 1))),
        Command::Kv(KvWrite::Acquire(lock("b/c", "1", 2))),
        Command::EndSessions(vec![id(2)]),
        prepared_command(),
    ];
    let rest = rest.into_iter().chain(of_sessions);
    for (index, command) in (4..).zip(rest) {
        tables.apply(LogIndex::new(index), command).unwrap();
    }
    deregister(&mut tables, 21, "n1", Some("s2"), None);
    tables
}

/// The records of an image but its end.
fn records(tables: &Tables) -> Vec<Vec<u8>> {
    let mut records: Vec<_> = blocks(tables, 0).iter().map(|block| block.to_vec()).collect();
    records.pop();
    records
}

fn record(tag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[tag], payload].concat()
}

/// An image of these records, with an end that fits.
fn sealed(records: &[Vec<u8>]) -> Vec<u8> {
    let content = records.concat();
    let count = (records.len() as u64).to_be_bytes();
    let end = record(255, &[&count[..], &crc32(&content).to_be_bytes()].concat());
    [content, end].concat()
}

proptest! {
    #[test]
    fn tables_survive_their_image_and_behave_alike(
        before in any_commands(),
        after in any_commands(),
    ) {
        let mut tables = tables_of(10, &before);
        for bytes_max in [0, 50, 300, BLOCK_BYTES] {
            let image = blocks(&tables, bytes_max);
            prop_assert_eq!(decoded(&image), Ok(tables.clone()), "blocks of {}", bytes_max);
            let whole = image.concat();
            prop_assert_eq!(decoded(&[&whole]), Ok(tables.clone()), "as one block");
            for block in &image {
                let head = u32::from_be_bytes(block[..4].try_into().unwrap()) as usize;
                prop_assert!(block.len() <= bytes_max || block.len() == head + 4);
            }
        }
        let mut read = decoded(&blocks(&tables, 100)).unwrap();
        for (index, command) in (50..).zip(after) {
            let there = tables.apply(LogIndex::new(index), command.clone());
            prop_assert_eq!(read.apply(LogIndex::new(index), command), there);
            prop_assert_eq!(&read, &tables);
        }
    }

    #[test]
    fn equal_tables_have_equal_images(commands in any_commands(), bytes_max in 0..2000_usize) {
        let tables = tables_of(10, &commands);
        let read = decoded(&blocks(&tables, 0)).unwrap();
        prop_assert_eq!(blocks(&read, bytes_max), blocks(&tables, bytes_max));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decoded(&[&bytes]).is_err());
        let _ = decoded(&[sealed(&[records(&everything())[0].clone(), bytes])]);
    }

    /// Whatever is accepted is legal: it survives its own image.
    #[test]
    fn changed_records_are_refused_or_legal(
        commands in any_commands(),
        changes in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 1..4),
    ) {
        let mut records = records(&tables_of(10, &commands));
        for (which, place, byte) in changes {
            let which = usize::from(which) % records.len();
            let place = usize::from(place) % records[which].len();
            match byte {
                0..40 => drop(records.remove(which)),
                40..80 => records.insert(which, records[which].clone()),
                _ => records[which][place] = byte,
            }
            if records.is_empty() {
                return Ok(());
            }
        }
        if let Ok(tables) = decoded(&[sealed(&records)]) {
            prop_assert_eq!(decoded(&blocks(&tables, 0)), Ok(tables));
        }
    }
}

#[test]
fn every_changed_bit_is_refused() {
    let image = blocks(&everything(), BLOCK_BYTES).concat();
    assert_eq!(decoded(&[&image]), Ok(everything()));
    for bit in 0..image.len() * 8 {
        let mut changed = image.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(decoded(&[&changed]).is_err(), "bit {bit}");
    }
    for length in 0..image.len() {
        assert!(decoded(&[&image[..length]]).is_err(), "{length} bytes");
    }
}

#[test]
fn every_missing_doubled_or_swapped_block_is_refused() {
    let tables = everything();
    for bytes_max in [0, 200] {
        let image = blocks(&tables, bytes_max);
        assert!(image.len() > 4);
        for first in 0..image.len() {
            let mut missing = image.clone();
            missing.remove(first);
            assert!(decoded(&missing).is_err(), "without block {first}");
            for second in 0..=first {
                let mut doubled = image.clone();
                doubled.insert(second, image[first].clone());
                assert!(decoded(&doubled).is_err(), "block {first} again before {second}");
                let mut swapped = image.clone();
                swapped.swap(first, second);
                assert_eq!(decoded(&swapped).is_ok(), first == second, "{first} and {second}");
            }
        }
    }
}

/// Why the records of `tables`, changed by `change`, are refused.
fn refusal(tables: &Tables, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> String {
    let mut records = records(tables);
    change(&mut records);
    decoded(&[sealed(&records)]).unwrap_err().to_string()
}

#[test]
fn a_refusal_names_the_record_and_the_rule() {
    let tables = everything();
    let place = |tag: u8| records(&tables).iter().position(|it| it[4] == tag).unwrap();
    let (service_at, check_at, index_at) = (place(3), place(4), place(6));
    let moved = |from: usize, to: usize| {
        refusal(&tables, |it| {
            let record = it.remove(from);
            it.insert(to, record);
        })
    };
    let without = |at: usize| refusal(&tables, |it| drop(it.remove(at)));
    let last = records(&tables).len() - 1;
    assert_eq!(moved(0, 1), "record 0 of the image: node: it is out of place");
    assert_eq!(moved(service_at, 1), "record 1 of the image: service: it is out of place");
    assert_eq!(
        moved(service_at, last),
        format!("record {} of the image: check: its service is missing", check_at - 1)
    );
    assert_eq!(without(1), "record 1 of the image: service: it is out of place");
    let end = without(index_at);
    assert_eq!(
        end,
        format!("record {index_at} of the image: session: a service before it has no index")
    );
    let tombstone = place(8);
    let swapped = refusal(&tables, |it| it.swap(tombstone, tombstone + 1));
    let rule = "tombstone: its key is not above the one before it";
    assert_eq!(swapped, format!("record {} of the image: {rule}", tombstone + 1));
    let doubled = refusal(&tables, |it| it.insert(1, it[0].clone()));
    assert_eq!(doubled, "record 1 of the image: head: it is out of place");
    let unknown = refusal(&tables, |it| it.push(record(99, b"")));
    assert_eq!(unknown, format!("record {} of the image: record: unknown kind 99", last + 1));
    let later = refusal(&tables, |it| it[0][5] = 2);
    assert_eq!(later, "record 0 of the image: version of the image: unknown kind 2");
}

#[test]
fn rows_that_do_not_fit_together_are_refused() {
    let tables = everything();
    let packed = records(&tables);
    let place = |tag: u8| packed.iter().position(|it| it[4] == tag).unwrap();
    let replaced = |at: usize, tag: u8, payload: &[u8]| {
        let text = refusal(&tables, |it| it[at] = record(tag, payload));
        text.split_once(" of the image: ").unwrap().1.to_owned()
    };
    let row = (*tables.checks["n1\0c1"]).clone();
    let changed = |check: Check| replaced(place(4), 4, &to_bytes(&check));
    let elsewhere = Check { node: NodeName::parse("N1").unwrap(), ..row.clone() };
    assert_eq!(changed(elsewhere), "check: it is on another node");
    let named = Check { service_name: "db".to_owned(), ..row.clone() };
    assert_eq!(changed(named), "check: it has not the name and tags of its service");
    let later = Check { modify_index: ModifyIndex::new(99), ..row };
    assert_eq!(changed(later), "check: its index is out of range");
    let second = packed.iter().rposition(|it| it[4] == 2).unwrap();
    let id = Some(NodeId::from_bytes([1; 16]));
    let twin = Node { id, ..(*tables.nodes["n2"].node).clone() };
    assert_eq!(replaced(second, 2, &to_bytes(&twin)), "node: its identity is another node's");
    let unweighted = Service {
        weights: Weights { passing: 0, warning: 0 },
        ..(*tables.services["n1\0s1"]).clone()
    };
    assert_eq!(replaced(place(3), 3, &to_bytes(&unweighted)), "service: its weights are not legal");
    let index = |index: u64, name: &str| [&index.to_be_bytes()[..], name.as_bytes()].concat();
    let at = place(6);
    assert_eq!(replaced(at, 6, &index(3, "ghost")), "service index: it is not the next service's");
    assert_eq!(replaced(at, 6, &index(0, "web")), "service index: its index is out of range");
    assert_eq!(replaced(at, 6, &index(99, "web")), "service index: its index is out of range");
    assert_eq!(replaced(place(8), 8, &index(99, "a")), "tombstone: its index is out of range");
    assert_eq!(replaced(place(8), 8, &[0; 3]), "tombstone: the input ends early");
    assert_eq!(replaced(place(7), 7, &[0xff; 40]), "entry: the input ends early");
}

#[test]
fn sessions_and_locks_that_do_not_fit_are_refused() {
    let tables = everything();
    let packed = records(&tables);
    let place = |tag: u8| packed.iter().position(|it| it[4] == tag).unwrap();
    let replaced = |tag: u8, payload: &[u8]| {
        let text = refusal(&tables, |it| it[place(tag)] = record(tag, payload));
        text.split_once(" of the image: ").unwrap().1.to_owned()
    };
    let row = (**tables.session(id(1)).unwrap()).clone();
    let changed = |session: Session| replaced(11, &to_bytes(&session));
    let elsewhere = Session { node: NodeName::parse("N1").unwrap(), ..row.clone() };
    assert_eq!(changed(elsewhere), "session: its node is missing");
    let unchecked = Session { node_checks: vec![CheckId::parse("c9").unwrap()], ..row.clone() };
    assert_eq!(changed(unchecked), "session: a check of it is missing or critical");
    let later = Session { create_index: ModifyIndex::new(99), ..row };
    assert_eq!(changed(later), "session: its index is out of range");
    let lock = |acquired: u64, session: u8, key: &str| {
        let payload = [&acquired.to_be_bytes()[..], &[session; 16], key.as_bytes()].concat();
        replaced(12, &payload)
    };
    assert_eq!(lock(1, 1, "z"), "lock: its entry is missing");
    assert_eq!(lock(1, 7, "b"), "lock: its session is missing");
    assert_eq!(lock(0, 0, "b"), "lock: it says nothing");
    let delay = |since: u64, nanos: u64| {
        let payload = [&since.to_be_bytes()[..], &nanos.to_be_bytes(), b"k"].concat();
        replaced(13, &payload)
    };
    assert_eq!(delay(99, 1), "lock delay: its index is out of range");
    for nanos in [0, 60_000_000_001] {
        assert_eq!(delay(1, nanos), "lock delay: it is not between 0 and 60 s");
    }
}

#[test]
fn nothing_follows_the_end_and_no_block_is_empty() {
    let image = blocks(&everything(), BLOCK_BYTES);
    let end = blocks(&everything(), 0).pop().unwrap();
    for extra in [Bytes::new(), end, image[0].clone()] {
        assert!(decoded(&[image.clone(), vec![extra]].concat()).is_err());
    }
    assert!(decoded(&[&b""[..]]).is_err());
    let unfinished = decoded::<Bytes>(&[]).unwrap_err();
    assert_eq!(unfinished, ImageError::Unfinished { records: 0 });
}

#[test]
fn an_image_of_a_large_table_is_handed_out_in_blocks_of_the_wanted_size() {
    let mut tables = Tables::default();
    for index in 1..3000_u64 {
        let (key, value) = (format!("k/{index}"), Bytes::from(vec![0; 300]));
        let put = KvWrite::Put(KvPut { key, value, flags: index, only_at: None });
        tables.apply(LogIndex::new(index), Command::Kv(put)).unwrap();
    }
    let image = blocks(&tables, BLOCK_BYTES);
    let (last, others) = image.split_last().unwrap();
    assert!(others.len() > 2 && last.len() <= BLOCK_BYTES);
    for block in others {
        assert!((BLOCK_BYTES - 400..=BLOCK_BYTES).contains(&block.len()), "{}", block.len());
    }
    assert_eq!(decoded(&image), Ok(tables));
}
