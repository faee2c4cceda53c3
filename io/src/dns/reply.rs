//! From an answer to the bytes of a reply that its client can take (dns.md §6).
//!
//! A reply never exceeds what its client can take; TC tells that records are missing.
//!
//! Differs from Consul 1.8.7: sizes are those of the final message with its OPT record, metadata
//! is left out before any answer is, and an answer that does not fit by itself is left out too.

use super::request::{HEADER_BYTES, OPT, Request, SUBNET, Transport, UDP_BYTES};
use super::writer::Writer;
use std::borrow::Cow;
use std::net::IpAddr;
use terraform_core::dns::{Answer, DnsConfig, Rcode};

/// The upper bits of the code that refuses a version of EDNS (RFC 6891 §6.1.3).
const BAD_VERSION: u8 = 1;

/// A reply that is nothing but a header: number, opcode, RD, the code.
pub(super) fn bare(header: &[u8; HEADER_BYTES], code: u8) -> Vec<u8> {
    let [id_high, id_low, flags, ..] = *header;
    let mut reply = vec![id_high, id_low, 0x80 | (flags & 0x79), code];
    reply.resize(HEADER_BYTES, 0);
    reply
}

/// The reply to a version of EDNS that is not ours.
pub(super) fn bad_version(request: &Request) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut writer = Writer::new(&mut reply, usize::from(u16::MAX), false);
    writer.header(request, flags(request, &Answer::refusal(Rcode::NoError), false));
    writer.options(&options(request, BAD_VERSION, 0));
    writer.counts([0, 0, 1]);
    reply
}

/// Writes the reply to a request into `out`, within the limits of its transport.
pub(super) fn encode(
    request: &Request,
    answer: &Answer,
    (config, transport): (&DnsConfig, Transport),
    out: &mut Vec<u8>,
) {
    let limit = request.limit(transport);
    let form = Form { request, config, limit: usize::from(limit) };
    let mut answer = Cow::Borrowed(answer);
    let most = request.room(config, transport);
    if limit == UDP_BYTES && answer.of_instances {
        if answer.answers.len() > most {
            answer = Cow::Owned(answer.first(most));
        }
        // Whose records were counted out is measured as if names were written in full.
        while answer.cut && answer.answers.len() > 1 && form.plain_length(&answer) > form.limit {
            answer = Cow::Owned(answer.first(answer.answers.len() - 1));
        }
    }
    if form.write(&answer, out) {
        return;
    }
    let mut answer = answer.into_owned();
    answer.drop_texts();
    if form.write(&answer, out) {
        return;
    }
    let (mut fits, mut too_many) = (0, answer.answers.len());
    while fits + 1 < too_many {
        let count = usize::midpoint(fits, too_many);
        let whole = form.write(&answer.first(count), out);
        *(if whole { &mut fits } else { &mut too_many }) = count;
    }
    if !form.write(&answer.first(fits), out) {
        // A question and an OPT record fit into every limit.
        let mut nothing = answer.first(0);
        nothing.authority.clear();
        form.write(&nothing, out);
    }
}

/// What the form of a reply depends on.
struct Form<'a> {
    request: &'a Request,
    config: &'a DnsConfig,
    limit: usize,
}

impl Form<'_> {
    /// Writes the whole reply; `false` if it is longer than allowed.
    fn write(&self, answer: &Answer, out: &mut Vec<u8>) -> bool {
        let request = self.request;
        let prefix = request.edns.and_then(|edns| edns.subnet).map_or(0, |subnet| subnet.prefix);
        let useful = answer.for_subnet && answer.rcode == Rcode::NoError;
        let options = if self.wants_options(answer) {
            options(request, 0, if useful { prefix } else { 0 })
        } else {
            Vec::new()
        };
        let room = self.limit.saturating_sub(options.len());
        let mut writer = Writer::new(out, room, !self.config.disable_compression);
        let recursion = !self.config.recursors.is_empty();
        let cut = answer.cut && self.config.enable_truncate;
        let [high, low] = flags(request, answer, recursion);
        if !writer.header(request, [high | if cut { 0x02 } else { 0 }, low]) {
            return false;
        }
        let mut counts = [0_u16; 3];
        let sections = [&answer.answers, &answer.authority, &answer.additional];
        for (section, count) in sections.into_iter().zip(&mut counts) {
            for record in section {
                if !writer.record(record) {
                    return false;
                }
                *count = count.saturating_add(1);
            }
        }
        if !options.is_empty() {
            writer.options(&options);
            let [.., additional] = &mut counts;
            *additional = additional.saturating_add(1);
        }
        writer.counts(counts);
        true
    }

    /// What is not ours is refused without an OPT record (dns.md §6).
    fn wants_options(&self, answer: &Answer) -> bool {
        let refused = !answer.authoritative && answer.rcode == Rcode::Refused;
        self.request.edns.is_some() && !refused
    }

    /// Bytes of the reply if no name were compressed.
    fn plain_length(&self, answer: &Answer) -> usize {
        let question = self.request.question.len();
        let all = answer.answers.iter().chain(&answer.authority).chain(&answer.additional);
        let records: usize = all.map(|record| super::writer::plain_length(record, question)).sum();
        let options =
            if self.wants_options(answer) { options(self.request, 0, 0).len() } else { 0 };
        HEADER_BYTES + question + records + options
    }
}

/// Opcode, RD and CD of the request, and what the answer says.
fn flags(request: &Request, answer: &Answer, recursion: bool) -> [u8; 2] {
    let [high, low] = request.flags;
    let authoritative = if answer.authoritative { 0x04 } else { 0 };
    let available = if recursion { 0x80 } else { 0 };
    [0x80 | (high & 0x79) | authoritative, available | (low & 0x10) | answer.rcode.number()]
}

/// The OPT record: the client's own size, version 0, DO clear, and of the options the subnet alone.
fn options(request: &Request, code: u8, scope: u8) -> Vec<u8> {
    let Some(edns) = request.edns else { return Vec::new() };
    let mut data = Vec::new();
    if let Some(subnet) = edns.subnet {
        data = subnet_option(subnet.address, subnet.prefix, scope);
    }
    opt_record(edns.payload, [code, 0, 0, 0], &data)
}

/// An OPT record (RFC 6891 §6.1.2).
pub(super) fn opt_record(payload: u16, ttl: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut record = vec![0];
    record.extend_from_slice(&OPT.to_be_bytes());
    record.extend_from_slice(&payload.to_be_bytes());
    record.extend_from_slice(&ttl);
    record.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    record.extend_from_slice(data);
    record
}

/// A client's subnet as an option (RFC 7871 §6).
pub(super) fn subnet_option(address: IpAddr, prefix: u8, scope: u8) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (1_u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let used = usize::from(prefix).div_ceil(8);
    let mut option = SUBNET.to_be_bytes().to_vec();
    option.extend_from_slice(&u16::try_from(used + 4).unwrap_or(0).to_be_bytes());
    option.extend_from_slice(&[0, family, prefix, scope]);
    option.extend(bytes.into_iter().take(used));
    option
}
