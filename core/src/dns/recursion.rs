//! Which recursor is asked when, and which reply is believed (dns.md §10).
//!
//! One after the other in the configured order, over what the client came by; a reply that was cut
//! is fetched again over a stream (dns.md §14). One that was silent is asked last for a while, so
//! that it costs few questions its time limit.

use super::{DnsConfig, Rcode};
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long one that was silent is asked last.
const SILENCE: Duration = Duration::from_secs(30);

/// Recursors that were silent, and until when they are asked last. Bounded by the configured ones:
/// others are forgotten with each question.
#[derive(Clone, Debug, Default)]
pub struct Silent(BTreeMap<(SocketAddr, Carrier), Instant>);

/// Over what a recursor was asked; it may be silent over one and not over the other.
type Carrier = bool;

impl Silent {
    /// The configured recursors in the order that a question at `now` asks them in.
    ///
    /// When one has been asked last for long enough, one question tries it in its place, and the
    /// others go on as before until that brings a reply.
    fn order(&mut self, config: &DnsConfig, stream: Carrier, now: Instant) -> Vec<SocketAddr> {
        self.0.retain(|(server, _), _| config.recursors.contains(server));
        let (mut order, mut last) = (Vec::new(), Vec::new());
        for server in &config.recursors {
            match self.0.get_mut(&(*server, stream)) {
                Some(until) if *until > now => last.push(*server),
                Some(until) => {
                    *until = now + SILENCE;
                    order.push(*server);
                }
                None => order.push(*server),
            }
        }
        order.append(&mut last);
        order
    }

    /// Notes what an attempt brought. A reply of any kind is a sign of life.
    pub fn note(&mut self, attempt: Attempt, heard: Heard, now: Instant) {
        let key = (attempt.server, attempt.stream);
        match heard {
            Heard::Nothing => self.0.insert(key, now + SILENCE),
            Heard::Reply { .. } => self.0.remove(&key),
        };
    }
}

/// One question to one recursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whom to ask.
    pub server: SocketAddr,
    /// Whether over a stream, else in a datagram.
    pub stream: bool,
}

/// What an attempt brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing in time, or nothing that is a reply.
    Nothing,
    /// A reply to this question.
    Reply {
        /// Its code, as it stands in the header.
        code: u8,
        /// Whether records are missing.
        cut: bool,
    },
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The reply is the answer.
    Accept,
    /// Keep the reply, ask this for a whole one, and go back to the one that was kept if that
    /// brings nothing.
    Whole(Attempt),
    /// Forget the reply and ask this.
    Ask(Attempt),
    /// Nobody is left: the reply that was kept, else SERVFAIL.
    GiveUp,
}

/// The recursors that one question goes through.
#[derive(Clone, Debug)]
pub struct Recursion {
    left: std::vec::IntoIter<SocketAddr>,
    asked: Attempt,
    stream: bool,
}

impl Recursion {
    /// Begins a question that came over a stream or in a datagram; `None` without recursors.
    pub fn begin(
        config: &DnsConfig,
        silent: &mut Silent,
        stream: bool,
        now: Instant,
    ) -> Option<(Self, Attempt)> {
        let mut left = silent.order(config, stream, now).into_iter();
        let asked = Attempt { server: left.next()?, stream };
        Some((Self { left, asked, stream }, asked))
    }

    /// Decides what follows from the outcome of the last attempt.
    pub fn heard(&mut self, heard: Heard) -> Next {
        // Wanting a whole reply is the only reason for a stream where there was none.
        let second_look = self.asked.stream && !self.stream;
        match heard {
            Heard::Reply { code, cut } if is_answer(code) => {
                if cut && !self.asked.stream {
                    self.asked.stream = true;
                    return Next::Whole(self.asked);
                }
                Next::Accept
            }
            Heard::Reply { .. } | Heard::Nothing if second_look => Next::GiveUp,
            Heard::Reply { .. } | Heard::Nothing => match self.left.next() {
                Some(server) => {
                    self.asked = Attempt { server, stream: self.stream };
                    Next::Ask(self.asked)
                }
                None => Next::GiveUp,
            },
        }
    }
}

/// NOERROR and NXDOMAIN answer a question; with any other code its next asker may do better.
const fn is_answer(code: u8) -> bool {
    code == Rcode::NoError.number() || code == Rcode::NxDomain.number()
}

/// A message as far as it tells which question it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The number in its header.
    pub number: u16,
    /// Whether it says that it is a reply.
    pub reply: bool,
    /// Its question: the name in wire form, type and class.
    pub question: &'a [u8],
}

