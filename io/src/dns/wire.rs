//! DNS messages from and to bytes, through hickory-proto (RFC 1035 §4, RFC 6891).
//!
//! Pure: no socket is touched. What may not be answered is dropped, what cannot be read is refused
//! with a bare header (dns.md §4). An answer never exceeds what its client can take; TC tells that
//! records are missing (§6, §14).
//!
//! Differs from Consul 1.8.7: sizes are those of the final message with its OPT record, metadata
//! is left out before any answer is, and an answer that does not fit by itself is left out too.

use hickory_proto::op::{
    Edns, Message, MessageType, Metadata, Query, ResponseCode, emit_message_parts,
};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncoder, NameEncoding};
use std::borrow::Cow;
use terraform_core::dns::name::Name as CoreName;
use terraform_core::dns::record::{Data, Owner, Record as CoreRecord};
use terraform_core::dns::{Answer, DnsConfig, QueryType, Rcode};

/// Bytes of a header.
const HEADER_BYTES: usize = 12;
/// Bytes of a message to a client that says nothing about its buffer (RFC 1035 §4.2.1).
const UDP_BYTES: u16 = 512;
/// Answers over UDP to such a client, whatever the settings say.
const UDP_ANSWERS_MAX: usize = 8;
/// Bytes of a message over TCP, a little below what its length field can say (dns.md §6).
const TCP_BYTES: u16 = 65_523;
/// Bytes of one string of a TXT record (RFC 1035 §3.3).
const TEXT_BYTES: usize = 255;

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// On a stream.
    Tcp,
}

/// What some bytes turned out to be.
#[derive(Debug)]
pub(super) enum Received {
    /// Nothing that may be answered.
    Dropped,
    /// Something that gets exactly this answer.
    Refused(Vec<u8>),
    /// A question.
    Question(Box<Request>),
}

/// One question with what its answer depends on.
#[derive(Clone, Debug)]
pub(super) struct Request {
    metadata: Metadata,
    query: Query,
    edns: Option<ClientEdns>,
}

/// What an OPT record said.
#[derive(Clone, Debug)]
struct ClientEdns {
    payload: u16,
    subnet: Option<ClientSubnet>,
}

impl Request {
    /// What is asked for.
    pub(super) fn qtype(&self) -> QueryType {
        // The library's enumeration is open; whatever we have no records of is `Other`.
        match u16::from(self.query.query_type()) {
            1 => QueryType::A,
            2 => QueryType::Ns,
            5 => QueryType::Cname,
            6 => QueryType::Soa,
            12 => QueryType::Ptr,
            16 => QueryType::Txt,
            28 => QueryType::Aaaa,
            33 => QueryType::Srv,
            252 => QueryType::Axfr,
            255 => QueryType::Any,
            _ => QueryType::Other,
        }
    }

    /// The labels of the name; bytes that are no text cannot match anything.
    pub(super) fn labels(&self) -> Vec<Cow<'_, str>> {
        self.query.name().iter().map(String::from_utf8_lossy).collect()
    }
}

/// Reads one message (dns.md §4).
pub(super) fn decode(bytes: &[u8]) -> Received {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Received::Dropped };
    let [_, _, high, _, questions @ ..] = *header;
    if high & 0x80 != 0 {
        return Received::Dropped;
    }
    // QUERY, and NOTIFY as if it were one.
    if !matches!((high >> 3) & 0x0f, 0 | 4) {
        return Received::Refused(bare(header, ResponseCode::NotImp));
    }
    let one_question = questions.starts_with(&[0, 1]);
    let message = if one_question { Message::from_vec(bytes).ok() } else { None };
    let Some(mut message) = message else {
        return Received::Refused(bare(header, ResponseCode::FormErr));
    };
    let Some(query) = message.queries.pop() else {
        return Received::Refused(bare(header, ResponseCode::FormErr));
    };
    let version = message.edns.as_ref().map_or(0, Edns::version);
    let edns = message.edns.as_ref().map(|edns| ClientEdns {
        payload: edns.max_payload().max(UDP_BYTES),
        subnet: subnet(edns),
    });
    let request = Request { metadata: message.metadata, query, edns };
    if version != 0 {
        let sections = Sections { rcode: ResponseCode::BADVERS, ..Sections::default() };
        let reply = emit(&request, &sections, u16::MAX, true).unwrap_or_default();
        return Received::Refused(reply);
    }
    Received::Question(Box::new(request))
}

