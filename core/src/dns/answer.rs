//! From catalog rows to records (dns.md §3, §5, §7, §9).

use super::name::Name;
use super::plan::{Kind, Lookup};
use super::record::{Data, Owner, Record};
use super::{Answer, QueryType, Question, Rcode, Zone, text};
use crate::catalog::model::{CheckStatus, Node};
use crate::catalog::query::{AddressOwner, Instance, QueryAnswer, Rows, ServiceNode};
use crate::id::{Datacenter, ServiceName};
use crate::node::request::RequestError;
use crate::rng::Rng;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Name servers named in an answer.
const NAME_SERVERS_MAX: usize = 3;
/// Records of one answer before its size is looked at (dns.md §6).
const ANSWERS_MAX: usize = 4096;
/// The same for SRV, each of which brings further records.
const SRV_ANSWERS_MAX: usize = 1024;

/// Where a node or an instance can be reached.
enum Address {
    /// At these, at least one.
    Ips(Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// At whatever this name resolves to.
    Host(Name),
    /// Nowhere.
    Nothing,
}

impl Address {
    /// The tagged LAN address of a family wins over the main one of that family (dns.md §9).
    fn of(main: &str, lan_ipv4: Option<&str>, lan_ipv6: Option<&str>) -> Self {
        let parsed = main.parse::<IpAddr>().ok();
        let main_v4 = parsed.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
        let main_v6 = parsed.and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
        let v4 = lan_ipv4.and_then(|text| text.parse().ok()).or(main_v4);
        let v6 = lan_ipv6.and_then(|text| text.parse().ok()).or(main_v6);
        if v4.is_some() || v6.is_some() {
            return Self::Ips(v4, v6);
        }
        Name::parse(main).map_or(Self::Nothing, Self::Host)
    }

    fn of_node(node: &Node) -> Self {
        let tagged = |tag: &str| node.tagged_addresses.get(tag).map(String::as_str);
        Self::of(&node.address, tagged("lan_ipv4"), tagged("lan_ipv6"))
    }

    /// The instance's own address; `None` if it has none and is reached at its node's.
    fn of_service(instance: &Instance) -> Option<Self> {
        let service = &instance.service;
        let tagged = |tag: &str| service.tagged_addresses.get(tag).map(|at| at.address.as_str());
        let (lan_ipv4, lan_ipv6) = (tagged("lan_ipv4"), tagged("lan_ipv6"));
        let has_own = !service.address.is_empty() || lan_ipv4.is_some() || lan_ipv6.is_some();
        has_own.then(|| Self::of(&service.address, lan_ipv4, lan_ipv6))
    }

    fn ips(&self, qtype: QueryType) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = match self {
            Self::Ips(v4, v6) => (*v4, *v6),
            Self::Host(_) | Self::Nothing => (None, None),
        };
        let v4 = v4.filter(|_| matches!(qtype, QueryType::A | QueryType::Any));
        let v6 = v6.filter(|_| matches!(qtype, QueryType::Aaaa | QueryType::Any));
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }
}

const fn asks_for_addresses(qtype: QueryType) -> bool {
    matches!(qtype, QueryType::A | QueryType::Aaaa | QueryType::Any | QueryType::Cname)
}

