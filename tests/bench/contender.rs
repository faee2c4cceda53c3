//! The programs that are measured: how their servers start, and how requests to them look.

use e2e::{Answer, Connection, Folder, LONG, loopback, wait_until};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a value.
const VALUE: usize = 128;
/// Keys that a client writes in turn.
const KEYS_PER_CLIENT: usize = 100;

/// All load comes from one machine.
const LIMITS: &str = r#"{"limits": {"http_max_conns_per_client": 15000}}"#;

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
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: String,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), body: String::new() }
    }

    pub(crate) fn put(path: &str, body: String) -> Self {
        Self { method: "PUT", path: path.to_owned(), body }
    }

    pub(crate) fn post(path: &str, body: String) -> Self {
        Self { method: "POST", path: path.to_owned(), body }
    }
}

/// Running servers; dropping them kills them and removes what they stored.
pub(crate) struct Servers {
    pub(crate) kind: Kind,
    pub(crate) hosts: Vec<SocketAddr>,
    program: PathBuf,
    addresses: Vec<Ipv4Addr>,
    children: Vec<Child>,
    folders: Vec<Folder>,
}

impl Contender {
    /// What it is and where it came from.
    pub(crate) fn label(&self) -> String {
        format!("{:?} {}", self.kind, self.program.display())
    }

    /// Starts `count` servers and waits until each of them takes a write.
    pub(crate) fn start(&self, count: usize) -> Servers {
        let addresses: Vec<Ipv4Addr> = (0..count).map(|_| loopback()).collect();
        let port = if self.kind == Kind::Etcd { 2379 } else { 8500 };
        let hosts = addresses.iter().map(|address| SocketAddr::from((*address, port))).collect();
        let name = |at| format!("{:?}-{at}", self.kind);
        let mut servers = Servers {
            kind: self.kind,
            hosts,
            program: self.program.clone(),
            addresses,
            children: Vec::new(),
            folders: (0..count).map(|at| Folder::new(&name(at))).collect(),
        };
        servers.children = (0..count).map(|at| servers.process(at)).collect();
        for at in 0..count {
            servers.wait_for_writes(at);
        }
        servers
    }
}

fn agent(command: &mut Command, at: usize, addresses: &[Ipv4Addr], limits: &Path) {
    let (own, count) = (addresses[at].to_string(), addresses.len().to_string());
    command.args(["agent", "-server", "-bootstrap-expect", &count, "-bind", &own, "-client", &own]);
    command.args(["-node", &format!("server-{at}")]);
    for address in addresses {
        command.args(["-retry-join", &address.to_string()]);
    }
    command.arg("-config-file").arg(limits);
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
    fn process(&self, at: usize) -> Child {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Terraform | Kind::Consul => {
                let limits = self.folders[at].join("limits.json");
                std::fs::write(&limits, LIMITS).expect("the folder is writable");
                agent(&mut command, at, &self.addresses, &limits);
            }
            Kind::Etcd => etcd(&mut command, at, &self.addresses),
        }
        let data = if self.kind == Kind::Etcd { "--data-dir" } else { "-data-dir" };
        command.arg(data).arg(&*self.folders[at]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program starts")
    }

    /// Waits until a server takes a write, looking every few milliseconds.
    pub(crate) fn wait_for_writes(&self, at: usize) {
        let (first, begin) = (self.ask(Job::Put, usize::MAX, 0), Instant::now());
        while self.once(at, &first, LONG).is_none_or(|answer| answer.status != 200) {
            assert!(begin.elapsed() < LONG, "server {at} takes no writes");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks one server once, over a connection of its own.
    pub(crate) fn once(&self, at: usize, ask: &Ask, patience: Duration) -> Option<Answer> {
        let mut connection = Connection::open(self.hosts[at], patience).ok()?;
        connection.exchange(ask.method, &ask.path, &ask.body).ok()
    }

    /// Ends a server as `kill -9` does.
    pub(crate) fn kill(&mut self, at: usize) {
        self.children[at].kill().expect("the server runs");
        self.children[at].wait().expect("the server ends");
    }

    /// Starts a server that was killed, with what it stored; does not wait for it.
    pub(crate) fn restart(&mut self, at: usize) {
        self.children[at] = self.process(at);
    }

    /// Tells a server to leave in good order; does not wait for it.
    pub(crate) fn tell_to_leave(&self, at: usize) {
        if self.kind == Kind::Etcd {
            let id = self.children[at].id().to_string();
            let sent = Command::new("kill").args(["-TERM", &id]).status();
            assert!(sent.expect("kill runs").success(), "the server takes a signal");
            return;
        }
        let host = self.hosts[at];
        // Its answer comes when it has left.
        thread::spawn(move || Connection::open(host, LONG)?.exchange("PUT", "/v1/agent/leave", ""));
    }

    /// Which server leads.
    pub(crate) fn leader(&self) -> usize {
        wait_until("a leader", LONG, || match self.kind {
            Kind::Terraform | Kind::Consul => {
                let answer = self.once(0, &Ask::get("/v1/status/leader"), LONG)?;
                let leader: SocketAddr = answer.text().trim_matches('"').parse().ok()?;
                self.hosts.iter().position(|host| host.ip() == leader.ip())
            }
            Kind::Etcd => (0..self.hosts.len()).find(|at| {
                let status = Ask::post("/v3/maintenance/status", "{}".to_owned());
                let answer = self.once(*at, &status, LONG);
                let text = answer.map(|answer| answer.text()).unwrap_or_default();
                let json: Value = serde_json::from_str(&text).unwrap_or_default();
                json["leader"].is_string() && json["leader"] == json["header"]["member_id"]
            }),
        })
    }

    /// Resident memory of a server, in MiB (proc(5), `VmRSS`).
    pub(crate) fn resident(&self, at: usize) -> f64 {
        let path = format!("/proc/{}/status", self.children[at].id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) / 1024.0
    }

    /// Where the system counts for a server's process (proc(5)).
    pub(crate) fn stat(&self, at: usize) -> PathBuf {
        PathBuf::from(format!("/proc/{}/stat", self.children[at].id()))
    }

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
            return Ask::post(path, body);
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
pub(crate) fn base64(bytes: &[u8]) -> String {
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
