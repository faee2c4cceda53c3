//! Where the interface listens: network addresses and Unix sockets; and connections of both kinds.

use super::client::system_text;
use crate::system;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use smol::Async;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted, as the standard library has it for TCP.
const BACKLOG: i32 = 128;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpAddress {
    /// Of the network.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(UnixAddress),
}

/// A socket in the file system and who may use it (`unix_sockets`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixAddress {
    /// Its path.
    pub path: PathBuf,
    /// Its owner, by name or number; the agent's user if there is none.
    pub user: Option<String>,
    /// Its group, likewise.
    pub group: Option<String>,
    /// Its permissions; what the process creates files with if there are none.
    pub mode: Option<u32>,
}

impl HttpAddress {
    /// The address in the network, if it is one.
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for HttpAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for HttpAddress {
    /// `127.0.0.1:8500` or `unix:///path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(UnixAddress { path, .. }) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A bound address.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(Async<TcpListener>),
    Unix(Async<UnixListener>),
}

/// The file of a socket; dropping it removes the file.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What cannot be removed is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds an address; the file is that of a socket in the file system.
///
/// - Errors: why, as the system words it.
pub(super) fn bind(address: &HttpAddress) -> Result<(Listener, Option<SocketFile>), String> {
    match address {
        HttpAddress::Tcp(address) => {
            let listener = Async::<TcpListener>::bind(*address);
            let listener = listener.map_err(|error| format!("bind: {}", system_text(&error)))?;
            Ok((Listener::Tcp(listener), None))
        }
        HttpAddress::Unix(address) => {
            let (listener, file) = bind_unix(address)?;
            Ok((Listener::Unix(listener), Some(file)))
        }
    }
}

/// Nobody can connect before the permissions are set: until then the socket does not listen.
fn bind_unix(address: &UnixAddress) -> Result<(Async<UnixListener>, SocketFile), String> {
    let UnixAddress { path, user, group, mode } = address;
    let user = user.as_deref().map(system::user_id).transpose()?;
    let group = group.as_deref().map(system::group_id).transpose()?;
    let failed = |what, error: io::Error| format!("{what}: {}", system_text(&error));
    clear_the_way(path).map_err(|error| failed("bind", error))?;
    let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let bound = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
        .and_then(|socket| rustix::net::bind(&socket, &SocketAddrUnix::new(path)?).map(|()| socket))
        .map_err(|error| failed("bind", error.into()))?;
    let file = SocketFile(path.clone());
    std::os::unix::fs::chown(path, user, group).map_err(|error| failed("chown", error))?;
    if let Some(mode) = mode {
        let permissions = std::fs::Permissions::from_mode(*mode);
        std::fs::set_permissions(path, permissions).map_err(|error| failed("chmod", error))?;
    }
    rustix::net::listen(&bound, BACKLOG).map_err(|error| failed("listen", error.into()))?;
    let listener = Async::new(UnixListener::from(bound));
    Ok((listener.map_err(|error| failed("listen", error))?, file))
}

/// Removes the socket of an agent that was killed. One that is listened on stays, and so does
/// whatever else has that name.
fn clear_the_way(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() || UnixStream::connect(path).is_ok() {
        return Err(rustix::io::Errno::ADDRINUSE.into());
    }
    std::fs::remove_file(path)
}

impl Listener {
    /// The next connection, and whose it is; that is not known in the file system.
    pub(super) async fn accept(&self) -> io::Result<(Async<Stream>, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.read_with(TcpListener::accept).await?;
                // Answers are written whole, so waiting to fill segments only delays them.
                let _ = stream.set_nodelay(true);
                Ok((Async::new(Stream::Tcp(stream))?, Some(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.read_with(UnixListener::accept).await?;
                Ok((Async::new(Stream::Unix(stream))?, None))
            }
        }
    }

    /// The address in the network, with the port that the system chose.
    pub(super) fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.get_ref().local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    /// How many bytes are there, one at most; none at the end of the stream.
    pub(super) fn peek(&self) -> io::Result<usize> {
        let (_, count) = rustix::net::recv(self, &mut [0; 1], RecvFlags::PEEK)?;
        Ok(count)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write_vectored(parts),
            Stream::Unix(stream) => (&mut &*stream).write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
