//! Whole messages in and out, without sockets but for one test over loopback.

use super::*;
use crate::clock::Clock;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};
use std::collections::BTreeMap;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::catalog::model::{Node, Service, Weights};
use terraform_core::event::KeptEvents;
use terraform_core::id::{
    Datacenter, LogIndex, ModifyIndex, NodeId, NodeName, ServiceId, ServiceName, Term,
};
use terraform_core::local::LocalView;
use terraform_core::time::{Instant, WallClock};
use terraform_core::view::{ConsensusView, View};

/// A leader of dc1 with nodes n1 of long and n3 of much metadata, and 40 instances of `big`.
fn view() -> View {
    let mut tables = Tables::default();
    for number in 0..40_u8 {
        let mut node = Node {
            id: None,
            name: NodeName::parse(&format!("n{number}")).unwrap(),
            address: format!("10.0.0.{number}"),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        if number == 1 {
            node.meta.insert("long".to_owned(), "x".repeat(600));
        }
        if number == 3 {
            node.meta = ["a", "b", "c", "d"].map(|key| (key.to_owned(), String::new())).into();
        }
        let service = Service {
            id: ServiceId::parse("big").unwrap(),
            name: ServiceName::parse("big").unwrap(),
            tags: Vec::new(),
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            port: 80,
            weights: Weights::default(),
            enable_tag_override: false,
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        let service = Some(service);
        let wanted = Registration { node, skip_node_update: false, service, checks: Vec::new() };
        let index = LogIndex::new(u64::from(number) + 1);
        tables.apply(index, Command::Register(Box::new(wanted))).unwrap();
    }
    let consensus = ConsensusView::of_new_leader(Term::new(1));
    View {
        name: NodeName::parse("n1").unwrap(),
        id: NodeId::from_bytes([1; 16]),
        datacenter: Datacenter::parse("dc1").unwrap(),
        members: terraform_core::serf::Members::default(),
        wan_members: None,
        datacenters: Arc::from([]),
        local: LocalView::default(),
        events: KeptEvents::new(),
        consensus: Some(consensus),
        catalog: Some(tables),
        version: 1,
    }
}

fn question(name: &str, qtype: RecordType, edns: Option<Edns>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
    message.edns = edns;
    message
}

fn sized(payload: u16) -> Option<Edns> {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_dnssec_ok(true);
    Some(edns)
}

fn step(config: &DnsConfig, bytes: &[u8], transport: Transport) -> (Step, Vec<u8>) {
    let view = view();
    let (now, wall) = (Instant::from_nanos(1), WallClock::from_millis(77_000));
    let moment = Moment { view: &view, config, now, wall };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let (from, mut out) = (SocketAddr::from(([127, 0, 0, 1], 9)), Vec::new());
    (respond(moment, bytes, (transport, from), &mut rng, &mut out), out)
}

fn raw(config: &DnsConfig, bytes: &[u8], transport: Transport) -> Vec<u8> {
    match step(config, bytes, transport) {
        (Step::Replied, reply) => reply,
        (Step::Dropped, _) => Vec::new(),
        (Step::Wait(waiting), _) => panic!("{waiting:?}"),
    }
}

fn ask(message: &Message) -> Message {
    let reply = raw(&DnsConfig::default(), &message.to_vec().unwrap(), Transport::Udp);
    Message::from_vec(&reply).unwrap()
}

#[test]
fn a_node_is_resolved_in_the_clients_spelling() {
    let reply = ask(&question("N2.Node.Terraform.", RecordType::A, None));
    assert_eq!(reply.metadata.id, 7);
    assert!(reply.metadata.authoritative && reply.metadata.recursion_desired);
    assert!(!reply.metadata.recursion_available && !reply.metadata.truncation);
    let [record] = &reply.answers[..] else { panic!("{reply}") };
    assert_eq!((record.name.to_ascii().as_str(), record.ttl), ("N2.Node.Terraform.", 0));
    assert_eq!(record.data, RData::A(std::net::Ipv4Addr::new(10, 0, 0, 2).into()));
    assert_eq!(reply.queries[0].name().to_ascii(), "N2.Node.Terraform.");
}

#[test]
fn an_unknown_name_is_nxdomain_with_the_soa() {
    let reply = ask(&question("nosuch.node.terraform.", RecordType::A, None));
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    let RData::SOA(soa) = &reply.authorities[0].data else { panic!("{reply}") };
    assert_eq!(
        (soa.serial, soa.refresh, soa.mname.to_ascii().as_str()),
        (77, 3600, "ns.terraform.")
    );
}

#[test]
fn what_is_not_ours_is_refused_without_an_opt_record() {
    let reply = ask(&question("www.google.com.", RecordType::A, sized(1232)));
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(!reply.metadata.authoritative && reply.edns.is_none());
}

#[test]
fn datagrams_keep_the_clients_limit_and_tell_what_is_missing() {
    for (qtype, edns, at_least, at_most) in [
        (RecordType::A, None, 3, 3),
        (RecordType::A, sized(512), 3, 3),
        (RecordType::A, sized(600), 30, 36),
        (RecordType::A, sized(1232), 40, 40),
        (RecordType::SRV, None, 3, 3),
        (RecordType::SRV, sized(1232), 15, 30),
        (RecordType::SRV, sized(4096), 40, 40),
    ] {
        let limit = edns.as_ref().map_or(512, Edns::max_payload);
        let message = question("big.service.terraform.", qtype, edns);
        let bytes = raw(&DnsConfig::default(), &message.to_vec().unwrap(), Transport::Udp);
        let reply = Message::from_vec(&bytes).unwrap();
        let (count, what) = (reply.answers.len(), format!("{qtype} in {limit}"));
        assert!((at_least..=at_most).contains(&count), "{count} of {what}");
        assert!(bytes.len() <= usize::from(limit), "{} bytes of {what}", bytes.len());
        assert_eq!(reply.metadata.truncation, count < 40, "{what}");
        if qtype == RecordType::SRV {
            let addresses = reply.additionals.iter().filter(|r| r.record_type() == RecordType::A);
            assert_eq!(addresses.count(), count, "{what}");
        }
    }
}

#[test]
fn a_stream_brings_everything_and_truncation_can_be_kept_silent() {
    let message = question("big.service.terraform.", RecordType::SRV, None).to_vec().unwrap();
    let reply = Message::from_vec(&raw(&DnsConfig::default(), &message, Transport::Tcp)).unwrap();
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (40, false));
    let silent = DnsConfig { enable_truncate: false, ..DnsConfig::default() };
    let reply = Message::from_vec(&raw(&silent, &message, Transport::Udp)).unwrap();
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (3, false));
    let many = DnsConfig { udp_answer_limit: 20, ..DnsConfig::default() };
    let message = question("big.service.terraform.", RecordType::A, None).to_vec().unwrap();
    let reply = Message::from_vec(&raw(&many, &message, Transport::Udp)).unwrap();
    assert_eq!(reply.answers.len(), 8);
}

