//! DNS: a node and services of several sizes, beside a bare echo of datagrams. The load is
//! `dnsperf`'s (Debian: dnsperf), 64 questions of 16 sockets under way.

use crate::contender::{Ask, Contender, Kind, Servers};
use e2e::{Folder, LONG, loopback, wait_until};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Instances of the services that are asked for.
const SIZES: [usize; 3] = [1, 10, 100];
/// The port that all of them answer on.
const PORT: u16 = 8600;

/// What some seconds of load showed.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    answers: f64,
    seconds: f64,
    /// What the server's process took, in microseconds.
    cpu: f64,
}

impl Sample {
    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.seconds += other.seconds;
        self.cpu += other.cpu;
    }
}

/// Measures all contenders and the echo, two samples of `length` each, in the order A B B A.
pub(crate) fn run(contenders: &[Contender], length: Duration) -> Result<(), String> {
    let servers: Vec<Servers> = contenders.iter().map(|contender| contender.start(1)).collect();
    servers.iter().for_each(register);
    let ((echo, echo_stat), folder) = (echo(), Folder::new("dnsperf"));
    println!("{:<24}{:>12}{:>10}{:>10}", "", "per s", "CPU us", "of echo");
    let services = SIZES.iter().map(|size| (format!("s{size}.service"), "A"));
    let cases = std::iter::once(("n0.node".to_owned(), "A")).chain(services);
    for (name, kind) in cases.chain([("s10.service".to_owned(), "SRV")]) {
        let mut samples = vec![Sample::default(); servers.len() + 1];
        let all = 0..samples.len();
        for at in all.clone().chain(all.rev()) {
            let server = servers.get(at);
            let address = server.map_or(echo, |server| SocketAddr::new(server.hosts[0].ip(), PORT));
            let question = format!("{name}.{} {kind}\n", server.map_or("echo", zone));
            let file = folder.join("questions");
            std::fs::write(&file, question).expect("the folder is writable");
            let stat = server.map_or_else(|| echo_stat.clone(), |server| server.stat(0));
            let before = processor_time(&stat);
            let mut sample = load(address, &file.display().to_string(), length)?;
            sample.cpu = processor_time(&stat) - before;
            samples[at].add(sample);
        }
        let rate = |sample: &Sample| sample.answers / sample.seconds;
        let limit = rate(&samples[servers.len()]);
        for (at, sample) in samples.iter().enumerate() {
            let who = contenders.get(at).map_or_else(|| "echo".to_owned(), Contender::label);
            print!("{:<24}{:>12.0}", format!("{name} {kind}"), rate(sample));
            print!("{:>10.1}{:>10.2}", sample.cpu / sample.answers, rate(sample) / limit);
            println!("  {who}");
        }
    }
    Ok(())
}

fn zone(servers: &Servers) -> &'static str {
    if servers.kind == Kind::Consul { "consul" } else { "terraform" }
}

/// Registers nodes with an instance of each service that is that large, and waits for the answer.
fn register(servers: &Servers) {
    for node in 0..SIZES[SIZES.len() - 1] {
        for size in SIZES.iter().filter(|size| node < **size) {
            let body = format!(
                r#"{{"Node": "n{node}", "Address": "10.0.0.{node}",
                "Service": {{"Service": "s{size}", "Port": 80}}}}"#
            );
            let put = Ask { method: "PUT", path: "/v1/catalog/register".to_owned(), body };
            let answer = servers.once(0, &put, LONG).expect("the server takes a node");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let path = format!("/v1/catalog/service/s{}", SIZES[SIZES.len() - 1]);
    wait_until("all instances", LONG, || {
        let text = servers.once(0, &Ask::get(&path), LONG)?.text();
        (text.matches("\"ServiceID\"").count() == SIZES[SIZES.len() - 1]).then_some(())
    });
}

fn load(server: SocketAddr, questions: &str, length: Duration) -> Result<Sample, String> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let output = Command::new("dnsperf")
        .args(["-s", &host, "-p", &port, "-d", questions, "-c", "16", "-q", "64", "-T", "1"])
        .args(["-l", &length.as_secs().to_string()])
        .output()
        .map_err(|error| format!("dnsperf: {error}; install it (Debian: dnsperf)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let read = || Some((number("Queries completed:")?, number("Run time (s):")?));
    let (answers, seconds) = read().ok_or_else(|| format!("dnsperf said {text}"))?;
    Ok(Sample { answers, seconds, cpu: 0.0 })
}

/// A socket whose thread sends back what it gets, as a reply; and where the system counts for it.
fn echo() -> (SocketAddr, PathBuf) {
    let socket = UdpSocket::bind((loopback(), PORT)).expect("an address of its own is free");
    let address = socket.local_addr().expect("it is bound");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").expect("a thread knows itself");
        tell.send(Path::new("/proc").join(own).join("stat")).expect("it is awaited");
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if length > 2 {
                buffer[2] |= 0x80;
            }
            // A lost datagram is the client's to miss.
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    (address, told.recv().expect("the thread runs"))
}

/// What a process or thread has taken of the processors so far, in microseconds (proc(5), `utime`
/// and `stime`, of which there are a hundred in a second).
fn processor_time(stat: &Path) -> f64 {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks * 10_000.0
}
