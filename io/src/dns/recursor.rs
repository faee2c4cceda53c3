//! Asking other people's servers (dns.md §10, RFC 5452).
//!
//! Which of them, and what their replies mean, `core` decides. Every question has a random number
//! and a socket of its own, whose port the kernel draws; only what comes from the asked address
//! with that number and that question is looked at. A reply for a client is passed on as it came
//! but for its number and AA; one that is read here is read by hickory-proto.

use super::reply::{opt_record, subnet_option};
use super::request::{HEADER_BYTES, Reader, Request, Transport};
use crate::clock::Clock;
use crate::runtime::within;
use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terraform_core::dns::name::Name;
use terraform_core::dns::record::{Data, Owner, Record};
use terraform_core::dns::recursion::{Attempt, Heard, Identity, Next, Silent, belongs};
use terraform_core::dns::{DnsConfig, QueryType, Recursion};

/// Questions that may be under way to recursors at a time; a further one is answered with SERVFAIL.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes of a datagram that own questions can take (dnsflagday.net/2020).
const PAYLOAD: u16 = 1232;
/// RD, AD and CD: what a client's flags tell a recursor.
const PASSED_FLAGS: [u8; 2] = [0x01, 0x30];
/// The class IN.
const IN: u16 = 1;

/// The way to the recursors; clones share the places under way, and who was silent of late.
#[derive(Clone, Debug)]
pub(super) struct Recursors {
    clock: Clock,
    in_flight: Arc<AtomicUsize>,
    silent: Arc<Mutex<Silent>>,
}

/// A question on its way.
struct Asked {
    bytes: Vec<u8>,
    number: u16,
    question: Vec<u8>,
}

impl Recursors {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, in_flight: Arc::default(), silent: Arc::default() }
    }

    fn silent(&self) -> MutexGuard<'_, Silent> {
        // It is whole whenever the lock is free, so a panic elsewhere does no harm.
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a client; its reply, or `None` where that is SERVFAIL.
    pub(super) async fn forward(
        &self,
        request: &Request,
        (config, transport): (&DnsConfig, Transport),
        number: u16,
    ) -> Option<Vec<u8>> {
        let mut options = Vec::new();
        if let Some(edns) = request.edns {
            let subnet = edns.subnet.map(|subnet| subnet_option(subnet.address, subnet.prefix, 0));
            let flags = [0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0];
            options = opt_record(edns.payload, flags, &subnet.unwrap_or_default());
        }
        let [high, low] = request.flags;
        let [high_mask, low_mask] = PASSED_FLAGS;
        let flags = [high & high_mask, low & low_mask];
        let asked = Asked::new(number, flags, &request.question, &options);
        let limit = usize::from(request.limit(transport));
        let mut reply = self.ask(&asked, config, transport == Transport::Tcp, limit).await?;
        if let [first, second, flags, ..] = reply.as_mut_slice() {
            [*first, *second] = request.id.to_be_bytes();
            // It is not our authority that it comes with.
            *flags &= !0x04;
        }
        Some(reply)
    }

    /// Asks for the addresses behind a name; `None` if nobody answers.
    pub(super) async fn addresses(
        &self,
        name: &Name,
        kind: QueryType,
        config: &DnsConfig,
        number: u16,
    ) -> Option<Vec<Record>> {
        let mut question = Vec::new();
        for label in name.labels() {
            question.push(u8::try_from(label.len()).ok()?);
            question.extend_from_slice(label.as_bytes());
        }
        question.push(0);
        let kind: u16 = if kind == QueryType::Aaaa { 28 } else { 1 };
        question.extend_from_slice(&kind.to_be_bytes());
        question.extend_from_slice(&IN.to_be_bytes());
        let options = opt_record(PAYLOAD, [0; 4], &[]);
        let asked = Asked::new(number, [0x01, 0], &question, &options);
        let reply = self.ask(&asked, config, false, usize::from(u16::MAX)).await?;
        Some(records(&Message::from_vec(&reply).ok()?))
    }

    /// Goes through the recursors until one answers; a whole reply that is longer than `limit`
    /// counts as none.
    async fn ask(
        &self,
        asked: &Asked,
        config: &DnsConfig,
        stream: bool,
        limit: usize,
    ) -> Option<Vec<u8>> {
        let _place = Place::take(&self.in_flight, IN_FLIGHT_MAX)?;
        let now = self.clock.now();
        let begun = Recursion::begin(config, &mut self.silent(), stream, now);
        let (mut recursion, mut attempt) = begun?;
        let mut kept = None;
        loop {
            let reply = asked.once(attempt, config.recursor_timeout).await;
            let sign = reply.as_ref().map_or(Heard::Nothing, |reply| heard(reply));
            self.silent().note(attempt, sign, self.clock.now());
            let reply = reply.filter(|reply| kept.is_none() || reply.len() <= limit);
            let heard = reply.as_ref().map_or(Heard::Nothing, |reply| heard(reply));
            match recursion.heard(heard) {
                Next::Accept => return reply,
                Next::Whole(next) => (kept, attempt) = (reply, next),
                Next::Ask(next) => attempt = next,
                Next::GiveUp => return kept,
            }
        }
    }
}

