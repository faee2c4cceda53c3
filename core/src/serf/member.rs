//! A member as Serf shows it: name, address, tags, status.

use crate::gossip::Versions;
use crate::id::{Datacenter, LamportTime, NodeId, NodeName};
use crate::wire::serf::MemberRecord;
use crate::wire::tags::Tags;
use std::net::SocketAddr;

/// Serf's view of a member (gossip-protocol.md §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberStatus {
    /// It answers.
    Alive,
    /// It announced that it leaves.
    Leaving,
    /// It left on purpose.
    Left,
    /// It stopped answering.
    Failed,
}

impl MemberStatus {
    /// The word users see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Failed => "failed",
        }
    }

    /// The number in `/v1/agent/members`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Alive => 1,
            Self::Leaving => 2,
            Self::Left => 3,
            Self::Failed => 4,
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its gossip address.
    pub address: SocketAddr,
    /// Its tags.
    pub tags: Tags,
    /// Its status.
    pub status: MemberStatus,
    /// The Lamport time of the last accepted intent about it.
    pub status_time: LamportTime,
    /// Its versions.
    pub versions: Versions,
}

/// A member that is a server, as its tags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its identity.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its server port.
    pub address: SocketAddr,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Whether it bootstraps alone.
    pub bootstrap: bool,
    /// How many servers it expects, if it said so.
    pub expect: Option<u32>,
    /// Whether it is to vote.
    pub votes: bool,
}

impl Member {
    /// The value of the tag `id`, if it is an identity.
    pub fn id(&self) -> Option<NodeId> {
        NodeId::parse(self.tags.get("id")?).ok()
    }

    /// The datacenter it says it is in.
    pub fn datacenter(&self) -> Option<Datacenter> {
        Datacenter::parse(self.tags.get("dc")?).ok()
    }

    /// Whether its tags say that it is a client agent of a datacenter.
    pub fn is_client(&self) -> bool {
        self.tags.get("role").is_some_and(|role| role == "node")
    }

    /// What it says of itself as a server; `None` if it is none, or says it badly.
    pub fn server(&self) -> Option<ServerInfo> {
        if self.tags.get("role").is_none_or(|role| role != "terraform") {
            return None;
        }
        let port = self.tags.get("port")?.parse().ok()?;
        Some(ServerInfo {
            id: self.id()?,
            name: self.name.clone(),
            address: SocketAddr::new(self.address.ip(), port),
            datacenter: self.datacenter()?,
            bootstrap: self.tags.get("bootstrap").is_some(),
            expect: self.tags.get("expect").and_then(|expect| expect.parse().ok()),
            votes: self.tags.get("nonvoter").is_none(),
        })
    }
}

impl From<&Member> for MemberRecord {
    fn from(member: &Member) -> Self {
        let Member { name, address, tags, status, versions, .. } = member;
        Self {
            address: address.ip(),
            delegate: versions.delegate,
            delegate_max: versions.delegate_max,
            delegate_min: versions.delegate_min,
            name: name.clone(),
            port: address.port(),
            protocol: versions.protocol,
            protocol_max: versions.protocol_max,
            protocol_min: versions.protocol_min,
            status: status.code(),
            tags: tags.to_map(),
        }
    }
}
