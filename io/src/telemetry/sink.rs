//! Finished intervals on their way to collectors: statsd, dogstatsd (UDP) and statsite (TCP).
//!
//! - Source: agent-config.md §7; the protocols are those of the three programs.
//! - Durations are sent as the ranges they were counted in: one line for each range, whose sample
//!   rate says how many it stands for.
//! - A collector that is not there loses what it missed; nothing is queued for it but intervals
//!   that come while it is slow, and those are bounded.

use super::config::TelemetryConfig;
use super::dump::flat;
use super::interval::{Interval, Key, millis};
use super::metrics::Metrics;
use crate::log::{Record, Sink};
use crate::resolve;
use crate::runtime::within;
use smol::channel::Receiver;
use smol::io::AsyncWriteExt as _;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::trace::Level;

/// Bytes of a datagram: what an Ethernet carries whole.
const DATAGRAM_BYTES_MAX: usize = 1400;
/// How long a collector may take to accept an interval.
const SEND_TIME: Duration = Duration::from_secs(5);
/// Where collectors listen that are named without a port.
const PORT: u16 = 8125;

/// How a collector wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Statsd,
    Statsite,
    Dogstatsd,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Statsd => "statsd",
            Self::Statsite => "statsite",
            Self::Dogstatsd => "dogstatsd",
        }
    }
}

/// The lines that tell of an interval.
pub(super) fn lines(
    interval: &Interval,
    config: &TelemetryConfig,
    protocol: Protocol,
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut put = |name: Option<String>, key: &Key, value: &str| {
        if let Some(name) = name {
            lines.push(line(&name, key, value, (config, protocol)));
        }
    };
    for (key, value) in &interval.gauges {
        put(config.gauge_name(key), key, &format!("{value}|g"));
    }
    for (key, count) in &interval.counters {
        put(config.name(key), key, &format!("{count}|c"));
    }
    for (key, durations) in &interval.samples {
        for (middle, count) in durations.ranges() {
            let mut value = format!("{}|ms", millis(middle));
            if count > 1 {
                let _ = write!(value, "|@{}", 1.0 / count_as_float(count));
            }
            put(config.name(key), key, &value);
        }
    }
    lines
}

#[expect(clippy::cast_precision_loss, reason = "a sample rate is a share")]
const fn count_as_float(count: u64) -> f64 {
    count as f64
}

fn line(
    name: &str,
    key: &Key,
    value: &str,
    (config, protocol): (&TelemetryConfig, Protocol),
) -> String {
    let clean = |text: &str| -> String {
        let forbidden = |c: char| matches!(c, ':' | '|' | ' ' | '@' | '\n');
        text.chars().map(|c| if forbidden(c) { '_' } else { c }).collect()
    };
    if protocol != Protocol::Dogstatsd {
        return format!("{}:{value}\n", clean(&flat(name, key)));
    }
    let own = key.labels.iter().map(|(label, value)| format!("{label}:{value}"));
    let tags: Vec<String> = config.dogstatsd_tags.iter().cloned().chain(own).collect();
    let tags = if tags.is_empty() { String::new() } else { format!("|#{}", tags.join(",")) };
    format!("{}:{value}{}\n", clean(name), tags.replace('\n', "_"))
}

/// The lines in pieces that fit into datagrams, as far as a line fits into one.
fn datagrams(lines: Vec<String>) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for line in lines {
        match pieces.last_mut() {
            Some(piece) if piece.len() + line.len() <= DATAGRAM_BYTES_MAX => piece.push_str(&line),
            Some(_) | None => pieces.push(line),
        }
    }
    pieces
}

/// Sends every interval to the collector at `address`, until the intervals end.
pub(super) async fn send(
    (protocol, address): (Protocol, String),
    metrics: Arc<Metrics>,
    log: Sink,
) {
    let intervals: Receiver<Arc<Interval>> = metrics.watch();
    let mut connection = None;
    let mut failed = false;
    while let Ok(interval) = intervals.recv().await {
        let lines = lines(&interval, &metrics.config(), protocol);
        let sent = async {
            match protocol {
                Protocol::Statsd | Protocol::Dogstatsd => send_datagrams(&address, lines).await,
                Protocol::Statsite => send_stream(&address, &lines, &mut connection).await,
            }
        };
        let result = within(SEND_TIME, sent).await;
        let result = result.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        if let (Err(error), false) = (&result, failed) {
            let name = protocol.name();
            let text = format_args!("{name} at {address} is not sent metrics: {error}");
            log(&Record { level: Level::Warn, subsystem: "telemetry", text: &text });
        }
        failed = result.is_err();
    }
}

