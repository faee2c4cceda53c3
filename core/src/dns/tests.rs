//! Questions and answers over a small catalog, as recorded in dns.md §12 and decided in §14.

use super::*;
use crate::catalog::Tables;
use crate::catalog::model::{CheckStatus, Node, Service, ServiceAddress, Weights};
use crate::catalog::prepared::Executed;
use crate::catalog::query::{Consistency, Instance, Query, QueryAnswer, Rows, ServiceQuery};
use crate::catalog::tests::{check, node, register, registration, service};
use crate::id::{ModifyIndex, ServiceName};
use crate::node::request::RequestError;
use crate::rng::{Rng, Seed, Stream};
use proptest::prelude::*;

/// Nodes n1 and n2 of services with every kind of address.
fn catalog() -> Tables {
    let mut tables = Tables::default();
    let mut index = 0;
    let mut add = |node: Node, service: Option<Service>, checks| {
        index += 1;
        let wanted =
            crate::catalog::command::Registration { service, checks, ..registration(node) };
        register(&mut tables, index, wanted).unwrap();
    };
    let mut n1 = node("n1", Some(1));
    n1.meta.insert("rack".to_owned(), "7".to_owned());
    n1.meta.insert("env".to_owned(), "prod".to_owned());
    let n2 = Node { address: "10.0.0.2".to_owned(), ..node("N2", None) };
    let web =
        |id: &str| Service { tags: vec!["V2".to_owned(), "a.b".to_owned()], ..service(id, "web") };
    add(n1.clone(), Some(service("web1", "web")), vec![]);
    add(n1.clone(), Some(Service { port: 81, ..web("web2") }), vec![]);
    add(n2.clone(), Some(web("web3")), vec![]);
    let at =
        |address: &str, name: &str| Service { address: address.to_owned(), ..service(name, name) };
    add(n1.clone(), Some(at("10.9.8.7", "api")), vec![]);
    add(n1.clone(), Some(at("2001:db8::7", "api6")), vec![]);
    add(n1.clone(), Some(at("www.example.com", "ext")), vec![]);
    let mut both = at("10.1.1.1", "both");
    let v6 = ServiceAddress { address: "2001:db8::9".to_owned(), port: 1 };
    both.tagged_addresses.insert("lan_ipv6".to_owned(), v6);
    add(n1.clone(), Some(both), vec![]);
    let weights = Weights { passing: 10, warning: 3 };
    let sick = Service { weights, ..service("sick", "sick") };
    add(n1.clone(), Some(sick), vec![check("n1", "w", Some("sick"), CheckStatus::Warning)]);
    let dead = vec![check("n1", "d", Some("dead"), CheckStatus::Critical)];
    add(n1.clone(), Some(service("dead", "dead")), dead);
    add(n1, Some(service("terraform", "terraform")), vec![]);
    add(n2, Some(service("terraform", "terraform")), vec![]);
    let dotted = Node { address: "10.0.0.3".to_owned(), ..node("armons.local", None) };
    add(dotted, Some(service("terraform", "terraform")), vec![]);
    add(Node { address: "h.example.com".to_owned(), ..node("h", None) }, None, vec![]);
    for (name, host) in [("inner", "web"), ("ring", "ring2"), ("ring2", "ring")] {
        let host = format!("{host}.service.terraform");
        add(node("c", None), Some(at(&host, name)), vec![]);
    }
    let mut w = Node { address: "10.0.0.9".to_owned(), ..node("w", None) };
    for (tag, address) in [("wan", "203.0.113.1"), ("wan_ipv6", "2001:db8::1")] {
        w.tagged_addresses.insert(tag.to_owned(), address.to_owned());
    }
    let mut wan = at("10.1.1.1", "wan");
    let outside = ServiceAddress { address: "203.0.113.2".to_owned(), port: 8443 };
    wan.tagged_addresses.insert("wan".to_owned(), outside);
    add(w.clone(), Some(wan), vec![]);
    add(w, Some(service("bare", "bare")), vec![]);
    tables
}

