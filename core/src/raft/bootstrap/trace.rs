//! What the bootstrap machine tells about itself.

use crate::id::{ClusterId, NodeId, NodeName};
use std::fmt;
use std::net::SocketAddr;

/// One event on the way to the first configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapTrace {
    /// Enough servers are there, and this one proposes.
    Attempting {
        /// Their addresses.
        peers: Vec<SocketAddr>,
    },
    /// A server expects another number of servers; waiting.
    ExpectDiffers {
        /// Which.
        server: NodeName,
    },
    /// A server bootstraps alone; waiting to be added.
    OtherBootstraps {
        /// Which.
        server: NodeName,
    },
    /// A server belongs to a cluster already; waiting to be added.
    ClusterExists {
        /// The server.
        server: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// This server is bound to a proposer.
    Promised {
        /// The proposer.
        proposer: NodeId,
    },
    /// This server is bound to a proposer that is not there; waiting for it.
    ProposerAway {
        /// The proposer.
        proposer: NodeId,
    },
    /// The proposer released this server.
    Released {
        /// The proposer.
        proposer: NodeId,
    },
}

impl fmt::Display for BootstrapTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempting { peers } => {
                f.write_str("Found expected number of peers, attempting bootstrap: ")?;
                for (position, peer) in peers.iter().enumerate() {
                    write!(f, "{}{peer}", if position == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::ExpectDiffers { server } => write!(
                f,
                "Member {server} has a conflicting expect value. All nodes should expect the same \
                 number."
            ),
            Self::OtherBootstraps { server } => {
                write!(f, "Member {server} has bootstrap mode. Expect disabled.")
            }
            Self::ClusterExists { server, cluster } => write!(
                f,
                "Existing cluster {cluster} reported by server {server}, disabling bootstrap mode"
            ),
            Self::Promised { proposer } => {
                write!(f, "Waiting for server {proposer} to bootstrap the cluster")
            }
            Self::ProposerAway { proposer } => write!(
                f,
                "This server waits for server {proposer}, which began to bootstrap the cluster and \
                 is not there"
            ),
            Self::Released { proposer } => {
                write!(f, "Server {proposer} does not bootstrap the cluster any more")
            }
        }
    }
}
