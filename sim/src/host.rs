//! One simulated machine: its disk, its clock, and the process that may run on it.

use crate::disk::SimDisk;
use crate::durable::Synced;
use crate::net::HostId;
use crate::streams::Process;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use terraform_core::config::NodeConfig;
use terraform_core::id::{PoolName, RequestId, StreamId};
use terraform_core::node::Node;
use terraform_core::node::input::StreamKind;
use terraform_core::node::output::StopReason;
use terraform_core::raft::RoleKind;
use terraform_core::storage::op::Lane;
use terraform_core::time::Instant;
use terraform_core::view::View;

/// The address of host number `id`.
pub fn address_of(id: HostId) -> IpAddr {
    let [_, _, high, low] = u32::try_from(id + 1).unwrap_or(u32::MAX).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// The host with `address`, if it is one of ours.
pub fn host_at(address: IpAddr) -> Option<HostId> {
    let IpAddr::V4(v4) = address else { return None };
    match v4.octets() {
        [10, 0, high, low] => usize::from(u16::from_be_bytes([high, low])).checked_sub(1),
        _ => None,
    }
}

/// A running process.
#[derive(Clone, Debug)]
pub struct Running {
    /// The code that ships.
    pub node: Node,
    /// World time of its start: the epoch of its monotonic clock.
    pub booted_at: Instant,
    /// The timer's version; events of older ones are void.
    pub timer_version: u64,
    /// The deadline the armed timer stands for, in the process's own time.
    pub timer_at: Option<Instant>,
    /// The newest published view.
    pub view: Option<Arc<View>>,
    /// Next number for an accepted stream; even.
    pub next_stream: u64,
    /// Next number for a request.
    pub next_request: u64,
    /// Set once the node has stopped by itself.
    pub stopped: Option<StopReason>,
}

impl Running {
    /// A fresh process around `node`.
    pub fn new(node: Node, booted_at: Instant) -> Self {
        Self {
            node,
            booted_at,
            timer_version: 0,
            timer_at: None,
            view: None,
            next_stream: 2,
            next_request: 1,
            stopped: None,
        }
    }

    /// A number for an accepted stream.
    pub fn accept(&mut self) -> StreamId {
        let id = StreamId::new(self.next_stream);
        self.next_stream += 2;
        id
    }

    /// A number for a request.
    pub fn request(&mut self) -> RequestId {
        let id = RequestId::new(self.next_request);
        self.next_request += 1;
        id
    }
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its number.
    pub id: HostId,
    /// What its process is configured with.
    pub config: NodeConfig,
    /// Its disk.
    pub disk: SimDisk,
    /// Operations of its disk under way or waiting, by lane.
    pub queued: [usize; 2],
    /// What the log's lane has made durable so far.
    pub synced: Synced,
    /// How many processes it has started.
    pub boots: u64,
    /// How much faster its clock runs, in parts per million.
    pub drift_ppm: i32,
    /// Until when its process gets no time.
    pub paused_until: Option<Instant>,
    /// When its process got time again after its newest pause.
    pub awake_at: Instant,
    /// Until when its disk does nothing.
    pub stalled_until: Option<Instant>,
    /// Whether the disk failed the running process.
    pub disk_failed: bool,
    /// Until when its disk is full.
    pub full_until: Option<Instant>,
    /// Until when nothing it sends leaves and nothing it is sent arrives, while its timers run.
    pub blocked_until: Option<Instant>,
    /// When its process heard from any server last, or led itself.
    pub heard_at: Option<Instant>,
    /// Whether its process led when that was looked at last.
    led: bool,
    /// Its process.
    pub running: Option<Running>,
}

impl Host {
    /// A machine that is switched off.
    pub fn new(id: HostId, config: NodeConfig, disk: SimDisk, drift_ppm: i32) -> Self {
        let queued = [0, 0];
        let (boots, synced, running) = (0, Synced::default(), None);
        let (paused_until, blocked_until, stalled_until, full_until) = (None, None, None, None);
        Self {
            id,
            config,
            disk,
            queued,
            synced,
            boots,
            drift_ppm,
            paused_until,
            awake_at: Instant::ZERO,
            stalled_until,
            full_until,
            disk_failed: false,
            blocked_until,
            heard_at: None,
            led: false,
            running,
        }
    }

    /// Its process begins: it has heard from nobody.
    pub fn begin(&mut self, running: Running) {
        (self.heard_at, self.led) = (None, false);
        self.running = Some(running);
    }

    /// Notes that its process leads, or did until now.
    pub fn note_contact(&mut self, now: Instant) {
        let raft = self.running.as_ref().and_then(|running| running.node.raft());
        let leads = raft.is_some_and(|raft| raft.role() == RoleKind::Leader);
        if leads || self.led {
            self.heard_at = Some(now);
        }
        self.led = leads;
    }

    /// The current process, or the last one.
    pub const fn process(&self) -> Process {
        Process { host: self.id, boot: self.boots }
    }

    /// Whether its process runs and has not stopped.
    pub fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.stopped.is_none())
    }

    /// Why its process stopped, if it did and is still there.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.running.as_ref()?.stopped.clone()
    }

    /// How many operations of the lane are under way or waiting.
    pub const fn queued(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Log => &mut self.queued[0],
            Lane::State => &mut self.queued[1],
        }
    }

    /// The process's own time at world time `now`.
    pub fn local_time(&self, now: Instant) -> Instant {
        let booted_at = self.running.as_ref().map_or(now, |running| running.booted_at);
        let passed = u128::from(u64::try_from(now.since(booted_at).as_nanos()).unwrap_or(u64::MAX));
        let rate = u128::from((1_000_000 + i64::from(self.drift_ppm)).unsigned_abs());
        Instant::from_nanos(u64::try_from(passed * rate / 1_000_000).unwrap_or(u64::MAX))
    }

    /// The earliest world time at which the process's own time is `local` or later.
    pub fn world_time(&self, local: Instant) -> Instant {
        let booted_at = self.running.as_ref().map_or(Instant::ZERO, |running| running.booted_at);
        let rate = u128::from((1_000_000 + i64::from(self.drift_ppm)).unsigned_abs());
        let passed = (u128::from(local.as_nanos()) * 1_000_000).div_ceil(rate);
        booted_at + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The port of one of this machine's listeners.
    ///
    /// Panics for the WAN pool of a host that is not in it.
    pub fn port(&self, kind: StreamKind) -> u16 {
        match kind {
            StreamKind::Gossip(PoolName::Lan) => self.config.serf_lan_port,
            StreamKind::Gossip(PoolName::Wan) => {
                self.config.wan().expect("only members of the WAN pool have its port").port
            }
            StreamKind::Server => self.config.server_port,
        }
    }

    /// The pool whose Serf port this is.
    pub fn pool_at(&self, port: u16) -> Option<PoolName> {
        match self.kind_at(port)? {
            StreamKind::Gossip(pool) => Some(pool),
            StreamKind::Server => None,
        }
    }

    /// What the running process takes streams to this port for; `None` if it does not listen.
    pub fn listener(&self, port: u16) -> Option<StreamKind> {
        self.kind_at(port).filter(|_| self.is_up())
    }

    fn kind_at(&self, port: u16) -> Option<StreamKind> {
        let lan = Some(StreamKind::Gossip(PoolName::Lan));
        let wan = self.config.wan().map(|_| StreamKind::Gossip(PoolName::Wan));
        let server = self.config.server.as_ref().map(|_| StreamKind::Server);
        [lan, wan, server].into_iter().flatten().find(|kind| self.port(*kind) == port)
    }
}
