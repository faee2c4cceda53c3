//! Leader duties against the catalog's own tables, driven by hand.

mod forsaken;
mod sessions;

use super::*;
use crate::catalog::kv::{KvDelete, KvPut, KvWrite};
use crate::catalog::model::CheckStatus;
use crate::catalog::tests::restore::restore;
use crate::config::{DEAD_SERVER_GRACE, TOMBSTONE_TIME};
use crate::coordinate::{Coordinate, DIMENSIONS};
use crate::gossip::Versions;
use crate::id::{LamportTime, LogIndex, ModifyIndex, PoolName, StoreId, Term};
use crate::raft::{Replica, Server};
use bytes::Bytes;
use std::net::SocketAddr;

#[test]
fn a_live_server_is_registered_with_its_service_and_the_log_line() {
    let mut rig = Rig::new(&[server("n1", 1)]);
    let outputs = rig.input(ReconcileInput::LeaderReady);
    let [
        ReconcileOutput::Propose { command, .. },
        ReconcileOutput::Trace(Level::Info, line),
        ReconcileOutput::Propose { .. },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let config = AutopilotConfig::default();
    let first = AutopilotWrite { config, only_at: Some(ModifyIndex::ZERO) };
    assert_eq!(**command, Command::Autopilot(first));
    assert_eq!(line.to_string(), "member 'n1' joined, marking health alive");
    rig.settle(outputs);
    assert_eq!(rig.health("n1"), Some(CheckStatus::Passing));
    let (Rows::Node(Some(node)), _) = rig.tables.node_with_services("n1") else { panic!() };
    assert_eq!(node.services[0].id.as_str(), "terraform");
    assert_eq!(node.services[0].port, 8300);
    assert_eq!(node.services[0].meta["raft_version"], "3");
    assert_eq!(node.services[0].meta["version"], "1.8.7");
}

#[test]
fn a_pass_over_a_catalog_that_agrees_proposes_nothing() {
    let mut rig = Rig::ready(&[server("n1", 1), client("c1", 2)]);
    assert_eq!(rig.at(Instant::ZERO + PASS_INTERVAL), []);
}

#[test]
fn a_pass_takes_until_the_last_step_of_a_member_is_applied() {
    let mut rig = Rig::new(&[server("n1", 1)]);
    let outputs = rig.input(ReconcileInput::LeaderReady);
    assert_eq!(rig.duties.times(), &DutyTimes::default(), "it is under way");
    let took = Duration::from_millis(5);
    rig.now = rig.now + took;
    rig.settle(outputs);
    let DutyTimes { passes, steps, .. } = rig.duties.times();
    assert_eq!((passes.count(), passes.sum()), (1, took));
    assert_eq!((steps.count(), steps.sum()), (1, took));
    let outputs = rig.at(Instant::ZERO + PASS_INTERVAL);
    rig.settle(outputs);
    let DutyTimes { passes, steps, .. } = rig.duties.times();
    assert_eq!((passes.count(), steps.count()), (2, 1), "nothing differed");
}

#[test]
fn a_follower_proposes_nothing() {
    let mut rig = Rig::new(&[server("n1", 1), client("c1", 2)]);
    assert_eq!(rig.event(MemberEventKind::Join, client("c1", 2)), []);
    let mut rig = Rig::ready(&[server("n1", 1)]);
    assert_eq!(rig.input(ReconcileInput::LeadershipLost), []);
    rig.members.insert(0, client("c1", 2));
    assert_eq!(rig.event(MemberEventKind::Join, client("c1", 2)), []);
    assert_eq!(rig.duties.next_timeout(), None);
}

#[test]
fn a_failed_member_turns_critical_and_keeps_the_rest() {
    let mut rig = Rig::ready(&[client("c1", 2), server("n1", 1)]);
    rig.members[0].status = MemberStatus::Failed;
    let outputs = rig.event(MemberEventKind::Failed, rig.members[0].clone());
    let line = "member 'c1' failed, marking health critical";
    assert!(matches!(&outputs[0], ReconcileOutput::Trace(_, it) if it.to_string() == line));
    rig.settle(outputs);
    assert_eq!(rig.health("c1"), Some(CheckStatus::Critical));
    assert_eq!(rig.event(MemberEventKind::Failed, rig.members[0].clone()), []);
}

#[test]
fn a_member_that_left_is_deregistered() {
    let mut rig = Rig::ready(&[client("c1", 2), server("n1", 1)]);
    rig.members[0].status = MemberStatus::Left;
    let outputs = rig.event(MemberEventKind::Leave, rig.members[0].clone());
    let line = "deregistering member: member=c1 reason=left";
    assert!(matches!(&outputs[0], ReconcileOutput::Trace(_, it) if it.to_string() == line));
    rig.settle(outputs);
    assert_eq!(rig.health("c1"), None);
}

#[test]
fn the_leader_never_deregisters_itself() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    rig.members[0].status = MemberStatus::Left;
    let outputs = rig.event(MemberEventKind::Leave, rig.members[0].clone());
    let expected = ReconcileOutput::Trace(Level::Warn, ReconcileTrace::NotSelf);
    assert_eq!(outputs, [expected]);
}