#[test]
fn an_answer_over_a_stream_stays_below_64_kib_and_says_what_is_missing() {
    use terraform_core::dns::record::{Data, Owner, Record};
    let config = DnsConfig { allow_stale: false, ..DnsConfig::default() };
    let message = question("n2.node.terraform.", RecordType::A, None).to_vec().unwrap();
    let (Step::Wait(waiting), _) = step(&config, &message, Transport::Tcp) else { panic!() };
    let mut answer = terraform_core::dns::Answer::empty(terraform_core::dns::Rcode::NoError);
    answer.answers = (0..6000_u32)
        .map(|number| Record { owner: Owner::Question, ttl: 0, data: Data::A(number.into()) })
        .collect();
    let bytes = waiting.reply(&config, &answer);
    assert!((60_000..=usize::from(u16::MAX)).contains(&bytes.len()), "{} bytes", bytes.len());
    let reply = Message::from_vec(&bytes).unwrap();
    assert!(reply.metadata.truncation && reply.answers.len() > 3700, "{}", reply.answers.len());
}

#[test]
fn metadata_yields_to_the_answer_and_long_texts_come_in_pieces() {
    let reply = ask(&question("n1.node.terraform.", RecordType::A, None));
    assert_eq!((reply.answers.len(), reply.additionals.len()), (1, 0));
    assert!(!reply.metadata.truncation);
    let reply = ask(&question("n1.node.terraform.", RecordType::TXT, None));
    assert!(reply.answers.is_empty() && reply.metadata.truncation);
    let reply = ask(&question("n1.node.terraform.", RecordType::TXT, sized(1232)));
    let RData::TXT(text) = &reply.answers[0].data else { panic!("{reply}") };
    let lengths: Vec<_> = text.txt_data.iter().map(|piece| piece.len()).collect();
    assert_eq!(lengths, [255, 255, 95]);
}

