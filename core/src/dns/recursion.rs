//! Which recursor is asked when, and which reply is believed (dns.md §10).
//!
//! One after the other in the configured order, over what the client came by; a reply that was cut
//! is fetched again over a stream (dns.md §14). Nothing is remembered from question to question.

use super::{DnsConfig, Rcode};
use std::net::SocketAddr;

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
pub struct Recursion<'a> {
    left: std::slice::Iter<'a, SocketAddr>,
    asked: Attempt,
    stream: bool,
}

impl<'a> Recursion<'a> {
    /// Begins a question that came over a stream or in a datagram; `None` without recursors.
    pub fn begin(config: &'a DnsConfig, stream: bool) -> Option<(Self, Attempt)> {
        let mut left = config.recursors.iter();
        let asked = Attempt { server: *left.next()?, stream };
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
                    self.asked = Attempt { server: *server, stream: self.stream };
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

    const SERVFAIL: Heard = Heard::Reply { code: 2, cut: false };
    const CUT: Heard = Heard::Reply { code: 0, cut: true };

    #[test]
    fn recursors_are_asked_in_order_until_one_answers() {
        let config = config(3);
        for stream in [false, true] {
            let (mut recursion, first) = Recursion::begin(&config, stream).unwrap();
            assert_eq!(first, attempt(0, stream));
            assert_eq!(recursion.heard(Heard::Nothing), Next::Ask(attempt(1, stream)));
            assert_eq!(recursion.heard(SERVFAIL), Next::Ask(attempt(2, stream)));
            let mut unlucky = recursion.clone();
            assert_eq!(unlucky.heard(Heard::Reply { code: 5, cut: false }), Next::GiveUp);
            assert_eq!(recursion.heard(Heard::Reply { code: 3, cut: false }), Next::Accept);
        }
        let none = DnsConfig::default();
        assert!(Recursion::begin(&none, false).is_none());
    }

    #[test]
    fn a_cut_reply_is_fetched_whole_from_the_same_recursor() {
        let config = config(2);
        let (mut recursion, _) = Recursion::begin(&config, false).unwrap();
        assert_eq!(recursion.heard(Heard::Nothing), Next::Ask(attempt(1, false)));
        assert_eq!(recursion.heard(CUT), Next::Whole(attempt(1, true)));
        let mut refused = recursion.clone();
        assert_eq!(refused.heard(Heard::Nothing), Next::GiveUp);
        assert_eq!(recursion.heard(Heard::Reply { code: 0, cut: false }), Next::Accept);
        let (mut over_stream, _) = Recursion::begin(&config, true).unwrap();
        assert_eq!(over_stream.heard(CUT), Next::Accept);
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
