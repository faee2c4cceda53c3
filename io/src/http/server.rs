//! Listeners and connections: sockets around the connection machine and the endpoints.
//!
//! - Every connection is one task; it reads only while no request of it is being answered, so a
//!   client that does not take its answers stops being read.
//! - An idle connection keeps no buffer: bytes are read into a buffer of the thread, and only an
//!   incomplete request becomes memory of the connection (performance-notes.md §7).
//! - Connections are limited in all and for each address; the one too many is told so and closed.
//! - Slow clients: a head, a body and an answer each have their time (`ServerLimits`).

use super::api::Api;
use super::connection::{Connection, Event, HttpRequest, Phase, Refusal};
use super::file::FileBody;
use super::listen::{HttpAddress, Listener, SocketFile, Stream, bind};
use super::parse::Method;
use super::respond::{HeadContext, Reply, write_head};
use super::settings::{HttpSettings, ServerLimits};
use super::stream::StreamBody;
use crate::clock::Clock;
use crate::handle::NodeHandle;
use crate::runtime::{self, within};
use bytes::Bytes;
use smol::{Async, Task, Timer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use terraform_core::time::Instant;
use thiserror::Error;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of a body in a file that a client has its time for.
const PIECES_BYTES: usize = 1024 * 1024;
/// Bodies up to this many bytes are copied behind their head, so that one buffer is written.
const COPY_BYTES_MAX: usize = 2 * 1024;
/// How long a refused client is still read, so that it gets to see why, and how many bytes.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long the listener waits when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Why the interface could not be served. Nothing is served then; the operator is at fault.
#[derive(Debug, Error)]
#[error("failed to start HTTP listener: listen {} {address}: {reason}", network(address))]
pub struct BindError {
    /// The address.
    pub address: HttpAddress,
    /// Why, as the system words it.
    pub reason: String,
}

const fn network(address: &HttpAddress) -> &'static str {
    match address {
        HttpAddress::Tcp(_) => "tcp",
        HttpAddress::Unix(_) => "unix",
    }
}

/// The running interface; dropping it stops the listeners, not the connections.
#[derive(Debug)]
pub struct HttpServer {
    addresses: Vec<SocketAddr>,
    _listeners: Vec<Task<()>>,
    _files: Vec<SocketFile>,
}

impl HttpServer {
    /// The addresses of the network that are served, with the ports the system chose where 0 was
    /// asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Serves the API of `node` on all of `addresses`.
///
/// - Errors: the first address that cannot be bound; then none is served.
pub fn serve(
    addresses: &[HttpAddress],
    node: NodeHandle,
    settings: HttpSettings,
) -> Result<HttpServer, BindError> {
    let (mut listeners, mut files) = (Vec::new(), Vec::new());
    for address in addresses {
        let refused = |reason| BindError { address: address.clone(), reason };
        let (listener, file) = bind(address).map_err(refused)?;
        listeners.push(listener);
        files.extend(file);
    }
    let addresses = listeners.iter().filter_map(Listener::tcp).collect();
    let shared =
        Arc::new(Shared { api: Api::new(node, settings), clients: Mutex::new(Clients::default()) });
    let accept = |listener| runtime::spawn(accept_all(listener, Arc::clone(&shared)));
    let listeners = listeners.into_iter().map(accept).collect();
    Ok(HttpServer { addresses, _listeners: listeners, _files: files })
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    api: Api,
    clients: Mutex<Clients>,
}

impl Shared {
    fn head_context(&self, is_http11: bool, keep_alive: bool) -> HeadContext<'_> {
        let (wall, rules) = (self.api.node().clock().wall(), &self.api.settings().rules);
        HeadContext { is_http11, keep_alive, wall, fields: &rules.headers }
    }
}

/// Open connections, in all and for each address.
#[derive(Debug, Default)]
struct Clients {
    total: usize,
    /// Those in the file system have none, and share their number.
    by_address: BTreeMap<Option<IpAddr>, usize>,
}

/// One counted connection.
#[derive(Debug)]
struct Admission {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
}

