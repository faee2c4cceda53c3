//! Which reads a view answers by itself, and with what meta data.

use super::*;
use crate::catalog::command::Command;
use crate::catalog::kv::{KvPut, KvWrite};
use crate::catalog::query::NodesQuery;
use crate::gossip::Versions;
use crate::id::{LamportTime, StoreId};
use bytes::Bytes;

fn view(role: &'static str, lease: Option<u64>, contact: Option<u64>) -> View {
    let id = NodeId::from_bytes([1; 16]);
    let address = SocketAddr::from(([127, 0, 0, 1], 8300));
    let consensus = ConsensusView {
        role,
        term: Term::new(1),
        leader: Some(Leader { id, address }),
        leader_contact_at: contact.map(Instant::from_nanos),
        lease_until: lease.map(Instant::from_nanos),
        commit: LogIndex::ZERO,
        applied: LogIndex::ZERO,
        last: LogIndex::ZERO,
        last_term: Term::ZERO,
        configuration: Arc::new(Configuration {
            voters: [(id, Server { address, store: StoreId::from_bytes([1; 16]) })].into(),
            ..Configuration::default()
        }),
        configuration_index: LogIndex::ZERO,
    };
    View {
        name: NodeName::parse("n1").unwrap(),
        id,
        datacenter: Datacenter::parse("dc1").unwrap(),
        members: Members::default(),
        wan_members: None,
        datacenters: Arc::from([DatacenterCoordinates::unknown(Datacenter::parse("dc1").unwrap())]),
        local: LocalView::default(),
        events: KeptEvents::new(),
        consensus: Some(consensus),
        catalog: Some(Tables::default()),
        version: 1,
    }
}

fn context(consistency: Consistency) -> RequestContext {
    RequestContext { consistency, ..RequestContext::default() }
}

fn is_answered(view: &View, consistency: Consistency, now: u64) -> bool {
    let query = Query::Nodes(NodesQuery::default());
    view.answer(&context(consistency), &query, Instant::from_nanos(now)).is_some()
}

#[test]
fn a_default_read_needs_a_leader_whose_lease_holds() {
    let leader = view("Leader", Some(100), None);
    assert!(is_answered(&leader, Consistency::Leader, 99));
    assert!(!is_answered(&leader, Consistency::Leader, 100));
    assert!(!is_answered(&view("Leader", None, None), Consistency::Leader, 0));
    assert!(!is_answered(&view("Follower", Some(100), Some(1)), Consistency::Leader, 1));
}

#[test]
fn a_stale_read_needs_a_server_that_has_heard_of_a_leader() {
    assert!(is_answered(&view("Leader", None, None), Consistency::Stale, 5));
    assert!(is_answered(&view("Follower", None, Some(1)), Consistency::Stale, 5));
    assert!(!is_answered(&view("Candidate", None, None), Consistency::Stale, 5));
}

#[test]
fn a_consistent_read_always_goes_to_the_node() {
    assert!(!is_answered(&view("Leader", Some(100), None), Consistency::Consistent, 1));
}

#[test]
fn a_client_answers_nothing_by_itself() {
    let mut client = view("Follower", None, Some(1));
    client.consensus = None;
    client.catalog = None;
    assert!(!is_answered(&client, Consistency::Stale, 5));
    assert_eq!(client.answer(&context(Consistency::Stale), &Query::Leader, Instant::ZERO), None);
}

#[test]
fn every_server_knows_leader_peers_and_its_datacenter() {
    let follower = view("Candidate", None, None);
    let ask = |query| follower.answer(&context(Consistency::Consistent), &query, Instant::ZERO);
    let rows = |query| ask(query).unwrap().rows;
    assert_eq!(rows(Query::Leader), Rows::Text("127.0.0.1:8300".to_owned()));
    assert_eq!(rows(Query::Peers), Rows::Names(vec!["127.0.0.1:8300".to_owned()]));
    assert_eq!(rows(Query::Datacenters), Rows::Names(vec!["dc1".to_owned()]));
}

