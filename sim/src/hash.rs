//! The running hash of a world: two runs are the same run if and only if it is equal.

use crate::net::HostId;
use std::fmt;
use terraform_core::node::input::Input;
use terraform_core::time::Instant;

/// FNV-1a, 128 bits, over everything that happens in order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceHash(u128);

impl Default for TraceHash {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl TraceHash {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    /// Takes in `bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // Eight bytes a step keep the check cheap; the tail is taken byte by byte.
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        for byte in tail {
            self.number(u64::from(*byte));
        }
        self.number(bytes.len() as u64);
    }

    /// Takes in one number.
    pub fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ u128::from(number)).wrapping_mul(Self::PRIME);
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Takes an input into the hash: time, host, kind, and every byte that came from outside.
pub(crate) fn hash_input(hash: &mut TraceHash, now: Instant, host: HostId, input: &Input) {
    hash.number(now.as_nanos());
    hash.number(host as u64);
    match input {
        Input::Timeout => hash.number(10),
        Input::Datagram { pool, payload, .. } => {
            hash.number(11);
            hash.number(*pool as u64);
            hash.bytes(payload);
        }
        Input::StreamOpened { stream, .. } => {
            hash.number(12);
            hash.number(stream.get());
        }
        Input::StreamData { stream, data } => {
            hash.number(13);
            hash.number(stream.get());
            hash.bytes(data);
        }
        Input::StreamClosed { stream, .. } => {
            hash.number(14);
            hash.number(stream.get());
        }
        Input::Persisted { write } => {
            hash.number(15);
            hash.number(write.get());
        }
        Input::PersistFailed { write, .. } => {
            hash.number(16);
            hash.number(write.get());
        }
        Input::Request { id, .. } | Input::RequestAbandoned { id } => {
            hash.number(17);
            hash.number(id.get());
        }
        Input::CheckFinished { run, .. } => {
            hash.number(18);
            hash.number(*run);
        }
        Input::Leave => hash.number(19),
        Input::Shutdown => hash.number(20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_boundaries_matter() {
        let hash = |parts: &[&[u8]]| {
            let mut hash = TraceHash::default();
            parts.iter().for_each(|part| hash.bytes(part));
            hash
        };
        assert_ne!(hash(&[b"a", b"b"]), hash(&[b"b", b"a"]));
        assert_ne!(hash(&[b"ab", b""]), hash(&[b"a", b"b"]));
    }
}