#[test]
fn what_one_node_says_is_limited_by_its_size_alone() {
    for (qtype, count) in [(RecordType::TXT, 4), (RecordType::ANY, 5)] {
        let reply = ask(&question("n3.node.terraform.", qtype, None));
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (count, false), "{qtype}");
    }
}

#[test]
fn edns_echoes_size_and_subnet_and_nothing_else() {
    let mut edns = Edns::new();
    edns.set_max_payload(1400).set_dnssec_ok(true);
    let subnet = ClientSubnet::new([10, 1, 0, 0].into(), 16, 0);
    edns.options_mut().insert(EdnsOption::Subnet(subnet));
    edns.options_mut().insert(EdnsOption::Unknown(10, vec![1; 8]));
    let reply = ask(&question("n2.node.terraform.", RecordType::A, Some(edns)));
    let edns = reply.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (1400, 0));
    assert!(!edns.flags().dnssec_ok);
    let options: Vec<_> = edns.options().as_ref().iter().map(|(_, option)| option).collect();
    assert_eq!(options, [&EdnsOption::Subnet(subnet)]);
}

#[test]
fn a_payload_below_512_is_echoed_and_counts_as_512() {
    let mut edns = Edns::new();
    edns.set_max_payload(512);
    let mut message = question("big.service.terraform.", RecordType::A, Some(edns));
    message.metadata.checking_disabled = true;
    let mut message = message.to_vec().unwrap();
    // The library makes no smaller one: the class of the OPT record at the end.
    let size = message.len() - 8..message.len() - 6;
    assert_eq!(message[size.clone()], [2, 0]);
    message[size].copy_from_slice(&[0, 100]);
    let reply = raw(&DnsConfig::default(), &message, Transport::Udp);
    assert_eq!(reply[reply.len() - 8..reply.len() - 6], [0, 100]);
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.answers.len(), 3);
    assert!(reply.metadata.checking_disabled, "CD comes back (RFC 4035 section 3.1.6)");
}

#[test]
fn another_edns_version_is_badvers() {
    let mut edns = Edns::new();
    edns.set_version(1);
    let reply = ask(&question("n2.node.terraform.", RecordType::A, Some(edns)));
    // BADVERS and BADSIG share the number 16.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert_eq!((reply.edns.unwrap().version(), reply.answers.len()), (0, 0));
}

