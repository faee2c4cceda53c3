//! The datagram socket of a Serf port.
//!
//! A large receive buffer takes the bursts of gossip; what arrives while the node's queue is full
//! is dropped and counted. Sending never waits: what the kernel does not take is dropped, as the
//! network might have done.

use crate::event::{Counters, Inbox};
use bytes::Bytes;
use smol::Async;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use terraform_core::id::PoolName;
use terraform_core::node::input::Input;

/// The receive buffer asked for; halved until the kernel agrees (memberlist does the same).
const RECEIVE_BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A bound socket, shared by its reader and the driver.
#[derive(Clone, Debug)]
pub struct Datagrams {
    pool: PoolName,
    socket: Arc<Async<UdpSocket>>,
    counters: Arc<Counters>,
}

impl Datagrams {
    /// Binds `address`, the Serf port of `pool`.
    pub fn bind(pool: PoolName, address: SocketAddr, counters: Arc<Counters>) -> io::Result<Self> {
        let socket = Async::<UdpSocket>::bind(address)?;
        let mut wanted = RECEIVE_BUFFER_BYTES;
        while rustix::net::sockopt::set_socket_recv_buffer_size(&socket, wanted).is_err() {
            wanted /= 2;
            if wanted == 0 {
                break;
            }
        }
        Ok(Self { pool, socket: Arc::new(socket), counters })
    }

    /// The address it is bound to.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Sends one datagram, or drops it.
    pub fn send(&self, to: SocketAddr, payload: &[u8]) {
        if self.socket.get_ref().send_to(payload, to).is_err() {
            Counters::count(&self.counters.datagrams_unsent);
        }
    }

    /// Hands everything that arrives to the node, until the node is gone.
    pub async fn receive(self, inbox: Inbox) {
        let mut scratch = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // An error here belongs to an earlier send (ICMP) and says nothing about the socket.
            let Ok((length, from)) = self.socket.recv_from(&mut scratch).await else { continue };
            let Some(payload) = scratch.get(..length) else { continue };
            let payload = Bytes::copy_from_slice(payload);
            let input = Input::Datagram { pool: self.pool, from, payload };
            match inbox.datagrams.try_send(input) {
                Ok(()) => {}
                Err(refused) if refused.is_full() => {
                    Counters::count(&self.counters.datagrams_dropped);
                }
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::queues;
    use std::sync::atomic::Ordering;

    #[test]
    fn datagrams_arrive_and_those_beyond_the_queue_are_dropped_and_counted() {
        let counters = Arc::new(Counters::default());
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let here = Datagrams::bind(PoolName::Lan, local, Arc::clone(&counters)).unwrap();
        let there = UdpSocket::bind(local).unwrap();
        let (mut inbox, arrivals) = queues();
        let (one, only) = smol::channel::bounded(1);
        inbox.datagrams = one;
        let to = here.address().unwrap();
        let task = crate::runtime::spawn(here.receive(inbox));
        for _ in 0..3 {
            there.send_to(b"hello", to).unwrap();
        }
        while counters.datagrams_dropped.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        let from = there.local_addr().unwrap();
        let payload = Bytes::from_static(b"hello");
        assert_eq!(only.try_recv(), Ok(Input::Datagram { pool: PoolName::Lan, from, payload }));
        drop((task, arrivals));
    }
}