fn subnet(edns: &Edns) -> Option<ClientSubnet> {
    let EdnsOption::Subnet(subnet) = edns.option(EdnsCode::Subnet)? else { return None };
    Some(ClientSubnet::new(subnet.addr(), subnet.source_prefix(), 0))
}

/// A reply that is nothing but a header: identity, opcode, RD, the code.
fn bare(header: &[u8; HEADER_BYTES], code: ResponseCode) -> Vec<u8> {
    let [id_high, id_low, flags, ..] = *header;
    let mut reply = vec![id_high, id_low, 0x80 | (flags & 0x79), code.low()];
    reply.resize(HEADER_BYTES, 0);
    reply
}

/// The sections of a reply in the library's terms.
#[derive(Clone, Debug, Default)]
struct Sections {
    rcode: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
}

/// Writes the reply to a request within the limits of its transport.
pub(super) fn encode(
    request: &Request,
    answer: &Answer,
    config: &DnsConfig,
    transport: Transport,
) -> Vec<u8> {
    let convert = |records: &[CoreRecord]| -> Vec<Record> {
        records.iter().filter_map(|record| convert_one(record, request)).collect()
    };
    let payload = request.edns.as_ref().map_or(UDP_BYTES, |edns| edns.payload);
    let limit = match transport {
        Transport::Udp => payload,
        Transport::Tcp => TCP_BYTES,
    };
    let most = match transport {
        Transport::Udp if limit == UDP_BYTES => config.udp_answer_limit.clamp(1, UDP_ANSWERS_MAX),
        Transport::Udp | Transport::Tcp => usize::MAX,
    };
    // Records beyond the limit are not even converted: that costs more than finding them.
    let mut answers = answer.answers.iter().filter_map(|record| convert_one(record, request));
    let mut sections = Sections {
        rcode: code(answer.rcode),
        authoritative: answer.authoritative,
        truncated: answer.cut,
        answers: answers.by_ref().take(most).collect(),
        authority: convert(&answer.authority),
        additional: convert(&answer.additional),
    };
    if answers.next().is_some() {
        sections.keep(most);
    }
    sections.truncated &= config.enable_truncate;
    let compress = !config.disable_compression;
    let rcode = sections.rcode;
    let whole = emit(request, &sections, limit, compress);
    let reply = whole.or_else(|| shrink(request, sections, config, limit));
    reply.unwrap_or_else(|| {
        // A question and an OPT record fit into every limit.
        let bare = Sections { rcode, truncated: config.enable_truncate, ..Sections::default() };
        emit(request, &bare, limit, compress).unwrap_or_default()
    })
}

/// Leaves out what does not fit: metadata first, then the last answers with what belongs to them.
fn shrink(
    request: &Request,
    mut sections: Sections,
    config: &DnsConfig,
    limit: u16,
) -> Option<Vec<u8>> {
    let compress = !config.disable_compression;
    sections.additional.retain(|record| record.record_type() != RecordType::TXT);
    if let Some(reply) = emit(request, &sections, limit, compress) {
        return Some(reply);
    }
    let (mut fits, mut too_many) = (0, sections.answers.len());
    let mut best = None;
    while fits + 1 < too_many || best.is_none() {
        let count = usize::midpoint(fits, too_many);
        let mut fewer = sections.clone();
        fewer.keep(count);
        fewer.truncated = config.enable_truncate;
        match emit(request, &fewer, limit, compress) {
            Some(reply) => (fits, best) = (count, Some(reply)),
            None if count == 0 => return None,
            None => too_many = count,
        }
    }
    best
}

impl Sections {
    /// Keeps the first answers, and of the additional records the addresses of their targets.
    fn keep(&mut self, count: usize) {
        self.answers.truncate(count);
        self.truncated = true;
        let targets: Vec<&Name> = self.answers.iter().filter_map(target).collect();
        self.additional.retain(|record| {
            record.record_type() != RecordType::TXT && targets.contains(&&record.name)
        });
    }
}

fn target(record: &Record) -> Option<&Name> {
    if let RData::SRV(srv) = &record.data {
        Some(&srv.target)
    } else if let RData::NS(ns) = &record.data {
        Some(&ns.0)
    } else {
        None
    }
}