fn rows(tables: &Tables, query: &Query) -> Rows {
    match query {
        Query::NodeNamed(name) => tables.node_named(name).0,
        Query::ServiceHealth(wanted) => tables.service_health(wanted).0,
        Query::ServiceNodes(wanted) => tables.service_nodes(wanted).0,
        Query::AddressOwner(address) => tables.address_owner(address).0,
        Query::Nodes(_)
        | Query::Services(_)
        | Query::Node(_)
        | Query::NodeChecks(_)
        | Query::ServiceChecks(_)
        | Query::ChecksInState(_)
        | Query::Datacenters
        | Query::Leader
        | Query::Peers
        | Query::Coordinates(_)
        | Query::DatacenterCoordinates
        | Query::Key(_)
        | Query::KeyTree(_)
        | Query::Keys(_)
        | Query::Session(_)
        | Query::Sessions(_)
        | Query::PreparedQueries
        | Query::PreparedQuery(_)
        | Query::ExplainPrepared(_)
        | Query::Chosen(_)
        | Query::Overview(_)
        | Query::Transaction(_)
        | Query::Autopilot
        | Query::RaftConfiguration => panic!("DNS does not ask {query:?}"),
    }
}

fn plan_with(config: &DnsConfig, name: &str, qtype: QueryType) -> Plan {
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config, datacenter: &datacenter, serial: 77 };
    let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
    let question = Question { labels: &labels, qtype, room: 100, edns: true };
    match zone.plan(&question) {
        Plan::Lookup(lookup) => looked_up(&zone, &question, &lookup),
        plan @ (Plan::Answer(_) | Plan::Execute(_) | Plan::Recurse | Plan::Chase(_)) => plan,
    }
}

/// What follows from what the catalog says; it is in dc1 alone, but dc2 has the same rows.
fn looked_up(zone: &Zone<'_>, question: &Question<'_>, lookup: &Lookup) -> Plan {
    let unknown = lookup.datacenter.as_ref().is_some_and(|asked| asked.as_str() == "dc9");
    let outcome = if unknown {
        Err(RequestError::NoPath)
    } else {
        Ok(QueryAnswer {
            rows: rows(&catalog(), &lookup.query),
            index: ModifyIndex::new(1),
            known_leader: true,
            last_contact: Duration::ZERO,
            consistency: Consistency::Stale,
        })
    };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    zone.answer(question, lookup, Found::of(&outcome), &mut rng)
}

#[track_caller]
fn answer_of(plan: Plan) -> Answer {
    let Plan::Answer(answer) = plan else { panic!("{plan:?}") };
    answer
}

fn ask_with(config: &DnsConfig, name: &str, qtype: QueryType) -> Answer {
    answer_of(plan_with(config, name, qtype))
}

fn ask(name: &str, qtype: QueryType) -> Answer {
    ask_with(&DnsConfig::default(), name, qtype)
}

/// Records as text without their time to live, sorted.
fn shown(records: &[Record]) -> Vec<String> {
    let owner = |record: &Record| match &record.owner {
        Owner::Question => "@".to_owned(),
        Owner::Name(name) => name.as_str().to_owned(),
    };
    let data = |record: &Record| match &record.data {
        Data::A(ip) => format!("A {ip}"),
        Data::Aaaa(ip) => format!("AAAA {ip}"),
        Data::Cname(name) => format!("CNAME {}", name.as_str()),
        Data::Ns(name) => format!("NS {}", name.as_str()),
        Data::Ptr(name) => format!("PTR {}", name.as_str()),
        Data::Srv { weight, port, target, .. } => {
            format!("SRV {weight} {port} {}", target.as_str())
        }
        Data::Soa { serial, .. } => format!("SOA {serial}"),
        Data::Txt(text) => format!("TXT {text}"),
    };
    let mut all: Vec<_> = records.iter().map(|r| format!("{} {}", owner(r), data(r))).collect();
    all.sort();
    all
}

const SOA: [&str; 1] = ["terraform SOA 77"];

#[track_caller]
fn assert_negative(name: &str, qtype: QueryType, rcode: Rcode) {
    let answer = ask(name, qtype);
    assert_eq!((answer.rcode, shown(&answer.answers)), (rcode, Vec::new()), "{name} {qtype:?}");
    assert_eq!(shown(&answer.authority), SOA, "{name} {qtype:?}");
    assert!(answer.authoritative);
}