fn heard(reply: &[u8]) -> Heard {
    let [_, _, high, low, ..] = reply else { return Heard::Nothing };
    Heard::Reply { code: low & 0x0f, cut: high & 0x02 != 0 }
}

impl Asked {
    fn new(number: u16, [high, low]: [u8; 2], question: &[u8], options: &[u8]) -> Self {
        let mut bytes = number.to_be_bytes().to_vec();
        let additional = u8::from(!options.is_empty());
        bytes.extend_from_slice(&[high, low, 0, 1, 0, 0, 0, 0, 0, additional]);
        bytes.extend_from_slice(question);
        bytes.extend_from_slice(options);
        Self { bytes, number, question: question.to_vec() }
    }

    /// One attempt; `None` without a reply in time.
    async fn once(&self, attempt: Attempt, timeout: Duration) -> Option<Vec<u8>> {
        let Attempt { server, stream } = attempt;
        let reply = async {
            if stream { self.over_stream(server).await } else { self.in_datagram(server).await }
        };
        within(timeout, reply).await?.ok()
    }

    async fn in_datagram(&self, server: SocketAddr) -> std::io::Result<Vec<u8>> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Async::<UdpSocket>::bind((any, 0))?;
        // The kernel now drops what comes from anybody else.
        socket.get_ref().connect(server)?;
        socket.send(&self.bytes).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if buffer.get(..length).is_some_and(|reply| self.is_answered_by(reply)) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    async fn over_stream(&self, server: SocketAddr) -> std::io::Result<Vec<u8>> {
        let mut stream = Async::<TcpStream>::connect(server).await?;
        let length = u16::try_from(self.bytes.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &self.bytes].concat();
        stream.write_all(&framed).await?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).await?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).await?;
        if self.is_answered_by(&reply) {
            return Ok(reply);
        }
        Err(std::io::ErrorKind::InvalidData.into())
    }

    fn is_answered_by(&self, reply: &[u8]) -> bool {
        let (Some(header), Some(rest)) =
            (reply.first_chunk::<HEADER_BYTES>(), reply.get(HEADER_BYTES..))
        else {
            return false;
        };
        let [first, second, flags, _, questions @ ..] = *header;
        let number = u16::from_be_bytes([first, second]);
        let question = Reader(rest).question().filter(|_| questions.starts_with(&[0, 1]));
        let got =
            Identity { number, reply: flags & 0x80 != 0, question: question.unwrap_or_default() };
        let asked = Identity { number: self.number, reply: false, question: &self.question };
        belongs(asked, got)
    }
}

/// The aliases and addresses in a reply's answer.
fn records(message: &Message) -> Vec<Record> {
    let record = |record: &hickory_proto::rr::Record| {
        let owner = Owner::Name(Name::parse(&record.name.to_ascii())?);
        let data = if let RData::A(ip) = &record.data {
            Data::A(ip.0)
        } else if let RData::AAAA(ip) = &record.data {
            Data::Aaaa(ip.0)
        } else if let RData::CNAME(name) = &record.data {
            Data::Cname(Name::parse(&name.0.to_ascii())?)
        } else {
            return None;
        };
        Some(Record { owner, ttl: record.ttl, data })
    };
    message.answers.iter().filter_map(record).collect()
}

