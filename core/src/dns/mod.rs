//! DNS questions and answers over the catalog, without a wire format (dns.md).
//!
//! [`Zone::plan`] turns a question into an answer that needs no catalog, or into a [`Lookup`] with
//! the catalog query it needs; [`Zone::answer`] turns that query's outcome into records. What lies
//! outside the zones goes through a [`Recursion`], and host names that stand for addresses are
//! followed by a [`Chase`]. All are pure; the order of records comes from the caller's random
//! numbers, the serial from its clock.
//!
//! Differs from Consul 1.8.7 as dns.md §14 decides: a node without an address of the asked family
//! and a service asked for TXT have an empty answer with the SOA, `.addr.` of another family is
//! empty, ANY gives both families, metadata is sorted, additional records are not repeated, a
//! private address that nobody has does not exist, and any other is REFUSED without recursors. The
//! owner of an `.addr.` answer keeps the client's spelling as every other does.
//!
//! A prepared query is executed by a server, and [`Zone::executed`] makes records of what it found.
//!
//! Not here: mesh names (`connect`, `ingress`, `virtual`) do not exist and are NXDOMAIN.

mod address;
mod answer;
mod chase;
mod found;
pub mod name;
mod plan;
pub mod record;
pub mod recursion;
#[cfg(test)]
mod tests;
mod text;

pub use chase::{Chase, Need};
pub use found::Found;
pub use plan::{Lookup, Prepared};
pub use recursion::Recursion;

use crate::id::Datacenter;
use name::Name;
use record::{Data, Owner, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// The DNS settings (dns.md §8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The zone.
    pub domain: Name,
    /// A second name of the zone.
    pub alt_domain: Option<Name>,
    /// Whether any server may answer.
    pub allow_stale: bool,
    /// An answer of a server that has not heard of the leader for longer is asked again there.
    pub max_stale: Duration,
    /// Time to live of node, NS, `.addr.` and PTR records, in seconds.
    pub node_ttl: u32,
    /// Time to live of service records in seconds, by service name, `prefix*` or `*`.
    pub service_ttl: BTreeMap<String, u32>,
    /// Whether instances with a warning are left out.
    pub only_passing: bool,
    /// Whether instances come in an order drawn by their weights, else all are equal.
    pub weighted_order: bool,
    /// Records of instances over UDP to a client without EDNS, or with a payload size of 512.
    pub udp_answer_limit: usize,
    /// Address records in any answer; 0 for no limit.
    pub a_record_limit: usize,
    /// Whether TC tells that answers were dropped for their size.
    pub enable_truncate: bool,
    /// Whether names are written in full each time.
    pub disable_compression: bool,
    /// Whether address and SRV answers carry the node's metadata as additional TXT records.
    pub node_meta_txt: bool,
    /// The numbers of the SOA record.
    pub soa: SoaConfig,
    /// Who is asked about what lies outside the zones, in this order.
    pub recursors: Vec<SocketAddr>,
    /// How long each of them is waited for.
    pub recursor_timeout: Duration,
    /// Whether what is in another datacenter is answered with its `wan` addresses.
    pub translate_wan_addrs: bool,
}

/// The numbers of the SOA record, in seconds (RFC 1035 §3.3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoaConfig {
    /// Refresh.
    pub refresh: u32,
    /// Retry.
    pub retry: u32,
    /// Expire.
    pub expire: u32,
    /// Time to live of the record and of negative answers.
    pub min_ttl: u32,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            domain: Name::from_labels(["terraform"]).expect("nine letters are a legal label"),
            alt_domain: None,
            allow_stale: true,
            max_stale: Duration::from_secs(87_600 * 3600),
            node_ttl: 0,
            service_ttl: BTreeMap::new(),
            only_passing: false,
            weighted_order: false,
            udp_answer_limit: 3,
            a_record_limit: 0,
            enable_truncate: true,
            disable_compression: false,
            node_meta_txt: true,
            soa: SoaConfig::default(),
            recursors: Vec::new(),
            recursor_timeout: Duration::from_secs(2),
            translate_wan_addrs: false,
        }
    }
}

impl Default for SoaConfig {
    fn default() -> Self {
        Self { refresh: 3600, retry: 600, expire: 86_400, min_ttl: 0 }
    }
}

impl DnsConfig {
    /// The time to live of a service's records: its own, else that of the longest prefix.
    pub fn ttl_of_service(&self, service: &str) -> u32 {
        let service = service.to_lowercase();
        if let Some(ttl) = self.service_ttl.get(&service) {
            return *ttl;
        }
        let fitting = self.service_ttl.iter().filter_map(|(key, ttl)| {
            let prefix = key.strip_suffix('*')?;
            service.starts_with(prefix).then_some((prefix.len(), *ttl))
        });
        fitting.max_by_key(|(length, _)| *length).map_or(0, |(_, ttl)| ttl)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueryType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Everything.
    Any,
    /// Hosts and ports.
    Srv,
    /// Text.
    Txt,
    /// The start of authority.
    Soa,
    /// Name servers.
    Ns,
    /// The name of an address.
    Ptr,
    /// The canonical name.
    Cname,
    /// A zone transfer, which is not offered.
    Axfr,
    /// Anything else: no record has it.
    Other,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name's labels, leftmost first, in the client's case.
    pub labels: &'a [&'a str],
    /// What is asked for.
    pub qtype: QueryType,
    /// More answers than this need not be made: the client cannot take them.
    pub room: usize,
    /// Whether the client knows EDNS.
    pub edns: bool,
}

