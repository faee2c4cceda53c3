//! Datagrams: one loop for each socket, all bound to the same port.

use super::respond::{Responder, Step};
use super::wire::Transport;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smol::{Async, Executor};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a datagram that are read; more cannot arrive.
const DATAGRAM_BYTES: usize = 65_535;
/// Questions of one socket that may wait for the node; more are answered with SERVFAIL.
const WAITING_MAX: usize = 1024;
/// Datagrams after which other tasks of the thread get a turn.
const TURN: u32 = 64;

/// A socket that shares its port with its siblings.
pub(super) fn bind(address: SocketAddr) -> io::Result<Async<UdpSocket>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Async::new(UdpSocket::from(socket))
}

/// Answers datagrams until dropped; the questions that wait go with it.
pub(super) async fn serve(socket: Async<UdpSocket>, responder: Responder) {
    let waiting = Executor::new();
    waiting.run(receive(Arc::new(socket), responder, &waiting)).await;
}

async fn receive(
    socket: Arc<Async<UdpSocket>>,
    mut responder: Responder,
    waiting: &Executor<'static>,
) {
    let in_flight = Arc::new(AtomicUsize::new(0));
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut turn = 0;
    loop {
        turn += 1;
        if turn >= TURN {
            turn = 0;
            smol::future::yield_now().await;
        }
        // An error is a datagram of ours that came back (ICMP); the socket itself stays usable.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let bytes = buffer.get(..length).unwrap_or_default();
        let reply = match responder.begin(bytes, Transport::Udp, from) {
            Step::Dropped => continue,
            Step::Reply(reply) => reply,
            Step::Wait(question) if in_flight.load(Ordering::Relaxed) >= WAITING_MAX => {
                responder.overloaded(&question)
            }
            Step::Wait(question) => {
                let place = Place::take(&in_flight);
                let (socket, mut responder) = (Arc::clone(&socket), responder.fork());
                let answer = async move {
                    let reply = responder.finish(*question).await;
                    send(&socket, &reply, from).await;
                    drop(place);
                };
                waiting.spawn(answer).detach();
                continue;
            }
        };
        send(&socket, &reply, from).await;
    }
}

/// A reply that cannot be sent is a lost datagram: its client asks again.
async fn send(socket: &Async<UdpSocket>, reply: &[u8], to: SocketAddr) {
    let _lost = socket.send_to(reply, to).await;
}

/// One of the places of [`WAITING_MAX`]; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Self {
        places.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