impl Admission {
    /// Counts a connection; the status and text of the refusal if it is one too many.
    fn new(shared: &Arc<Shared>, address: Option<IpAddr>) -> Result<Self, (u16, &'static str)> {
        let limits = &shared.api.settings().limits;
        let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.total >= limits.connections_max {
            return Err((503, "Too many connections, please try again later\n"));
        }
        let own = clients.by_address.entry(address).or_insert(0);
        let own_max = &shared.api.settings().connections_per_client_max;
        if *own >= own_max.load(Ordering::Relaxed) {
            let text = "Your IP is issuing too many concurrent connections, \
                        please rate limit your calls\n";
            return Err((429, text));
        }
        *own += 1;
        clients.total += 1;
        Ok(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.total = clients.total.saturating_sub(1);
        if let Some(own) = clients.by_address.get_mut(&self.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                clients.by_address.remove(&self.address);
            }
        }
    }
}

async fn accept_all(listener: Listener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, or the peer is gone already; the listener itself stays good.
            Timer::after(ACCEPT_PAUSE).await;
            continue;
        };
        let address = peer.map(|peer| peer.ip().to_canonical());
        match Admission::new(&shared, address) {
            Ok(admission) => {
                let socket = Socket { stream, peer, admission };
                runtime::spawn(socket.serve()).detach();
            }
            Err((status, text)) => refuse_connection(&stream, &shared, status, text),
        }
    }
}

/// Tells a connection that is one too many; a fresh socket takes these few bytes at once.
fn refuse_connection(stream: &Async<Stream>, shared: &Shared, status: u16, text: &'static str) {
    let reply = Reply::text(status, text);
    let mut head = Vec::new();
    write_head(&reply, shared.head_context(true, false), &mut head);
    head.extend_from_slice(&reply.body);
    let mut socket = stream.get_ref();
    // A client that does not get it sees the connection closed, which is as true.
    let _ = socket.write(&head);
    let _ = socket.shutdown(Shutdown::Write);
}

/// Until when the client must have sent what is being waited for.
///
/// Head and body have their time from their first byte on, so dripping bytes does not extend it.
/// The timer is moved only when it must ring earlier or rang too early, not for every request.
#[derive(Debug)]
struct Patience {
    clock: Clock,
    phase: Option<Phase>,
    deadline: Instant,
    timer: Timer,
    rings_at: Option<Instant>,
}

impl Patience {
    fn new(clock: Clock) -> Self {
        let deadline = Instant::ZERO;
        Self { clock, phase: None, deadline, timer: Timer::never(), rings_at: None }
    }

    /// The next wait is for another request, or for another part of a long body.
    fn restart(&mut self) {
        self.phase = None;
    }

    /// The connection waits for the rest of `phase`.
    fn enter(&mut self, phase: Phase, limits: &ServerLimits) {
        if self.phase == Some(phase) {
            return;
        }
        let time = match phase {
            Phase::Idle => limits.idle_time,
            Phase::Head => limits.head_time,
            Phase::Body => limits.body_time,
        };
        self.phase = Some(phase);
        self.deadline = self.clock.now() + time;
        if self.rings_at.is_none_or(|rings_at| rings_at > self.deadline) {
            self.set();
        }
    }

    fn set(&mut self) {
        self.timer.set_at(self.clock.system_instant(self.deadline));
        self.rings_at = Some(self.deadline);
    }

    /// Ends when the deadline has passed.
    async fn wait(&mut self) {
        loop {
            (&mut self.timer).await;
            if self.clock.now() >= self.deadline {
                return;
            }
            self.set();
        }
    }
}

/// A request's body on its way into a file.
#[derive(Debug, Default)]
struct Upload {
    file: Option<FileBody>,
    /// Bytes since the client was last given time.
    since_restart: usize,
}

/// One connection.
///
/// It is one task as large as the largest thing it ever waits for, so all that is rare or long is
/// boxed: most of its life a connection waits for a request, or for an answer.
#[derive(Debug)]
struct Socket {
    stream: Async<Stream>,
    /// Whose it is, if it comes over the network.
    peer: Option<SocketAddr>,
    admission: Admission,
}

impl Socket {
    /// Not an `async fn`, which would keep the socket twice.
    #[expect(clippy::manual_async_fn, reason = "see above")]
    fn serve(self) -> impl Future<Output = ()> {
        async move {
            // An error here means that the client is gone or too slow; there is nobody to tell.
            let _ = self.run().await;
        }
    }