#[test]
fn a_node_is_answered_with_its_address_and_metadata() {
    for name in ["n1.node.terraform", "N1.Node.DC1.TERRAFORM"] {
        let answer = ask(name, QueryType::A);
        assert_eq!(shown(&answer.answers), ["@ A 10.0.0.1"]);
        assert_eq!(answer.answers[0].ttl, 0);
        assert_eq!(shown(&answer.additional), ["@ TXT env=prod", "@ TXT rack=7"]);
        assert!(answer.authoritative && answer.authority.is_empty());
    }
    let all = ["@ A 10.0.0.1", "@ TXT env=prod", "@ TXT rack=7"];
    assert_eq!(shown(&ask("n1.node.terraform", QueryType::Any).answers), all);
    assert_eq!(shown(&ask("n1.node.terraform", QueryType::Txt).answers), all[1..]);
    let dotted = ask("armons.local.node.terraform", QueryType::A);
    assert_eq!(shown(&dotted.answers), ["@ A 10.0.0.3"]);
    for qtype in [QueryType::A, QueryType::Cname] {
        let host = ask("h.node.terraform", qtype);
        assert_eq!(shown(&host.answers), ["@ CNAME h.example.com"]);
    }
    assert!(ask("n1.node.terraform", QueryType::Cname).additional.is_empty());
}

#[test]
fn nothing_of_the_asked_kind_is_empty_with_the_soa() {
    for (name, qtype) in [
        ("n1.node.terraform", QueryType::Aaaa),
        ("n1.node.terraform", QueryType::Srv),
        ("web.service.terraform", QueryType::Aaaa),
        ("web.service.terraform", QueryType::Txt),
        ("web.service.terraform", QueryType::Other),
        ("0a000001.addr.terraform", QueryType::Aaaa),
    ] {
        assert_negative(name, qtype, Rcode::NoError);
    }
}

#[test]
fn names_that_do_not_exist_are_nxdomain_with_the_soa() {
    for name in [
        "nosuch.node.terraform",
        "nosuch.service.terraform",
        "dead.service.terraform",
        "v9.web.service.terraform",
        "service.terraform",
        "node.terraform",
        "terraform",
        "n1.node.a.b.terraform",
        "n1.node.dc9.terraform",
        "n1.node.bad dc.terraform",
        "0a00000z.addr.terraform",
        "query.terraform",
        "q.query.a.b.terraform",
        "web.connect.terraform",
        "web.ingress.terraform",
        "web.virtual.terraform",
        "_web._v2.terraform",
    ] {
        assert_negative(name, QueryType::A, Rcode::NxDomain);
    }
    assert_negative("01010101.node.terraform", QueryType::A, Rcode::NxDomain);
}

#[test]
fn names_outside_the_zones_are_refused_and_transfers_are_not_offered() {
    for name in ["www.google.com", "", "xterraform", "9.9.9.9.in-addr.arpa", "arpa"] {
        let answer = ask(name, QueryType::A);
        assert_eq!(answer, Answer::refusal(Rcode::Refused), "{name}");
    }
    let transfer = ask("terraform", QueryType::Axfr);
    assert_eq!((transfer.rcode, transfer.authoritative), (Rcode::NotImp, true));
}

#[test]
fn a_service_is_answered_with_each_address_once() {
    let answer = ask("web.service.terraform", QueryType::A);
    assert_eq!(shown(&answer.answers), ["@ A 10.0.0.1", "@ A 10.0.0.2"]);
    assert!(answer.additional.is_empty() && answer.authority.is_empty());
    let ext = ask("ext.service.terraform", QueryType::A);
    assert_eq!(shown(&ext.answers), ["@ CNAME www.example.com"]);
    let both = ask("both.service.terraform", QueryType::Any);
    assert_eq!(shown(&both.answers), ["@ A 10.1.1.1", "@ AAAA 2001:db8::9"]);
}

#[test]
fn tags_select_instances_in_any_case_and_may_hold_dots() {
    for name in
        ["v2.web.service.terraform", "A.B.WEB.service.dc1.terraform", "_web._v2.service.terraform"]
    {
        let answer = ask(name, QueryType::Srv);
        let wanted = ["@ SRV 1 80 n2.node.dc1.terraform", "@ SRV 1 81 n1.node.dc1.terraform"];
        assert_eq!(shown(&answer.answers), wanted, "{name}");
    }
}

#[test]
fn srv_names_the_node_with_glue_and_metadata_once() {
    for name in ["web.service.terraform", "_web._tcp.service.terraform", "_web._TCP.terraform"] {
        let answer = ask(name, QueryType::Srv);
        assert_eq!(
            shown(&answer.answers),
            [
                "@ SRV 1 80 n1.node.dc1.terraform",
                "@ SRV 1 80 n2.node.dc1.terraform",
                "@ SRV 1 81 n1.node.dc1.terraform"
            ]
        );
        assert_eq!(
            shown(&answer.additional),
            [
                "n1.node.dc1.terraform A 10.0.0.1",
                "n1.node.dc1.terraform TXT env=prod",
                "n1.node.dc1.terraform TXT rack=7",
                "n2.node.dc1.terraform A 10.0.0.2"
            ]
        );
    }
}

