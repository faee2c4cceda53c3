//! From bytes to a question (RFC 1035 §4, RFC 6891, RFC 7871; dns.md §4).
//!
//! What may not be answered is dropped, what cannot be read is refused with a bare header. Records
//! behind the question are read over; only an OPT record says anything.

use super::reply;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use terraform_core::dns::{DnsConfig, QueryType, Question};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 12;
/// Bytes of a message to a client that says nothing about its buffer (RFC 1035 §4.2.1).
pub(super) const UDP_BYTES: u16 = 512;
/// Answers over UDP to such a client, whatever the settings say.
const UDP_ANSWERS_MAX: usize = 8;
/// Bytes of a message over TCP, a little below what its length field can say (dns.md §6).
const TCP_BYTES: u16 = 65_523;
/// Bytes of the smallest record that answers a question: its owner is a pointer.
const RECORD_BYTES_MIN: usize = 16;
/// Bytes of a name with its length bytes (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 255;
/// The type of an OPT record.
pub(super) const OPT: u16 = 41;
/// The option that holds a client's subnet.
pub(super) const SUBNET: u16 = 8;
/// The flag of an OPT record by which a client wants signatures.
const DNSSEC_OK: u16 = 0x8000;

/// The codes of bare replies and of those without a question's answer (RFC 1035 §4.1.1, RFC 6891).
const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;

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
    Question(Request),
}

/// One question with what its answer depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The number, and both bytes of flags.
    pub(super) id: u16,
    pub(super) flags: [u8; 2],
    /// Name, type and class as they came.
    pub(super) question: Vec<u8>,
    pub(super) edns: Option<ClientEdns>,
}

/// What an OPT record said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientEdns {
    pub(super) payload: u16,
    pub(super) dnssec_ok: bool,
    pub(super) subnet: Option<Subnet>,
}

/// The network a client is in, as its resolver tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

impl Request {
    /// The type that is asked for, as a number.
    pub(super) fn kind(&self) -> u16 {
        let kind = self.question.last_chunk::<4>();
        kind.map_or(0, |[high, low, ..]| u16::from_be_bytes([*high, *low]))
    }