    async fn run(&self) -> io::Result<()> {
        let limits = &self.admission.shared.api.settings().limits;
        let mut connection = Connection::new(limits.bytes);
        let mut patience = Patience::new(self.clock());
        let mut upload = Upload::default();
        loop {
            match connection.poll() {
                Event::Read => {
                    let phase = connection.phase();
                    patience.enter(phase, limits);
                    match self.read(&mut connection, &mut patience).await {
                        Ok(0) => return Ok(()),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                            return Box::pin(self.time_out(phase)).await;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Event::Continue => {
                    self.write(b"HTTP/1.1 100 Continue\r\n\r\n", &[]).await?;
                }
                Event::Piece(piece) => {
                    if let Err(error) = Box::pin(self.take_piece(&mut upload, piece)).await {
                        return Box::pin(self.say_last(failed_upload(&error))).await;
                    }
                    if upload.since_restart >= PIECES_BYTES {
                        upload.since_restart = 0;
                        patience.restart();
                    }
                }
                Event::Request(mut request) => {
                    request.file = std::mem::take(&mut upload).file;
                    if !Box::pin(self.exchange(request)).await? {
                        return Box::pin(self.linger()).await;
                    }
                    patience.restart();
                }
                Event::Refuse(refusal) => {
                    return Box::pin(self.say_last(refused(&refusal))).await;
                }
                Event::Close => return Ok(()),
            }
        }
    }

    /// Answers a request; whether the connection stays open for the next one.
    async fn exchange(&self, request: Box<HttpRequest>) -> io::Result<bool> {
        let api = &self.admission.shared.api;
        let reply = if super::api::may_wait(&request) {
            // It may wait for minutes, and what it holds is free as soon as its client goes.
            let answer = async { Ok(api.answer(&request, self.peer.as_ref()).await) };
            smol::future::or(answer, self.gone()).await?
        } else {
            api.answer(&request, self.peer.as_ref()).await
        };
        self.send(&reply, &request).await?;
        let endless = reply.is_open() && !request.head.is_http11;
        Ok(request.head.keep_alive && !endless)
    }

    /// Appends to the file of a request's body.
    async fn take_piece(&self, upload: &mut Upload, piece: Bytes) -> io::Result<()> {
        let file = match upload.file.take() {
            Some(file) => file,
            None => self.admission.shared.api.files().begin().await?,
        };
        upload.since_restart += piece.len();
        let appended = file.append(piece).await;
        upload.file = Some(file);
        appended
    }

    fn clock(&self) -> Clock {
        self.admission.shared.api.node().clock()
    }

    /// Ends with an error when the client goes.
    async fn gone<T>(&self) -> io::Result<T> {
        loop {
            match self.stream.get_ref().peek() {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                // The next request is there already, which hides the end behind it.
                Ok(_) => smol::future::pending().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.stream.readable().await?;
        }
    }

    /// Reads what is there; 0 at the end of the stream, `TimedOut` if nothing comes in time.
    async fn read(
        &self,
        connection: &mut Connection,
        patience: &mut Patience,
    ) -> io::Result<usize> {
        loop {
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let count = self.stream.get_ref().read(scratch)?;
                connection.feed(scratch.get(..count).unwrap_or_default());
                Ok(count)
            });
            match read {
                Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            let late = async {
                patience.wait().await;
                Err(io::ErrorKind::TimedOut.into())
            };
            smol::future::or(self.stream.readable(), late).await?;
        }
    }

    async fn send(&self, reply: &Reply, request: &HttpRequest) -> io::Result<()> {
        let head = &request.head;
        let (is_http11, keep_alive) = (head.is_http11, head.keep_alive);
        let mut out = Vec::with_capacity(512);
        let keep_alive = keep_alive && (is_http11 || !reply.is_open());
        write_head(reply, self.admission.shared.head_context(is_http11, keep_alive), &mut out);
        if let Some(file) = &reply.file {
            self.write(&out, &[]).await?;
            return Box::pin(self.send_file(file, is_http11)).await;
        }
        if let Some(stream) = &reply.stream {
            self.write(&out, &[]).await?;
            return Box::pin(self.send_stream(stream, is_http11)).await;
        }
        let body: &[u8] = if head.method == Method::Head { &[] } else { &reply.body };
        if body.len() <= COPY_BYTES_MAX {
            out.extend_from_slice(body);
            return self.write(&out, &[]).await;
        }
        self.write(&out, body).await
    }

    /// Sends a file, in chunks where the protocol has them. An error ends the connection before
    /// the last chunk, so that the client notices.
    async fn send_file(&self, file: &FileBody, chunked: bool) -> io::Result<()> {
        let mut offset = 0;
        loop {
            let mut piece = file.piece(offset).await?;
            let bytes = piece.len();
            let size = if chunked { format!("{bytes:x}\r\n") } else { String::new() };
            if chunked {
                piece.extend_from_slice(b"\r\n");
            }
            self.write(size.as_bytes(), &piece).await?;
            if bytes == 0 {
                return Ok(());
            }
            offset += bytes as u64;
        }
    }

    /// Sends what comes until it ends or the client goes, in chunks where the protocol has them.
    async fn send_stream(&self, stream: &StreamBody, chunked: bool) -> io::Result<()> {
        loop {
            let piece = async { Ok(stream.next().await) };
            let Some(piece) = smol::future::or(piece, self.gone()).await? else { break };
            if !chunked {
                self.write(&piece, &[]).await?;
            } else if !piece.is_empty() {
                let size = format!("{:x}\r\n", piece.len());
                let chunk = [size.as_bytes(), &piece, b"\r\n"].concat();
                self.write(&chunk, &[]).await?;
            }
        }
        let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
        self.write(end, &[]).await
    }

    /// A client in the middle of a request is told that it was too slow.
    async fn time_out(&self, phase: Phase) -> io::Result<()> {
        match phase {
            Phase::Idle => Ok(()),
            Phase::Head | Phase::Body => {
                self.say_last(Reply::text(408, "408 Request Timeout")).await
            }
        }
    }

    async fn say_last(&self, reply: Reply) -> io::Result<()> {
        let mut out = Vec::new();
        write_head(&reply, self.admission.shared.head_context(true, false), &mut out);
        out.extend_from_slice(&reply.body);
        self.write(&out, &[]).await?;
        self.linger().await
    }

    /// Closes so that the answer arrives: a reset would overtake it if unread bytes were left.
    async fn linger(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)?;
        let drain = async {
            let mut drained = 0;
            while drained < LINGER_BYTES_MAX {
                let read =
                    |mut socket: &Stream| SCRATCH.with_borrow_mut(|scratch| socket.read(scratch));
                match self.stream.read_with(read).await? {
                    0 => break,
                    count => drained += count,
                }
            }
            Ok(())
        };
        within(LINGER_TIME, drain).await.unwrap_or(Ok(()))
    }

    /// Writes `head` and `body`, with one call to the system if the client keeps up.
    async fn write(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let done = match send_from(self.stream.get_ref(), (head, body), 0) {
            Ok(done) => done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if done == head.len() + body.len() {
            return Ok(());
        }
        // Most answers fit into the socket's buffer: no timer is made for them.
        Box::pin(self.write_rest((head, body), done)).await
    }

    async fn write_rest(&self, parts: (&[u8], &[u8]), mut done: usize) -> io::Result<()> {
        let time = self.admission.shared.api.settings().limits.write_time;
        let rest = async {
            while done < parts.0.len() + parts.1.len() {
                match self.stream.write_with(|socket| send_from(socket, parts, done)).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => done += count,
                }
            }
            Ok(())
        };
        within(time, rest).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Why the body of a request could not be kept.
fn failed_upload(error: &io::Error) -> Reply {
    let status = if error.kind() == io::ErrorKind::ResourceBusy { 503 } else { 500 };
    Reply::text(status, format!("snapshot: {error}"))
}

/// Why what came is no request.
fn refused(refusal: &Refusal) -> Reply {
    let reply = Reply::text(refusal.status(), refusal.to_string());
    Reply { varies: refusal.is_routed(), ..reply }
}

/// Sends what the socket takes at once of both parts from byte `done` on; how much that is.
fn send_from(mut socket: &Stream, (head, body): (&[u8], &[u8]), done: usize) -> io::Result<usize> {
    let head_left = head.get(done..).unwrap_or_default();
    let body_left = body.get(done.saturating_sub(head.len())..).unwrap_or_default();
    socket.write_vectored(&[IoSlice::new(head_left), IoSlice::new(body_left)])
}

#[cfg(test)]
mod tests;
