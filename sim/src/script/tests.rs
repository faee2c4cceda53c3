//! Scripts as text and back, and what is no script.

use super::parse::{Problem, ScriptError};
use super::{Blow, Script};
use crate::disk::{Crash, Loss, SyncFault};
use crate::finder::FindAction;
use crate::kv::session::SessionShape;
use crate::kv::{Ask, KvAction, PartKind};
use crate::plan::Plan;
use crate::question::Question;
use crate::rot::Part;
use crate::run::Run;
use crate::watch::WatchAction;
use crate::workload::Action;
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;
use terraform_core::catalog::query::Consistency;
use terraform_core::id::ServiceName;
use terraform_core::time::Instant;

/// Hosts of the worlds that are made up here.
const HOSTS: usize = 5;

fn any_span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..86_400_000_000_000_u64).prop_map(Duration::from_nanos),
        (0..86_400_u64).prop_map(Duration::from_secs),
    ]
}

fn any_at() -> impl Strategy<Value = Instant> {
    any_span().prop_map(|span| Instant::ZERO + span)
}

fn any_consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![Just(Consistency::Leader), Just(Consistency::Consistent), Just(Consistency::Stale)]
}

fn any_blow() -> impl Strategy<Value = Blow> {
    let loss = prop_oneof![
        Just(Crash::Process),
        Just(Crash::Power(Loss::All)),
        Just(Crash::Power(Loss::Nothing)),
        Just(Crash::Power(Loss::Suffix)),
        Just(Crash::Power(Loss::Subset)),
        Just(Crash::Power(Loss::Mixed)),
    ];
    prop_oneof![
        (0..HOSTS, loss, any_span()).prop_map(|(host, crash, down)| Blow::Crash {
            host,
            crash,
            down
        }),
        (vec(0..HOSTS, 1..4), vec(0..HOSTS, 1..4), any::<bool>(), any_span())
            .prop_map(|(hosts, from, mute, span)| Blow::Cut { hosts, from, mute, span }),
        (0..HOSTS, any_span()).prop_map(|(host, span)| Blow::Pause { host, span }),
        (0..HOSTS, any_span()).prop_map(|(host, away)| Blow::Leave { host, away }),
        (0..HOSTS, 0..Part::ALL.len(), any::<u64>()).prop_map(|(host, part, place)| Blow::Rot {
            host,
            part: Part::ALL[part],
            place
        }),
        (0..HOSTS, any_span()).prop_map(|(host, span)| Blow::Stall { host, span }),
        (0..HOSTS, any::<bool>()).prop_map(|(host, all)| {
            let fault = if all { SyncFault::Revert } else { SyncFault::Forget };
            Blow::SyncError { host, fault }
        }),
        (0..HOSTS, 0u64..1 << 40, any_span()).prop_map(|(host, room, span)| Blow::Fill {
            host,
            room,
            span
        }),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    "[a-z:=/]{0,8}"
}

fn any_session_ask() -> impl Strategy<Value = Ask> {
    let shape = (0..6_usize, any::<bool>(), any::<bool>(), any::<bool>(), 0..61_u64);
    let shape = shape.prop_map(|(node, depends, expires, deletes, delay)| {
        Ask::Open(SessionShape { node, depends, expires, deletes, delay })
    });
    prop_oneof![
        shape,
        Just(Ask::Acquire("lock/a".to_owned())),
        Just(Ask::Release("lock/b".to_owned())),
        Just(Ask::Renew),
        Just(Ask::Close),
        Just(Ask::Save),
        Just(Ask::PutBack),
        any::<bool>().prop_map(|wants| Ask::Place { wants }),
    ]
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let kind = prop_oneof![
        Just(PartKind::Put),
        Just(PartKind::PutSeen),
        Just(PartKind::Delete),
        Just(PartKind::DeleteSeen),
        Just(PartKind::Get),
        Just(PartKind::GetTree),
        Just(PartKind::CheckSeen),
    ];
    let question = prop_oneof![
        any_key().prop_map(Question::Key),
        any_key().prop_map(Question::Tree),
        (any_key(), any_key()).prop_map(|(prefix, separator)| Question::Keys { prefix, separator }),
        vec((any::<bool>(), any_key()), 1..4).prop_map(Question::Gets),
    ];
    prop_oneof![
        (any_key(), any::<bool>()).prop_map(|(key, seen)| Ask::Put { key, seen }),
        (any_key(), any::<bool>()).prop_map(|(key, seen)| Ask::Delete { key, seen }),
        "list/[a-z]{0,3}".prop_map(Ask::DeleteTree),
        vec((kind, any_key()), 1..4).prop_map(Ask::Transaction),
        vec("list/[a-z]{0,3}", 0..4).prop_map(Ask::Restore),
        (question, any_consistency(), any::<bool>()).prop_map(|(question, consistency, view)| {
            Ask::Read { question, consistency, view }
        }),
        any_session_ask(),
    ]
}

fn any_watch() -> impl Strategy<Value = WatchAction> {
    let question = prop_oneof![
        any_key().prop_map(Question::Key),
        any_key().prop_map(Question::Tree),
        "[a-z]{1,8}".prop_map(|name| {
            Question::Service(ServiceName::parse(&name).expect("letters are a name"))
        }),
        Just(Question::Nodes),
    ];
    let ask =
        (0..4_usize, 0..HOSTS, question, any_consistency(), any_span(), any::<(bool, bool)>());
    prop_oneof![
        ask.prop_map(|(client, host, question, consistency, wait, (afresh, view))| {
            WatchAction::Ask { client, host, question, consistency, afresh, wait, view }
        }),
        (0..4_usize).prop_map(|client| WatchAction::HangUp { client }),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..HOSTS, 0..5_usize).prop_map(|(host, register)| Action::Write { host, register }),
        (0..HOSTS, 0..5_usize, any_consistency())
            .prop_map(|(host, register, consistency)| Action::Read { host, register, consistency }),
        (0..HOSTS, 0..3_u64, any::<u16>()).prop_map(|(host, number, port)| Action::AddService {
            host,
            number,
            port
        }),
        (0..HOSTS, 0..3_u64).prop_map(|(host, number)| Action::RemoveService { host, number }),
        (0..6_usize, 0..HOSTS, any_ask()).prop_map(|(client, host, ask)| Action::Kv(KvAction {
            client,
            host,
            ask
        })),
        any_watch().prop_map(Action::Watch),
        any_find().prop_map(Action::Find),
        (0..HOSTS, proptest::option::of(0..3_u64), any::<bool>())
            .prop_map(|(host, number, enable)| Action::Maintain { host, number, enable }),
        (0..HOSTS).prop_map(|host| Action::HandOver { host }),
    ]
}

