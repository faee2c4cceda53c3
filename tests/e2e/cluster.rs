//! Servers and clients as processes: failover, restart, leave, failure, forwarding.

use crate::monitoring::{Promised, SHOWN, wait_for_metrics};
use e2e::{Agent, LONG, Options, wait_until};
use serde_json::Value;
use std::net::UdpSocket;
use std::time::Duration;

/// What a DNS server said.
#[derive(Debug, Default)]
pub(crate) struct DnsAnswer {
    pub(crate) rcode: u8,
    pub(crate) answers: u16,
    /// The addresses among the A records of all sections.
    pub(crate) addresses: Vec<String>,
}

/// Asks port 8600 of `server` for `name`; empty if it does not answer.
pub(crate) fn dig(server: &str, name: &str, kind: u16) -> DnsAnswer {
    ask(server, name, kind).unwrap_or_default()
}

fn ask(server: &str, name: &str, kind: u16) -> Option<DnsAnswer> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).ok()?);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    socket.send_to(&query, (server, 8600)).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    let reply = buffer.get(..length)?;
    let mut answer = DnsAnswer {
        rcode: reply.get(3)? & 15,
        answers: u16::from_be_bytes([*reply.get(6)?, *reply.get(7)?]),
        addresses: Vec::new(),
    };
    // Type A, class IN, any TTL, four bytes: enough to find the addresses.
    let mut rest = reply.get(12..)?;
    while rest.len() >= 14 {
        if rest.starts_with(&[0, 1, 0, 1]) && rest[8..10] == [0, 4] {
            let [a, b, c, d] = [rest[10], rest[11], rest[12], rest[13]];
            answer.addresses.push(format!("{a}.{b}.{c}.{d}"));
        }
        rest = &rest[1..];
    }
    Some(answer)
}

/// Three servers that found each other, and two clients.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Agent>,
    pub(crate) clients: Vec<Agent>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let mut options: Vec<Options> = (1..=3)
            .map(|n| Options::new(&format!("server-{n}"), &["-server", "-bootstrap-expect", "3"]))
            .map(|options| options.with(&["-hcl", SHOWN]))
            .collect();
        let first = options[0].address.to_string();
        let join = ["-retry-join", first.as_str()];
        options = options.into_iter().map(|options| options.with(&join)).collect();
        let servers: Vec<Agent> = options.into_iter().map(Options::start).collect();
        let clients: Vec<Agent> =
            (1..=2).map(|n| Options::new(&format!("client-{n}"), &join).start()).collect();
        let cluster = Self { servers, clients };
        cluster.agents().for_each(Agent::wait_for_leader);
        cluster.wait_for_nodes(5);
        cluster
    }

    fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.servers.iter().chain(&self.clients)
    }

    fn wait_for_nodes(&self, count: usize) {
        // A node comes with its own registration, its health with the leader's.
        wait_until("all nodes and their health in the catalog", LONG, || {
            let checks = self.servers[0].json("/v1/health/state/passing");
            let alive = checks.as_array()?.iter().filter(|check| check["CheckID"] == "serfHealth");
            let nodes = self.servers[0].json("/v1/catalog/nodes");
            let nodes = nodes.as_array().map(Vec::len);
            (alive.count() == count && nodes == Some(count)).then_some(())
        });
    }

    /// Takes the leader out of the servers.
    pub(crate) fn take_leader(&mut self) -> Agent {
        let at = wait_until("a leader", LONG, || {
            let leader = self.servers[0].json("/v1/status/leader");
            let host = leader.as_str()?.split(':').next()?.to_owned();
            self.servers.iter().position(|server| server.address() == host)
        });
        self.servers.remove(at)
    }
}

