//! From catalog rows to records (dns.md §3, §5, §7, §9).

use super::address::{Address, port};
use super::chase::{Chase, Place};
use super::found::Found;
use super::name::Name;
use super::plan::{Kind, Lookup};
use super::record::{Data, Owner, Record};
use super::{Answer, Plan, QueryType, Question, Rcode, Zone, text};
use crate::catalog::address::Seen;
use crate::catalog::model::{CheckStatus, Node};
use crate::catalog::prepared::Executed;
use crate::catalog::query::{AddressOwner, Instance};
use crate::id::Datacenter;
use crate::node::request::RequestError;
use crate::rng::Rng;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Name servers named in an answer.
const NAME_SERVERS_MAX: usize = 3;
/// Records of one answer before its size is looked at (dns.md §6).
const ANSWERS_MAX: usize = 4096;
/// The same for SRV, each of which brings further records.
const SRV_ANSWERS_MAX: usize = 1024;

const fn asks_for_addresses(qtype: QueryType) -> bool {
    matches!(qtype, QueryType::A | QueryType::Aaaa | QueryType::Any | QueryType::Cname)
}

impl Zone<'_> {
    /// Makes the answer to a looked-up question from what the catalog gave.
    ///
    /// - Source: dns.md §3 and §4.
    /// - Effects: draws the order of the records from `rng`.
    /// - Errors: an unknown datacenter is NXDOMAIN, any other failed query SERVFAIL.
    pub fn answer(
        &self,
        question: &Question<'_>,
        lookup: &Lookup,
        found: Found<'_>,
        rng: &mut Rng,
    ) -> Plan {
        match (&lookup.kind, found) {
            (Kind::Node, Found::Node(Some(node))) => self.node(question, node, self.seen(lookup)),
            (Kind::Service(name), Found::Instances(mut rows)) => {
                let weighted = self.config.weighted_order;
                let drawn = Drawn { rows: &mut rows, at: 0, weighted, rng };
                let ttl = self.config.ttl_of_service(name.as_str());
                let datacenter = lookup.datacenter.as_ref().unwrap_or(self.datacenter);
                self.service(question, (datacenter, self.seen(lookup)), drawn, ttl)
            }
            (Kind::Apex, Found::Servers(nodes)) => Plan::Answer(self.apex(question, nodes, rng)),
            (Kind::Apex, Found::Failed) => Plan::Answer(self.apex(question, Vec::new(), rng)),
            (Kind::Address(address), Found::Owner(owner)) => {
                self.address(question, *address, &owner)
            }
            (Kind::Node, Found::Node(None)) | (_, Found::NoDatacenter) => {
                Plan::Answer(self.negative(Rcode::NxDomain))
            }
            _ => Plan::Answer(Answer::empty(Rcode::ServFail)),
        }
    }

    /// Makes the answer to a question for a prepared query from what it found, in its order.
    ///
    /// - Source: dns.md §3 to §5; http-api.md §14 for the times to live.
    /// - Errors: an unknown query or datacenter is NXDOMAIN, any other failure SERVFAIL.
    pub fn executed(
        &self,
        question: &Question<'_>,
        executed: &Result<Executed, RequestError>,
    ) -> Plan {
        let executed = match executed {
            Ok(executed) => executed,
            Err(RequestError::NotFound(_) | RequestError::NoPath) => {
                return Plan::Answer(self.negative(Rcode::NxDomain));
            }
            Err(_) => return Plan::Answer(Answer::empty(Rcode::ServFail)),
        };
        let given = executed.ttl.map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
        let ttl = given.unwrap_or_else(|| self.config.ttl_of_service(&executed.service));
        let datacenter = &executed.datacenter;
        let rows = executed.instances.iter().map(AsRef::as_ref);
        let from = (datacenter, self.seen_in(datacenter));
        // Another client may be nearer to other instances.
        match self.service(question, from, rows, ttl) {
            Plan::Answer(answer) => Plan::Answer(Answer { for_subnet: true, ..answer }),
            Plan::Chase(chase) => Plan::Chase(chase.for_subnet()),
            plan @ (Plan::Lookup(_) | Plan::Execute(_) | Plan::Recurse) => plan,
        }
    }

    /// From where the rows of a lookup are looked at (dns.md §9).
    fn seen(&self, lookup: &Lookup) -> Seen {
        lookup.datacenter.as_ref().map_or(Seen::Inside, |asked| self.seen_in(asked))
    }

    /// The same for rows of a datacenter.
    fn seen_in(&self, datacenter: &Datacenter) -> Seen {
        Seen::of(datacenter, self.datacenter, self.config.translate_wan_addrs)
    }

    /// The answer, or the way to it: `hosts` are followed if anybody knows them.
    fn followed(
        &self,
        question: &Question<'_>,
        answer: Answer,
        hosts: &[Name],
        as_what: (Place, Option<u32>),
    ) -> Plan {
        let reachable = |host: &&Name| !self.config.recursors.is_empty() || self.holds(host);
        if !hosts.iter().any(|host| reachable(&host)) {
            return Plan::Answer(answer);
        }
        let hosts = hosts.iter().filter(reachable);
        Plan::Chase(Chase::new(question, answer, as_what).follow(self, hosts))
    }

    fn node(&self, question: &Question<'_>, node: &Node, seen: Seen) -> Plan {
        let ttl = self.config.node_ttl;
        let own = |data| Record { owner: Owner::Question, ttl, data };
        let mut answer = Answer::empty(Rcode::NoError);
        let texts = || text::of_meta(&node.meta).map(|text| own(Data::Txt(text)));
        let mut host = None;
        if asks_for_addresses(question.qtype) {
            let address = Address::of_node(node, seen);
            answer.answers.extend(address.ips(question.qtype).map(|ip| own(ip.into())));
            if let Address::Host(name) = address {
                answer.answers.push(own(Data::Cname(name.clone())));
                host = Some(name);
            }
        }
        if matches!(question.qtype, QueryType::Any | QueryType::Txt) {
            answer.answers.extend(texts());
        } else if matches!(question.qtype, QueryType::A | QueryType::Aaaa)
            && self.config.node_meta_txt
        {
            answer.additional.extend(texts());
        }
        if answer.answers.is_empty() {
            answer.authority.extend(self.soa());
        }
        // Who asks for the alias itself does not want what it stands for.
        let host = host.filter(|_| question.qtype != QueryType::Cname);
        self.followed(question, answer, host.as_slice(), (Place::Answers, None))
    }

    fn service<'a>(
        &self,
        question: &Question<'_>,
        (datacenter, seen): (&Datacenter, Seen),
        instances: impl Iterator<Item = &'a Instance>,
        ttl: u32,
    ) -> Plan {
        let mut instances = instances.peekable();
        if instances.peek().is_none() {
            return Plan::Answer(self.negative(Rcode::NxDomain));
        }
        let (mut answer, hosts, place) = if question.qtype == QueryType::Srv {
            let (answer, hosts) = self.srv_records(question, (datacenter, seen), instances, ttl);
            (answer, hosts, Place::Additional)
        } else if asks_for_addresses(question.qtype) {
            let (answer, hosts) = self.address_records(question, seen, instances, ttl);
            (answer, hosts, Place::Answers)
        } else {
            (Answer::empty(Rcode::NoError), Vec::new(), Place::Answers)
        };
        answer.of_instances = true;
        if answer.answers.is_empty() {
            answer.authority.extend(self.soa());
        }
        self.followed(question, answer, &hosts, (place, Some(ttl)))
    }

    /// One record for each distinct address; a CNAME only where no instance yields an address, and
    /// the host to follow then.
    fn address_records<'a>(
        &self,
        question: &Question<'_>,
        seen: Seen,
        instances: impl Iterator<Item = &'a Instance>,
        ttl: u32,
    ) -> (Answer, Vec<Name>) {
        let qtype = question.qtype;
        let mut answer = Answer::empty(Rcode::NoError);
        let (mut known, mut host) = (BTreeSet::new(), None);
        let room = question.room.clamp(1, ANSWERS_MAX);
        let limit = match self.config.a_record_limit {
            0 => room,
            limit => limit.min(room),
        };
        for instance in instances {
            let own = Address::of_service(instance, seen);
            let address = own.unwrap_or_else(|| Address::of_node(&instance.node, seen));
            for ip in address.ips(qtype) {
                if !known.insert(ip) {
                    continue;
                }
                if answer.answers.len() >= limit {
                    // The limit that was set is no lack of space.
                    answer.cut = limit != self.config.a_record_limit;
                    return (answer, Vec::new());
                }
                answer.answers.push(Record { owner: Owner::Question, ttl, data: ip.into() });
            }
            if let Address::Host(name) = address {
                host.get_or_insert(name);
            }
        }
        let host = host.filter(|_| answer.answers.is_empty());
        let cname = |name: Name| Record { owner: Owner::Question, ttl, data: Data::Cname(name) };
        answer.answers.extend(host.clone().map(cname));
        let host = host.filter(|_| qtype != QueryType::Cname);
        (answer, host.into_iter().collect())
    }

    /// One record for each distinct (node, address, port), with the target's addresses and the
    /// node's metadata, each once; and the targets whose addresses are not known here.
    fn srv_records<'a>(
        &self,
        question: &Question<'_>,
        (datacenter, seen): (&Datacenter, Seen),
        instances: impl Iterator<Item = &'a Instance>,
        ttl: u32,
    ) -> (Answer, Vec<Name>) {
        let mut answer = Answer::empty(Rcode::NoError);
        let (mut known, mut targets, mut nodes) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut hosts = Vec::new();
        for instance in instances {
            let (node, service) = (&instance.node, &instance.service);
            let Some(port) = port(instance, seen) else { continue };
            if !known.insert((&node.name, &service.address, port)) {
                continue;
            }
            if answer.answers.len() >= question.room.clamp(1, SRV_ANSWERS_MAX) {
                answer.cut = true;
                break;
            }
            let Some((target, address)) = self.srv_target(question, (datacenter, seen), instance)
            else {
                continue;
            };
            let data =
                Data::Srv { priority: 1, weight: weight(instance), port, target: target.clone() };
            answer.answers.push(Record { owner: Owner::Question, ttl, data });
            if targets.insert(target.clone()) {
                let owner = || Owner::Name(target.clone());
                let glue = address.ips(QueryType::Any);
                let glue = glue.map(|ip| Record { owner: owner(), ttl, data: ip.into() });
                answer.additional.extend(glue);
                if matches!(address, Address::Host(_)) {
                    hosts.push(target);
                }
            }
            if self.config.node_meta_txt && !node.meta.is_empty() && nodes.insert(&node.name) {
                let Some(owner) = self.node_name(node, datacenter).map(Owner::Name) else {
                    continue;
                };
                let texts = text::of_meta(&node.meta).map(Data::Txt);
                let texts = texts.map(|data| Record { owner: owner.clone(), ttl, data });
                answer.additional.extend(texts);
            }
        }
        (answer, hosts)
    }

    /// The target of an SRV record and what it stands for (dns.md §3); `None` if no legal name can
    /// be made.
    fn srv_target(
        &self,
        question: &Question<'_>,
        (datacenter, seen): (&Datacenter, Seen),
        instance: &Instance,
    ) -> Option<(Name, Address)> {
        let of_node = || {
            let address = Address::of_node(&instance.node, seen);
            if let Address::Host(host) = &address {
                return Some((host.clone(), address));
            }
            // The node's own name stands for the address it has in its datacenter.
            if seen == Seen::Outside && address != Address::of_node(&instance.node, Seen::Inside) {
                return self.encoded(&address, datacenter);
            }
            Some((self.node_name(&instance.node, datacenter)?, address))
        };
        match Address::of_service(instance, seen) {
            None => of_node(),
            Some(address @ Address::Ips(..)) => {
                // One encoded name holds one address: the main one, else a tagged one.
                let main = instance.service.address.parse().ok();
                let address = match (main, seen) {
                    (Some(IpAddr::V4(ip)), Seen::Inside) => Address::Ips(Some(ip), None),
                    (Some(IpAddr::V6(ip)), Seen::Inside) => Address::Ips(None, Some(ip)),
                    (_, Seen::Inside | Seen::Outside) => address,
                };
                self.encoded(&address, datacenter)
            }
            Some(Address::Host(host)) => {
                let asked = host.strip_from(question.labels).is_some_and(<[_]>::is_empty);
                if asked { of_node() } else { Some((host.clone(), Address::Host(host))) }
            }
            Some(Address::Nothing) => None,
        }
    }

    /// `0a000001.addr.dc1.terraform` for the first of the addresses, and that one alone.
    fn encoded(&self, address: &Address, datacenter: &Datacenter) -> Option<(Name, Address)> {
        let (text, one) = match address.ips(QueryType::Any).next()? {
            IpAddr::V4(ip) => (format!("{:08x}", ip.to_bits()), Address::Ips(Some(ip), None)),
            IpAddr::V6(ip) => (format!("{:032x}", ip.to_bits()), Address::Ips(None, Some(ip))),
        };
        let parts = [text.as_str(), "addr", datacenter.as_str(), self.config.domain.as_str()];
        Some((Name::from_labels(parts)?, one))
    }

    fn node_name(&self, node: &Node, datacenter: &Datacenter) -> Option<Name> {
        let name = node.name.folded();
        let parts = [name.as_str(), "node", datacenter.as_str(), self.config.domain.as_str()];
        Name::from_labels(parts)
    }

    /// SOA with name servers as authority, or the name servers; glue in both cases.
    fn apex(&self, question: &Question<'_>, mut nodes: Vec<&Node>, rng: &mut Rng) -> Answer {
        nodes.retain(|node| node.name.is_dns_label());
        rng.shuffle(&mut nodes);
        let ttl = self.config.node_ttl;
        let (mut records, mut glue) = (Vec::new(), Vec::new());
        for node in nodes.into_iter().take(NAME_SERVERS_MAX) {
            let Some(name) = self.node_name(node, self.datacenter) else { continue };
            let owner = || Owner::Name(name.clone());
            let addresses = Address::of_node(node, Seen::Inside).ips(QueryType::Any);
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

    /// The name of an address. Of a private one only this agent can know, so that nobody has it is
    /// a fact (RFC 6303 §3); any other is somebody else's.
    fn address(&self, question: &Question<'_>, address: IpAddr, owner: &AddressOwner) -> Plan {
        let (name, kind) = match owner {
            AddressOwner::Node(name) => (name.folded(), "node"),
            AddressOwner::Service(name) => (name.folded(), "service"),
            AddressOwner::Nobody if self.config.recursors.is_empty() && is_private(address) => {
                return Plan::Answer(self.negative(Rcode::NxDomain));
            }
            AddressOwner::Nobody => return self.foreign(),
        };
        let domain = self.config.domain.as_str();
        let name = Name::from_labels([name.as_str(), kind, self.datacenter.as_str(), domain]);
        let ttl = self.config.node_ttl;
        let record = |name| Record { owner: Owner::Question, ttl, data: Data::Ptr(name) };
        let answers = name.map(record).into_iter().collect();
        let soa = self.soa().filter(|_| question.qtype == QueryType::Soa);
        let authority = soa.into_iter().collect();
        Plan::Answer(Answer { answers, authority, ..Answer::empty(Rcode::NoError) })
    }
}

/// Instances that are drawn by weight; each draw looks at all that are left. What comes after that
/// many is in no client's first choice.
const WEIGHTED_MAX: usize = 32;

/// The instances that are not critical in a random order, drawn one at a time: few questions have
/// room for all of them.
pub(super) struct Drawn<'r, 'a> {
    pub(super) rows: &'r mut [&'a Instance],
    pub(super) at: usize,
    /// Whether heavier ones are drawn sooner.
    pub(super) weighted: bool,
    pub(super) rng: &'r mut Rng,
}