#[test]
fn another_datacenters_read_and_one_that_has_to_wait_go_to_the_node() {
    let leader = view("Leader", Some(100), None);
    let mut foreign = context(Consistency::Stale);
    foreign.datacenter = Datacenter::parse("dc2").ok();
    let answer = leader.answer(&foreign, &Query::Peers, Instant::ZERO);
    assert_eq!(answer, None);
    let mut tables = Tables::default();
    let put = KvPut { key: "k".to_owned(), value: Bytes::new(), flags: 0, only_at: None };
    tables.apply(LogIndex::new(7), Command::Kv(KvWrite::Put(put))).unwrap();
    let leader = View { catalog: Some(tables), ..leader };
    let mut waiting = context(Consistency::Stale);
    let query = Query::Key("k".to_owned());
    for (has, answered) in [(6, true), (7, false), (8, false)] {
        waiting.min_index = ModifyIndex::new(has);
        let answer = leader.answer(&waiting, &query, Instant::ZERO);
        assert_eq!(answer.is_some(), answered, "index {has}");
    }
}

#[test]
fn meta_data_tells_index_leader_and_age() {
    let query = Query::Nodes(NodesQuery::default());
    let now = Instant::from_nanos(5_000);
    let ask = |view: View| view.answer(&context(Consistency::Stale), &query, now).unwrap();
    let follower = ask(view("Follower", None, Some(2_000)));
    assert_eq!(follower.index, ModifyIndex::new(1));
    assert_eq!(follower.last_contact, Duration::from_nanos(3_000));
    assert!(follower.known_leader);
    assert_eq!(follower.consistency, Consistency::Stale);
    assert_eq!(ask(view("Leader", None, Some(2_000))).last_contact, Duration::ZERO);
}

/// A member of either pool, whose last byte is `number`.
fn member(name: &str, number: u8, tags: &[(&str, &str)], status: MemberStatus) -> Member {
    let id = NodeId::from_bytes([number; 16]).to_string();
    let own = [("dc", "dc1"), ("id", &id)];
    Member {
        name: NodeName::parse(name).unwrap(),
        address: SocketAddr::from(([127, 0, 0, number], 8301)),
        tags: own.iter().chain(tags).copied().collect(),
        status,
        status_time: LamportTime::ZERO,
        versions: Versions::OURS,
    }
}

const SERVER: &[(&str, &str)] = &[("role", "terraform"), ("port", "8300")];
const CLIENT: &[(&str, &str)] = &[("role", "node")];

#[test]
fn a_client_has_lost_its_pool_when_no_server_is_alive() {
    let with = |status| {
        let own = member("n1", 1, CLIENT, MemberStatus::Alive);
        let other = member("n2", 2, CLIENT, MemberStatus::Alive);
        let server = member("s", 3, SERVER, status);
        let members = [own, other, server].into_iter().collect();
        View { consensus: None, catalog: None, members, ..view("Follower", None, None) }
    };
    assert!(!with(MemberStatus::Alive).has_lost(PoolName::Lan));
    for gone in [MemberStatus::Failed, MemberStatus::Left, MemberStatus::Leaving] {
        assert!(with(gone).has_lost(PoolName::Lan), "{gone:?}");
    }
    assert!(!with(MemberStatus::Failed).has_lost(PoolName::Wan), "it is not in that pool");
}

#[test]
fn a_server_has_lost_its_pool_when_it_is_alone_or_knows_no_leader() {
    let with = |view: View, status| {
        let own = member("n1", 1, SERVER, MemberStatus::Alive);
        let members = [own, member("s", 3, CLIENT, status)].into_iter().collect();
        View { members, ..view }
    };
    let leaderless = || {
        let view = view("Candidate", None, None);
        let consensus = ConsensusView { leader: None, ..view.consensus.unwrap() };
        View { consensus: Some(consensus), ..view }
    };
    let (leader, follower) = (|| view("Leader", None, None), || view("Follower", None, None));
    assert!(!with(leader(), MemberStatus::Alive).has_lost(PoolName::Lan));
    assert!(!with(follower(), MemberStatus::Alive).has_lost(PoolName::Lan));
    assert!(with(leaderless(), MemberStatus::Alive).has_lost(PoolName::Lan));
    assert!(with(leader(), MemberStatus::Failed).has_lost(PoolName::Lan));
}

#[test]
fn the_wan_pool_is_lost_without_another_datacenter() {
    let with = |dc: &str, status| {
        let own = member("n1.dc1", 1, SERVER, MemberStatus::Alive);
        let other = member("s.other", 2, &[("dc", dc), ("role", "terraform")], status);
        let members = [own, other].into_iter().collect();
        View { wan_members: Some(members), ..view("Leader", None, None) }
    };
    assert!(!with("dc2", MemberStatus::Alive).has_lost(PoolName::Wan));
    assert!(with("dc2", MemberStatus::Failed).has_lost(PoolName::Wan));
    assert!(with("dc1", MemberStatus::Alive).has_lost(PoolName::Wan));
}