/// One of a bounded number of places; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place; `None` if `max` are taken.
    pub(super) fn take(places: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let free = |taken: usize| (taken < max).then_some(taken + 1);
        places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Self(Arc::clone(places)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::request::{Received, decode};
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// `a.example A`, with RD, AD and a payload size.
    const QUESTION: &[u8] = b"\x00\x07\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\
        \x01a\x07example\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";

    fn request() -> Request {
        let Received::Question(request) = decode(QUESTION) else { panic!("it is one") };
        request
    }

    /// A reply to `question` with these flags, the last byte of its one address being `last`.
    fn reply(question: &[u8], flags: [u8; 2], last: u8) -> Vec<u8> {
        let mut reply = question[..2].to_vec();
        reply.extend_from_slice(&flags);
        reply.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
        reply.extend_from_slice(&question[12..27]);
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
        reply
    }

    /// A recursor that answers one datagram with what `answers` makes of it.
    fn upstream(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            for answer in answers(&buffer[..length]) {
                socket.send_to(&answer, from).unwrap();
            }
        });
        address
    }

    fn forward(recursors: Vec<SocketAddr>) -> Option<Vec<u8>> {
        let recursor_timeout = Duration::from_secs(20);
        let config = DnsConfig { recursors, recursor_timeout, ..DnsConfig::default() };
        let by = (&config, Transport::Udp);
        smol::block_on(asking().forward(&request(), by, 0xabcd))
    }

    fn asking() -> Recursors {
        Recursors::new(Clock::start())
    }

    /// An address on which nobody listens.
    fn nobody() -> SocketAddr {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_reply_comes_as_it_is_but_for_its_number_and_authority() {
        let address = upstream(|question| {
            assert_eq!(question[2..4], [0x01, 0x20], "RD and AD are passed on");
            assert_eq!(question[4..], QUESTION[4..], "so is everything else");
            let forged = [&[0, 1][..], question.get(2..).unwrap()].concat();
            vec![
                reply(&forged, [0x85, 0x80], 66),
                question.to_vec(),
                reply(question, [0x85, 0x83], 80),
            ]
        });
        let got = forward(vec![nobody(), address]).unwrap();
        assert_eq!(got, reply(QUESTION, [0x81, 0x83], 80));
        assert_eq!(forward(vec![nobody(), nobody()]), None);
    }

    #[test]
    fn the_next_recursor_is_asked_after_a_failure() {
        let failing = upstream(|question| vec![reply(question, [0x81, 0x82], 1)]);
        let good = upstream(|question| vec![reply(question, [0x81, 0x80], 2)]);
        assert_eq!(forward(vec![failing, good]).unwrap(), reply(QUESTION, [0x81, 0x80], 2));
    }

    #[test]
    fn one_that_was_silent_costs_the_next_question_nothing() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = vec![silent.local_addr().unwrap(), socket.local_addr().unwrap()];
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&reply(&buffer[..length], [0x81, 0x80], 2), from).unwrap();
            }
        });
        let config = DnsConfig {
            recursors: addresses,
            recursor_timeout: Duration::from_millis(500),
            ..DnsConfig::default()
        };
        let recursors = asking();
        for _ in 0..3 {
            let asked = recursors.clone();
            let by = (&config, Transport::Udp);
            let got = smol::block_on(asked.forward(&request(), by, 0xabcd)).unwrap();
            assert_eq!(got, reply(QUESTION, [0x81, 0x80], 2));
        }
        let mut buffer = [0; 512];
        assert!(silent.recv_from(&mut buffer).is_ok(), "it stands first in the list");
        assert!(silent.recv_from(&mut buffer).is_err(), "it was asked once");
    }

    #[test]
    fn a_cut_reply_is_fetched_over_a_stream() {
        // Streams and datagrams have ports of their own, so one of the same number is free mostly.
        let (listener, socket) = std::iter::repeat_with(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = UdpSocket::bind(listener.local_addr().unwrap()).ok();
            (listener, socket)
        })
        .find_map(|(listener, socket)| Some((listener, socket?)))
        .unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&reply(&buffer[..length], [0x83, 0x80], 1), from).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = vec![0; length + 2];
            stream.read_exact(&mut question).unwrap();
            let whole = reply(&question[2..], [0x81, 0x80], 2);
            let framed = [&[0, u8::try_from(whole.len()).unwrap()][..], &whole].concat();
            stream.write_all(&framed).unwrap();
            // The next one is only cut, and nobody takes its stream.
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            drop(listener);
            socket.send_to(&reply(&buffer[..length], [0x83, 0x80], 3), from).unwrap();
        });
        assert_eq!(forward(vec![address]).unwrap(), reply(QUESTION, [0x81, 0x80], 2));
        assert_eq!(forward(vec![address]).unwrap(), reply(QUESTION, [0x83, 0x80], 3));
    }

    #[test]
    fn addresses_are_read_out_of_a_reply() {
        let address = upstream(|question| vec![reply(question, [0x81, 0x80], 9)]);
        let config = DnsConfig { recursors: vec![address], ..DnsConfig::default() };
        let name = Name::parse("a.example").unwrap();
        let found = smol::block_on(asking().addresses(&name, QueryType::A, &config, 5));
        let data = Data::A([192, 0, 2, 9].into());
        assert_eq!(found, Some(vec![Record { owner: Owner::Name(name), ttl: 60, data }]));
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = Arc::new(AtomicUsize::new(0));
        let first = Place::take(&places, 1);
        assert!(first.is_some() && Place::take(&places, 1).is_none());
        drop(first);
        assert!(Place::take(&places, 1).is_some());
    }
}