#[test]
fn srv_of_an_instance_with_its_own_address_names_the_address() {
    let config = DnsConfig { node_meta_txt: false, ..DnsConfig::default() };
    let api = ask_with(&config, "api.service.terraform", QueryType::Srv);
    assert_eq!(shown(&api.answers), ["@ SRV 1 80 0a090807.addr.dc1.terraform"]);
    assert_eq!(shown(&api.additional), ["0a090807.addr.dc1.terraform A 10.9.8.7"]);
    let api6 = ask_with(&config, "api6.service.terraform", QueryType::Srv);
    let target = "20010db8000000000000000000000007.addr.dc1.terraform";
    assert_eq!(shown(&api6.answers), [format!("@ SRV 1 80 {target}")]);
    assert_eq!(shown(&api6.additional), [format!("{target} AAAA 2001:db8::7")]);
    let back = ask(target, QueryType::Aaaa);
    assert_eq!(shown(&back.answers), ["@ AAAA 2001:db8::7"]);
    let ext = ask_with(&config, "ext.service.terraform", QueryType::Srv);
    assert_eq!(shown(&ext.answers), ["@ SRV 1 80 www.example.com"]);
}

#[test]
fn a_warning_counts_with_its_weight_unless_only_passing_is_wanted() {
    let sick = ask("sick.service.terraform", QueryType::Srv);
    assert_eq!(shown(&sick.answers), ["@ SRV 3 80 n1.node.dc1.terraform"]);
    let config = DnsConfig { only_passing: true, ..DnsConfig::default() };
    let answer = ask_with(&config, "sick.service.terraform", QueryType::Srv);
    assert_eq!(answer.rcode, Rcode::NxDomain);
}

#[test]
fn instances_are_drawn_by_weight_if_that_is_wanted() {
    let mut tables = Tables::default();
    let heavy = |passing: i64| Weights { passing, warning: 0 };
    for (index, (name, passing, status)) in [
        ("a", 30, CheckStatus::Passing),
        ("b", 10, CheckStatus::Passing),
        ("c", 90, CheckStatus::Warning),
        ("d", 90, CheckStatus::Critical),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("10.0.0.{index}");
        let wanted = crate::catalog::command::Registration {
            service: Some(Service { weights: heavy(passing), ..service("web", "web") }),
            checks: vec![check(name, "c", Some("web"), status)],
            ..registration(Node { address, ..node(name, None) })
        };
        register(&mut tables, index as u64 + 1, wanted).unwrap();
    }
    let (Rows::Instances(rows), _) =
        tables.service_health(&ServiceQuery::all(ServiceName::parse("web").unwrap()))
    else {
        panic!()
    };
    let mut rng = Rng::for_stream(Seed::from_number(7), Stream::Dns);
    let (mut first, mut last) = ([0; 4], [0; 4]);
    for _ in 0..4000 {
        let mut rows: Vec<&Instance> = rows.iter().map(|row| &**row).collect();
        let drawn = answer::Drawn { rows: &mut rows, at: 0, weighted: true, rng: &mut rng };
        let order: Vec<usize> = drawn
            .map(|row| row.node.address.trim_start_matches("10.0.0.").parse().unwrap())
            .collect();
        assert_eq!(order.len(), 3, "all that are not critical come");
        first[order[0]] += 1;
        last[order[2]] += 1;
    }
    // Three of four draws; the seed is fixed, so this is the same in every run.
    assert!((2850..3150).contains(&first[0]), "{first:?}");
    assert_eq!((first[2], first[3]), (0, 0), "without weight it is nobody's first choice");
    assert_eq!(last[2], 4000);
}