#[test]
fn a_reaped_member_goes_at_once_and_a_merely_unknown_one_after_the_grace() {
    let mut rig = Rig::ready(&[client("c1", 2), client("c2", 3), server("n1", 1)]);
    let reaped = rig.members.remove(0);
    let outputs = rig.event(MemberEventKind::Reap, reaped);
    rig.settle(outputs);
    assert_eq!(rig.health("c1"), None);
    rig.members.remove(0);
    let start = rig.now;
    while rig.health("c2").is_some() {
        let at = rig.duties.next_timeout().unwrap();
        let outputs = rig.at(at);
        rig.settle(outputs);
    }
    let waited = rig.now.since(start);
    assert!(waited >= UNKNOWN_GRACE && waited <= UNKNOWN_GRACE + 2 * PASS_INTERVAL);
}

#[test]
fn an_external_node_is_never_touched() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    let mut node = node_of(&rig, "n1");
    node.name = NodeName::parse("external").unwrap();
    node.id = None;
    rig.register(node);
    for _ in 0..15 {
        assert_eq!(rig.at(rig.now + PASS_INTERVAL), []);
    }
}

#[test]
fn what_the_agent_wrote_about_its_node_is_kept() {
    let mut rig = Rig::ready(&[client("c1", 2), server("n1", 1)]);
    let mut node = node_of(&rig, "c1");
    node.meta.insert("rack".to_owned(), "7".to_owned());
    rig.register(node);
    rig.members[0].address.set_ip([10, 0, 0, 9].into());
    let outputs = rig.event(MemberEventKind::Update, rig.members[0].clone());
    rig.settle(outputs);
    let node = node_of(&rig, "c1");
    assert_eq!((node.address.as_str(), node.meta["rack"].as_str()), ("10.0.0.9", "7"));
}

#[test]
fn a_failed_proposal_is_made_again_after_a_pause() {
    let mut rig = Rig::new(&[server("n1", 1)]);
    let outputs = rig.input(ReconcileInput::LeaderReady);
    let Some(ReconcileOutput::Propose { ticket, .. }) = outputs.last() else { panic!() };
    let result = Err(StepError::Failed(ProposalError::Overloaded));
    rig.input(ReconcileInput::Done { ticket: *ticket, result });
    let retry = rig.duties.next_timeout().unwrap();
    assert!(retry >= rig.now + RETRY_MIN && retry <= rig.now + 2 * RETRY_MIN);
    let outputs = rig.at(retry);
    rig.settle(outputs);
    assert_eq!(rig.health("n1"), Some(CheckStatus::Passing));
}