#[test]
fn what_cannot_be_read_is_dropped_or_refused_with_a_bare_header() {
    let config = DnsConfig::default();
    let good = question("n2.node.terraform.", RecordType::A, None).to_vec().unwrap();
    let reply = |bytes: &[u8]| raw(&config, bytes, Transport::Udp);
    assert_eq!(reply(&good[..11]), Vec::<u8>::new());
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(reply(&response), Vec::<u8>::new());
    let bare = |flags: u8, code: u8| [&[0, 7, flags, code][..], &[0; 8]].concat();
    assert_eq!(reply(&good[..20]), bare(0x81, 1));
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(reply(&two), bare(0x81, 1));
    let mut looped = good.clone();
    looped[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(reply(&looped), bare(0x81, 1));
    for opcode in [1, 2, 5] {
        let mut other = good.clone();
        other[2] = (opcode << 3) | 1;
        assert_eq!(reply(&other), bare(0x81 | (opcode << 3), 4));
    }
    // Records behind the question are read over, whatever section they are in.
    let mut more = good.clone();
    more[7] = 1;
    more.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x01\x02\x03\x04");
    assert_eq!(Message::from_vec(&reply(&more)).unwrap().answers.len(), 1);
    let mut notify = good;
    notify[2] = (4 << 3) | 1;
    assert_eq!(Message::from_vec(&reply(&notify)).unwrap().answers.len(), 1);
}

#[test]
fn a_question_the_view_may_not_answer_waits_for_the_node() {
    let config = DnsConfig { allow_stale: false, ..DnsConfig::default() };
    let message = question("n2.node.terraform.", RecordType::A, None).to_vec().unwrap();
    let (Step::Wait(mut waiting), _) = step(&config, &message, Transport::Udp) else { panic!() };
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = terraform_core::dns::Zone { config: &config, datacenter: &datacenter, serial: 1 };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let failed = Err(terraform_core::node::request::RequestError::NoServers);
    let reply = waiting.found(zone, &failed, &mut rng).unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn the_subnet_of_a_client_is_where_it_is() {
    let config = DnsConfig { allow_stale: false, ..DnsConfig::default() };
    let subnet = |address: [u8; 4], prefix| {
        let mut edns = Edns::new();
        let subnet = ClientSubnet::new(address.into(), prefix, 0);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
        question("n2.node.terraform.", RecordType::A, Some(edns)).to_vec().unwrap()
    };
    let message = subnet([10, 1, 0, 0], 16);
    let (Step::Wait(waiting), _) = step(&config, &message, Transport::Udp) else { panic!() };
    let Needs::Rows(lookup) = waiting.needs() else { panic!() };
    let source = waiting.context(&config, lookup).source.unwrap();
    assert_eq!(source, SocketAddr::from(([10, 1, 0, 0], 9)));
    let mut answer = terraform_core::dns::Answer::empty(terraform_core::dns::Rcode::NoError);
    for (for_subnet, scope) in [(false, 0), (true, 16)] {
        answer.for_subnet = for_subnet;
        let reply = Message::from_vec(&waiting.reply(&config, &answer)).unwrap();
        let option = reply.edns.unwrap().option(EdnsCode::Subnet).cloned();
        let Some(EdnsOption::Subnet(subnet)) = option else { panic!("{option:?}") };
        assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (16, scope));
    }
    // One byte of an address is not what 16 bits need.
    let mut short = message;
    let at = short.len() - 1;
    short.truncate(at);
    short[at - 10] -= 1;
    short[at - 6] -= 1;
    let reply = raw(&config, &short, Transport::Udp);
    assert_eq!((reply.len(), reply[3] & 15), (12, 1));
}

#[test]
fn small_answers_are_counted_and_measured_as_recorded() {
    // dns.md §6: 20 wanted of 40, no EDNS.
    let config = DnsConfig { udp_answer_limit: 20, ..DnsConfig::default() };
    let big = |qtype| question("big.service.terraform.", qtype, None).to_vec().unwrap();
    let reply = |config: &DnsConfig, qtype| raw(config, &big(qtype), Transport::Udp);
    let answers = |reply: &[u8]| Message::from_vec(reply).unwrap().answers.len();
    let addresses = reply(&config, RecordType::A);
    assert_eq!(answers(&addresses), 8);
    let compressed = reply(&config, RecordType::SRV);
    let plain = DnsConfig { disable_compression: true, ..config };
    let whole = reply(&plain, RecordType::SRV);
    // Names written in full decide how many there are even where they are not.
    assert_eq!(answers(&compressed), answers(&whole));
    assert!(compressed.len() < 300 && whole.len() > 400 && whole.len() <= 512);
    let default = reply(&DnsConfig::default(), RecordType::A);
    assert_eq!((answers(&default), default.len()), (3, 12 + 27 + 3 * 16));
}

#[test]
fn names_point_back_and_are_read_the_same() {
    for qtype in [RecordType::SRV, RecordType::SOA, RecordType::NS] {
        let message = question("big.service.terraform.", qtype, sized(9000)).to_vec().unwrap();
        let plain = DnsConfig { disable_compression: true, ..DnsConfig::default() };
        let compressed = raw(&DnsConfig::default(), &message, Transport::Udp);
        let whole = raw(&plain, &message, Transport::Udp);
        let records = |bytes: &[u8]| {
            let reply = Message::from_vec(bytes).unwrap();
            (reply.answers, reply.authorities, reply.additionals)
        };
        assert_eq!(records(&compressed), records(&whole), "{qtype}");
        assert!(qtype == RecordType::NS || compressed.len() < whole.len(), "{qtype}");
    }
}

#[test]
fn a_server_answers_over_udp_and_tcp_and_tells_a_port_in_use() {
    use std::io::{Read as _, Write as _};
    let (calls, _waiting) = smol::channel::bounded(1);
    let view = Arc::new(ArcSwap::from_pointee(view()));
    let handle = NodeHandle::new(view, calls, Clock::start());
    let config = Arc::new(ArcSwap::from_pointee(DnsConfig::default()));
    let executor = Arc::new(Executor::new());
    let (any, seed) = (SocketAddr::from(([127, 0, 0, 1], 0)), Seed::from_number(1));
    let server = serve(any, &handle, &config, seed, &executor).unwrap();
    let address = server.address();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let thread = std::thread::spawn(move || smol::block_on(executor.run(stopped.recv())));
    let message = question("big.service.terraform.", RecordType::A, None).to_vec().unwrap();

    let udp = std::net::UdpSocket::bind(any).unwrap();
    udp.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    udp.send_to(&message, address).unwrap();
    let mut buffer = [0; 512];
    let length = udp.recv(&mut buffer).unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 3);

    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let framed = [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
    tcp.write_all(&[&framed[..], &framed].concat()).unwrap();
    for _ in 0..2 {
        let mut length = [0; 2];
        tcp.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        tcp.read_exact(&mut reply).unwrap();
        assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 40);
    }

    // What may not be answered is read over.
    let mut odd = std::net::TcpStream::connect(address).unwrap();
    odd.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    odd.write_all(&[&[0, 3, 1, 2, 3][..], &framed].concat()).unwrap();
    let mut length = [0; 2];
    odd.read_exact(&mut length).unwrap();

    let other = serve(address, &handle, &config, seed, &Executor::new()).unwrap_err();
    assert!(other.to_string().starts_with("failed to start the DNS server on 127.0.0.1:"));
    drop(server);
    drop(stop);
    let _ended = thread.join().unwrap();
}

