//! Questions and answers over a small catalog, as recorded in dns.md §12 and decided in §14.

use super::*;
use crate::catalog::Tables;
use crate::catalog::model::{CheckStatus, Node, Service, ServiceAddress, Weights};
use crate::catalog::query::{Consistency, Query, QueryAnswer, Rows};
use crate::catalog::tests::{check, node, register, registration, service};
use crate::id::ModifyIndex;
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
        | Query::Transaction(_)
        | Query::Autopilot
        | Query::RaftConfiguration => panic!("DNS does not ask {query:?}"),
    }
}

fn ask_with(config: &DnsConfig, name: &str, qtype: QueryType) -> Answer {
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config, datacenter: &datacenter, serial: 77 };
    let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
    let question = Question { labels: &labels, qtype };
    match zone.plan(&question) {
        Plan::Answer(answer) => answer,
        Plan::Refused => Answer::refusal(Rcode::Refused),
        Plan::NotImplemented => Answer::refusal(Rcode::NotImp),
        Plan::Lookup(lookup) => {
            let foreign = lookup.datacenter.as_ref().is_some_and(|asked| *asked != datacenter);
            let outcome = if foreign {
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
            zone.answer(&question, &lookup, &outcome, &mut rng)
        }
    }
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
    let host = ask("h.node.terraform", QueryType::A);
    assert_eq!(shown(&host.answers), ["@ CNAME h.example.com"]);
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
        "n1.node.dc2.terraform",
        "n1.node.bad dc.terraform",
        "0a00000z.addr.terraform",
        "q.query.terraform",
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
    for name in ["www.google.com", "", "xterraform", "1.0.0.10.in-addr.arpa"] {
        let answer = ask(name, QueryType::A);
        assert_eq!(answer, Answer::refusal(Rcode::Refused), "{name}");
    }
    assert_eq!(ask("terraform", QueryType::Axfr).rcode, Rcode::NotImp);
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
    for unknown in ["9.9.9.9.in-addr.arpa", "9.9.9.in-addr.arpa", "x.0.0.10.in-addr.arpa"] {
        let refused = Answer::refusal(Rcode::Refused);
        assert_eq!(ask(unknown, QueryType::Ptr), refused, "{unknown}");
    }
}

#[test]
fn a_failed_query_is_servfail_but_soa_and_addr_still_answer() {
    let config = DnsConfig::default();
    let datacenter = Datacenter::parse("dc1").unwrap();
    let zone = Zone { config: &config, datacenter: &datacenter, serial: 77 };
    let mut rng = Rng::for_stream(Seed::from_number(1), Stream::Dns);
    let mut fail = |labels: &[&str], qtype| {
        let question = Question { labels, qtype };
        let Plan::Lookup(lookup) = zone.plan(&question) else { panic!("{labels:?}") };
        zone.answer(&question, &lookup, &Err(RequestError::NoServers), &mut rng)
    };
    let node = fail(&["n1", "node", "terraform"], QueryType::A);
    assert_eq!(node, Answer::empty(Rcode::ServFail));
    let soa = fail(&["terraform"], QueryType::Soa);
    assert_eq!((soa.rcode, shown(&soa.answers)), (Rcode::NoError, vec![SOA[0].to_owned()]));
    let addr = ask("0a000001.addr.anywhere.terraform", QueryType::A);
    assert_eq!(shown(&addr.answers), ["@ A 10.0.0.1"]);
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
        let question = Question { labels: &labels, qtype };
        let plan = zone.plan(&question);
        let outside = !labels.last().is_some_and(|last| {
            last.eq_ignore_ascii_case("terraform") || last.eq_ignore_ascii_case("arpa")
        });
        prop_assert_eq!(plan == Plan::Refused && outside, outside);
    }
}