#[test]
fn soa_and_ns_are_answered_for_any_name_of_the_zone() {
    let servers = ["terraform NS n1.node.dc1.terraform", "terraform NS n2.node.dc1.terraform"];
    let glue = ["n1.node.dc1.terraform A 10.0.0.1", "n2.node.dc1.terraform A 10.0.0.2"];
    for name in ["terraform", "whatever.terraform"] {
        let soa = ask(name, QueryType::Soa);
        assert_eq!(shown(&soa.answers), SOA);
        assert_eq!(shown(&soa.authority), servers);
        assert_eq!(shown(&soa.additional), glue);
        let ns = ask(name, QueryType::Ns);
        assert_eq!(
            (shown(&ns.answers), shown(&ns.additional)),
            (servers.map(str::to_owned).to_vec(), glue.map(str::to_owned).to_vec())
        );
    }
}

#[test]
fn an_address_has_the_name_of_its_node_or_service() {
    let ptr = |name: &str| shown(&ask(name, QueryType::Ptr).answers);
    assert_eq!(ptr("2.0.0.10.in-addr.arpa"), ["@ PTR n2.node.dc1.terraform"]);
    assert_eq!(ptr("7.8.9.10.IN-ADDR.arpa"), ["@ PTR api.service.dc1.terraform"]);
    let nibbles = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(ptr(nibbles), ["@ PTR api6.service.dc1.terraform"]);
    assert_eq!(
        shown(&ask("2.0.0.10.in-addr.arpa", QueryType::A).answers),
        ptr("2.0.0.10.in-addr.arpa")
    );
    let soa = ask("2.0.0.10.in-addr.arpa", QueryType::Soa);
    assert_eq!((soa.answers.len(), shown(&soa.authority)), (1, SOA.map(str::to_owned).to_vec()));
    for unknown in ["9.9.9.9.in-addr.arpa", "9.9.9.in-addr.arpa", "x.0.0.10.in-addr.arpa"] {
        let refused = Answer::refusal(Rcode::Refused);
        assert_eq!(ask(unknown, QueryType::Ptr), refused, "{unknown}");
    }
    let nobody = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    for private in ["9.9.9.10.in-addr.arpa", "1.64.100.in-addr.arpa", nobody] {
        let whole = private.replace("1.64", "1.2.64");
        assert_negative(&whole, QueryType::Ptr, Rcode::NxDomain);
    }
    let config = DnsConfig { node_ttl: 4, ..DnsConfig::default() };
    let answer = ask_with(&config, "2.0.0.10.in-addr.arpa", QueryType::Ptr);
    assert_eq!(answer.answers[0].ttl, 4);
}

#[test]
fn a_failed_query_is_servfail_but_soa_and_addr_still_answer() {
    let config = DnsConfig::default();
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config: &config, datacenter: &datacenter, serial: 77 };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let mut fail = |labels: &[&str], qtype| {
        let question = Question { labels, qtype, room: 100, edns: true };
        let Plan::Lookup(lookup) = zone.plan(&question) else { panic!("{labels:?}") };
        answer_of(zone.answer(&question, &lookup, Found::Failed, &mut rng))
    };
    let node = fail(&["n1", "node", "terraform"], QueryType::A);
    assert_eq!(node, Answer::empty(Rcode::ServFail));
    let soa = fail(&["terraform"], QueryType::Soa);
    assert_eq!((soa.rcode, shown(&soa.answers)), (Rcode::NoError, vec![SOA[0].to_owned()]));
    let addr = ask("0a000001.addr.anywhere.terraform", QueryType::A);
    assert_eq!(shown(&addr.answers), ["@ A 10.0.0.1"]);
}

/// Follows host names with what `recursors` says about each of them.
fn chased(
    config: &DnsConfig,
    (name, qtype): (&str, QueryType),
    recursors: impl Fn(&str, QueryType) -> Option<Vec<Record>>,
) -> (Answer, Vec<String>) {
    let Plan::Chase(mut chase) = plan_with(config, name, qtype) else { panic!("{name}") };
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config, datacenter: &datacenter, serial: 77 };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let mut asked = Vec::new();
    loop {
        match chase.next(&zone) {
            Need::Nothing => return (chase.into_answer(), asked),
            Need::Records(name, kind) => {
                asked.push(format!("{} {kind:?}", name.as_str()));
                chase.heard(recursors(name.as_str(), kind));
            }
            Need::Rows(lookup) => {
                asked.push(format!("{:?}", lookup.query).chars().take(9).collect());
                let outcome = Ok(QueryAnswer {
                    rows: rows(&catalog(), &lookup.query),
                    index: ModifyIndex::new(1),
                    known_leader: true,
                    last_contact: Duration::ZERO,
                    consistency: Consistency::Stale,
                });
                chase.found(&zone, &lookup, Found::of(&outcome), &mut rng);
            }
        }
    }
}

