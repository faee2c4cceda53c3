//! The control port over a real socket, with a node that the test plays.

use super::*;
use crate::clock::Clock;
use crate::fanout::EventFan;
use crate::handle::Call;
use crate::log::tests::say;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use terraform_core::event::KeptEvents;
use terraform_core::gossip::Versions;
use terraform_core::id::{Datacenter, LamportTime, NodeId, NodeName, PoolName};
use terraform_core::local::LocalView;
use terraform_core::node::request::{self, RequestBody};
use terraform_core::serf::{Member, MemberStatus, SerfReply, SerfRequest};
use terraform_core::trace::Level;
use terraform_core::view::View;
use terraform_core::wire::ipc::{Body, Command, Filter, Join, Request, Response, ResponseReader};
use terraform_core::wire::tags::Tags;

struct Client {
    socket: std::net::TcpStream,
    reader: ResponseReader,
    logs: Arc<LogRing>,
    fan: Arc<EventFan>,
    calls: Receiver<Call>,
    _server: smol::Task<()>,
}

fn member(name: &str, status: MemberStatus) -> Member {
    Member {
        name: NodeName::parse(name).unwrap(),
        address: SocketAddr::from(([10, 0, 0, 1], 8301)),
        tags: Tags::from_iter([("role", "node")]),
        status,
        status_time: LamportTime::ZERO,
        versions: Versions {
            protocol_min: 1,
            protocol_max: 5,
            protocol: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate: 4,
        },
    }
}

fn client() -> Client {
    let members = [member("ab", MemberStatus::Alive), member("b", MemberStatus::Failed)];
    let view = View {
        name: NodeName::parse("ab").unwrap(),
        id: NodeId::from_bytes([1; 16]),
        datacenter: Datacenter::parse("dc1").unwrap(),
        members: members.clone().into_iter().collect(),
        wan_members: Some(members.into_iter().collect()),
        datacenters: Arc::from([]),
        local: LocalView::default(),
        events: KeptEvents::new(),
        consensus: None,
        catalog: None,
        version: 1,
    };
    let (asked, calls) = bounded(16);
    let node = NodeHandle::new(Arc::new(ArcSwap::from_pointee(view)), asked, Clock::start());
    let logs = Arc::new(LogRing::default());
    let reload: Reload = Arc::new(|| Box::pin(async { Err("bad file".to_owned()) }));
    let (fan, kept) = (Arc::clone(node.fan()), Arc::clone(&logs));
    let control = Control { node, logs: kept, reload, join_ports: [8301, 8302] };
    let listener = smol::block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(serve(listener, control));
    let socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Client { socket, reader: ResponseReader::new(), logs, fan, calls, _server: server }
}

fn greeted() -> Client {
    let mut client = client();
    assert_eq!(client.ask(0, Command::Handshake { version: 1 }), header(0, ""));
    client
}

fn header(seq: u64, error: &str) -> Option<Response> {
    Some(Response::header(seq, error.to_owned()))
}

impl Client {
    fn send(&mut self, seq: u64, command: Command) {
        let request = Request { seq, command };
        self.reader.expect(&request);
        self.socket.write_all(&request.encode()).unwrap();
    }

    /// The next response; `None` if the connection ended.
    fn next(&mut self) -> Option<Response> {
        loop {
            if let Some(response) = self.reader.next_response().unwrap() {
                return Some(response);
            }
            let mut scratch = [0; 4096];
            match self.socket.read(&mut scratch).unwrap() {
                0 => return None,
                count => self.reader.feed(&scratch[..count]),
            }
        }
    }

    fn ask(&mut self, seq: u64, command: Command) -> Option<Response> {
        self.send(seq, command);
        self.next()
    }

    /// Answers the next request that reaches the node, which must be one of the Serf layer.
    fn play_serf(&self, result: Result<SerfReply, request::RequestError>) -> SerfRequest {
        let asked = self.play(result.map(request::Response::Serf));
        let RequestBody::Serf(request) = asked else { panic!("{asked:?}") };
        request
    }

    /// Answers the next request that reaches the node.
    fn play(&self, result: Result<request::Response, request::RequestError>) -> RequestBody {
        let call = smol::block_on(self.calls.recv()).unwrap();
        call.reply.send(result);
        Arc::unwrap_or_clone(call.request).body
    }
}

#[test]
fn a_command_before_the_handshake_ends_the_connection() {
    let mut client = client();
    assert_eq!(client.ask(3, Command::Stats), header(3, "Handshake required"));
    assert_eq!(client.next(), None);
}

#[test]
fn handshake_and_auth_answer_as_serf_does() {
    let mut client = client();
    let version = |version| Command::Handshake { version };
    assert_eq!(client.ask(1, version(2)), header(1, "Unsupported IPC version"));
    assert_eq!(client.ask(2, version(1)), header(2, ""));
    assert_eq!(client.ask(3, version(1)), header(3, "Handshake already performed"));
    let auth = |key: &str| Command::Auth { key: key.to_owned() };
    assert_eq!(client.ask(4, auth("k")), header(4, "Invalid authentication token"));
    assert_eq!(client.ask(5, auth("")), header(5, ""));
}

fn names(response: Option<Response>) -> Vec<String> {
    let Some(Response { body: Some(Body::Members(members)), .. }) = response else {
        panic!("no members")
    };
    members.into_iter().map(|member| member.name).collect()
}