impl Zone<'_> {
    /// Makes the answer to a looked-up question from the outcome of its query.
    ///
    /// - Source: dns.md §3 and §4.
    /// - Effects: draws the order of the records from `rng`.
    /// - Errors: an unknown datacenter is NXDOMAIN, any other failed query SERVFAIL.
    pub fn answer(
        &self,
        question: &Question<'_>,
        lookup: &Lookup,
        outcome: &Result<QueryAnswer, RequestError>,
        rng: &mut Rng,
    ) -> Answer {
        let datacenter = lookup.datacenter.as_ref().unwrap_or(self.datacenter);
        match (&lookup.kind, outcome.as_ref().map(|answer| &answer.rows)) {
            (Kind::Node, Ok(Rows::Nodes(nodes))) => match nodes.first() {
                Some(node) => self.node(question, node),
                None => self.negative(Rcode::NxDomain),
            },
            (Kind::Service(name), Ok(Rows::Instances(rows))) => {
                self.service(question, name, datacenter, rows, rng)
            }
            (Kind::Apex, Ok(Rows::ServiceNodes(rows))) => self.apex(question, rows, rng),
            (Kind::Apex, Err(_)) => self.apex(question, &[], rng),
            (Kind::Address, Ok(Rows::Owner(owner))) => self.address(owner),
            (_, Err(RequestError::NoPath)) => self.negative(Rcode::NxDomain),
            _ => Answer::empty(Rcode::ServFail),
        }
    }

    fn node(&self, question: &Question<'_>, node: &Node) -> Answer {
        let ttl = self.config.node_ttl;
        let own = |data| Record { owner: Owner::Question, ttl, data };
        let mut answer = Answer::empty(Rcode::NoError);
        let texts = || text::of_meta(&node.meta).map(|text| own(Data::Txt(text)));
        if asks_for_addresses(question.qtype) {
            let address = Address::of_node(node);
            answer.answers.extend(address.ips(question.qtype).map(|ip| own(ip.into())));
            if let Address::Host(host) = address {
                answer.answers.push(own(Data::Cname(host)));
            }
        }
        if matches!(question.qtype, QueryType::Any | QueryType::Txt) {
            answer.answers.extend(texts());
        } else if asks_for_addresses(question.qtype) && self.config.node_meta_txt {
            answer.additional.extend(texts());
        }
        if answer.answers.is_empty() {
            answer.authority.extend(self.soa());
        }
        answer
    }

    fn service(
        &self,
        question: &Question<'_>,
        name: &ServiceName,
        datacenter: &Datacenter,
        rows: &[Arc<Instance>],
        rng: &mut Rng,
    ) -> Answer {
        let healthy = rows.iter().filter(|instance| !instance.is_critical());
        let mut healthy: Vec<&Instance> = healthy.map(|instance| &**instance).collect();
        if healthy.is_empty() {
            return self.negative(Rcode::NxDomain);
        }
        rng.shuffle(&mut healthy);
        let ttl = self.config.ttl_of_service(name.as_str());
        let mut answer = if question.qtype == QueryType::Srv {
            self.srv_records(question, datacenter, &healthy, ttl)
        } else if asks_for_addresses(question.qtype) {
            self.address_records(question.qtype, &healthy, ttl)
        } else {
            Answer::empty(Rcode::NoError)
        };
        if answer.answers.is_empty() {
            answer.authority.extend(self.soa());
        }
        answer
    }

    /// One record for each distinct address; a CNAME only where no instance yields an address.
    fn address_records(&self, qtype: QueryType, instances: &[&Instance], ttl: u32) -> Answer {
        let mut answer = Answer::empty(Rcode::NoError);
        let (mut seen, mut host) = (BTreeSet::new(), None);
        let limit = match self.config.a_record_limit {
            0 => ANSWERS_MAX,
            limit => limit.min(ANSWERS_MAX),
        };
        for instance in instances {
            let own = Address::of_service(instance);
            let address = own.unwrap_or_else(|| Address::of_node(&instance.node));
            for ip in address.ips(qtype) {
                if !seen.insert(ip) {
                    continue;
                }
                if answer.answers.len() >= limit {
                    answer.cut = self.config.a_record_limit == 0;
                    return answer;
                }
                answer.answers.push(Record { owner: Owner::Question, ttl, data: ip.into() });
            }
            if let Address::Host(name) = address {
                host.get_or_insert(name);
            }
        }
        if answer.answers.is_empty() {
            let cname = |name| Record { owner: Owner::Question, ttl, data: Data::Cname(name) };
            answer.answers.extend(host.map(cname));
        }
        answer
    }

    /// One record for each distinct (node, address, port), with the target's addresses and the
    /// node's metadata, each once.
    fn srv_records(
        &self,
        question: &Question<'_>,
        datacenter: &Datacenter,
        instances: &[&Instance],
        ttl: u32,
    ) -> Answer {
        let mut answer = Answer::empty(Rcode::NoError);
        let (mut seen, mut targets, mut nodes) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for instance in instances {
            let (node, service) = (&instance.node, &instance.service);
            let Ok(port) = u16::try_from(service.port) else { continue };
            if !seen.insert((&node.name, &service.address, port)) {
                continue;
            }
            if answer.answers.len() >= SRV_ANSWERS_MAX {
                answer.cut = true;
                return answer;
            }
            let Some((target, address)) = self.srv_target(question, datacenter, instance) else {
                continue;
            };
            let weight = weight(instance);
            let data = Data::Srv { priority: 1, weight, port, target: target.clone() };
            answer.answers.push(Record { owner: Owner::Question, ttl, data });
            if targets.insert(target.clone()) {
                let owner = || Owner::Name(target.clone());
                let glue = address.ips(QueryType::Any);
                let glue = glue.map(|ip| Record { owner: owner(), ttl, data: ip.into() });
                answer.additional.extend(glue);
            }
            if self.config.node_meta_txt && nodes.insert(&node.name) {
                let Some(owner) = self.node_name(node, datacenter).map(Owner::Name) else {
                    continue;
                };
                let texts = text::of_meta(&node.meta).map(Data::Txt);
                let texts = texts.map(|data| Record { owner: owner.clone(), ttl, data });
                answer.additional.extend(texts);
            }
        }
        answer
    }

    /// The target of an SRV record and the addresses that go with it (dns.md §3); `None` if no
    /// legal name can be made.
    fn srv_target(
        &self,
        question: &Question<'_>,
        datacenter: &Datacenter,
        instance: &Instance,
    ) -> Option<(Name, Address)> {
        let of_node = || -> Option<(Name, Address)> {
            match Address::of_node(&instance.node) {
                Address::Host(host) => Some((host, Address::Nothing)),
                address @ (Address::Ips(..) | Address::Nothing) => {
                    Some((self.node_name(&instance.node, datacenter)?, address))
                }
            }
        };
        match Address::of_service(instance) {
            None => of_node(),
            Some(Address::Ips(v4, v6)) => {
                // One encoded name holds one address: the main one, else a tagged one.
                let main = instance.service.address.parse::<IpAddr>().ok();
                let tagged = v4.map(IpAddr::V4).or_else(|| v6.map(IpAddr::V6));
                let (encoded, one) = match main.or(tagged)? {
                    IpAddr::V4(ip) => {
                        (format!("{:08x}", ip.to_bits()), Address::Ips(Some(ip), None))
                    }
                    IpAddr::V6(ip) => {
                        (format!("{:032x}", ip.to_bits()), Address::Ips(None, Some(ip)))
                    }
                };
                let domain = self.config.domain.as_str();
                let parts = [encoded.as_str(), "addr", datacenter.as_str(), domain];
                Some((Name::from_labels(parts)?, one))
            }
            Some(Address::Host(host)) => {
                let asked = host.strip_from(question.labels).is_some_and(<[_]>::is_empty);
                if asked { of_node() } else { Some((host, Address::Nothing)) }
            }
            Some(Address::Nothing) => None,
        }
    }

    fn node_name(&self, node: &Node, datacenter: &Datacenter) -> Option<Name> {
        let name = node.name.folded();
        let parts = [name.as_str(), "node", datacenter.as_str(), self.config.domain.as_str()];
        Name::from_labels(parts)
    }

    /// SOA with name servers as authority, or the name servers; glue in both cases.
    fn apex(&self, question: &Question<'_>, rows: &[ServiceNode], rng: &mut Rng) -> Answer {
        let usable = rows.iter().filter(|row| row.node.name.is_dns_label());
        let mut servers: Vec<_> = usable.collect();
        rng.shuffle(&mut servers);
        let ttl = self.config.node_ttl;
        let (mut records, mut glue) = (Vec::new(), Vec::new());
        for row in servers.into_iter().take(NAME_SERVERS_MAX) {
            let Some(name) = self.node_name(&row.node, self.datacenter) else { continue };
            let owner = || Owner::Name(name.clone());
            let addresses = Address::of_node(&row.node).ips(QueryType::Any);
            glue.extend(addresses.map(|ip| Record { owner: owner(), ttl, data: ip.into() }));
            let owner = Owner::Name(self.config.domain.clone());
            records.push(Record { owner, ttl, data: Data::Ns(name) });
        }
        let mut answer = Answer { additional: glue, ..Answer::empty(Rcode::NoError) };
        if question.qtype == QueryType::Soa {
            answer.answers.extend(self.soa());
            answer.authority = records;
        } else {
            answer.answers = records;
        }
        answer
    }

    fn address(&self, owner: &AddressOwner) -> Answer {
        let (name, kind) = match owner {
            AddressOwner::Node(name) => (name.folded(), "node"),
            AddressOwner::Service(name) => (name.folded(), "service"),
            AddressOwner::Nobody => return Answer::refusal(Rcode::Refused),
        };
        let domain = self.config.domain.as_str();
        let name = Name::from_labels([name.as_str(), kind, self.datacenter.as_str(), domain]);
        let ttl = self.config.node_ttl;
        let record = |name| Record { owner: Owner::Question, ttl, data: Data::Ptr(name) };
        let answers = name.map(record).into_iter().collect();
        Answer { answers, ..Answer::empty(Rcode::NoError) }
    }
}

/// The weight of an instance in its aggregate state; 1 in a state that is none of ours.
fn weight(instance: &Instance) -> u16 {
    let weights = instance.service.weights;
    let has = |status: &CheckStatus| instance.checks.iter().any(|check| check.status == *status);
    let known = [CheckStatus::Passing, CheckStatus::Warning];
    let weight = if instance.checks.iter().any(|check| !known.contains(&check.status)) {
        1
    } else if has(&CheckStatus::Warning) {
        weights.warning
    } else {
        weights.passing
    };
    u16::try_from(weight).unwrap_or(u16::MAX)
}
