//! DNS: the input is a message; the catalog holds nodes and services of every kind.

use hickory_proto::op::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::catalog::model::{Node, Service, Weights};
use terraform_core::dns::{DnsConfig, Zone};
use terraform_core::event::KeptEvents;
use terraform_core::id::{
    Datacenter, LogIndex, ModifyIndex, NodeId, NodeName, ServiceId, ServiceName, Term,
};
use terraform_core::local::LocalView;
use terraform_core::node::request::RequestError;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::time::{Instant, WallClock};
use terraform_core::view::{ConsensusView, View};
use terraform_io::dns::{Moment, Needs, Step, Transport, respond};

/// Bytes of a message over UDP to a client that says nothing (RFC 1035 §4.2.1).
const UDP_BYTES: usize = 512;

/// The serial of the SOA, and the time it stands for in seconds.
const SERIAL: u32 = 1_700_000_000;

/// Made once: the target is a function of its input alone.
static VIEW: LazyLock<View> = LazyLock::new(view);
static CONFIG: LazyLock<DnsConfig> =
    LazyLock::new(|| DnsConfig { allow_stale: false, ..DnsConfig::default() });

fn tables() -> Tables {
    let mut tables = Tables::default();
    let addresses = ["10.0.0.1", "fd00::1", "db.example.com", "10.0.0.4", ""];
    for (number, address) in (0_u8..).zip(addresses.iter().cycle().take(20)) {
        let node = Node {
            id: Some(NodeId::from_bytes([number; 16])),
            name: NodeName::parse(&format!("n{number}.x")).expect("letters are a name"),
            address: (*address).to_owned(),
            tagged_addresses: BTreeMap::from([("lan".to_owned(), (*address).to_owned())]),
            meta: BTreeMap::from([("rack".to_owned(), "r".repeat(usize::from(number) * 20))]),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let name = if number % 3 == 0 { "db" } else { "web" };
        let service = Service {
            id: ServiceId::parse(name).expect("letters are an id"),
            name: ServiceName::parse(name).expect("letters are a name"),
            tags: vec!["a".to_owned(), "tcp".to_owned()],
            address: if number % 2 == 0 { String::new() } else { "10.1.1.1".to_owned() },
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            port: i64::from(number) * 1000,
            weights: Weights { passing: 1, warning: 1 },
            enable_tag_override: false,
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let registration =
            Registration { node, skip_node_update: false, service: Some(service), checks: vec![] };
        let command = Command::Register(Box::new(registration));
        let applied = tables.apply(LogIndex::new(u64::from(number) + 1), command);
        applied.expect("a registration without checks is complete");
    }
    tables
}

fn view() -> View {
    let consensus = ConsensusView {
        role: "Leader",
        term: Term::new(1),
        leader: None,
        leader_contact_at: None,
        lease_until: Some(Instant::from_nanos(10)),
        commit: LogIndex::ZERO,
        applied: LogIndex::ZERO,
        last: LogIndex::ZERO,
        last_term: Term::ZERO,
        configuration: std::sync::Arc::default(),
        configuration_index: LogIndex::ZERO,
    };
    View {
        name: NodeName::parse("n1").expect("letters are a name"),
        id: NodeId::from_bytes([1; 16]),
        datacenter: Datacenter::parse("dc1").expect("letters and a digit are a datacenter"),
        members: terraform_core::serf::Members::default(),
        wan_members: None,
        datacenters: std::sync::Arc::from([]),
        local: LocalView::default(),
        events: KeptEvents::new(),
        consensus: Some(consensus),
        catalog: Some(tables()),
        version: 1,
    }
}

fn check_reply(message: &[u8], reply: &[u8], transport: Transport) {
    assert_eq!(message.get(..2), reply.get(..2), "a reply has the question's number");
    assert!(reply.get(2).is_some_and(|byte| byte & 0x80 != 0), "a reply says that it is one");
    let edns = message.get(10..12).is_some_and(|count| count != [0, 0]);
    let limit = match transport {
        Transport::Udp if !edns => UDP_BYTES,
        Transport::Udp | Transport::Tcp => usize::from(u16::MAX),
    };
    assert!(reply.len() <= limit, "a reply fits what its client can take");
}

/// What the library that other programs use reads in a message, ours reads too, and what we write
/// it can read.
fn check_against_library(message: &[u8], reply: &[u8]) {
    let written = Message::from_vec(reply).expect("a reply can be read");
    let Ok(read) = Message::from_vec(message) else { return };
    let ([asked], [echoed]) = (read.queries.as_slice(), written.queries.as_slice()) else { return };
    assert_eq!(asked.name().to_ascii(), echoed.name().to_ascii(), "a reply has its question");
    assert_eq!(asked.query_type(), echoed.query_type(), "a reply has its question");
}

/// Any bytes get a reply of the right number and size, or none.
pub fn dns(data: &[u8]) {
    let (view, config): (&View, &DnsConfig) = (&VIEW, &CONFIG);
    let wall = WallClock::from_millis(i64::from(SERIAL) * 1000);
    let from = SocketAddr::from(([127, 0, 0, 1], 5353));
    // After the lease no answer comes from the view, and the node is to be asked.
    let before_and_after_lease = [Instant::from_nanos(1), Instant::from_nanos(11)];
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut by_view = None;
        for now in before_and_after_lease {
            let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
            let (moment, mut out) = (Moment { view, config, now, wall }, Vec::new());
            match respond(moment, data, (transport, from), &mut rng, &mut out) {
                Step::Dropped => {}
                Step::Replied => {
                    check_reply(data, &out, transport);
                    check_against_library(data, &out);
                    by_view.get_or_insert(out);
                }
                Step::Wait(mut waiting) => {
                    let zone = Zone { config, datacenter: &view.datacenter, serial: SERIAL };
                    let Needs::Rows(lookup) = waiting.needs() else { continue };
                    let (context, lookup) = (waiting.context(config, lookup), lookup.clone());
                    let early = Instant::from_nanos(1);
                    let answered = view.answer(&context, &lookup.query, early);
                    let refused = Err(RequestError::NoLeader);
                    for outcome in answered.map(Ok).into_iter().chain([refused]) {
                        let Some(reply) = waiting.found(zone, &outcome, &mut rng) else { break };
                        check_reply(data, &reply, transport);
                        check_against_library(data, &reply);
                        if let Some(by_view) = by_view.take() {
                            assert_eq!(by_view, reply, "the node's rows give the view's reply");
                        }
                    }
                }
            }
        }
    }
}
