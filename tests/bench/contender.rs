//! The programs that are measured: how their servers start, and how requests to them look.

use e2e::{Connection, Folder, LONG, loopback, wait_until};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Bytes of a value.
const VALUE: usize = 128;
/// Keys that a client writes in turn.
const KEYS_PER_CLIENT: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Terraform,
    Consul,
    /// Over the JSON gateway of its version 3 interface, which costs it more than gRPC would.
    Etcd,
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Default,
    Stale,
    Consistent,
}

/// What a client asks for again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Put,
    Get(Mode),
}

/// A request.
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// Running servers; dropping them kills them and removes what they stored.
pub(crate) struct Servers {
    pub(crate) kind: Kind,
    pub(crate) hosts: Vec<SocketAddr>,
    children: Vec<Child>,
    folders: Vec<Folder>,
}

impl Contender {
    /// Starts `count` servers and waits until each of them takes a write.
    pub(crate) fn start(&self, count: usize) -> Servers {
        let addresses: Vec<Ipv4Addr> = (0..count).map(|_| loopback()).collect();
        let port = if self.kind == Kind::Etcd { 2379 } else { 8500 };
        let hosts = addresses.iter().map(|address| SocketAddr::from((*address, port))).collect();
        let mut servers =
            Servers { kind: self.kind, hosts, children: Vec::new(), folders: Vec::new() };
        for at in 0..count {
            let folder = Folder::new(&format!("{:?}-{at}", self.kind));
            let mut command = Command::new(&self.program);
            match self.kind {
                Kind::Terraform | Kind::Consul => agent(&mut command, at, &addresses),
                Kind::Etcd => etcd(&mut command, at, &addresses),
            }
            let data = if self.kind == Kind::Etcd { "--data-dir" } else { "-data-dir" };
            command.arg(data).arg(&*folder).stdout(Stdio::null()).stderr(Stdio::null());
            servers.children.push(command.spawn().expect("the program starts"));
            servers.folders.push(folder);
        }
        let first = servers.ask(Job::Put, usize::MAX, 0);
        for host in &servers.hosts {
            wait_until("servers that take writes", LONG, || {
                let mut connection = Connection::open(*host, LONG).ok()?;
                let answer = connection.exchange(first.method, &first.path, &first.body).ok()?;
                (answer.status == 200).then_some(())
            });
        }
        servers
    }
}

fn agent(command: &mut Command, at: usize, addresses: &[Ipv4Addr]) {
    let (own, count) = (addresses[at].to_string(), addresses.len().to_string());
    command.args(["agent", "-server", "-bootstrap-expect", &count, "-bind", &own, "-client", &own]);
    command.args(["-node", &format!("server-{at}")]);
    for address in addresses {
        command.args(["-retry-join", &address.to_string()]);
    }
}

fn etcd(command: &mut Command, at: usize, addresses: &[Ipv4Addr]) {
    let (own, name) = (addresses[at], format!("server-{at}"));
    let (clients, peers) = (format!("http://{own}:2379"), format!("http://{own}:2380"));
    let all: Vec<String> = addresses
        .iter()
        .enumerate()
        .map(|(at, address)| format!("server-{at}=http://{address}:2380"))
        .collect();
    command.args(["--name", &name, "--initial-cluster", &all.join(",")]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
}

impl Servers {
    /// Whether the program has this; etcd knows two modes of reads.
    pub(crate) fn can(&self, job: Job) -> bool {
        self.kind != Kind::Etcd || job != Job::Get(Mode::Default)
    }

    /// The request that `client` makes as its `number`th. All read what is there from the start.
    pub(crate) fn ask(&self, job: Job, client: usize, number: usize) -> Ask {
        let key = match job {
            Job::Put => format!("bench/{client}/{}", number % KEYS_PER_CLIENT),
            Job::Get(_) => format!("bench/{}/0", usize::MAX),
        };
        // No two values in a row are the same, which a server might not store again.
        let value = || format!("{number:0>VALUE$}");
        if self.kind == Kind::Etcd {
            let key = base64(key.as_bytes());
            let (path, body) = match job {
                Job::Put => {
                    let value = base64(value().as_bytes());
                    ("/v3/kv/put", format!(r#"{{"key":"{key}","value":"{value}"}}"#))
                }
                Job::Get(mode) => {
                    let is_stale = mode == Mode::Stale;
                    let body = format!(r#"{{"key":"{key}","serializable":{is_stale}}}"#);
                    ("/v3/kv/range", body)
                }
            };
            return Ask { method: "POST", path: path.to_owned(), body };
        }
        let (method, mode, body) = match job {
            Job::Put => ("PUT", "", value()),
            Job::Get(Mode::Default) => ("GET", "", String::new()),
            Job::Get(Mode::Stale) => ("GET", "?stale", String::new()),
            Job::Get(Mode::Consistent) => ("GET", "?consistent", String::new()),
        };
        Ask { method, path: format!("/v1/kv/{key}{mode}"), body }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| group.get(at).copied().map_or(0, usize::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let is_padding = at > group.len();
            let sign = ALPHABET[bits >> (18 - 6 * at) & 63];
            text.push(if is_padding { '=' } else { char::from(sign) });
        }
    }
    text
}