#[test]
fn live_servers_are_added_and_those_that_left_removed_one_at_a_time() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2), server("n3", 3)]);
    let voters = |rig: &Rig| rig.configuration.voters.len();
    assert_eq!((voters(&rig), rig.configuration.learners.len()), (1, 2));
    rig.wait(Duration::from_secs(11));
    assert_eq!(voters(&rig), 3);
    rig.members[2].status = MemberStatus::Failed;
    let outputs = rig.event(MemberEventKind::Failed, rig.members[2].clone());
    rig.settle(outputs);
    assert_eq!(voters(&rig), 3, "a failed server keeps its vote");
    rig.members[2].status = MemberStatus::Left;
    let outputs = rig.event(MemberEventKind::Leave, rig.members[2].clone());
    rig.settle(outputs);
    assert_eq!(voters(&rig), 2);
}

#[test]
fn a_server_renamed_while_its_old_name_left_keeps_its_vote() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.members[1].status = MemberStatus::Left;
    rig.members.push(server("n3", 2));
    let outputs = rig.event(MemberEventKind::Join, rig.members[2].clone());
    rig.settle(outputs);
    assert!(rig.configuration.contains(id(2)));
}

#[test]
fn a_server_that_cannot_be_added_does_not_hold_up_another() {
    let mut rig = Rig::new(&[server("n1", 1), server("n2", 2), server("n3", 3)]);
    let outputs = rig.input(ReconcileInput::LeaderReady);
    let ticket = outputs.iter().find_map(|it| match it {
        ReconcileOutput::Change { ticket, change } => (change.server() == id(2)).then_some(*ticket),
        ReconcileOutput::Propose { .. } | ReconcileOutput::Trace(..) => None,
    });
    let result = Err(StepError::Failed(ProposalError::Unreachable));
    let outputs = rig.input(ReconcileInput::Done { ticket: ticket.unwrap(), result });
    assert!(outputs.iter().any(|it| {
        matches!(it, ReconcileOutput::Change { change, .. } if change.server() == id(3))
    }));
}

#[test]
fn members_of_other_datacenters_and_without_a_role_are_left_alone() {
    let elsewhere = member("c1", 2, &[("role", "node"), ("dc", "dc2")]);
    let plain = member("c2", 3, &[]);
    let rig = Rig::ready(&[elsewhere, plain, server("n1", 1)]);
    assert_eq!((rig.health("c1"), rig.health("c2")), (None, None));
}

#[test]
fn a_server_that_came_back_as_a_client_loses_service_and_vote() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.members[1] = client("n2", 2);
    let outputs = rig.event(MemberEventKind::Update, rig.members[1].clone());
    rig.settle(outputs);
    let (Rows::Node(Some(node)), _) = rig.tables.node_with_services("n2") else { panic!() };
    assert_eq!(node.services, []);
    assert!(!rig.configuration.voters.contains_key(&id(2)));
}

/// A coordinate this many milliseconds from the origin, with this error.
fn at(millis: f64, error: f64) -> Coordinate {
    let mut position = [0.0; DIMENSIONS];
    position[0] = millis / 1000.0;
    Coordinate::new(position, error, 1e-5, 0.0).unwrap()
}