fn with_recursors() -> DnsConfig {
    let recursors = vec![([10, 0, 0, 53], 53).into()];
    DnsConfig { recursors, node_meta_txt: false, ..DnsConfig::default() }
}

fn heard(owner: &str, data: Data) -> Record {
    Record { owner: Owner::Name(Name::parse(owner).unwrap()), ttl: 60, data }
}

#[test]
fn what_is_not_ours_goes_to_the_recursors_if_there_are_any() {
    let config = with_recursors();
    for name in ["www.google.com", "9.9.9.9.in-addr.arpa", "9.9.9.10.in-addr.arpa", "arpa"] {
        assert_eq!(plan_with(&config, name, QueryType::Ptr), Plan::Recurse, "{name}");
    }
    assert_eq!(ask_with(&config, "nosuch.node.terraform", QueryType::A).rcode, Rcode::NxDomain);
    assert_eq!(ask_with(&config, "2.0.0.10.in-addr.arpa", QueryType::Ptr).answers.len(), 1);
}

#[test]
fn a_host_name_is_followed_through_the_recursors_reply() {
    let mut config = with_recursors();
    config.service_ttl.insert("*".to_owned(), 9);
    let edge = Name::parse("Edge.example.net").unwrap();
    let reply = |_: &str, _: QueryType| {
        Some(vec![
            heard("evil.example.org", Data::A([6, 6, 6, 6].into())),
            heard("WWW.example.com", Data::Cname(edge.clone())),
            heard("edge.example.net", Data::A([192, 0, 2, 80].into())),
        ])
    };
    let (answer, asked) = chased(&config, ("ext.service.terraform", QueryType::A), reply);
    assert_eq!(asked, ["www.example.com A"]);
    let wanted = [
        "@ CNAME www.example.com",
        "WWW.example.com CNAME Edge.example.net",
        "edge.example.net A 192.0.2.80",
    ];
    let mut sorted = wanted;
    sorted.sort_unstable();
    assert_eq!(shown(&answer.answers), sorted);
    assert!(answer.answers.iter().all(|record| record.ttl == 9), "the time of the service");

    let (answer, asked) = chased(&config, ("h.node.terraform", QueryType::Aaaa), |name, _| {
        Some(vec![heard(name, Data::Aaaa([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1].into()))])
    });
    assert_eq!(asked, ["h.example.com Aaaa"]);
    assert_eq!(answer.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [0, 60]);

    let (answer, asked) = chased(&config, ("ext.service.terraform", QueryType::Srv), |name, _| {
        Some(vec![heard(name, Data::A([192, 0, 2, 80].into()))])
    });
    assert_eq!(asked, ["www.example.com A", "www.example.com Aaaa"]);
    assert_eq!(shown(&answer.additional), ["www.example.com A 192.0.2.80"]);

    let (answer, asked) = chased(&config, ("ext.service.terraform", QueryType::Any), |_, _| None);
    assert_eq!(asked.len(), 1, "nobody answers, so nobody is asked again");
    assert_eq!(shown(&answer.answers), ["@ CNAME www.example.com"]);
}

#[test]
fn a_host_name_of_the_own_zone_is_followed_inside_and_not_for_ever() {
    let nobody = |_: &str, _: QueryType| panic!("no recursor is asked");
    let config = DnsConfig::default();
    let (answer, asked) = chased(&config, ("inner.service.terraform", QueryType::A), nobody);
    assert_eq!(asked, ["ServiceHe"]);
    let wanted = [
        "@ CNAME web.service.terraform",
        "web.service.terraform A 10.0.0.1",
        "web.service.terraform A 10.0.0.2",
    ];
    assert_eq!(shown(&answer.answers), wanted);
    let (answer, _) = chased(&config, ("ring.service.terraform", QueryType::A), nobody);
    let wanted =
        ["@ CNAME ring2.service.terraform", "ring2.service.terraform CNAME ring.service.terraform"];
    assert_eq!(shown(&answer.answers), wanted);
    let (answer, _) = chased(&config, ("inner.service.terraform", QueryType::Srv), nobody);
    let glue = ["web.service.terraform A 10.0.0.1", "web.service.terraform A 10.0.0.2"];
    let addresses = shown(&answer.additional);
    assert!(glue.iter().all(|wanted| addresses.contains(&(*wanted).to_owned())), "{addresses:?}");
    assert_eq!(answer.first(0).additional, []);
}

