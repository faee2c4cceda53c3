//! From a question's name to what must be looked up (dns.md §2).

use super::name::Name;
use super::record::{Owner, Record};
use super::{Answer, Plan, QueryType, Question, Rcode, Zone};
use crate::catalog::query::{Query, ServiceQuery};
use crate::id::{Datacenter, NodeName, ServiceName};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The catalog's service of the servers, which are the zone's name servers.
pub(super) const SERVERS: &str = "terraform";

/// A question that the catalog decides: ask `query`, in `datacenter` if it names one, then hand the
/// outcome to [`Zone::answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// What to ask the catalog.
    pub query: Query,
    /// The datacenter the name asks for; `None` for the agent's own.
    pub datacenter: Option<Datacenter>,
    pub(super) kind: Kind,
}

/// A prepared query to be executed: hand what it found to [`Zone::executed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its identity or a name.
    pub query: String,
    /// The datacenter the name asks for; `None` for the agent's own.
    pub datacenter: Option<Datacenter>,
}

/// What the looked-up rows are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One node.
    Node,
    /// Healthy instances.
    Service(ServiceName),
    /// The zone's own SOA or NS.
    Apex,
    /// The name of an address.
    Address(IpAddr),
}

impl Zone<'_> {
    /// Decides what a question needs.
    ///
    /// - Source: dns.md §2 and §4; RFC 2782 for `_service._proto`.
    /// - Errors: none; a name that cannot exist is NXDOMAIN with the SOA.
    pub fn plan(&self, question: &Question<'_>) -> Plan {
        let zones = [Some(&self.config.domain), self.config.alt_domain.as_ref()];
        // Where one zone lies within the other, the longer name is the nearer one.
        let within =
            zones.into_iter().flatten().filter_map(|zone| zone.strip_from(question.labels));
        let Some(labels) = within.min_by_key(|labels| labels.len()) else {
            return self.reverse(question);
        };
        match question.qtype {
            QueryType::Axfr => Plan::Answer(Answer::empty(Rcode::NotImp)),
            QueryType::Soa | QueryType::Ns => servers(),
            QueryType::A
            | QueryType::Aaaa
            | QueryType::Any
            | QueryType::Srv
            | QueryType::Txt
            | QueryType::Ptr
            | QueryType::Cname
            | QueryType::Other => {
                let plan = self.plan_name(question, labels);
                plan.unwrap_or_else(|| Plan::Answer(self.negative(Rcode::NxDomain)))
            }
        }
    }

    /// `None` if no such name can exist.
    fn plan_name(&self, question: &Question<'_>, labels: &[&str]) -> Option<Plan> {
        for (at, label) in labels.iter().enumerate().rev() {
            let keyword = Keyword::of(label, question.qtype);
            let Some(keyword) = keyword else { continue };
            let (left, right) = labels.split_at(at);
            let (left, right) = match keyword {
                Keyword::BareSrv => (labels.get(..=at)?, labels.get(at + 1..)?),
                Keyword::Service
                | Keyword::Node
                | Keyword::Addr
                | Keyword::Query
                | Keyword::Unbuilt => (left, right.get(1..)?),
            };
            let datacenter = match right {
                [] => None,
                [name] => Some(Datacenter::parse(name).ok()?),
                _ => return None,
            };
            let (query, kind) = match keyword {
                Keyword::Service | Keyword::BareSrv => self.service_query(left)?,
                Keyword::Node => {
                    let name = NodeName::parse(&left.join(".")).ok()?;
                    (Query::NodeNamed(name), Kind::Node)
                }
                Keyword::Addr => return self.encoded_address(question, left).map(Plan::Answer),
                Keyword::Query if !left.is_empty() => {
                    let query = left.join(".");
                    return Some(Plan::Execute(Prepared { query, datacenter }));
                }
                Keyword::Query | Keyword::Unbuilt => return None,
            };
            return Some(Plan::Lookup(Lookup { query, datacenter, kind }));
        }
        None
    }

    /// `[tag.]service`, or `_service._proto` with `tcp` for no tag.
    fn service_query(&self, parts: &[&str]) -> Option<(Query, Kind)> {
        let (last, before) = parts.split_last()?;
        let (name, tag) = match before {
            [first] if first.starts_with('_') && last.starts_with('_') => {
                let proto = last.get(1..)?;
                let tcp = proto.eq_ignore_ascii_case("tcp");
                (first.get(1..)?, if tcp { String::new() } else { proto.to_owned() })
            }
            _ => (*last, before.join(".")),
        };
        let name = ServiceName::parse(name).ok()?;
        let tags = if tag.is_empty() { Vec::new() } else { vec![tag] };
        let passing = self.config.only_passing;
        let query = ServiceQuery { tags, passing, ..ServiceQuery::all(name.clone()) };
        Some((Query::ServiceHealth(query), Kind::Service(name)))
    }

    /// Names outside the zones: only those of addresses are known (RFC 1035 §3.5, RFC 3596 §2.5),
    /// and a question for anything about them is answered with the name (dns.md §12).
    fn reverse(&self, question: &Question<'_>) -> Plan {
        let Some(address) = address_of(question.labels) else { return self.foreign() };
        let query = Query::AddressOwner(address.to_string());
        Plan::Lookup(Lookup { query, datacenter: None, kind: Kind::Address(address) })
    }

    /// `0a000001.addr`: the address itself, without a look at the catalog.
    fn encoded_address(&self, question: &Question<'_>, parts: &[&str]) -> Option<Answer> {
        let [text] = parts else { return None };
        let address = match text.len() / 2 {
            4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(hex(text, 8)?).ok()?)),
            16 => IpAddr::V6(Ipv6Addr::from_bits(hex(text, 32)?)),
            _ => return Some(Answer::empty(Rcode::NoError)),
        };
        let fits = match address {
            IpAddr::V4(_) => matches!(question.qtype, QueryType::A | QueryType::Any),
            IpAddr::V6(_) => matches!(question.qtype, QueryType::Aaaa | QueryType::Any),
        };
        if !fits {
            return Some(self.negative(Rcode::NoError));
        }
        let ttl = self.config.node_ttl;
        let record = Record { owner: Owner::Question, ttl, data: address.into() };
        Some(Answer { answers: vec![record], ..Answer::empty(Rcode::NoError) })
    }
}

