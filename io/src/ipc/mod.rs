//! The control port 8400: Serf's IPC over the running node (gossip-wire.md §12).
//!
//! Requests of one connection are executed strictly one after the other. Subscriptions to the log
//! and to events, and queries that run, go on beside them and share the connection's bounded send
//! queue, so a client that does not read loses lines, never memory. Commands whose clients read a
//! body whatever the error says get one.
//!
//! Differs: a client that reads its events too slowly is closed, where Serf leaves events out. The
//! number of a query's record is the node's, so any connection may answer.

mod filter;
mod serf;
mod session;
mod stream;

use crate::handle::NodeHandle;
use crate::log::LogRing;
use crate::runtime::{spawn, within};
use bytes::Bytes;
use session::{Session, Verdict};
use smol::channel::{Receiver, Sender, bounded};
use smol::future::Boxed;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use terraform_core::wire::ipc::RequestReader;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Responses and records that wait for one client.
const QUEUE_MAX: usize = 1024;
/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing while responses wait.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// The pause after the kernel had no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Reads the configuration files again; the error is one line for people.
pub type Reload = Arc<dyn Fn() -> Boxed<Result<(), String>> + Send + Sync>;

/// What the control port works on.
#[derive(Clone)]
pub struct Control {
    /// The node.
    pub node: NodeHandle,
    /// The log.
    pub logs: Arc<LogRing>,
    /// Reads the configuration files again.
    pub reload: Reload,
    /// The ports of addresses to join that name none, in the LAN and in the WAN pool.
    pub join_ports: [u16; 2],
}

/// Serves clients until the task is dropped.
pub async fn serve(listener: TcpListener, control: Control) {
    // A token for each connection; those beyond the limit are closed at once.
    let (tokens, free) = bounded(CONNECTIONS_MAX);
    for _ in 0..CONNECTIONS_MAX {
        let _ = tokens.try_send(());
    }
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            smol::Timer::after(ACCEPT_PAUSE).await;
            continue;
        };
        if free.try_recv().is_err() {
            continue;
        }
        let (control, tokens) = (control.clone(), tokens.clone());
        let connection = async move {
            connection(socket, control).await;
            let _ = tokens.try_send(());
        };
        spawn(connection).detach();
    }
}

async fn connection(mut socket: TcpStream, control: Control) {
    let (queue, waiting) = bounded(QUEUE_MAX);
    let _ = socket.set_nodelay(true);
    let writer = spawn(write(socket.clone(), waiting));
    converse(&mut socket, control, queue).await;
    // Every sender is gone, so the writer ends once everything is sent.
    writer.await;
}

/// Takes requests until the client goes, breaks a rule, or is to be closed.
async fn converse(socket: &mut TcpStream, control: Control, queue: Sender<Bytes>) {
    let mut session = Session::new(control, queue);
    let mut reader = RequestReader::new();
    loop {
        match reader.next_request() {
            Ok(Some(request)) => match session.take(request).await {
                Verdict::Go => continue,
                Verdict::Close => return,
            },
            Ok(None) => {}
            Err(_) => return,
        }
        let mut scratch = [0; READ_BYTES];
        let arrived = if session.is_greeted() {
            Some(socket.read(&mut scratch).await)
        } else {
            within(HANDSHAKE_TIMEOUT, socket.read(&mut scratch)).await
        };
        let Some(Ok(count @ 1..)) = arrived else { return };
        if reader.feed(scratch.get(..count).unwrap_or_default()).is_err() {
            return;
        }
    }
}

async fn write(mut socket: TcpStream, waiting: Receiver<Bytes>) {
    while let Ok(data) = waiting.recv().await {
        let written = within(STALL_TIMEOUT, socket.write_all(&data)).await;
        if !matches!(written, Some(Ok(()))) {
            break;
        }
    }
    // Also ends the reader's wait if the client stopped reading.
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests;