#[test]
fn another_datacenter_is_answered_with_the_addresses_that_others_reach() {
    let config =
        DnsConfig { translate_wan_addrs: true, node_meta_txt: false, ..DnsConfig::default() };
    let shown_of = |config, name, qtype| shown(&ask_with(config, name, qtype).answers);
    let plain = DnsConfig { node_meta_txt: false, ..DnsConfig::default() };
    let asked = "w.node.dc2.terraform";
    assert_eq!(shown_of(&config, asked, QueryType::A), ["@ A 203.0.113.1"]);
    assert_eq!(shown_of(&plain, asked, QueryType::A), ["@ A 10.0.0.9"]);
    assert_eq!(shown_of(&config, "w.node.terraform", QueryType::A), ["@ A 10.0.0.9"]);
    assert_eq!(shown_of(&config, asked, QueryType::Aaaa), ["@ AAAA 2001:db8::1"]);
    let asked = "wan.service.dc2.terraform";
    let srv = ask_with(&config, asked, QueryType::Srv);
    assert_eq!(shown(&srv.answers), ["@ SRV 1 8443 cb007102.addr.dc2.terraform"]);
    assert_eq!(shown(&srv.additional), ["cb007102.addr.dc2.terraform A 203.0.113.2"]);
    assert_eq!(shown_of(&plain, asked, QueryType::Srv), ["@ SRV 1 80 0a010101.addr.dc2.terraform"]);
    let asked = "bare.service.dc2.terraform";
    let srv = ask_with(&config, asked, QueryType::Srv);
    assert_eq!(shown(&srv.answers), ["@ SRV 1 80 cb007101.addr.dc2.terraform"]);
    assert_eq!(shown_of(&plain, asked, QueryType::Srv), ["@ SRV 1 80 w.node.dc2.terraform"]);
}

#[test]
fn no_more_answers_are_made_than_there_is_room_for() {
    let config = DnsConfig::default();
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config: &config, datacenter: &datacenter, serial: 77 };
    let labels = ["web", "service", "terraform"];
    for (qtype, all) in [(QueryType::A, 2), (QueryType::Srv, 3)] {
        for room in 1..4 {
            let question = Question { labels: &labels, qtype, room, edns: true };
            let Plan::Lookup(lookup) = zone.plan(&question) else { panic!() };
            let answer = answer_of(looked_up(&zone, &question, &lookup));
            assert_eq!((answer.answers.len(), answer.cut), (room.min(all), room < all));
        }
    }
}

#[test]
fn a_second_domain_answers_with_names_of_the_first() {
    let alt_domain = Name::parse("alt.terraform");
    let config = DnsConfig { alt_domain, node_meta_txt: false, ..DnsConfig::default() };
    let answer = ask_with(&config, "api.service.alt.terraform", QueryType::Srv);
    assert_eq!(shown(&answer.answers), ["@ SRV 1 80 0a090807.addr.dc1.terraform"]);
}

#[test]
fn times_to_live_follow_the_settings() {
    let ttls = [("web", 5), ("we*", 6), ("w*", 7), ("*", 8)];
    let service_ttl = ttls.into_iter().map(|(name, ttl)| (name.to_owned(), ttl)).collect();
    let config = DnsConfig { service_ttl, node_ttl: 9, a_record_limit: 1, ..DnsConfig::default() };
    assert_eq!(config.ttl_of_service("Web"), 5);
    assert_eq!(config.ttl_of_service("web2"), 6);
    assert_eq!(config.ttl_of_service("wx"), 7);
    assert_eq!(config.ttl_of_service("db"), 8);
    let answer = ask_with(&config, "web.service.terraform", QueryType::A);
    assert_eq!(answer.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [5]);
    assert!(!answer.cut, "the limit on address records is no truncation");
    assert_eq!(ask_with(&config, "n1.node.terraform", QueryType::A).answers[0].ttl, 9);
}

