//! The limit of durable writes: the bare disk, one write at a time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// Bytes of a write.
const BLOCK: usize = 4096;
/// Bytes of the file, which is filled before.
const SIZE: usize = 16 << 20;

/// How often in a second 4 KiB can be written and synced, where the servers keep their data.
pub(crate) fn syncs_per_second(length: Duration) -> f64 {
    let folder = e2e::Folder::new("disk");
    let file = File::create(folder.join("blocks")).expect("the folder is writable");
    file.write_all_at(&vec![0; SIZE], 0).expect("the disk takes the file");
    file.sync_all().expect("the disk syncs");
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < length {
        let at = (count as usize * BLOCK) % SIZE;
        file.write_all_at(&[1; BLOCK], at as u64).expect("the disk takes a block");
        file.sync_data().expect("the disk syncs");
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