#[test]
fn a_deletion_is_forgotten_a_quarter_of_an_hour_after_it_was_seen() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    let key = "k".to_owned();
    let put = KvPut { key: key.clone(), value: Bytes::new(), flags: 0, only_at: None };
    rig.apply(50, Command::Kv(KvWrite::Put(put)));
    rig.apply(60, Command::Kv(KvWrite::Delete(KvDelete { key, only_at: None })));
    let seen = rig.now + PASS_INTERVAL;
    let mut now = seen;
    while now < seen + TOMBSTONE_TIME {
        assert_eq!(rig.at(now), []);
        now = now + PASS_INTERVAL;
    }
    let reap = |outputs: &[ReconcileOutput]| {
        let [ReconcileOutput::Propose { ticket, command }] = outputs else { panic!("{outputs:?}") };
        assert_eq!(**command, Command::ReapTombstones(ModifyIndex::new(60)));
        *ticket
    };
    let ticket = reap(&rig.at(now));
    // As long as it is on its way no other one follows; a failure is made good at the next look.
    assert_eq!(rig.at(now + PASS_INTERVAL), []);
    let failed = Err(StepError::Failed(ProposalError::Overloaded));
    assert_eq!(rig.input(ReconcileInput::Done { ticket, result: failed }), []);
    let outputs = rig.at(now + PASS_INTERVAL * 2);
    reap(&outputs);
    rig.settle(outputs);
    assert_eq!(rig.tables.newest_deletion(), None);
    assert_eq!(rig.duties.times().reapings.count(), 2);
    assert_eq!(rig.at(now + PASS_INTERVAL * 3), []);
}

#[test]
fn deletions_of_a_restored_backup_are_forgotten_too() {
    let deletion = |index: u64| {
        let mut tables = Tables::default();
        let key = "k".to_owned();
        let put = KvPut { key: key.clone(), value: Bytes::new(), flags: 0, only_at: None };
        for (index, write) in
            (index - 1..).zip([KvWrite::Put(put), KvWrite::Delete(KvDelete { key, only_at: None })])
        {
            tables.apply(LogIndex::new(index), Command::Kv(write)).unwrap();
        }
        tables
    };
    // Older and newer ones than the leader has seen here.
    for there in [20, 5_000] {
        let mut rig = Rig::ready(&[server("n1", 1)]);
        let seen = rig.now + PASS_INTERVAL;
        rig.index = restore(&mut rig.tables, 50, &deletion(60));
        let outputs = rig.at(seen);
        rig.settle(outputs);
        rig.index = restore(&mut rig.tables, rig.index + 1, &deletion(there));
        let mut now = seen;
        while now < seen + TOMBSTONE_TIME + PASS_INTERVAL * 2 {
            now = now + PASS_INTERVAL;
            let outputs = rig.at(now);
            rig.settle(outputs);
        }
        assert_eq!(rig.tables.newest_deletion(), None, "deleted at {there}");
    }
}

#[test]
fn coordinates_that_moved_are_stored_in_one_command_at_most_every_interval() {
    let mut rig = Rig::ready(&[client("c1", 2), server("n1", 1)]);
    let name = |name: &str| NodeName::parse(name).unwrap();
    let start = rig.now;
    for known in ["c1", "n1", "stranger"] {
        rig.place(&name(known), at(10.0, 0.5));
    }
    let outputs = rig.at(start + COORDINATES_INTERVAL);
    let [ReconcileOutput::Propose { ticket, command }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let Command::Coordinates(rows) = &**command else { panic!("{command:?}") };
    let names: Vec<&str> = rows.iter().map(|row| row.node.as_str()).collect();
    assert_eq!(names, ["c1", "n1"], "nodes that do not exist have none");
    // As long as it is on its way no other one follows.
    let ticket = *ticket;
    assert_eq!(rig.at(start + COORDINATES_INTERVAL * 2), []);
    rig.tables.apply(LogIndex::new(90), (**command).clone()).unwrap();
    assert_eq!(rig.input(ReconcileInput::Done { ticket, result: Ok(()) }), []);

    // What wanders around its place is at rest.
    rig.place(&name("n1"), at(11.9, 0.3));
    assert_eq!(rig.at(start + COORDINATES_INTERVAL * 3), []);
    rig.place(&name("n1"), at(14.0, 0.5));
    rig.place(&name("c1"), at(10.0, 0.2));
    let outputs = rig.at(start + COORDINATES_INTERVAL * 4);
    assert_eq!(outputs.len(), 1, "one moved, the other is trusted more");
    rig.settle(outputs);
    assert_eq!(rig.tables.coordinate_of(&name("n1")), Some(Some(&at(14.0, 0.5))));
    assert_eq!(rig.at(start + COORDINATES_INTERVAL * 5), []);
}

#[test]
fn a_new_leader_stores_nothing_again() {
    let mut rig = Rig::ready(&[server("n1", 1)]);
    let name = NodeName::parse("n1").unwrap();
    rig.place(&name, at(10.0, 0.5));
    let outputs = rig.at(rig.now + COORDINATES_INTERVAL);
    rig.settle(outputs);
    rig.input(ReconcileInput::LeadershipLost);
    assert_eq!(rig.at(rig.now + COORDINATES_INTERVAL), []);
    let outputs = rig.input(ReconcileInput::LeaderReady);
    rig.settle(outputs);
    assert_eq!(rig.at(rig.now + COORDINATES_INTERVAL), []);
}

/// Three servers that vote, of which `n3` is heard by nobody any more.
fn one_of_three_failed() -> Rig {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2), server("n3", 3)]);
    rig.wait(Duration::from_secs(20));
    rig.silent.insert(id(3), rig.now);
    rig.wait(Duration::from_secs(5));
    rig.members[2].status = MemberStatus::Failed;
    let outputs = rig.event(MemberEventKind::Failed, rig.members[2].clone());
    rig.settle(outputs);
    rig
}

