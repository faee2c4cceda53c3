//! Tests of consensus: rules of the paper, and small clusters under faults.

mod cluster;
mod disk_full;
mod faults;
mod paper;
mod reads;
mod recovering;
mod server;
mod snapshots;
mod transfer;

use super::*;
use crate::id::{ClusterId, LogIndex, NodeId, StoreId, Term};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn store(n: u8) -> StoreId {
    StoreId::from_bytes([n; 16])
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8300))
}

fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([0xcc; 16])
}

fn settings(n: u8) -> RaftSettings {
    let (id, address) = (node(n), address(n));
    RaftSettings { id, address, timing: Timing::scaled(1), limits: RaftLimits::default() }
}

fn configuration(voters: &[u8]) -> Configuration {
    let server = |n: &u8| (node(*n), Server { address: address(*n), store: store(*n) });
    Configuration { voters: voters.iter().map(server).collect(), ..Configuration::default() }
}

/// A disk that holds nothing.
fn blank(n: u8) -> RestoredRaft {
    RestoredRaft {
        store: store(n),
        cluster: None,
        promise: None,
        hard: HardState::default(),
        snapshot: None,
        entries: Vec::new(),
        heartbeat_timeout: Duration::ZERO,
        recovering: None,
    }
}