/// Whether `got`, which came from the address that `asked` went to, is its reply. Anything else is
/// not looked at: whoever does not see the question has to guess number and port (RFC 5452 §9.1).
pub fn belongs(asked: Identity<'_>, got: Identity<'_>) -> bool {
    let same_question = || {
        let (Some((a_name, a_kind)), Some((b_name, b_kind))) =
            (asked.question.split_last_chunk::<4>(), got.question.split_last_chunk::<4>())
        else {
            return false;
        };
        a_name.eq_ignore_ascii_case(b_name) && a_kind == b_kind
    };
    got.reply && got.number == asked.number && same_question()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(count: u8) -> DnsConfig {
        let recursors = (0..count).map(|n| SocketAddr::from(([10, 0, 0, n], 53))).collect();
        DnsConfig { recursors, ..DnsConfig::default() }
    }

    fn attempt(server: u8, stream: bool) -> Attempt {
        Attempt { server: SocketAddr::from(([10, 0, 0, server], 53)), stream }
    }

    fn begin(config: &DnsConfig, stream: bool) -> Option<(Recursion, Attempt)> {
        Recursion::begin(config, &mut Silent::default(), stream, Instant::ZERO)
    }

    const SERVFAIL: Heard = Heard::Reply { code: 2, cut: false };
    const CUT: Heard = Heard::Reply { code: 0, cut: true };

    #[test]
    fn recursors_are_asked_in_order_until_one_answers() {
        let config = config(3);
        for stream in [false, true] {
            let (mut recursion, first) = begin(&config, stream).unwrap();
            assert_eq!(first, attempt(0, stream));
            assert_eq!(recursion.heard(Heard::Nothing), Next::Ask(attempt(1, stream)));
            assert_eq!(recursion.heard(SERVFAIL), Next::Ask(attempt(2, stream)));
            let mut unlucky = recursion.clone();
            assert_eq!(unlucky.heard(Heard::Reply { code: 5, cut: false }), Next::GiveUp);
            assert_eq!(recursion.heard(Heard::Reply { code: 3, cut: false }), Next::Accept);
        }
        let none = DnsConfig::default();
        assert!(begin(&none, false).is_none());
    }

    #[test]
    fn a_cut_reply_is_fetched_whole_from_the_same_recursor() {
        let config = config(2);
        let (mut recursion, _) = begin(&config, false).unwrap();
        assert_eq!(recursion.heard(Heard::Nothing), Next::Ask(attempt(1, false)));
        assert_eq!(recursion.heard(CUT), Next::Whole(attempt(1, true)));
        let mut refused = recursion.clone();
        assert_eq!(refused.heard(Heard::Nothing), Next::GiveUp);
        assert_eq!(recursion.heard(Heard::Reply { code: 0, cut: false }), Next::Accept);
        let (mut over_stream, _) = begin(&config, true).unwrap();
        assert_eq!(over_stream.heard(CUT), Next::Accept);
    }

    /// The order of a question at that second.
    fn order(silent: &mut Silent, config: &DnsConfig, second: u64) -> Vec<u8> {
        let now = Instant::ZERO + Duration::from_secs(second);
        let (recursion, first) = Recursion::begin(config, silent, false, now).unwrap();
        let servers = [first.server].into_iter().chain(recursion.left);
        let last_byte = |server: SocketAddr| match server.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => panic!("all are IPv4"),
        };
        servers.map(last_byte).collect()
    }

    #[test]
    fn one_that_was_silent_is_asked_last_until_it_answers() {
        let (config, mut silent) = (config(3), Silent::default());
        assert_eq!(order(&mut silent, &config, 0), [0, 1, 2]);
        silent.note(attempt(0, false), Heard::Nothing, Instant::ZERO);
        silent.note(attempt(1, true), Heard::Nothing, Instant::ZERO);
        silent.note(attempt(2, false), SERVFAIL, Instant::ZERO);
        assert_eq!(order(&mut silent, &config, 29), [1, 2, 0], "streams are a matter of their own");
        assert_eq!(order(&mut silent, &config, 30), [0, 1, 2], "one question tries it");
        assert_eq!(order(&mut silent, &config, 31), [1, 2, 0], "and no other one meanwhile");
        silent.note(attempt(0, false), SERVFAIL, Instant::ZERO + Duration::from_secs(32));
        assert_eq!(order(&mut silent, &config, 32), [0, 1, 2]);
    }

    #[test]
    fn if_all_are_silent_all_are_asked_and_those_of_a_former_configuration_are_forgotten() {
        let (three, mut silent) = (config(3), Silent::default());
        for server in 0..3 {
            silent.note(attempt(server, false), Heard::Nothing, Instant::ZERO);
        }
        assert_eq!(order(&mut silent, &three, 1), [0, 1, 2]);
        assert_eq!(order(&mut silent, &config(1), 1), [0]);
        assert_eq!(silent.0.len(), 1);
        assert_eq!(order(&mut silent, &three, 1), [1, 2, 0]);
    }

    #[test]
    fn only_a_reply_with_number_and_question_belongs() {
        let asked = Identity { number: 7, reply: false, question: b"\x01a\x00\x00\x41\x00\x01" };
        let reply = Identity { reply: true, ..asked };
        assert!(belongs(asked, reply));
        assert!(belongs(asked, Identity { question: b"\x01A\x00\x00\x41\x00\x01", ..reply }));
        assert!(!belongs(asked, asked));
        assert!(!belongs(asked, Identity { number: 8, ..reply }));
        assert!(!belongs(asked, Identity { question: b"\x01b\x00\x00\x41\x00\x01", ..reply }));
        assert!(!belongs(asked, Identity { question: b"\x01a\x00\x00\x61\x00\x01", ..reply }));
        assert!(!belongs(asked, Identity { question: b"", ..reply }));
    }
}
