//! Records as bytes, with names that point at what was written before (RFC 1035 §4.1.4).

use super::request::{HEADER_BYTES, Request};
use terraform_core::dns::name::Name;
use terraform_core::dns::record::{Data, Owner, Record};

/// Bytes of one string of a TXT record (RFC 1035 §3.3).
const TEXT_BYTES: usize = 255;
/// The mark of a pointer.
const POINTER: u16 = 0xc000;
/// What lies behind this cannot be pointed at.
const POINTED_MAX: u16 = 0x3fff;
/// A pointer to the name of the question.
const TO_QUESTION: [u8; 2] = [0xc0, 12];
/// Bytes of a record without its owner and its data.
const FIXED_BYTES: usize = 10;
/// Names, and ends of names, that are remembered as targets of pointers.
const PLACES_MAX: usize = 1024;

/// The record's class.
const IN: u16 = 1;

/// Writes one message.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    compress: bool,
    /// Where an end of a name was written, and a hash of it: places of the same index.
    hashes: Vec<u32>,
    places: Vec<u16>,
}

impl<'a> Writer<'a> {
    /// Begins a message of at most `limit` bytes in `out`, which is emptied.
    pub(super) fn new(out: &'a mut Vec<u8>, limit: usize, compress: bool) -> Self {
        out.clear();
        Self { out, limit, compress, hashes: Vec::new(), places: Vec::new() }
    }

    /// Header and question; `false` if they do not fit.
    pub(super) fn header(&mut self, request: &Request, flags: [u8; 2]) -> bool {
        self.out.extend_from_slice(&request.id.to_be_bytes());
        self.out.extend_from_slice(&flags);
        self.out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        self.out.extend_from_slice(&request.question);
        self.out.len() <= self.limit
    }

    /// Tells how many records each section has.
    pub(super) fn counts(&mut self, counts: [u16; 3]) {
        let bytes = counts.iter().flat_map(|count| count.to_be_bytes());
        for (place, byte) in self.out.iter_mut().take(HEADER_BYTES).skip(6).zip(bytes) {
            *place = byte;
        }
    }

    /// An OPT record, for which room was kept.
    pub(super) fn options(&mut self, record: &[u8]) {
        self.out.extend_from_slice(record);
    }