fn any_find() -> impl Strategy<Value = FindAction> {
    let limit = || proptest::option::of(any_span());
    prop_oneof![
        (0..HOSTS, 0..5_usize, any::<bool>(), any_consistency(), limit()).prop_map(
            |(host, service, dns, consistency, max_stale)| FindAction::Look {
                host,
                service,
                dns,
                consistency,
                max_stale
            }
        ),
        (0..HOSTS, 0..3_usize, any_consistency()).prop_map(|(host, query, consistency)| {
            FindAction::Execute { host, query, consistency }
        }),
        (0..HOSTS, 0..3_usize, 0..5_usize, any::<bool>(), any::<bool>()).prop_map(
            |(host, query, service, strict, new)| FindAction::Define {
                host,
                query,
                service,
                strict,
                new
            }
        ),
        (0..HOSTS, 0..3_usize).prop_map(|(host, query)| FindAction::Forget { host, query }),
    ]
}

fn any_script() -> impl Strategy<Value = Script> {
    let blows = vec((any_at(), any_blow()), 0..6);
    let actions = vec((any_at(), any_action()), 0..12);
    let words = (any::<bool>(), any::<bool>(), any::<bool>());
    (any::<u64>(), any_at(), blows, actions, words).prop_map(
        |(seed, until, mut blows, mut actions, (rests, named, ambushed))| {
            blows.sort_by_key(|(at, _)| *at);
            actions.sort_by_key(|(at, _)| *at);
            Script {
                mutant: named.then_some("M07"),
                rule: named.then(|| "R11".to_owned()),
                servers: 3,
                clients: HOSTS - 3,
                always: ambushed.then_some("leave.nobody_takes_over"),
                until,
                rests,
                blows,
                actions,
                // Links, limits and the rest as this seed makes them.
                ..Script::of_plan(&Plan::of_members(seed))
            }
        },
    )
}