#[test]
fn a_question_that_waits_holds_up_nothing_behind_it_on_its_stream() {
    use std::io::{Read as _, Write as _};
    let (calls, waiting) = smol::channel::bounded(1);
    let view = Arc::new(ArcSwap::from_pointee(view()));
    let handle = NodeHandle::new(view, calls, Clock::start());
    let strict = DnsConfig { allow_stale: false, ..DnsConfig::default() };
    let config = Arc::new(ArcSwap::from_pointee(strict));
    let executor = Arc::new(Executor::new());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = serve(any, &handle, &config, Seed::from_number(1), &executor).unwrap();
    let address = server.address();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let thread = std::thread::spawn(move || smol::block_on(executor.run(stopped.recv())));
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let read = |stream: &mut std::net::TcpStream| {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        Message::from_vec(&reply).unwrap().metadata
    };
    for (number, name) in [(1, "n2.node.terraform."), (2, "0a000001.addr.terraform.")] {
        let mut message = question(name, RecordType::A, None);
        message.metadata.id = number;
        let message = message.to_vec().unwrap();
        let length = u16::try_from(message.len()).unwrap();
        stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).unwrap();
    }
    assert_eq!(read(&mut stream).id, 2);
    let call = waiting.recv_blocking().unwrap();
    call.reply.send(Err(terraform_core::node::request::RequestError::NoServers));
    let late = read(&mut stream);
    assert_eq!((late.id, late.response_code), (1, ResponseCode::ServFail));
    drop((server, stop));
    let _ended = thread.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_questions_never_panic(
        at in prop::collection::vec((0..80_usize, any::<u8>()), 0..6),
        cut in 0..90_usize,
    ) {
        let mut bytes = question("big.service.terraform.", RecordType::SRV, sized(1232))
            .to_vec()
            .unwrap();
        for (place, value) in at {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(1));
        let reply = raw(&DnsConfig::default(), &bytes, Transport::Udp);
        prop_assert!(reply.is_empty() || reply.len() >= 12);
    }
}