#[test]
fn a_server_votes_only_after_it_was_healthy_for_long_enough() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.wait(Duration::from_secs(9));
    assert!(!rig.configuration.is_voter(id(2)));
    rig.silent.insert(id(2), rig.now);
    rig.wait(Duration::from_secs(2));
    rig.silent.clear();
    rig.wait(Duration::from_secs(9));
    assert!(!rig.configuration.is_voter(id(2)), "its time began anew");
    rig.wait(Duration::from_secs(3));
    assert!(rig.configuration.is_voter(id(2)));
}

#[test]
fn a_leader_that_slept_waits_anew_before_it_lets_a_server_vote() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.wait(Duration::from_secs(6));
    let outputs = rig.at(rig.now + Duration::from_secs(20));
    rig.settle(outputs);
    rig.wait(Duration::from_secs(8));
    assert!(!rig.configuration.is_voter(id(2)));
    rig.wait(Duration::from_secs(4));
    assert!(rig.configuration.is_voter(id(2)));
}

#[test]
fn a_failed_voter_goes_once_its_replacement_votes() {
    let mut rig = one_of_three_failed();
    rig.wait(Duration::from_secs(300));
    assert_eq!(rig.configuration.voters.len(), 3, "two voters survive no failure either");
    assert_eq!(rig.health("n3"), Some(CheckStatus::Critical));
    rig.members.push(server("n4", 4));
    let outputs = rig.event(MemberEventKind::Join, rig.members[3].clone());
    rig.settle(outputs);
    assert!(rig.configuration.is_voter(id(3)), "the replacement does not vote yet");
    rig.wait(Duration::from_secs(12));
    let voters: Vec<NodeId> = rig.configuration.voters.keys().copied().collect();
    assert_eq!(voters, [id(1), id(2), id(4)]);
    assert_eq!(rig.health("n3"), None, "it left the catalog too");
}

#[test]
fn a_failed_voter_that_nobody_replaces_goes_after_the_grace() {
    let mut rig = one_of_three_failed();
    rig.wait(DEAD_SERVER_GRACE - Duration::from_secs(10));
    assert!(rig.configuration.is_voter(id(3)));
    rig.wait(Duration::from_secs(20));
    assert!(!rig.configuration.contains(id(3)));
}

#[test]
fn neither_what_consensus_hears_nor_what_the_settings_keep_is_removed() {
    for (heard, cleanup_dead_servers, min_quorum) in
        [(true, true, 0), (false, false, 0), (false, true, 3)]
    {
        let mut rig = one_of_three_failed();
        if heard {
            rig.silent.clear();
        }
        let config = AutopilotConfig { cleanup_dead_servers, min_quorum, ..Default::default() };
        rig.apply(100, Command::Autopilot(AutopilotWrite { config, only_at: None }));
        rig.wait(2 * DEAD_SERVER_GRACE);
        assert!(rig.configuration.is_voter(id(3)));
    }
}

