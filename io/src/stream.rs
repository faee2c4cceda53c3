//! Streams between agents: accepting, connecting, reading, writing, closing.
//!
//! The driver owns the table; each stream has a reader and a writer task. Bytes to send wait in a
//! queue bounded in bytes; a stream whose queue overflows is closed with `Limit`. A closed stream
//! is flushed first. Accepted streams have even numbers, those of the node odd ones.

use crate::event::{Counters, Event, Inbox};
use crate::runtime::{spawn, within};
use bytes::Bytes;
use smol::channel::{Receiver, Sender, unbounded};
use smol::net::{TcpListener, TcpStream};
use smol::{Async, Task};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use terraform_core::id::StreamId;
use terraform_core::node::input::{CloseReason, Input, StreamKind};

/// Accepted streams in all.
const ACCEPTED_MAX: usize = 4096;
/// Accepted streams of one source on the gossip ports.
const GOSSIP_OF_SOURCE_MAX: usize = 128;
/// Bytes that wait to be sent on one stream; above what consensus has in flight (raft.md §1.2).
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// How long connecting may take; the core gives up earlier where it wants to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other side may take nothing while bytes wait.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the other side is waited for after everything is sent.
const LINGER: Duration = Duration::from_secs(1);
/// Sent bytes without acknowledgement for this long break a stream of the server port, so that
/// a healed network is not waited for in the kernel's growing retransmission pauses.
const UNACKNOWLEDGED_MAX_MILLIS: u32 = 5_000;
/// The pause after the kernel had no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Shared by a stream's reader and writer.
type Socket = Arc<Async<std::net::TcpStream>>;

struct Open {
    queue: Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    source: Option<Source>,
    _reader: Task<()>,
}

/// From where a stream was accepted, and whether on the server port, which has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    address: IpAddr,
    server: bool,
}

enum Entry {
    /// Dropping the task gives the attempt up.
    Connecting {
        kind: StreamKind,
        _attempt: Task<()>,
    },
    Open(Open),
}

/// The driver's table of streams.
pub struct Streams {
    inbox: Inbox,
    counters: Arc<Counters>,
    table: BTreeMap<StreamId, Entry>,
    sources: BTreeMap<Source, usize>,
    server_of_source_max: usize,
    accepted: usize,
    next_accepted: u64,
}

impl Streams {
    /// A table whose streams report to `inbox`; the server port takes `server_of_source_max` of one
    /// source.
    pub fn new(inbox: Inbox, counters: Arc<Counters>, server_of_source_max: usize) -> Self {
        let (table, sources) = (BTreeMap::new(), BTreeMap::new());
        let (accepted, next_accepted) = (0, 2);
        Self { inbox, counters, table, sources, server_of_source_max, accepted, next_accepted }
    }

    /// Connects; ends in `Event::Connected`, or in an input that says why not.
    pub fn open(&mut self, stream: StreamId, kind: StreamKind, to: SocketAddr) {
        let events = self.inbox.events.clone();
        let attempt = spawn(async move {
            let connected = within(CONNECT_TIMEOUT, TcpStream::connect(to)).await;
            let event = match connected {
                Some(Ok(socket)) => Event::Connected { stream, socket, peer: to },
                Some(Err(_)) | None => {
                    let reason = CloseReason::ConnectFailed;
                    Event::Input(Input::StreamClosed { stream, reason })
                }
            };
            let _ = events.send(event).await;
        });
        self.table.insert(stream, Entry::Connecting { kind, _attempt: attempt });
    }