/// Response codes (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// Answered, perhaps with nothing.
    NoError,
    /// The catalog could not be asked.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// Not offered.
    NotImp,
    /// Not our name.
    Refused,
}

impl Rcode {
    /// The code in a header (RFC 1035 §4.1.1).
    pub const fn number(self) -> u8 {
        match self {
            Self::NoError => 0,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
        }
    }
}

/// An answer before it has a wire form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub rcode: Rcode,
    /// Whether it comes from our own data.
    pub authoritative: bool,
    /// Whether more records exist than were made.
    pub cut: bool,
    /// Whether it depends on where the client is: the scope of its subnet (RFC 7871 §7.2.1).
    pub for_subnet: bool,
    /// Whether it is a choice among instances: some of them are as good as all. What is known of
    /// one node is limited by its size alone.
    pub of_instances: bool,
    /// The records asked for.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer, or name servers.
    pub authority: Vec<Record>,
    /// Addresses of names in the others, metadata.
    pub additional: Vec<Record>,
}

impl Answer {
    /// An authoritative answer without records.
    pub const fn empty(rcode: Rcode) -> Self {
        Self {
            rcode,
            authoritative: true,
            cut: false,
            for_subnet: false,
            of_instances: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }

    /// The answer to what is not ours: no records, no authority.
    pub fn refusal(rcode: Rcode) -> Self {
        Self { authoritative: false, ..Self::empty(rcode) }
    }

    /// Leaves out the node's metadata.
    pub fn drop_texts(&mut self) {
        self.additional.retain(|record| !matches!(record.data, Data::Txt(_)));
    }

    /// The first `count` answers and, of the additional records, the addresses of what they name
    /// (dns.md §6).
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let answers: Vec<Record> = self.answers.iter().take(count).cloned().collect();
        let mut named: BTreeSet<&Name> = answers.iter().filter_map(Record::target).collect();
        let mut additional = Vec::new();
        for record in &self.additional {
            let Owner::Name(owner) = &record.owner else { continue };
            if !named.contains(owner) || matches!(record.data, Data::Txt(_)) {
                continue;
            }
            // Aliases come before what they stand for.
            named.extend(record.target());
            additional.push(record.clone());
        }
        let authority = self.authority.clone();
        Self { cut: true, answers, authority, additional, ..*self }
    }
}

/// What is to be done about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This is the answer.
    Answer(Answer),
    /// The catalog decides.
    Lookup(Lookup),
    /// A prepared query decides.
    Execute(Prepared),
    /// The recursors decide; there are some.
    Recurse,
    /// Host names must be followed.
    Chase(Chase),
}

/// What every question of one moment is answered with.
#[derive(Clone, Copy, Debug)]
pub struct Zone<'a> {
    /// The settings.
    pub config: &'a DnsConfig,
    /// The agent's own datacenter.
    pub datacenter: &'a Datacenter,
    /// The SOA's serial: seconds since 1970.
    pub serial: u32,
}

impl Zone<'_> {
    /// Whether a name lies in one of the zones.
    fn holds(&self, name: &Name) -> bool {
        let labels: Vec<&str> = name.labels().collect();
        let mut zones = [Some(&self.config.domain), self.config.alt_domain.as_ref()];
        zones.iter_mut().flatten().any(|zone| zone.strip_from(&labels).is_some())
    }

    /// What is to be done about what is not ours.
    fn foreign(&self) -> Plan {
        if self.config.recursors.is_empty() {
            return Plan::Answer(Answer::refusal(Rcode::Refused));
        }
        Plan::Recurse
    }

    /// A negative answer: no records, and the SOA so that resolvers may remember it (RFC 2308 §3).
    fn negative(&self, rcode: Rcode) -> Answer {
        let authority = self.soa().into_iter().collect();
        Answer { authority, ..Answer::empty(rcode) }
    }

    fn soa(&self) -> Option<Record> {
        let domain = &self.config.domain;
        let SoaConfig { refresh, retry, expire, min_ttl } = self.config.soa;
        let data = Data::Soa {
            mname: domain.under("ns")?,
            rname: domain.under("hostmaster")?,
            serial: self.serial,
            refresh,
            retry,
            expire,
            minimum: min_ttl,
        };
        Some(Record { owner: Owner::Name(domain.clone()), ttl: min_ttl, data })
    }
}