    /// Writes a record; `false` if it does not fit.
    pub(super) fn record(&mut self, record: &Record) -> bool {
        match &record.owner {
            Owner::Question if self.compress => self.out.extend_from_slice(&TO_QUESTION),
            Owner::Question => {
                let end = self.question_end();
                self.out.extend_from_within(HEADER_BYTES..end);
            }
            Owner::Name(name) => self.name(name, self.compress),
        }
        let kind: u16 = match &record.data {
            Data::A(_) => 1,
            Data::Ns(_) => 2,
            Data::Cname(_) => 5,
            Data::Soa { .. } => 6,
            Data::Ptr(_) => 12,
            Data::Txt(_) => 16,
            Data::Aaaa(_) => 28,
            Data::Srv { .. } => 33,
        };
        self.number(kind);
        self.number(IN);
        self.out.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.out.len();
        self.number(0);
        self.data(&record.data);
        let length = u16::try_from(self.out.len() - length_at - 2);
        let (Ok(length), Some(place)) = (length, self.out.get_mut(length_at..length_at + 2)) else {
            return false;
        };
        place.copy_from_slice(&length.to_be_bytes());
        self.out.len() <= self.limit
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::A(ip) => self.out.extend_from_slice(&ip.octets()),
            Data::Aaaa(ip) => self.out.extend_from_slice(&ip.octets()),
            Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => self.name(name, self.compress),
            Data::Srv { priority, weight, port, target } => {
                for number in [*priority, *weight, *port] {
                    self.number(number);
                }
                // RFC 2782: the target is never compressed.
                self.name(target, false);
            }
            Data::Soa { mname, rname, serial, refresh, retry, expire, minimum } => {
                self.name(mname, self.compress);
                self.name(rname, self.compress);
                for number in [*serial, *refresh, *retry, *expire, *minimum] {
                    self.out.extend_from_slice(&number.to_be_bytes());
                }
            }
            Data::Txt(text) if text.is_empty() => self.out.push(0),
            Data::Txt(text) => {
                for piece in text.as_bytes().chunks(TEXT_BYTES) {
                    self.out.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
                    self.out.extend_from_slice(piece);
                }
            }
        }
    }

    fn number(&mut self, number: u16) {
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    /// Where the name of the question ends.
    fn question_end(&self) -> usize {
        let mut at = HEADER_BYTES;
        while let Some(length) = self.out.get(at).filter(|length| **length != 0) {
            at += 1 + usize::from(*length);
        }
        at + 1
    }

    /// Writes a name; from the first end of it that was written before on as a pointer, if
    /// `compress` says so. Remembers where its ends are either way.
    fn name(&mut self, name: &Name, compress: bool) {
        let text = name.as_str();
        if self.compress && self.hashes.is_empty() {
            self.remember_question();
        }
        let mut is_known = !self.compress;
        let mut rest = text;
        loop {
            if !is_known {
                let hash = hash(rest.bytes());
                match self.find(hash, rest) {
                    Some(place) if compress => {
                        self.number(POINTER | place);
                        return;
                    }
                    // The shorter ends of a known one are known too.
                    Some(_) => is_known = true,
                    None => self.remember(hash, self.out.len()),
                }
            }
            let (label, behind) = match rest.split_once('.') {
                Some((label, behind)) => (label, Some(behind)),
                None => (rest, None),
            };
            self.out.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            self.out.extend_from_slice(label.as_bytes());
            match behind {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        self.out.push(0);
    }

    fn remember(&mut self, hash: u32, at: usize) {
        let place = u16::try_from(at).ok().filter(|place| *place <= POINTED_MAX);
        if let Some(place) = place.filter(|_| self.hashes.len() < PLACES_MAX) {
            self.hashes.push(hash);
            self.places.push(place);
        }
    }

    /// Remembers the ends of the question's name.
    fn remember_question(&mut self) {
        let (mut at, end) = (HEADER_BYTES, self.question_end());
        while at + 1 < end {
            let name = self.out.get(at..end - 1).unwrap_or_default();
            let text: Vec<u8> = Labels(name).collect::<Vec<_>>().join(&b'.');
            self.remember(hash(text.into_iter()), at);
            at += 1 + self.out.get(at).map_or(0, |length| usize::from(*length));
        }
    }

    fn find(&self, wanted: u32, text: &str) -> Option<u16> {
        let known = self.hashes.iter().zip(&self.places);
        let mut same = known.filter(|(hash, _)| **hash == wanted).map(|(_, place)| *place);
        same.find(|place| self.is_at(usize::from(*place), text))
    }

    /// Whether the name at a place is exactly `text`.
    fn is_at(&self, mut at: usize, text: &str) -> bool {
        let mut labels = text.split('.');
        loop {
            let Some(first) = self.out.get(at) else { return false };
            if *first >= 0xc0 {
                // Names of ours point at what was written before, so this ends.
                let pointer = self.out.get(at..at + 2).and_then(|two| two.first_chunk::<2>());
                let Some(pointer) = pointer else { return false };
                at = usize::from(u16::from_be_bytes(*pointer) & !POINTER);
                continue;
            }
            let end = at + 1 + usize::from(*first);
            match labels.next() {
                None => return *first == 0,
                Some(label) if self.out.get(at + 1..end) == Some(label.as_bytes()) => at = end,
                Some(_) => return false,
            }
        }
    }
}

/// The labels of a name in wire form without its end.
struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(label)
    }
}

/// FNV-1a; whoever finds a hash compares the name too.
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Bytes of a record none of whose names is compressed, under a question of so many bytes.
pub(super) fn plain_length(record: &Record, question: usize) -> usize {
    let length = |name: &Name| name.as_str().len() + 2;
    let owner = match &record.owner {
        Owner::Question => question.saturating_sub(4),
        Owner::Name(name) => length(name),
    };
    let data = match &record.data {
        Data::A(_) => 4,
        Data::Aaaa(_) => 16,
        Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => length(name),
        Data::Srv { target, .. } => 6 + length(target),
        Data::Soa { mname, rname, .. } => length(mname) + length(rname) + 20,
        Data::Txt(text) => text.len() + text.len().div_ceil(TEXT_BYTES).max(1),
    };
    owner + FIXED_BYTES + data
}