#[test]
fn members_are_listed_and_filtered_by_whole_texts() {
    let mut client = greeted();
    assert_eq!(names(client.ask(1, Command::MembersLan)), ["ab", "b"]);
    let filter = |name: &str, status: &str| {
        let (name, status) = (name.to_owned(), status.to_owned());
        Command::MembersFiltered(Filter { name, status, tags: BTreeMap::new() })
    };
    assert_eq!(names(client.ask(2, filter("b", ""))), ["b"]);
    assert_eq!(names(client.ask(3, filter(".*b", "alive|left"))), ["ab"]);
    let mut role = Filter::default();
    role.tags.insert("role".to_owned(), "serv.*".to_owned());
    assert!(names(client.ask(4, Command::MembersFiltered(role))).is_empty());
    assert_eq!(names(client.ask(5, Command::MembersWan)), ["ab", "b"]);
    let gone = |response: Option<Response>| match response.and_then(|response| response.body) {
        Some(Body::Members(members)) => {
            members.iter().map(|member| member.gone_seconds.is_some()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    for (number, ours) in [(6, Command::MembersLan), (7, Command::MembersWan)] {
        assert_eq!(gone(client.ask(number, ours)), [false, true]);
    }
    let serfs = gone(client.ask(8, Command::Members));
    assert_eq!(serfs, [false, false], "Serf's protocol has no such field");
    assert_eq!(client.ask(9, filter("(", "")), None, "a bad pattern ends the connection");
}

#[test]
fn a_join_reaches_the_node_and_carries_its_count_beside_errors() {
    let mut client = greeted();
    let join = |address: &str, wan| {
        Command::Join(Join { addresses: vec![address.to_owned()], replay: false, wan })
    };
    for (wan, pool, port) in [(false, PoolName::Lan, 8301), (true, PoolName::Wan, 8302)] {
        client.send(1, join("10.0.0.9", wan));
        let asked = client.play(Ok(request::Response::Joined(1)));
        let addresses = vec![SocketAddr::from(([10, 0, 0, 9], port))];
        assert_eq!(asked, RequestBody::Join { pool, addresses, replay: false });
        assert_eq!(client.next().unwrap().body, Some(Body::Join { reached: 1 }));
    }
    let refused = client.ask(2, join("a b", false)).unwrap();
    assert!(!refused.error.is_empty());
    assert_eq!(refused.body, Some(Body::Join { reached: 0 }));
}

#[test]
fn leave_force_leave_stats_and_reload_answer_with_the_nodes_words() {
    let mut client = greeted();
    client.send(1, Command::Leave { force: false });
    let refusal = request::RequestError::Refused("the quorum would be lost".to_owned());
    assert_eq!(client.play(Err(refusal)), RequestBody::Leave { force: false });
    assert_eq!(client.next(), header(1, "the quorum would be lost"));
    client.send(2, Command::ForceLeave { node: "b".to_owned(), prune: true });
    let node = NodeName::parse("b").unwrap();
    let asked = client.play(Ok(request::Response::Done));
    assert_eq!(asked, RequestBody::ForceLeave { node, prune: true });
    assert_eq!(client.next(), header(2, ""));
    client.send(3, Command::Stats);
    let group = BTreeMap::from([("checks".to_owned(), "0".to_owned())]);
    let sections = BTreeMap::from([("agent".to_owned(), group)]);
    client.play(Ok(request::Response::Info(sections)));
    let Some(Response { body: Some(Body::Stats(stats)), .. }) = client.next() else { panic!() };
    assert_eq!(stats["agent"]["name"], "ab", "this is how rtt knows where it is");
    assert_eq!(stats["tags"]["role"], "node");
    assert!(stats["runtime"].contains_key("arch"));
    assert_eq!(client.ask(4, Command::Reload), header(4, "bad file"));
}

#[test]
fn a_monitor_replays_the_log_follows_it_and_stops() {
    let mut client = greeted();
    say(&client.logs, Level::Info, "one");
    let monitor = |level: &str| Command::Monitor { level: level.to_owned() };
    assert_eq!(client.ask(1, monitor("loud")), header(1, "Unknown log level: LOUD"));
    assert_eq!(client.ask(2, monitor("info")), header(2, ""));
    let at = "2026-11-22T14:09:53.374Z";
    let log = |line: &str| Some(Body::Log(format!("{at} {line}")));
    assert_eq!(client.next().unwrap().body, log("[INFO] agent: one"));
    say(&client.logs, Level::Warn, "two");
    let record = client.next().unwrap();
    assert_eq!((record.seq, record.body), (2, log("[WARN] agent: two")));
    assert_eq!(client.ask(3, monitor("info")), header(3, "Monitor already exists"));
    assert_eq!(client.ask(4, Command::Stop { seq: 2 }), header(4, ""));
    say(&client.logs, Level::Warn, "three");
    assert_eq!(client.ask(5, Command::Stop { seq: 2 }), header(5, ""));
}

#[test]
fn an_unknown_command_ends_the_connection() {
    let mut client = greeted();
    assert_eq!(
        client.ask(4, Command::Unknown("dance".to_owned())),
        header(4, "Unsupported command")
    );
    assert_eq!(client.next(), None);
}

mod serf;