/// What a label says about the labels around it.
#[derive(Clone, Copy)]
enum Keyword {
    Service,
    Node,
    Addr,
    /// `_proto` of an SRV question without the label `service`; it belongs to the left part.
    BareSrv,
    /// A prepared query.
    Query,
    /// Names that do not exist: mesh endpoints.
    Unbuilt,
}

impl Keyword {
    fn of(label: &str, qtype: QueryType) -> Option<Self> {
        let is = |word: &str| label.eq_ignore_ascii_case(word);
        if is("service") {
            Some(Self::Service)
        } else if is("node") {
            Some(Self::Node)
        } else if is("addr") {
            Some(Self::Addr)
        } else if is("query") {
            Some(Self::Query)
        } else if is("connect") || is("ingress") {
            Some(Self::Unbuilt)
        } else if qtype == QueryType::Srv && label.starts_with('_') {
            Some(Self::BareSrv)
        } else {
            None
        }
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let legal = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    legal.then(|| u128::from_str_radix(text, 16).ok())?
}

/// The servers' own service, for NS and the authority of SOA.
fn servers() -> Plan {
    let name = ServiceName::parse(SERVERS).expect("a word is a legal service name");
    let query = Query::ServiceNodes(ServiceQuery::all(name));
    Plan::Lookup(Lookup { query, datacenter: None, kind: Kind::Apex })
}

fn address_of(labels: &[&str]) -> Option<IpAddr> {
    let within = |zone: &str| Name::parse(zone).and_then(|zone| zone.strip_from(labels));
    if let Some(parts) = within("in-addr.arpa") {
        let [d, c, b, a] = parts else { return None };
        let octet = |text: &str| text.parse::<u8>().ok();
        return Some(IpAddr::V4(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?)));
    }
    let nibbles = within("ip6.arpa").filter(|parts| parts.iter().all(|part| part.len() == 1))?;
    let text: String = nibbles.iter().rev().copied().collect();
    hex(&text, 32).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}
