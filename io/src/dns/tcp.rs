//! Streams: messages behind two bytes of length (RFC 1035 §4.2.2, RFC 7766).
//!
//! A client may send questions before earlier ones are answered. What the view answers is answered
//! in their order; what waits for somebody does not hold up what comes behind it (RFC 7766 §6.2.1).

use super::recursor::Place;
use super::request::Transport;
use super::respond::{Responder, Step};
use crate::runtime::within;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::lock::{Mutex, Semaphore};
use smol::{Async, Executor, Timer};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Connections at a time; a further one is closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// Connections of one address at a time, likewise.
const PER_ADDRESS_MAX: usize = 256;
/// Questions of one connection that may wait for somebody; until then no further one is read.
const WAITING_MAX: usize = 32;
/// Time for the next whole message to arrive, and for a reply to be taken.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a message that a connection keeps room for.
const MESSAGE_BYTES_KEPT: usize = 512;
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that shares its port with nobody.
pub(super) fn bind(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    Async::<TcpListener>::bind(address)
}

/// Serves connections until dropped; they end with it.
pub(super) async fn serve(listener: Async<TcpListener>, mut responder: Responder) {
    let connections = Arc::new(Executor::new());
    let (open, addresses) = (Arc::new(AtomicUsize::new(0)), Addresses::default());
    let accept = async {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            };
            let Some(place) = Place::take(&open, CONNECTIONS_MAX) else { continue };
            let Some(of_address) = addresses.take(from.ip()) else { continue };
            let (responder, tasks) = (responder.fork(), Arc::clone(&connections));
            let connection = async move {
                // However it ends, the client sees a closed connection.
                let _end = converse(Arc::new(stream), responder, from, &tasks).await;
                drop((place, of_address));
            };
            connections.spawn(connection).detach();
        }
    };
    connections.run(accept).await;
}

async fn converse(
    stream: Arc<Async<TcpStream>>,
    mut responder: Responder,
    from: SocketAddr,
    tasks: &Executor<'static>,
) -> io::Result<()> {
    let writer = Arc::new(Writer { stream: Arc::clone(&stream), turn: Mutex::new(()) });
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    let (mut message, mut reply) = (Vec::new(), Vec::new());
    loop {
        timely(read_message(&stream, &mut message)).await?;
        match responder.begin(&message, (Transport::Tcp, from), &mut reply) {
            Step::Dropped => {}
            Step::Replied => writer.send(&reply).await?,
            Step::Wait(question) => {
                let place = waiting.acquire_arc().await;
                let (mut responder, writer) = (responder.fork(), Arc::clone(&writer));
                let answer = async move {
                    let reply = responder.finish(*question).await;
                    // A client that went away is noticed by whoever reads from it.
                    let _gone = writer.send(&reply).await;
                    drop(place);
                };
                tasks.spawn(answer).detach();
            }
        }
    }
}

/// The way back to one client, one reply at a time.
struct Writer {
    stream: Arc<Async<TcpStream>>,
    turn: Mutex<()>,
}

impl Writer {
    async fn send(&self, reply: &[u8]) -> io::Result<()> {
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(reply.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(reply);
        let _turn = self.turn.lock().await;
        timely(async { (&*self.stream).write_all(&framed).await }).await
    }
}

async fn read_message(stream: &Async<TcpStream>, message: &mut Vec<u8>) -> io::Result<()> {
    let (mut stream, mut length) = (stream, [0; 2]);
    stream.read_exact(&mut length).await?;
    let length = u16::from_be_bytes(length);
    message.clear();
    message.shrink_to(MESSAGE_BYTES_KEPT);
    // Memory follows what arrives, not what is announced.
    stream.take(length.into()).read_to_end(message).await?;
    if message.len() < usize::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn timely<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    within(IDLE, work).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Addresses(Arc<std::sync::Mutex<BTreeMap<IpAddr, usize>>>);

/// One connection of an address; given back when dropped.
struct OfAddress(Addresses, IpAddr);

impl Addresses {
    fn take(&self, address: IpAddr) -> Option<OfAddress> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(OfAddress(self.clone(), address))
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}
