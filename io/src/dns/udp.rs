//! Datagrams: one loop for each socket, all bound to the same port.

use super::recursor::Place;
use super::request::Transport;
use super::respond::{Responder, Step};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smol::{Async, Executor};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Bytes of a datagram that are read; more cannot arrive.
const DATAGRAM_BYTES: usize = 65_535;
/// Questions of one socket that may wait for somebody; more are answered with SERVFAIL.
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
    let (mut buffer, mut reply) = (vec![0; DATAGRAM_BYTES], Vec::new());
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
        match responder.begin(bytes, (Transport::Udp, from), &mut reply) {
            Step::Dropped => {}
            Step::Replied => send(&socket, &reply, from).await,
            Step::Wait(question) => match Place::take(&in_flight, WAITING_MAX) {
                None => send(&socket, &responder.overloaded(&question), from).await,
                Some(place) => {
                    let (socket, mut responder) = (Arc::clone(&socket), responder.fork());
                    let answer = async move {
                        let reply = responder.finish(*question).await;
                        send(&socket, &reply, from).await;
                        drop(place);
                    };
                    waiting.spawn(answer).detach();
                }
            },
        }
    }
}

/// A reply that cannot be sent is a lost datagram: its client asks again.
async fn send(socket: &Async<UdpSocket>, reply: &[u8], to: SocketAddr) {
    let _lost = socket.send_to(reply, to).await;
}