proptest! {
    #[test]
    fn every_question_has_an_answer(
        labels in prop::collection::vec(
            prop_oneof![
                3 => prop::sample::select(&["web", "node", "service", "addr", "terraform", "_web",
                    "_tcp", "_", "arpa", "in-addr", "ip6", "dc1", "n1", "query", "1"][..])
                    .prop_map(str::to_owned),
                1 => ".{0,70}",
            ],
            0..8,
        ),
        in_zone in any::<bool>(),
        qtype in prop::sample::select(&[QueryType::A, QueryType::Any, QueryType::Srv,
            QueryType::Ptr, QueryType::Txt, QueryType::Cname, QueryType::Soa][..]),
    ) {
        let config = DnsConfig::default();
        let datacenter = Datacenter::parse("dc1").unwrap();
        let zone = Zone { config: &config, datacenter: &datacenter, serial: 1 };
        let mut labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        if in_zone {
            labels.push("terraform");
        }
        let question = Question { labels: &labels, qtype, room: 100, edns: true };
        let plan = zone.plan(&question);
        let outside = !labels.last().is_some_and(|last| {
            last.eq_ignore_ascii_case("terraform") || last.eq_ignore_ascii_case("arpa")
        });
        let refused = Plan::Answer(Answer::refusal(Rcode::Refused));
        prop_assert_eq!(plan == refused && outside, outside);
    }
}

/// What a prepared query finds: the instances of a service of the catalog, in this order.
fn executed(service: &str, datacenter: &str) -> Executed {
    let query = ServiceQuery::all(ServiceName::parse(service).unwrap());
    let Rows::Instances(instances) = rows(&catalog(), &Query::ServiceHealth(query)) else {
        panic!()
    };
    Executed {
        service: service.to_owned(),
        instances,
        ttl: None,
        ttl_text: String::new(),
        datacenter: Datacenter::parse(datacenter).unwrap(),
        failovers: 0,
        known_leader: true,
        last_contact: Duration::ZERO,
        consistency: Consistency::Stale,
    }
}

#[test]
fn a_prepared_query_is_asked_by_what_stands_before_its_word() {
    let config = DnsConfig::default();
    let planned = |name: &str| plan_with(&config, name, QueryType::A);
    for (name, query, datacenter) in [
        ("q1.query.terraform", "q1", None),
        ("Geo.db-1.QUERY.dc2.terraform", "Geo.db-1", Some("dc2")),
    ] {
        let datacenter = datacenter.map(|name| Datacenter::parse(name).unwrap());
        let prepared = Prepared { query: query.to_owned(), datacenter };
        assert_eq!(planned(name), Plan::Execute(prepared), "{name}");
    }
}

#[test]
fn what_a_prepared_query_finds_stays_in_its_order_and_has_its_time_to_live() {
    let config = DnsConfig { service_ttl: [("web".to_owned(), 7)].into(), ..DnsConfig::default() };
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config: &config, datacenter: &datacenter, serial: 77 };
    let answer = |qtype, executed: Result<Executed, RequestError>| {
        let labels = ["q1", "query", "terraform"];
        let question = Question { labels: &labels, qtype, room: 100, edns: true };
        let plan = zone.executed(&question, &executed);
        let Plan::Answer(answer) = plan else { panic!("{plan:?}") };
        answer
    };
    let found = executed("web", "dc2");
    let mut turned = found.clone();
    turned.instances.reverse();
    let addresses = |answer: &Answer| -> Vec<Data> {
        answer.answers.iter().map(|record| record.data.clone()).collect()
    };
    let (first, second) =
        (answer(QueryType::A, Ok(found.clone())), answer(QueryType::A, Ok(turned)));
    let mut backwards = addresses(&second);
    backwards.reverse();
    assert!(first.for_subnet && first.answers.len() > 1);
    assert_eq!(addresses(&first), backwards);
    assert!(first.answers.iter().all(|record| record.ttl == 7));
    let timed = Executed { ttl: Some(Duration::from_secs(11)), ..found.clone() };
    assert!(answer(QueryType::A, Ok(timed)).answers.iter().all(|record| record.ttl == 11));
    let srv = answer(QueryType::Srv, Ok(found.clone()));
    let in_dc2 = |name: &Name| name.as_str().contains(".dc2.");
    assert!(srv.answers.iter().filter_map(Record::target).all(in_dc2), "{srv:?}");
    let nothing = Executed { instances: Vec::new(), ..found };
    for failed in [Ok(nothing), Err(RequestError::NotFound(String::new()))] {
        let answer = answer(QueryType::A, failed);
        let negative = zone.negative(Rcode::NxDomain);
        assert_eq!(Answer { for_subnet: false, ..answer }, negative);
    }
    assert_eq!(answer(QueryType::A, Err(RequestError::NoLeader)), Answer::empty(Rcode::ServFail));
}