    /// The input for a stream that got connected; `None` if the node gave it up meanwhile.
    pub fn connected(
        &mut self,
        stream: StreamId,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Option<Input> {
        let Some(Entry::Connecting { kind, .. }) = self.table.get(&stream) else { return None };
        let kind = *kind;
        self.start(stream, kind, socket, None);
        Some(Input::StreamOpened { stream, kind, peer })
    }

    /// The input for an accepted stream; `None` if there are too many.
    pub fn accepted(
        &mut self,
        kind: StreamKind,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Option<Input> {
        let source = Source { address: peer.ip(), server: kind == StreamKind::Server };
        let limit = if source.server { self.server_of_source_max } else { GOSSIP_OF_SOURCE_MAX };
        let of_source = self.sources.get(&source).copied().unwrap_or(0);
        if self.accepted >= ACCEPTED_MAX || of_source >= limit {
            Counters::count(&self.counters.streams_refused);
            return None;
        }
        self.accepted += 1;
        self.sources.insert(source, of_source + 1);
        let stream = StreamId::new(self.next_accepted);
        self.next_accepted += 2;
        self.start(stream, kind, socket, Some(source));
        Some(Input::StreamOpened { stream, kind, peer })
    }

    fn start(
        &mut self,
        stream: StreamId,
        kind: StreamKind,
        socket: TcpStream,
        source: Option<Source>,
    ) {
        // Options only tune the stream; it works without them.
        let _ = socket.set_nodelay(true);
        if kind == StreamKind::Server {
            let limit = UNACKNOWLEDGED_MAX_MILLIS;
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, limit);
        }
        let (queue, waiting) = unbounded();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let events = self.inbox.events.clone();
        let socket = Socket::from(socket);
        let reader = spawn(read(stream, Arc::clone(&socket), events.clone()));
        spawn(write(stream, socket, waiting, Arc::clone(&queued_bytes), events)).detach();
        let open = Open { queue, queued_bytes, source, _reader: reader };
        self.table.insert(stream, Entry::Open(open));
    }

    /// Sends bytes after those sent before. Returns the input that says that the stream was closed
    /// because too much waits on it. Bytes for a stream that is gone are dropped: the node is
    /// about to hear of its end.
    pub fn send(&mut self, stream: StreamId, data: Bytes) -> Option<Input> {
        let Some(Entry::Open(open)) = self.table.get(&stream) else { return None };
        let length = data.len();
        let before = open.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) > QUEUE_BYTES_MAX {
            Counters::count(&self.counters.streams_overflowed);
            self.forget(stream);
            return Some(Input::StreamClosed { stream, reason: CloseReason::Limit });
        }
        let _ = open.queue.try_send(data);
        None
    }

    /// Closes a stream once everything sent on it is delivered.
    pub fn close(&mut self, stream: StreamId) {
        self.forget(stream);
    }

    /// Whether the node still knows the stream; what comes from others is dropped.
    pub fn is_known(&self, stream: StreamId) -> bool {
        self.table.contains_key(&stream)
    }

    /// Removes a stream. Its reader stops at once; its writer flushes the queue and ends.
    pub fn forget(&mut self, stream: StreamId) {
        let Some(Entry::Open(open)) = self.table.remove(&stream) else { return };
        let Some(source) = open.source else { return };
        self.accepted -= 1;
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

/// Hands accepted streams to the driver until it is gone.
pub async fn accept(listener: TcpListener, kind: StreamKind, events: Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                if events.send(Event::Accepted { kind, socket, peer }).await.is_err() {
                    return;
                }
            }
            Err(_) => {
                smol::Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn read(stream: StreamId, socket: Socket, events: Sender<Event>) {
    let reason = loop {
        match socket.read_with(take).await {
            Ok(data) if data.is_empty() => break CloseReason::Finished,
            Ok(data) => {
                let input = Input::StreamData { stream, data };
                if events.send(Event::Input(input)).await.is_err() {
                    return;
                }
            }
            Err(_) => break CloseReason::Reset,
        }
    };
    let _ = events.send(Event::Input(Input::StreamClosed { stream, reason })).await;
}

/// Takes what the kernel has, through the stack: an idle stream holds no buffer
/// (performance-notes.md §7).
fn take(mut socket: &std::net::TcpStream) -> io::Result<Bytes> {
    let mut scratch = [0; READ_BYTES];
    let count = socket.read(&mut scratch)?;
    Ok(Bytes::copy_from_slice(scratch.get(..count).unwrap_or_default()))
}

async fn write(
    stream: StreamId,
    socket: Socket,
    waiting: Receiver<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    events: Sender<Event>,
) {
    while let Ok(first) = waiting.recv().await {
        let batch = gather(first, &waiting);
        let written = write_all(&socket, &batch).await;
        queued_bytes.fetch_sub(batch.len(), Ordering::Relaxed);
        if written.is_err() {
            let reason = CloseReason::Reset;
            let _ = events.send(Event::Input(Input::StreamClosed { stream, reason })).await;
            return;
        }
    }
    let _ = socket.get_ref().shutdown(Shutdown::Write);
    // Closing with unread bytes would reset the stream under what was just sent.
    let drain = async { while socket.read_with(take).await.is_ok_and(|data| !data.is_empty()) {} };
    within(LINGER, drain).await;
}

/// Joins small pieces that wait, so that they take one call.
fn gather(first: Bytes, waiting: &Receiver<Bytes>) -> Bytes {
    if waiting.is_empty() || first.len() >= WRITE_BYTES {
        return first;
    }
    let mut batch = Vec::with_capacity(WRITE_BYTES);
    batch.extend_from_slice(&first);
    while batch.len() < WRITE_BYTES {
        let Ok(next) = waiting.try_recv() else { break };
        batch.extend_from_slice(&next);
    }
    batch.into()
}

async fn write_all(socket: &Socket, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        let stalled = || io::Error::from(io::ErrorKind::TimedOut);
        let written = within(STALL_TIMEOUT, socket.write_with(|mut socket| socket.write(rest)))
            .await
            .ok_or_else(stalled)??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}