    /// What is asked for. Whatever we have no records of is `Other`.
    pub(super) fn qtype(&self) -> QueryType {
        match self.kind() {
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

    /// Hands the question to `then`; bytes of a name that are no text cannot match anything.
    pub(super) fn ask<T>(
        &self,
        (config, transport): (&DnsConfig, Transport),
        then: impl FnOnce(&Question<'_>) -> T,
    ) -> T {
        let labels: Vec<Cow<'_, str>> =
            labels(&self.question).map(String::from_utf8_lossy).collect();
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        let room = self.room(config, transport);
        then(&Question { labels: &labels, qtype: self.qtype(), room, edns: self.edns.is_some() })
    }

    /// Whether the name stands for an address.
    pub(super) fn is_reverse(&self) -> bool {
        ends_in_arpa(&self.question)
    }

    /// Bytes a reply may have.
    pub(super) fn limit(&self, transport: Transport) -> u16 {
        match transport {
            // Smaller ones count as that (RFC 6891 §6.2.3).
            Transport::Udp => self.edns.map_or(UDP_BYTES, |edns| edns.payload.max(UDP_BYTES)),
            Transport::Tcp => TCP_BYTES,
        }
    }

    /// Answers a reply may have, or cannot have more than.
    pub(super) fn room(&self, config: &DnsConfig, transport: Transport) -> usize {
        match self.limit(transport) {
            UDP_BYTES => config.udp_answer_limit.clamp(1, UDP_ANSWERS_MAX),
            limit => usize::from(limit) / RECORD_BYTES_MIN,
        }
    }

    /// Where the client is: what its resolver tells of its network, else where the message came
    /// from (dns.md §5).
    pub(super) fn source(&self, from: SocketAddr) -> SocketAddr {
        let subnet = self.edns.and_then(|edns| edns.subnet);
        subnet.map_or(from, |subnet| SocketAddr::new(subnet.address, from.port()))
    }
}

/// The labels of a name in wire form, up to its end.
fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader(name);
    std::iter::from_fn(move || {
        let length = reader.byte().filter(|length| *length != 0)?;
        reader.take(usize::from(length))
    })
}

fn ends_in_arpa(name: &[u8]) -> bool {
    labels(name).last().is_some_and(|label| label.eq_ignore_ascii_case(b"arpa"))
}

/// Whether a message asks for the name of an address, as it stands in its question.
pub(super) fn is_reverse(message: &[u8]) -> bool {
    ends_in_arpa(message.get(HEADER_BYTES..).unwrap_or_default())
}

/// Reads one message.
pub(super) fn decode(bytes: &[u8]) -> Received {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Received::Dropped };
    let [_, _, high, ..] = *header;
    if high & 0x80 != 0 {
        return Received::Dropped;
    }
    // QUERY, and NOTIFY as if it were one.
    if !matches!((high >> 3) & 0x0f, 0 | 4) {
        return Received::Refused(reply::bare(header, NOTIMP));
    }
    let Some((request, version)) = read(bytes) else {
        return Received::Refused(reply::bare(header, FORMERR));
    };
    if version != 0 {
        return Received::Refused(reply::bad_version(&request));
    }
    Received::Question(request)
}

/// The question and its version of EDNS; `None` if any part of the message cannot be read.
fn read(bytes: &[u8]) -> Option<(Request, u8)> {
    let mut reader = Reader(bytes);
    let (id, high, low) = (reader.number()?, reader.byte()?, reader.byte()?);
    let questions = reader.number()?;
    let before = usize::from(reader.number()?) + usize::from(reader.number()?);
    let additional = reader.number()?;
    if questions != 1 {
        return None;
    }
    let question = reader.question()?.to_vec();
    for _ in 0..before {
        reader.record()?;
    }
    let (mut edns, mut version) = (None, 0);
    for _ in 0..additional {
        let record = reader.record()?;
        if record.kind != OPT {
            continue;
        }
        // One at most, and of the root (RFC 6891 §6.1.1).
        if edns.is_some() || record.owner != [0] {
            return None;
        }
        let [_, its_version, flags @ ..] = record.ttl;
        version = its_version;
        edns = Some(ClientEdns {
            payload: record.class,
            dnssec_ok: u16::from_be_bytes(flags) & DNSSEC_OK != 0,
            subnet: subnet(record.data)?,
        });
    }
    Some((Request { id, flags: [high, low], question, edns }, version))
}

/// The client's subnet among the options; the outer `None` if they cannot be read (RFC 7871 §6).
#[expect(clippy::option_option, reason = "no subnet and unreadable options are different outcomes")]
fn subnet(options: &[u8]) -> Option<Option<Subnet>> {
    let mut reader = Reader(options);
    let mut found = None;
    while !reader.0.is_empty() {
        let (code, length) = (reader.number()?, reader.number()?);
        let data = reader.take(usize::from(length))?;
        if code == SUBNET && found.is_none() {
            let mut data = Reader(data);
            let (family, prefix, _scope) = (data.number()?, data.byte()?, data.byte()?);
            let bytes = data.0;
            if bytes.len() != usize::from(prefix).div_ceil(8) {
                return None;
            }
            found = match family {
                1 => Some(IpAddr::from(Ipv4Addr::from(padded::<4>(bytes)?))),
                2 => Some(IpAddr::from(Ipv6Addr::from(padded::<16>(bytes)?))),
                // Networks of other kinds lead to nobody.
                _ => None,
            }
            .map(|address| Subnet { address, prefix });
        }
    }
    Some(found)
}

/// `bytes` with zeros behind them; `None` if they are too many.
fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut whole = [0; N];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(whole)
}

/// One record, not looked into.
struct Raw<'a> {
    owner: &'a [u8],
    kind: u16,
    class: u16,
    ttl: [u8; 4],
    data: &'a [u8],
}

/// The rest of a message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn number(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    /// Name, type and class of a question. Its name is the first, so it can point nowhere.
    pub(super) fn question(&mut self) -> Option<&'a [u8]> {
        let start = self.0;
        let length = self.name(false)?;
        self.take(4)?;
        start.get(..length + 4)
    }

    /// Reads over a name and gives its length here. One that ends in a pointer is not followed.
    fn name(&mut self, pointers: bool) -> Option<usize> {
        let mut length = 1;
        loop {
            let byte = self.byte()?;
            match byte >> 6 {
                0 if byte == 0 => return Some(length),
                0 => {
                    self.take(usize::from(byte))?;
                    length += 1 + usize::from(byte);
                    if length > NAME_BYTES_MAX {
                        return None;
                    }
                }
                3 if pointers => {
                    self.byte()?;
                    return Some(length + 1);
                }
                _ => return None,
            }
        }
    }

    fn record(&mut self) -> Option<Raw<'a>> {
        let start = self.0;
        let owner = self.name(true)?;
        let (kind, class) = (self.number()?, self.number()?);
        let (ttl, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        let length = self.number()?;
        let data = self.take(usize::from(length))?;
        Some(Raw { owner: start.get(..owner)?, kind, class, ttl: *ttl, data })
    }
}