#[test]
fn a_server_that_speaks_for_another_store_is_added_again() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.wait(Duration::from_secs(20));
    rig.wiped.insert(id(2));
    let outputs = rig.at(rig.duties.next_timeout().unwrap());
    let again = Change::Add { server: id(2), address: rig.configuration.voters[&id(2)].address };
    let changes = outputs.iter().filter_map(|it| match it {
        ReconcileOutput::Change { change, .. } => Some(*change),
        ReconcileOutput::Propose { .. } | ReconcileOutput::Trace(..) => None,
    });
    assert_eq!(changes.collect::<Vec<_>>(), [again]);
}

#[test]
fn a_server_at_another_address_is_added_there() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.members[1].address.set_ip([127, 0, 0, 9].into());
    let outputs = rig.event(MemberEventKind::Update, rig.members[1].clone());
    let address = SocketAddr::from(([127, 0, 0, 9], 8300));
    let moved = Change::Add { server: id(2), address };
    let is_it = |it: &&ReconcileOutput| match it {
        ReconcileOutput::Change { change, .. } => *change == moved,
        ReconcileOutput::Propose { .. } | ReconcileOutput::Trace(..) => false,
    };
    assert_eq!(outputs.iter().filter(is_it).count(), 1, "{outputs:?}");
    rig.settle(outputs);
    assert_eq!(node_of(&rig, "n2").address, "127.0.0.9");
}

#[test]
fn a_member_that_comes_back_as_another_takes_over_its_name() {
    let mut rig = Rig::ready(&[client("c1", 2), server("n1", 1)]);
    rig.members[0] = client("c1", 9);
    let outputs = rig.event(MemberEventKind::Update, rig.members[0].clone());
    rig.settle(outputs);
    assert_eq!(node_of(&rig, "c1").id, Some(id(9)));
    assert_eq!(rig.health("c1"), Some(CheckStatus::Passing));
}

#[test]
fn a_failed_learner_goes_at_once() {
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2)]);
    rig.silent.insert(id(2), rig.now);
    rig.members[1].status = MemberStatus::Failed;
    rig.wait(Duration::from_secs(2));
    assert!(!rig.configuration.contains(id(2)));
    assert_eq!(rig.health("n2"), None);
}

#[test]
fn a_server_that_is_not_to_vote_stays_a_learner_or_becomes_one() {
    let mut spare = server("n3", 3);
    let mut tags = spare.tags.to_map();
    tags.insert("nonvoter".to_owned(), "1".to_owned());
    spare.tags = tags.into_iter().collect();
    let mut rig = Rig::ready(&[server("n1", 1), server("n2", 2), spare.clone()]);
    rig.wait(Duration::from_secs(60));
    assert!(rig.configuration.is_voter(id(2)));
    assert!(rig.configuration.learners.contains_key(&id(3)));
    let (Rows::Node(Some(node)), _) = rig.tables.node_with_services("n3") else { panic!() };
    assert_eq!(node.services[0].meta["non_voter"], "true");
    rig.members[2] = server("n3", 3);
    rig.wait(Duration::from_secs(60));
    assert!(rig.configuration.is_voter(id(3)));
    rig.members[2] = spare;
    rig.wait(Duration::from_secs(60));
    assert!(rig.configuration.learners.contains_key(&id(3)));
}

#[test]
fn health_tells_who_keeps_up_and_how_many_may_fail() {
    let mut rig = one_of_three_failed();
    let health = rig.with_world(|duties, now, world, _| duties.health(now, &world));
    assert_eq!(health.failure_tolerance, 0);
    let row = |n: usize| (health.servers[n].healthy, health.servers[n].status.as_str());
    assert_eq!((row(0), row(1), row(2)), ((true, "alive"), (true, "alive"), (false, "failed")));
    assert_eq!(health.servers[2].last_contact, Duration::from_secs(5));
    assert!(health.servers[0].leader && !health.servers[1].leader);
}

