//! Seeds that once found a bug, and the same seed twice.

use sim::gossip::{self, plan::GossipPlan};
use sim::kv::backup::Backup;
use sim::kv::history::{Call, Outcome, Record};
use sim::kv::semaphore;
use sim::plan::Plan;
use sim::run::{Run, run};
use sim::shrink::outcome;
use std::collections::BTreeSet;
use terraform_core::catalog::kv::KvWrite;
use terraform_core::catalog::query::Consistency;
use terraform_core::catalog::transaction::TransactionResult;
use terraform_core::node::request::Response;
use terraform_core::raft::cluster::Chaos;

#[test]
fn seeds_that_found_bugs_pass() {
    for line in include_str!("../seeds/regress.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let kind = words.next();
        let seed = words.next().and_then(|seed| seed.parse().ok());
        let seed = seed.expect("every line has a kind and a seed");
        let violation = match kind {
            Some("swarm") => run(Plan::of_seed(seed)).0.violation,
            Some("disk") => run(Plan::of_disks(seed)).0.violation,
            Some("gossip") => gossip::run(GossipPlan::of_seed(seed)).0.violation,
            // A rule that is broken there is a panic.
            Some("lite") => {
                Chaos::new(seed).run();
                None
            }
            other => panic!("{other:?} is no kind of world"),
        };
        assert_eq!(violation, None, "seed {seed}");
    }
}

#[test]
fn two_runs_of_a_seed_are_the_same_run() {
    let of_disks = (0..4).map(Plan::of_disks);
    for plan in (0..16).map(Plan::of_seed).chain(of_disks) {
        let seed = plan.seed;
        let (first, _) = run(plan.clone());
        let (second, _) = run(plan);
        assert_eq!(first.violation, None, "seed {seed}");
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}

#[test]
fn clients_that_watch_are_answered_for_every_reason() {
    let mut met = BTreeSet::new();
    for seed in 0..8 {
        terraform_core::marks::take_hits();
        assert_eq!(run(Plan::of_seed(seed)).0.violation, None, "seed {seed}");
        met.extend(terraform_core::marks::take_hits().into_keys());
    }
    for mark in ["parked", "woken", "over", "leader_gone", "given_up"] {
        assert!(met.contains(&*format!("watch.{mark}")), "{mark} never happened, but {met:?}");
    }
}

/// A world that remembers deletions for two seconds, and a client that watches through that.
const FORGETFUL: &str = "script 1
seed 1
servers 1
clients 0
disk 0.001s
drift 0
care tombstones=2s
until 15s
at 5s kv-put host=0 client=0 key=list/a
at 5.2s kv-put host=0 client=0 key=list/d
at 5.4s kv-delete host=0 client=0 key=list/d
at 6s watch host=0 watcher=0 tree=list/ mode=consistent wait=2s afresh
at 10s watch host=0 watcher=0 tree=list/ mode=consistent wait=2s
";

#[test]
fn a_watcher_sees_an_index_go_back_once_a_deletion_is_forgotten() {
    terraform_core::marks::take_hits();
    let mut run = Run::of_script(&FORGETFUL.parse().expect("it is a script"));
    assert_eq!(outcome(&mut run, None), None);
    assert!(terraform_core::marks::take_hits().contains_key("reconcile.tombstones"));
    assert_eq!(run.workload.watchers.went_back, 1);
    let mut run = Run::of_script(&FORGETFUL.parse().expect("it is a script"));
    let broken = outcome(&mut run, Some("M59"));
    assert_eq!(broken.map(|broken| broken.rule).as_deref(), Some("C7"), "forgotten at once");
}

/// What became of the operations on keys in some worlds, by kind.
fn kinds(records: &[Record]) -> BTreeSet<String> {
    let kind = |record: &Record| {
        let what = match &record.call {
            Call::Write(KvWrite::Put(put)) if put.key == semaphore::LIST => {
                let change = semaphore::Change::of_value(&put.value);
                if change.is_some_and(|change| change.takes) { "place" } else { "give" }
            }
            Call::Read(query, _) if semaphore::looks(query) => "look",
            Call::Write(KvWrite::Put(put)) if put.only_at.is_some() => "cas",
            Call::Write(KvWrite::Put(_)) => "put",
            Call::Write(KvWrite::Delete(delete)) if delete.only_at.is_some() => "delete-cas",
            Call::Write(KvWrite::Delete(_)) => "delete",
            Call::Write(KvWrite::DeleteTree(_)) => "delete-tree",
            Call::Write(KvWrite::Acquire(_)) => "acquire",
            Call::Write(KvWrite::Release(_)) => "release",
            Call::Open(_) => "open",
            Call::Renew(_) => "renew",
            Call::Close(_) => "close",
            Call::Transaction(_) => "transaction",
            Call::Restore(Backup::Foreign(_)) => "restore",
            Call::Restore(Backup::Own(..)) => "put-back",
            Call::Save => "save",
            Call::Read(_, Consistency::Leader) => "read",
            Call::Read(_, Consistency::Consistent) => "consistent",
            Call::Read(_, Consistency::Stale) => "stale",
        };
        let outcome = match &record.outcome {
            Outcome::Open => "open",
            Outcome::NotDone => "not done",
            Outcome::Refused => "refused",
            Outcome::NoSession => "no session",
            Outcome::Answered(Response::Unmet) => "unmet",
            Outcome::Answered(Response::Transaction(TransactionResult::Failed(_))) => "failed",
            Outcome::Answered(_) => "done",
        };
        format!("{what} {outcome}")
    };
    records.iter().map(kind).collect()
}

#[test]
fn clients_of_keys_meet_every_outcome() {
    let mut met = BTreeSet::new();
    for seed in 0..8 {
        let (outcome, run) = run(Plan::of_seed(seed));
        assert_eq!((outcome.violation, outcome.undecided), (None, 0), "seed {seed}");
        met.extend(kinds(run.workload.kv.history.records()));
    }
    let done = ["cas", "put", "delete-cas", "delete", "delete-tree", "transaction", "read"]
        .into_iter()
        .chain(["consistent", "stale", "acquire", "release", "open", "renew", "close"])
        .chain(["place", "give", "look", "restore", "save", "put-back"]);
    let expected = done.map(|what| format!("{what} done")).chain(
        ["cas unmet", "delete-cas unmet", "transaction failed", "put open", "put not done"]
            .into_iter()
            .chain(["acquire unmet", "release unmet", "acquire no session", "place unmet"])
            .map(str::to_owned),
    );
    let missing: Vec<String> = expected.filter(|kind| !met.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?} never happened, but {met:?}");
}
