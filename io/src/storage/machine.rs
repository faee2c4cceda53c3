//! What the machine says of its own identity.

use std::fs::File;
use std::io::Read as _;

/// Where Linux tells it, in the order in which they are believed: the firmware's, which only root
/// may read, the system's, and that of this boot (agent-config.md §10).
const FILES: [&str; 3] =
    ["/sys/class/dmi/id/product_uuid", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
/// Bytes that are read of each at most; an identity takes 36.
const BYTES_MAX: u64 = 256;

/// The texts of those that can be read; what they are worth the core decides.
pub fn machine_identities() -> Vec<String> {
    FILES.iter().filter_map(|path| text(path)).collect()
}

fn text(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_far_as_an_identity_may_reach() {
        assert_eq!(text("/dev/zero").map(|text| text.len()), Some(256));
        assert_eq!(text("/nowhere/at/all"), None);
        assert!(text("/proc/sys/kernel/random/boot_id").is_some_and(|text| text.len() == 37));
    }
}