struct Rig {
    duties: Reconcile,
    datacenter: Datacenter,
    tables: Tables,
    members: Vec<Member>,
    configuration: Configuration,
    out: ReconcileOutbox,
    now: Instant,
    index: u64,
    coordinates: Coordinates,
    /// Servers that consensus has not heard since then.
    silent: BTreeMap<NodeId, Instant>,
    /// Servers that speak for another store than the configuration's.
    wiped: BTreeSet<NodeId>,
}

impl Rig {
    /// A server `n1` that votes alone and does not lead yet.
    fn new(members: &[Member]) -> Self {
        let mut rig = Self {
            duties: Reconcile::new(
                NodeName::parse("n1").unwrap(),
                id(1),
                ReconcileSettings {
                    autopilot: AutopilotConfig::default(),
                    dead_server_grace: DEAD_SERVER_GRACE,
                    tombstone_time: TOMBSTONE_TIME,
                },
                Seed::from_number(1),
            ),
            datacenter: Datacenter::parse("dc1").unwrap(),
            tables: Tables::default(),
            members: members.to_vec(),
            configuration: Configuration::default(),
            out: Outbox::new(Level::Info),
            now: Instant::ZERO,
            index: 0,
            coordinates: Coordinates::new(None, Seed::from_number(1), PoolName::Lan),
            silent: BTreeMap::new(),
            wiped: BTreeSet::new(),
        };
        let own = server("n1", 1).server().unwrap();
        rig.vote(own.id, own.address);
        rig
    }

    /// The same, leading, with everything done.
    fn ready(members: &[Member]) -> Self {
        let mut rig = Self::new(members);
        let outputs = rig.input(ReconcileInput::LeaderReady);
        rig.settle(outputs);
        rig
    }

    /// A member answered from there.
    fn place(&mut self, name: &NodeName, at: Coordinate) {
        self.coordinates.moved(name, at, Duration::from_millis(10)).unwrap();
    }

    /// Everybody holds everything and was just heard, but for the silent ones.
    fn replication(&self) -> Replication {
        let last = (LogIndex::new(10), Term::new(2));
        let replica = |id: &NodeId| {
            let heard_at = self.silent.get(id).copied().unwrap_or(self.now);
            let counts = !self.wiped.contains(id);
            Replica { matched: last.0, term: last.1, heard_at, counts, unfit: None }
        };
        let replicas = self.configuration.servers().map(|(id, _)| (*id, replica(id))).collect();
        let heartbeat_interval = Duration::from_millis(100);
        Replication { last, heartbeat_interval, replicas }
    }

    fn change(&mut self, change: Change) {
        let Configuration { voters, learners } = &mut self.configuration;
        match change {
            Change::Add { server, address } => {
                let store = StoreId::from_bytes([1; 16]);
                learners.insert(server, Server { address, store });
            }
            Change::Promote(server) => {
                voters.insert(server, learners.remove(&server).unwrap());
            }
            Change::Demote(server) => {
                learners.insert(server, voters.remove(&server).unwrap());
            }
            Change::Remove { server, .. } => {
                voters.remove(&server);
                learners.remove(&server);
            }
        }
    }