async fn resolved(address: &str) -> io::Result<SocketAddr> {
    let found = resolve::addresses(address, PORT).await.map_err(io::Error::other)?;
    found.into_iter().next().ok_or_else(|| io::Error::other("no address"))
}

async fn send_datagrams(address: &str, lines: Vec<String>) -> io::Result<()> {
    let to = resolved(address).await?;
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = async_net::UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    for piece in datagrams(lines) {
        // Nobody listens there now (ICMP tells of an earlier one), which a later one may find.
        socket.send(piece.as_bytes()).await?;
    }
    Ok(())
}

/// Writes to the connection, and to a new one if there is none or it broke.
async fn send_stream(
    address: &str,
    lines: &[String],
    connection: &mut Option<async_net::TcpStream>,
) -> io::Result<()> {
    let all = lines.concat();
    if let Some(mut stream) = connection.take()
        && stream.write_all(all.as_bytes()).await.is_ok()
    {
        *connection = Some(stream);
        return Ok(());
    }
    let mut stream = async_net::TcpStream::connect(resolved(address).await?).await?;
    stream.write_all(all.as_bytes()).await?;
    *connection = Some(stream);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::io::AsyncReadExt as _;
    use terraform_core::durations::Durations;
    use terraform_core::time::{Instant, WallClock};

    fn interval() -> Interval {
        let mut interval = Interval::beginning(WallClock::from_millis(0));
        interval.set(Key::plain("state.nodes"), 3.0);
        interval.count(Key::plain("client.rpc"), 7);
        let mut durations = Durations::default();
        durations.record_many(Duration::from_micros(2), 4);
        let key = Key::plain("dns.domain_query").with("node", "a b");
        interval.sample(key, &durations);
        interval
    }

    #[test]
    fn statsd_gets_the_labels_in_the_name() {
        let lines = lines(&interval(), &TelemetryConfig::default(), Protocol::Statsd);
        assert_eq!(
            lines,
            [
                "consul.state.nodes:3|g\n",
                "consul.client.rpc:7|c\n",
                "consul.dns.domain_query.a_b:0.0025|ms|@0.25\n",
            ]
        );
    }

    #[test]
    fn dogstatsd_gets_the_labels_as_tags_behind_its_own() {
        let dogstatsd_tags = vec!["env:prod".to_owned()];
        let config = TelemetryConfig { dogstatsd_tags, ..TelemetryConfig::default() };
        let lines = lines(&interval(), &config, Protocol::Dogstatsd);
        assert_eq!(lines[1], "consul.client.rpc:7|c|#env:prod\n");
        assert_eq!(lines[2], "consul.dns.domain_query:0.0025|ms|@0.25|#env:prod,node:a b\n");
    }

    #[test]
    fn datagrams_hold_whole_lines_and_are_short() {
        let lines: Vec<String> = (0..200).map(|n| format!("consul.x.{n:010}:1|c\n")).collect();
        let all = lines.concat();
        let pieces = datagrams(lines);
        assert!(pieces.len() > 1);
        let fits = |piece: &String| piece.len() <= DATAGRAM_BYTES_MAX && piece.ends_with('\n');
        assert!(pieces.iter().all(fits));
        assert_eq!(pieces.concat(), all);
    }

    /// Metrics with one counter that a sink of this protocol is sent once.
    async fn sending(protocol: Protocol, address: String) -> smol::Task<()> {
        let metrics = Arc::new(Metrics::new("n1", WallClock::from_millis(0)));
        metrics.add(|interval| interval.count(Key::plain("client.rpc"), 7));
        let log: Sink = Arc::new(|record: &Record<'_>| panic!("{record}"));
        let task = crate::runtime::spawn(send((protocol, address), Arc::clone(&metrics), log));
        // An interval that ends before the sink watches is lost to it.
        while metrics.watchers() == 0 {
            smol::future::yield_now().await;
        }
        metrics.turn(Instant::ZERO, WallClock::from_millis(10_000));
        task
    }

    #[test]
    fn a_collector_behind_udp_is_sent_the_interval() {
        smol::block_on(async {
            let socket = async_net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap().to_string();
            let _task = sending(Protocol::Statsd, address).await;
            let mut buffer = [0; 2048];
            let count = socket.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], b"consul.client.rpc:7|c\n");
        });
    }

    #[test]
    fn a_collector_behind_tcp_is_sent_the_interval() {
        smol::block_on(async {
            let listener = async_net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let _task = sending(Protocol::Statsite, address).await;
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 22];
            stream.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"consul.client.rpc:7|c\n");
        });
    }
}
