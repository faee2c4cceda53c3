//! The DNS server: sockets around the core's questions and answers (dns.md §1).
//!
//! A question whose catalog read may be answered from the published view is answered on the thread
//! that received it; every other one waits for the node or for recursors without holding up the
//! socket. There is one UDP socket for each core (`SO_REUSEPORT`) and one TCP listener. Everything
//! is bounded: questions in flight, connections, the time a connection may idle.

mod recursor;
mod reply;
mod request;
mod respond;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod writer;

pub use request::Transport;
pub use respond::{Moment, Needs, Step, Waiting, respond};

use crate::handle::NodeHandle;
use arc_swap::ArcSwap;
use recursor::Recursors;
use respond::Responder;
use smol::{Executor, Task};
use std::net::SocketAddr;
use std::sync::Arc;
use terraform_core::dns::DnsConfig;
use terraform_core::rng::{Rng, Seed, Stream};
use thiserror::Error;

/// Why the DNS server could not start. The operator is at fault: address or port.
#[derive(Debug, Error)]
pub enum DnsError {
    /// A socket could not be bound.
    #[error("failed to start the DNS server on {address} ({protocol})")]
    Bind {
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A running DNS server; it stops when dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    tasks: Vec<Task<()>>,
}

impl DnsServer {
    /// Where it listens; the port is the bound one if the wish was 0.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many sockets it serves.
    pub fn sockets(&self) -> usize {
        self.tasks.len()
    }
}

/// Binds `address` over UDP and TCP and serves it on `executor` until the server is dropped.
///
/// `config` may be replaced at any time; each question takes the newest one. `seed` gives the order
/// of the records.
///
/// - Errors: an address or port that cannot be bound; nothing is left listening.
pub fn serve(
    address: SocketAddr,
    handle: &NodeHandle,
    config: &Arc<ArcSwap<DnsConfig>>,
    seed: Seed,
    executor: &Executor<'static>,
) -> Result<DnsServer, DnsError> {
    // The listener is exclusive, unlike the UDP sockets: it tells a port in use.
    let listener =
        tcp::bind(address).map_err(|source| DnsError::Bind { protocol: "tcp", address, source })?;
    let bound = listener.get_ref().local_addr();
    let address = bound.map_err(|source| DnsError::Bind { protocol: "tcp", address, source })?;
    let sockets = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let sockets: Result<Vec<_>, _> = (0..sockets).map(|_| udp::bind(address)).collect();
    let sockets = sockets.map_err(|source| DnsError::Bind { protocol: "udp", address, source })?;
    let (mut seeds, recursors) =
        (Rng::for_stream(seed, Stream::Dns), Recursors::new(handle.clock()));
    let mut responder = || {
        let rng = Rng::for_stream(Seed::from_number(seeds.bits()), Stream::Dns);
        Responder::new(handle.clone(), Arc::clone(config), recursors.clone(), rng)
    };
    let mut tasks = vec![executor.spawn(tcp::serve(listener, responder()))];
    tasks.extend(sockets.into_iter().map(|socket| executor.spawn(udp::serve(socket, responder()))));
    Ok(DnsServer { address, tasks })
}