    /// Lets the time pass, and does what the duties want meanwhile.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.duties.next_timeout().filter(|at| *at <= end) {
            let outputs = self.at(at);
            self.settle(outputs);
        }
        self.now = end;
    }

    fn vote(&mut self, server: NodeId, address: SocketAddr) {
        let store = StoreId::from_bytes([1; 16]);
        self.configuration.voters.insert(server, Server { address, store });
    }

    /// Shows the duties what they may look at.
    fn with_world<T>(
        &mut self,
        look: impl FnOnce(&mut Reconcile, Instant, World<'_>, &mut ReconcileOutbox) -> T,
    ) -> T {
        let (members, replication) = (self.members.iter().cloned().collect(), self.replication());
        let world = World {
            datacenter: &self.datacenter,
            tables: &self.tables,
            members: &members,
            configuration: &self.configuration,
            replication: &replication,
            coordinates: &self.coordinates,
        };
        look(&mut self.duties, self.now, world, &mut self.out)
    }

    fn input(&mut self, input: ReconcileInput) -> Vec<ReconcileOutput> {
        self.with_world(|duties, now, world, out| duties.handle(now, input, world, out));
        self.out.drain().collect()
    }

    fn event(&mut self, kind: MemberEventKind, member: Member) -> Vec<ReconcileOutput> {
        self.input(ReconcileInput::Member { kind, member: Arc::new(member) })
    }

    fn at(&mut self, now: Instant) -> Vec<ReconcileOutput> {
        self.now = now;
        self.with_world(|duties, now, world, out| duties.handle_timeout(now, world, out));
        self.out.drain().collect()
    }

    /// Does what the duties want until they want nothing more.
    fn settle(&mut self, outputs: Vec<ReconcileOutput>) {
        let mut queue = outputs;
        let mut steps = 0;
        while let Some(output) = queue.pop() {
            steps += 1;
            assert!(steps < 1000, "the duties come to an end");
            let (ticket, result) = match output {
                ReconcileOutput::Propose { ticket, command } => {
                    self.index += 1;
                    let index = LogIndex::new(self.index);
                    let applied = self.tables.apply(index, *command).map(|_| ());
                    (ticket, applied.map_err(StepError::Refused))
                }
                ReconcileOutput::Change { ticket, change } => {
                    self.change(change);
                    (ticket, Ok(()))
                }
                ReconcileOutput::Trace(..) => continue,
            };
            queue.extend(self.input(ReconcileInput::Done { ticket, result }));
        }
    }

    fn apply(&mut self, index: u64, command: Command) {
        self.index = index;
        self.tables.apply(LogIndex::new(index), command).unwrap();
    }

    fn register(&mut self, node: crate::catalog::model::Node) {
        self.index += 1;
        let registration = crate::catalog::command::Registration {
            node,
            skip_node_update: false,
            service: None,
            checks: Vec::new(),
        };
        let command = Command::Register(Box::new(registration));
        self.tables.apply(LogIndex::new(self.index), command).unwrap();
    }

    fn health(&self, node: &str) -> Option<CheckStatus> {
        match self.tables.node_checks(&NodeName::parse(node).unwrap()) {
            (Rows::Checks(checks), _) => {
                let health = checks.iter().find(|check| check.id.as_str() == SERF_HEALTH);
                health.map(|check| check.status.clone())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn node_of(rig: &Rig, name: &str) -> crate::catalog::model::Node {
    let (Rows::Node(Some(found)), _) = rig.tables.node_with_services(name) else {
        panic!("{name} is in the catalog")
    };
    (*found.node).clone()
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn client(name: &str, number: u8) -> Member {
    member(name, number, &[("role", "node")])
}

fn server(name: &str, number: u8) -> Member {
    let own = [("role", "terraform"), ("port", "8300"), ("raft_vsn", "3"), ("build", "1.8.7")];
    member(name, number, &own)
}

fn member(name: &str, number: u8, tags: &[(&str, &str)]) -> Member {
    let id = id(number).to_string();
    let own = [("dc", "dc1"), ("id", &id)];
    Member {
        name: NodeName::parse(name).unwrap(),
        address: SocketAddr::from(([127, 0, 0, number], 8301)),
        tags: own.iter().chain(tags).copied().collect(),
        status: MemberStatus::Alive,
        status_time: LamportTime::ZERO,
        versions: Versions {
            protocol_min: 1,
            protocol_max: 5,
            protocol: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate: 4,
        },
    }
}
