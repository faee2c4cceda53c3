//! A pool of this program's agents and of the distribution's `serf`: what one side does, both see.

use e2e::{Agent, LONG, Options, SerfAgent, Statuses, command, wait_until};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

/// An agent that probes faster than the LAN's times say, as its serf peers do.
pub(crate) fn options(name: &str, arguments: &[&str]) -> Options {
    let options = Options::new(name, arguments);
    let file = options.data_dir.join("gossip.json");
    let times = r#"{"gossip_lan": {"probe_interval": "400ms", "probe_timeout": "200ms",
        "gossip_interval": "100ms", "suspicion_mult": 3}}"#;
    std::fs::write(&file, times).expect("the folder is writable");
    options.with(&["-config-file", file.to_str().expect("the path is text")])
}

fn keygen() -> String {
    String::from_utf8_lossy(&command(&["keygen"]).stdout).trim().to_owned()
}

/// Waits until both a serf agent and one of ours see these statuses, and nobody else.
fn both_see(serf: &SerfAgent, ours: &Agent, wanted: &[(&str, &str)]) {
    let owned = |(name, status): &(&str, &str)| ((*name).to_owned(), (*status).to_owned());
    let wanted: Statuses = wanted.iter().map(owned).collect();
    let mut seen = (Statuses::new(), Statuses::new());
    let what = format!("{wanted:?} on both sides");
    wait_until(&what, LONG, || {
        seen = (serf.statuses(), ours.statuses());
        (seen.0 == wanted && seen.1 == wanted).then_some(())
    });
}

/// Joins both ways, changes tags, leaves, comes back and is killed, each on both sides.
fn membership_is_the_same_on_both_sides(key: Option<&str>) {
    let key: Vec<String> = key.map(|key| format!("-encrypt={key}")).into_iter().collect();
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    let serf = SerfAgent::start("serf", &[&["-tag=role=web"], key.as_slice()].concat());
    let server = options("ours", &["-server", "-bootstrap", "-join", &serf.gossip()]);
    let server = server.with(&key).start();
    let join = format!("-join={}:8301", server.address());
    let mut peer = SerfAgent::start("peer", &[&[join.as_str()], key.as_slice()].concat());
    let mut client = options("client", &["-join", &peer.gossip()]).with(&key).start();
    let all = [("ours", "alive"), ("serf", "alive"), ("peer", "alive"), ("client", "alive")];
    both_see(&serf, &server, &all);

    assert!(serf.command(&["tags", "-set", "zone=a", "-delete", "role"]).status.success());
    wait_until("serf's tags on our side", LONG, || {
        let zone = server.tag("serf", "zone");
        (zone.as_deref() == Some("a") && server.tag("serf", "role").is_none()).then_some(())
    });
    assert!(server.command(&["tags", "-set", "zone=b"]).status.success());
    wait_until("our tags on serf's side", LONG, || {
        (serf.tag("ours", "zone").as_deref() == Some("b")).then_some(())
    });
    assert_eq!(serf.tag("ours", "role").as_deref(), Some("terraform"), "the others stay");

    assert!(peer.command(&["leave"]).status.success());
    assert_eq!(client.interrupt().code(), Some(0));
    peer.wait();
    let left = [("ours", "alive"), ("serf", "alive"), ("peer", "left"), ("client", "left")];
    both_see(&serf, &server, &left);

    let (peer, client) = (peer.restart(), client.kill().start());
    both_see(&serf, &server, &all);
    drop((peer, client.kill()));
    let failed = [("ours", "alive"), ("serf", "alive"), ("peer", "failed"), ("client", "failed")];
    both_see(&serf, &server, &failed);
}

#[test]
fn a_plain_pool_has_the_same_members_on_both_sides() {
    membership_is_the_same_on_both_sides(None);
}