fn register(agent: &Agent, node: &str) -> bool {
    let body = format!(r#"{{"Node": "{node}", "Address": "192.0.2.1"}}"#);
    let response = agent.put("/v1/catalog/register", &body);
    response.status == 200 && response.body == "true"
}

fn knows(agent: &Agent, node: &str) -> bool {
    agent.json(&format!("/v1/catalog/node/{node}"))["Node"]["Node"] == node
}

fn status_of(agent: &Agent, name: &str) -> Option<u64> {
    let members = agent.json("/v1/agent/members");
    let member = members.as_array()?.iter().find(|member| member["Name"] == name)?.clone();
    member["Status"].as_u64()
}

fn health_of(agent: &Agent, node: &str) -> Option<String> {
    let checks = agent.json(&format!("/v1/health/node/{node}"));
    let is_health = |check: &&Value| check["CheckID"] == "serfHealth";
    let health = checks.as_array()?.iter().find(is_health)?.clone();
    health["Status"].as_str().map(str::to_owned)
}

#[test]
fn a_cluster_survives_its_leader_and_then_everything() {
    let mut cluster = Cluster::start();
    // Writes and reads go through clients and followers alike.
    let names: Vec<String> = (0..5).map(|n| format!("external-{n}")).collect();
    for (agent, name) in cluster.agents().zip(&names) {
        assert!(register(agent, name), "{name} through {}", agent.options.name);
    }
    for agent in cluster.agents() {
        names.iter().for_each(|name| assert!(knows(agent, name), "{name}"));
    }
    let killed = cluster.take_leader().kill();
    wait_until("a write after the leader was killed", LONG, || {
        register(&cluster.clients[0], "after-failover").then_some(())
    });
    assert!(knows(&cluster.servers[0], "after-failover"));

    let all: Vec<Options> = cluster
        .servers
        .drain(..)
        .chain(cluster.clients.drain(..))
        .map(Agent::kill)
        .chain([killed])
        .collect();
    let agents: Vec<Agent> = all
        .into_iter()
        .map(|mut options| {
            // The cluster forms again by itself: nobody is told whom to join.
            options.arguments.retain(|word| word != "-retry-join" && !word.starts_with("127."));
            options.start()
        })
        .collect();
    agents.iter().for_each(Agent::wait_for_leader);
    for name in names.iter().map(String::as_str).chain(["after-failover"]) {
        assert!(knows(&agents[0], name), "{name} is still there");
    }
    wait_until("everybody alive again", LONG, || {
        let alive = |name: &str| status_of(&agents[0], name) == Some(1);
        let names = ["server-1", "server-2", "server-3", "client-1", "client-2"];
        names.iter().all(|name| alive(name)).then_some(())
    });
}

#[test]
fn a_client_that_leaves_is_gone_and_one_that_is_killed_stays_critical() {
    let mut cluster = Cluster::start();
    let mut leaver = cluster.clients.remove(0);
    let killed = cluster.clients.remove(0);
    let service = r#"{"Name": "web", "Port": 80}"#;
    for client in [&leaver, &killed] {
        assert_eq!(client.put("/v1/agent/service/register", service).status, 200);
    }
    let server = &cluster.servers[0];
    wait_until("both services in the catalog", LONG, || {
        let nodes = server.json("/v1/catalog/service/web");
        (nodes.as_array().map(Vec::len) == Some(2)).then_some(())
    });
    // Registering once more right before the leave must not bring the leaver back.
    let late = r#"{"Name": "late", "Port": 81}"#;
    assert_eq!(leaver.put("/v1/agent/service/register", late).status, 200);
    assert_eq!(leaver.interrupt().code(), Some(0));
    wait_until("the leaver out of the catalog", LONG, || {
        let gone = !knows(server, "client-1")
            && server.json("/v1/catalog/service/late") == Value::Array(Vec::new());
        (gone && status_of(server, "client-1") == Some(3)).then_some(())
    });
    let options = killed.kill();
    wait_until("the killed client critical", LONG, || {
        let critical = health_of(server, "client-2").as_deref() == Some("critical");
        (critical && status_of(server, "client-2") == Some(4)).then_some(())
    });
    assert!(knows(server, "client-2"), "a failed node stays in the catalog");
    assert!(!knows(server, "client-1"), "a left node stays out of it");
    let members = String::from_utf8_lossy(&server.command(&["members"]).stdout).into_owned();
    assert!(members.contains("  failed  "), "{members}");
    assert_eq!(dig(&server.address(), "web.service.terraform", 1).rcode, 3, "nobody is healthy");
    let name = dig(&server.address(), "client-2.node.terraform", 1);
    assert_eq!(name.addresses, [options.address.to_string()], "a failed node keeps its name");
    let back = options.start();
    wait_until("the killed client back", LONG, || {
        (health_of(server, "client-2").as_deref() == Some("passing")).then_some(())
    });
    wait_until("its service back", LONG, || {
        let answer = dig(&server.address(), "web.service.terraform", 1);
        (answer.addresses == [back.address()]).then_some(())
    });
    let refused = back.put("/v1/session/create", r#"{"Node": "nobody"}"#);
    assert_eq!(refused.status, 500, "{}", refused.body);
    let servers: Vec<&Agent> = cluster.servers.iter().collect();
    wait_for_metrics(&servers, OF_SERVERS);
}

/// What servers show that lost a client, and whose clients ask them.
const OF_SERVERS: &[Promised] = &[
    ("memberlist.msg.alive", "counter"),
    ("memberlist.msg.dead", "counter"),
    ("memberlist.msg.suspect", "counter"),
    ("memberlist.probeNode", "summary"),
    ("memberlist.pushPullNode", "summary"),
    ("raft.leader.lastContact", "summary"),
    ("raft.replication.appendEntries.logs.", "counter"),
    ("raft.replication.appendEntries.rpc.", "summary"),
    ("raft.replication.heartbeat.", "summary"),
    ("rpc.accept_conn", "counter"),
    ("rpc.request", "counter"),
    ("rpc.request_error", "counter"),
    ("serf.member.failed", "counter"),
    ("serf.member.left", "counter"),
];

#[test]
fn a_failed_member_can_be_forced_to_leave() {
    let server = Options::new("server", &["-server", "-bootstrap"]).start();
    server.wait_for_leader();
    let client = Options::new("client", &["-join", &server.address()]).start();
    wait_until("the client in the catalog", LONG, || knows(&server, "client").then_some(()));
    client.kill();
    wait_until("the client failed", LONG, || {
        (status_of(&server, "client") == Some(4)).then_some(())
    });
    assert!(server.command(&["force-leave", "client"]).status.success());
    wait_until("the client gone", LONG, || {
        (status_of(&server, "client") == Some(3) && !knows(&server, "client")).then_some(())
    });
    let unknown = server.command(&["force-leave", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(text.contains("No node found with name 'nobody'"), "{text}");
}
