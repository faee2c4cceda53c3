//! The one source of randomness: the kernel's generator (getrandom(2)), read once for each purpose.

use rustix::rand::{GetRandomFlags, getrandom};
use terraform_core::rng::Seed;

/// A fresh seed for a node. Waits and fails as [`secret`] does.
pub fn seed() -> std::io::Result<Seed> {
    secret().map(Seed::new)
}

/// 32 bytes that nobody can guess.
///
/// Waits until the kernel's generator is initialised. Errors: the kernel has no generator, or a
/// sandbox forbids it.
pub fn secret() -> std::io::Result<[u8; 32]> {
    random()
}

/// The bytes of a new random identity. Waits and fails as [`secret`] does.
pub fn identity() -> std::io::Result<[u8; 16]> {
    random()
}

fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seeds_differ() {
        assert_ne!(seed().unwrap(), seed().unwrap());
    }
}
