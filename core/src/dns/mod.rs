//! DNS questions and answers over the catalog, without a wire format (dns.md).
//!
//! [`Zone::plan`] turns a question into an answer that needs no catalog, or into a [`Lookup`] with
//! the catalog query it needs; [`Zone::answer`] turns that query's outcome into records. Both are
//! pure; the order of records comes from the caller's random numbers, the serial from its clock.
//!
//! Differs from Consul 1.8.7 as dns.md §14 decides: a node without an address of the asked family
//! and a service asked for TXT have an empty answer with the SOA, `.addr.` of another family is
//! empty, ANY gives both families, metadata is sorted, additional records are not repeated.
//!
//! Not here: prepared queries and mesh names (`query`, `connect`, `ingress`, `virtual`) do not
//! exist and are NXDOMAIN; there are no recursors, so names outside the zones and unknown addresses
//! are REFUSED, and a host-name address is answered with the CNAME alone.

mod answer;
pub mod name;
mod plan;
pub mod record;
#[cfg(test)]
mod tests;
mod text;

pub use plan::Lookup;

use crate::id::Datacenter;
use name::Name;
use record::{Data, Owner, Record};
use std::collections::BTreeMap;
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
    /// Answers over UDP to a client without EDNS, or with a payload size of 512.
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
            udp_answer_limit: 3,
            a_record_limit: 0,
            enable_truncate: true,
            disable_compression: false,
            node_meta_txt: true,
            soa: SoaConfig { refresh: 3600, retry: 600, expire: 86_400, min_ttl: 0 },
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An answer before it has a wire form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub rcode: Rcode,
    /// Whether it comes from our own data.
    pub authoritative: bool,
    /// Whether more records exist than were made.
    pub cut: bool,
    /// The records asked for.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer, or name servers.
    pub authority: Vec<Record>,
    /// Addresses of names in the others, metadata.
    pub additional: Vec<Record>,
}

impl Answer {
    /// An authoritative answer without records.
    const fn empty(rcode: Rcode) -> Self {
        Self {
            rcode,
            authoritative: true,
            cut: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }

    /// The answer to what is not ours: no records, no authority.
    pub fn refusal(rcode: Rcode) -> Self {
        Self { authoritative: false, ..Self::empty(rcode) }
    }
}

/// What is to be done about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This is the answer.
    Answer(Answer),
    /// The catalog decides.
    Lookup(Lookup),
    /// It is not our name: REFUSED.
    Refused,
    /// It is not offered: NOTIMP.
    NotImplemented,
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