proptest! {
    #[test]
    fn a_script_that_is_printed_and_read_is_the_same(script in any_script()) {
        prop_assert_eq!(script.to_string().parse(), Ok(script));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(script 1\n)?([a-z]{2,8} ?[-a-z0-9=.,: ]{0,24}\n){0,12}") {
        let _: Result<Script, ScriptError> = text.parse();
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        script in any_script(),
        cut in any::<prop::sample::Index>(),
        other in "[-a-z0-9=.,:# \n]{0,6}",
    ) {
        let mut text = script.to_string();
        let at = cut.index(text.len());
        text.replace_range(at..text.len().min(at + 3), &other);
        let _: Result<Script, ScriptError> = text.parse();
    }
}

const HEAD: &str = "script 1\nseed 7\nservers 3\nclients 1\nuntil 9s\n";

/// What is wrong with these lines after a legal head, and in which line.
fn problem(lines: &str) -> (usize, Problem) {
    let ScriptError { line, problem } =
        format!("{HEAD}{lines}").parse::<Script>().expect_err("it is no script");
    (line, problem)
}

#[test]
fn an_error_names_its_line_and_what_is_wrong() {
    let bad = |name, value: &str| Problem::Bad(name, value.to_owned());
    assert_eq!(problem("at 1s kill host=4 down=1s"), (6, bad("host", "4")));
    assert_eq!(problem("\nat 1s kill host=0"), (7, Problem::Missing("down")));
    assert_eq!(problem("at 1s kill host=0 down=86401s"), (6, bad("down", "86401s")));
    assert_eq!(problem("at 1 kill host=0 down=1s"), (6, bad("at", "1")));
    assert_eq!(problem("at 1s kill host=0 down=1s soon"), (6, Problem::Extra("soon".to_owned())));
    assert_eq!(problem("seed 8"), (6, Problem::Late("seed")));
    assert_eq!(problem("at 1s hang-up watcher=0\norder fifo"), (7, Problem::Late("order")));
    assert_eq!(problem("perhaps"), (6, Problem::Unknown("perhaps".to_owned())));
    assert_eq!(problem("mutant M99"), (6, bad("mutant", "M99")));
    assert_eq!(problem("limits reads=0"), (6, bad("reads", "0")));
    let missing = "script 1\nseed 7\nat 1s pause host=0 for=1s".parse::<Script>();
    assert_eq!(missing, Err(ScriptError { line: 3, problem: Problem::Missing("servers") }));
    let version = "script 2".parse::<Script>();
    assert_eq!(version, Err(ScriptError { line: 1, problem: bad("script", "2") }));
}

#[test]
fn registers_are_not_mixed_with_other_keys() {
    // Their histories are judged one by one, so this would look like a lost write.
    for ask in
        ["kv-delete-tree host=0 client=0 key=reg", "kv-transaction host=0 client=0 parts=put:reg/0"]
    {
        assert_eq!(problem(&format!("at 1s {ask}")).0, 6, "{ask}");
    }
    assert!(
        format!("{HEAD}at 1s kv-delete-tree host=0 client=0 key=list/").parse::<Script>().is_ok()
    );
}

#[test]
fn the_script_of_a_world_makes_the_same_world() {
    let of_disks = [0, 1, 2].map(Plan::of_disks);
    let others = of_disks.into_iter().chain([Plan::of_members(2)]);
    for plan in [0, 2, 3, 5, 7, 8, 11].map(Plan::of_seed).into_iter().chain(others) {
        let seed = plan.seed;
        let mut drawn = Run::new(plan);
        let (outcome, script) = (drawn.to_end(), drawn.script());
        let read: Script = script.to_string().parse().expect("what is printed can be read");
        let again = Run::of_script(&read).to_end();
        assert_eq!((outcome.violation, again.violation), (None, None), "seed {seed}");
        assert_eq!((outcome.hash, outcome.events), (again.hash, again.events), "seed {seed}");
    }
}

#[test]
fn luck_stays_where_it_is_when_a_fault_is_left_out() {
    // Host 3, a client, is paused late; nothing before that moment is another world.
    let text = |faults: &str| format!("{HEAD}at 3s register-write host=0 register=1\n{faults}");
    let hash = |faults: &str, until: u64| {
        let mut script: Script = text(faults).parse().expect("the script is legal");
        (script.until, script.rests) = (Instant::ZERO + Duration::from_secs(until), false);
        let mut run = Run::of_script(&script);
        assert_eq!(run.to_end().violation, None);
        run.world.hash()
    };
    let pause = "at 5s pause host=3 for=2s\n";
    assert_eq!(hash("", 5), hash(pause, 5));
    assert_ne!(hash("", 8), hash(pause, 8));
}
