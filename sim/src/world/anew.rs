//! What an operator does to a server that is down, so that it begins anew (raft.md §10.6).

use super::World;
use crate::disk::{Crash, Loss};
use crate::luck::Purpose;
use crate::net::HostId;
use crate::recover::recover_in_vain;
use terraform_core::rng::{Rng, Stream};
use terraform_core::storage::op::FileOp;
use terraform_core::storage::recovery::{Peer, peers_file};
use terraform_core::wire::pack;

impl World {
    /// Writes `raft/peers.json` on the host's disk, as an operator does.
    ///
    /// Panics if the host never was a server.
    pub fn name_peers(&mut self, id: HostId, peers: &Vec<Peer>) {
        let (file, data) = (peers_file(), pack::to_bytes(peers));
        let folder = file.parent();
        let write = FileOp::Write { file: file.clone(), offset: 0, data };
        let ops = [write, FileOp::Sync(file), FileOp::SyncDir(folder)];
        self.hosts[id].disk.perform(&ops).expect("a server has a folder `raft`, and room");
        self.note(format!("> host {id} is to begin anew with {peers:?}"));
    }

    /// A start that loses power after at most so many operations of its recovery.
    pub fn start_in_vain(&mut self, id: HostId, most: usize) {
        assert!(self.hosts[id].running.is_none(), "host {id} already runs");
        let seed = self.luck(Purpose::Process, id as u64).seed();
        let host = &mut self.hosts[id];
        recover_in_vain(&mut host.disk, &host.config, seed, most);
        let luck = self.luck(Purpose::Crash, id as u64).seed();
        let mut rng = Rng::for_stream(luck, Stream::Node);
        self.hosts[id].disk.crash(Crash::Power(Loss::Mixed), &mut rng);
        self.note(format!("! host {id} loses power {most} operations into its start"));
    }
}
