//! Archives of backups: the input as it is, and as what is packed in one.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use terraform_io::archive::{read, verify};

/// What was verified is read again with the same outcome.
pub fn archive(data: &[u8]) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("memory takes everything");
    let packed = encoder.finish().expect("memory takes everything");
    for archive in [data, &packed] {
        let Ok(meta) = verify(archive) else { continue };
        let again = read(archive, |_| Ok(()));
        assert_eq!(again.ok(), Some(meta), "an archive does not change");
    }
}