/// `None` if the reply is larger than `limit`.
fn emit(request: &Request, sections: &Sections, limit: u16, compress: bool) -> Option<Vec<u8>> {
    let asked = &request.metadata;
    let mut metadata = Metadata::new(asked.id, MessageType::Response, asked.op_code);
    metadata.recursion_desired = asked.recursion_desired;
    metadata.authoritative = sections.authoritative;
    metadata.truncation = sections.truncated;
    metadata.response_code = sections.rcode;
    // What is not ours is refused without an OPT record (dns.md §6).
    let wants_edns = sections.authoritative || sections.rcode != ResponseCode::Refused;
    let edns = request.edns.as_ref().filter(|_| wants_edns).map(reply_edns);
    let mut buffer = Vec::with_capacity(usize::from(UDP_BYTES));
    let mut encoder = BinEncoder::new(&mut buffer);
    encoder.set_max_size(limit);
    if !compress {
        encoder.set_name_encoding(NameEncoding::Uncompressed);
    }
    let header = emit_message_parts(
        &metadata,
        &mut std::iter::once(&request.query),
        &mut sections.answers.iter(),
        &mut sections.authority.iter(),
        &mut sections.additional.iter(),
        edns.as_ref(),
        None,
        &mut encoder,
    );
    let whole = header.is_ok_and(|header| header.metadata.truncation == metadata.truncation);
    let lengths = [&sections.answers, &sections.authority, &sections.additional].map(Vec::len);
    let counts = header_counts(&buffer)?;
    let extra = usize::from(edns.is_some());
    let complete = counts == [lengths[0], lengths[1], lengths[2] + extra];
    (whole && complete).then_some(buffer)
}

/// How many answers, authorities and additional records a message says it holds.
fn header_counts(message: &[u8]) -> Option<[usize; 3]> {
    let header = message.first_chunk::<HEADER_BYTES>()?;
    let [.., a, b, c, d, e, f] = *header;
    Some([(a, b), (c, d), (e, f)].map(|(high, low)| usize::from(u16::from_be_bytes([high, low]))))
}

/// The client's own size, version 0, DO clear, and of the options the subnet alone.
fn reply_edns(client: &ClientEdns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(client.payload);
    if let Some(subnet) = client.subnet {
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
    }
    edns
}

const fn code(rcode: Rcode) -> ResponseCode {
    match rcode {
        Rcode::NoError => ResponseCode::NoError,
        Rcode::ServFail => ResponseCode::ServFail,
        Rcode::NxDomain => ResponseCode::NXDomain,
        Rcode::NotImp => ResponseCode::NotImp,
        Rcode::Refused => ResponseCode::Refused,
    }
}

/// `None` if a name has no wire form.
fn convert_one(record: &CoreRecord, request: &Request) -> Option<Record> {
    let owner = match &record.owner {
        Owner::Question => request.query.name().clone(),
        Owner::Name(name) => wire_name(name)?,
    };
    let seconds = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let data = match &record.data {
        Data::A(ip) => RData::A(A(*ip)),
        Data::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
        Data::Cname(name) => RData::CNAME(CNAME(wire_name(name)?)),
        Data::Ns(name) => RData::NS(NS(wire_name(name)?)),
        Data::Ptr(name) => RData::PTR(PTR(wire_name(name)?)),
        Data::Srv { priority, weight, port, target } => {
            RData::SRV(SRV::new(*priority, *weight, *port, wire_name(target)?))
        }
        Data::Soa { mname, rname, serial, refresh, retry, expire, minimum } => {
            let (mname, rname) = (wire_name(mname)?, wire_name(rname)?);
            let [refresh, retry, expire] = [*refresh, *retry, *expire].map(seconds);
            RData::SOA(SOA::new(mname, rname, *serial, refresh, retry, expire, *minimum))
        }
        Data::Txt(text) if text.is_empty() => RData::TXT(TXT::from_bytes(vec![b""])),
        Data::Txt(text) => {
            RData::TXT(TXT::from_bytes(text.as_bytes().chunks(TEXT_BYTES).collect()))
        }
    };
    Some(Record::from_rdata(owner, record.ttl, data))
}

fn wire_name(name: &CoreName) -> Option<Name> {
    Name::from_labels(name.labels().map(str::as_bytes)).ok()
}
