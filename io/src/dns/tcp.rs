//! Streams: messages behind two bytes of length, answered in order (RFC 1035 §4.2.2, RFC 7766).

use super::respond::{Responder, Step};
use super::wire::Transport;
use smol::future::FutureExt as _;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, Executor, Timer};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections at a time; a further one is closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// Time for the next whole message to arrive, and for a reply to be taken.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that shares its port with nobody.
pub(super) fn bind(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    Async::<TcpListener>::bind(address)
}

/// Serves connections until dropped; they end with it.
pub(super) async fn serve(listener: Async<TcpListener>, mut responder: Responder) {
    let connections = Executor::new();
    let open = Arc::new(AtomicUsize::new(0));
    let accept = async {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            };
            if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                continue;
            }
            open.fetch_add(1, Ordering::Relaxed);
            let (responder, open) = (responder.fork(), Arc::clone(&open));
            let connection = async move {
                // However it ends, the client sees a closed connection.
                let _end = converse(stream, responder, from).await;
                open.fetch_sub(1, Ordering::Relaxed);
            };
            connections.spawn(connection).detach();
        }
    };
    connections.run(accept).await;
}

async fn converse(
    mut stream: Async<TcpStream>,
    mut responder: Responder,
    from: SocketAddr,
) -> io::Result<()> {
    let mut message = Vec::new();
    loop {
        within(IDLE, read_message(&mut stream, &mut message)).await?;
        let reply = match responder.begin(&message, Transport::Tcp, from) {
            Step::Dropped => continue,
            Step::Reply(reply) => reply,
            Step::Wait(question) => responder.finish(*question).await,
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(reply.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&reply);
        within(IDLE, stream.write_all(&framed)).await?;
    }
}

async fn read_message(stream: &mut Async<TcpStream>, message: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    message.clear();
    message.resize(usize::from(u16::from_be_bytes(length)), 0);
    stream.read_exact(message).await
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(time).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    work.or(late).await
}
