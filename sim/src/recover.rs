//! The start of a simulated process: core's recovery, answered by the simulated disk.

use crate::disk::SimDisk;
use crate::host::Host;
use terraform_core::config::NodeConfig;
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::recovery::{Recovery, RecoveryConfig, Restored, Step, peers_file};
use terraform_core::storage::wal::WalConfig;
use terraform_core::wire::pack;

/// Sizes of the log's files in simulation: small, so that segments change often.
const WAL: WalConfig = WalConfig { segment_bytes: 64 << 10, step_bytes: 16 << 10 };

/// Recovers what a node begins with, or says why the disk was refused.
pub fn recover(disk: &mut SimDisk, config: &NodeConfig, seed: Seed) -> Result<Restored, String> {
    let mut recovery = recovery(disk, config, seed);
    let mut answer = None;
    loop {
        let step = recovery.step(answer.take());
        answer = disk.answer(&step);
        match step {
            Step::Done(restored) => return Ok(*restored),
            Step::Refused(error) => return Err(error.to_string()),
            Step::List(_) | Step::Read { .. } | Step::ReadPart { .. } | Step::Perform(_) => {}
        }
    }
}

/// A recovery that comes to no more than `most` operations on the disk, and is not heard of again.
pub fn recover_in_vain(disk: &mut SimDisk, config: &NodeConfig, seed: Seed, most: usize) {
    let mut recovery = recovery(disk, config, seed);
    let mut answer = None;
    loop {
        let mut step = recovery.step(answer.take());
        if let Step::Perform(ops) = &mut step {
            ops.truncate(most);
            disk.answer(&step);
            return;
        }
        answer = disk.answer(&step);
        if answer.is_none() {
            return;
        }
    }
}

fn recovery(disk: &SimDisk, config: &NodeConfig, seed: Seed) -> Recovery {
    // Those who write the file here spell it as the core packs it.
    let peers = disk.read(&peers_file()).and_then(|content| pack::from_bytes(content).ok());
    let settings = RecoveryConfig {
        server: config.server.is_some(),
        node_id: None,
        wal: WAL,
        peers,
        host: Vec::new(),
    };
    Recovery::new(settings, Rng::for_stream(seed, Stream::Identity))
}

/// What a recovery would find if the host lost power now and nothing unsynced survived.
pub fn inspect(host: &Host) -> Result<Restored, String> {
    let mut disk = host.disk.durable();
    recover(&mut disk, &host.config, Seed::from_number(0))
}
