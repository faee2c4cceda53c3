//! The identity that a new data directory gets of the machine it is on.
//!
//! - Source: agent-config.md §10; the hash is Consul 1.8.7's, as it was seen to answer made-up
//!   files: the first 16 bytes of SHA-512 over the lower-cased UUID. Identities that firmware gives
//!   are alike on many machines, and their hashes are not.
//! - Differs: a text that is no UUID makes Consul draw; here the next one is looked at.

use crate::id::NodeId;
use sha2::{Digest as _, Sha512};

/// The identity that the first of `texts` with a UUID stands for, with its dashes or without;
/// `None` if there is none. All zeros and all ones say that the machine has none (SMBIOS §7.2.1).
pub(super) fn identity(texts: &[String]) -> Option<NodeId> {
    let known = |text: &String| {
        let text = dashed(text.lines().next()?.trim());
        let id = NodeId::parse(&text).ok()?;
        let bytes = id.as_bytes();
        let means_none = bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|b| *b == 0xff);
        (!means_none).then_some(id)
    };
    let machine = texts.iter().find_map(known)?;
    let hash = Sha512::digest(machine.to_string().as_bytes());
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(hash) {
        *byte = hashed;
    }
    Some(NodeId::from_bytes(bytes))
}

/// The text with its dashes, if it is an identity without them.
fn dashed(text: &str) -> String {
    let mut out = String::with_capacity(36);
    let without = text.len() == 32 && !text.contains('-');
    for (at, character) in text.chars().enumerate() {
        if without && [8, 12, 16, 20].contains(&at) {
            out.push('-');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Option<String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        identity(&texts).map(|id| id.to_string())
    }

    /// What Consul 1.8.7 made of the same files.
    #[test]
    fn the_identity_is_that_of_consul() {
        let firmware = of(&["8A2C5F1E-1234-4abc-9def-0123456789AB\n", "unused"]);
        assert_eq!(firmware.as_deref(), Some("b8c162de-de81-70be-9fbe-c56bd4a498e0"));
        let machine = of(&["", "00112233445566778899aabbccddeeff\n"]);
        assert_eq!(machine.as_deref(), Some("debe8aa2-12d5-7479-8e0d-9964e3cbdec0"));
        let boot = of(&["", "0011", "deadbeef-1111-2222-3333-444455556666"]);
        assert_eq!(boot.as_deref(), Some("9a82f46c-0259-3356-e4f0-67f4d97a247f"));
    }

    #[test]
    fn what_is_no_identity_of_a_machine_is_passed_over() {
        let good = "00112233445566778899aabbccddeeff";
        let wanted = of(&[good]);
        assert!(wanted.is_some());
        for bad in [
            "Not Specified",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "{8A2C5F1E-1234-4abc-9def-0123456789AB}",
            "\n8A2C5F1E-1234-4abc-9def-0123456789AB",
            "\u{fffd}\u{fffd}",
        ] {
            assert_eq!(of(&[bad, good]), wanted, "{bad}");
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[]), None);
    }
}