#[test]
fn an_encrypted_pool_has_the_same_members_on_both_sides() {
    membership_is_the_same_on_both_sides(Some(&keygen()));
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn events_cross_in_both_directions() {
    let server = options("ours", &["-server", "-bootstrap", "-log-level", "DEBUG"]).start();
    let file = server.options.data_dir.join("events");
    let handler = format!("-event-handler=user:deploy=cat >> {}", file.display());
    let join = format!("-join={}:8301", server.address());
    let serf = SerfAgent::start("serf", &[&join, &handler]);
    both_see(&serf, &server, &[("ours", "alive"), ("serf", "alive")]);

    let fire = ["event", "-coalesce=false", "deploy", "from ours"];
    assert!(server.serf(&fire).status.success());
    wait_until("our event in serf's handler", LONG, || {
        (read(&file) == "from ours\n").then_some(())
    });
    let fire = ["event", "-coalesce=false", "restart", "from serf"];
    assert!(serf.command(&fire).status.success());
    wait_until("serf's event on our side", LONG, || {
        server.lines().iter().any(|line| line.contains("restart")).then_some(())
    });
}

/// A client of our control port that answers one query with `answer`.
struct Answerer {
    stream: TcpStream,
    answer: &'static str,
}

impl Answerer {
    /// Subscribes to queries; returns once the agent has said that it is so.
    fn subscribe(agent: &Agent, answer: &'static str) -> Self {
        let mut stream = TcpStream::connect(agent.control()).expect("the port takes clients");
        stream.set_read_timeout(Some(LONG)).expect("a timeout can be set");
        // Each request is a map {Command, Seq} and a map of its own (gossip-wire.md §12).
        let request = b"\x82\xa7Command\xa9handshake\xa3Seq\x01\x81\xa7Version\x01\
                        \x82\xa7Command\xa6stream\xa3Seq\x02\x81\xa4Type\xa5query";
        stream.write_all(request).expect("the agent reads");
        let mut answerer = Self { stream, answer };
        answerer.read_past(b"\xa3Seq\x02");
        answerer
    }

    /// Reads until `mark` has come; what follows it so far.
    fn read_past(&mut self, mark: &[u8]) -> Vec<u8> {
        let mut read: Vec<u8> = Vec::new();
        loop {
            let at = read.windows(mark.len()).position(|window| window == mark);
            if let Some(rest) = at.and_then(|at| read.get(at + mark.len()..)) {
                return rest.to_vec();
            }
            let mut buffer = [0; 1024];
            let count = self.stream.read(&mut buffer).expect("the agent sends");
            assert!(count > 0, "the agent closed the connection");
            read.extend(&buffer[..count]);
        }
    }

    fn answer_one(mut self) {
        // The first number of a run is small, so it is one byte; names of records are short.
        let id = self.read_past(b"\xa2ID").first().copied().expect("the record is whole");
        let mut respond = b"\x82\xa7Command\xa7respond\xa3Seq\x03\x82\xa2ID".to_vec();
        respond.push(id);
        respond.extend(b"\xa7Payload");
        respond.push(0xa0 | u8::try_from(self.answer.len()).expect("a short answer"));
        respond.extend(self.answer.as_bytes());
        self.stream.write_all(&respond).expect("the agent reads");
        self.read_past(b"\xa3Seq\x03");
    }
}

#[test]
fn queries_are_answered_in_both_directions() {
    let server = options("ours", &["-server", "-bootstrap"]).start();
    let join = format!("-join={}:8301", server.address());
    let handler = "-event-handler=query:uptime=echo three days";
    let serf = SerfAgent::start("serf", &[&join, handler, "-tag=role=web"]);
    both_see(&serf, &server, &[("ours", "alive"), ("serf", "alive")]);

    // Asked here, answered there; a filter leaves the others out.
    let query = ["query", "-timeout=2s", "-tag=role=we.", "uptime", "how long"];
    let output = server.serf(&query);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Response from 'serf': three days"), "{text}");
    assert!(text.contains("Total Acks: 1\nTotal Responses: 1\n"), "{text}");

    // Asked there, answered by a program behind our control port.
    let answerer = Answerer::subscribe(&server, "not long");
    let answering = std::thread::spawn(|| answerer.answer_one());
    let query = ["query", "-timeout=2s", "-node=ours", "-format=json", "uptime", "how long"];
    let output = serf.command(&query);
    answering.join().expect("the query came");
    let answers: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(answers["Responses"]["ours"], "not long", "{answers}");
    assert_eq!(answers["Acks"], serde_json::json!(["ours"]), "{answers}");
}

/// The keys of the pool as `serf keys -list` shows them, by an agent's control port.
fn keys(agent: &Agent) -> String {
    let output = agent.serf(&["keys", "-list"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn keys_are_rotated_from_either_side() {
    let [first, second, third] = [keygen(), keygen(), keygen()];
    let server = options("ours", &["-server", "-bootstrap", "-encrypt", &first]).start();
    let join = format!("-join={}:8301", server.address());
    let encrypt = |key: &str| format!("-encrypt={key}");
    let serf = SerfAgent::start("serf", &[&join, &encrypt(&first)]);
    let client = options("client", &["-encrypt", &first, "-join", &serf.gossip()]).start();
    both_see(&serf, &server, &[("ours", "alive"), ("serf", "alive"), ("client", "alive")]);

    for (action, key) in [("install", &second), ("use", &second), ("remove", &first)] {
        let output = serf.command(&["keys", &format!("-{action}={key}")]);
        assert!(output.status.success(), "{action}: {output:?}");
    }
    let listed = keys(&server);
    assert!(listed.contains(&second) && listed.contains("[3/3]"), "{listed}");
    assert!(!listed.contains(&first), "{listed}");

    for (action, key) in [("install", &third), ("use", &third), ("remove", &second)] {
        let output = client.command(&["keyring", &format!("-{action}={key}")]);
        assert!(output.status.success(), "{action}: {output:?}");
    }
    let output = serf.command(&["keys", "-list"]);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(listed.contains(&third) && listed.contains("[3/3]"), "{listed}");

    let late = SerfAgent::start("late", &[&join, &encrypt(&third)]);
    wait_until("a member with the new key on our side", LONG, || {
        (server.statuses().get("late").map(String::as_str) == Some("alive")).then_some(())
    });
    drop(late);
    // With a key that was taken away nobody gets in: serf itself ends.
    let refused = e2e::serf_command("127.0.0.1:1", &["agent"])
        .args([join, encrypt(&first), format!("-bind={}:8301", e2e::loopback())])
        .output()
        .expect("serf runs");
    assert!(!refused.status.success(), "{refused:?}");
}