/// One of `rows`, each as likely as its weight; any of them where none has one.
fn by_weight(rows: &[&Instance], rng: &mut Rng) -> usize {
    let weight_of = |row: &&Instance| if row.is_critical() { 0 } else { u64::from(weight(row)) };
    let total: u64 = rows.iter().map(weight_of).sum();
    if total == 0 {
        return rng.index(rows.len());
    }
    let mut left = rng.below(total);
    let chosen = rows.iter().position(|row| {
        let weight = weight_of(row);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    });
    chosen.unwrap_or_default()
}

impl<'a> Iterator for Drawn<'_, 'a> {
    type Item = &'a Instance;

    fn next(&mut self) -> Option<&'a Instance> {
        while let Some(rest) = self.rows.get_mut(self.at..).filter(|rest| !rest.is_empty()) {
            let by_weight = self.weighted && self.at < WEIGHTED_MAX;
            let drawn = if by_weight {
                self::by_weight(rest, self.rng)
            } else {
                self.rng.index(rest.len())
            };
            rest.swap(0, drawn);
            self.at += 1;
            let drawn = rest.first().copied();
            if let Some(instance) = drawn.filter(|instance| !instance.is_critical()) {
                return Some(instance);
            }
        }
        None
    }
}

/// Whether only the own network knows who has an address (RFC 6303 §4, RFC 6598 §4).
const fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && second >= 64 && second < 128;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
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
