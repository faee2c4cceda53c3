//! Every endpoint group with good and bad requests against a node that answers from a script.

use super::*;
use crate::clock::Clock;
use crate::handle::Call;
use crate::http::connection::{Connection, ConnectionLimits, Event};
use crate::http::settings::{Facts, HttpRules, Ports, Reload, ServerLimits};
use arc_swap::ArcSwap;
use smol::channel::Receiver;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use terraform_core::catalog::query::{DatacenterCoordinates, Rows};
use terraform_core::event::KeptEvents;
use terraform_core::gossip::Versions;
use terraform_core::id::{LamportTime, ModifyIndex, NodeId, NodeName};
use terraform_core::local::LocalView;
use terraform_core::serf::{Member, MemberStatus};
use terraform_core::view::View;
use terraform_core::wire::tags::Tags;

mod agent;
mod autopilot;
mod cached;
mod catalog;
mod coordinate;
mod event;
mod filters;
mod internal_ui;
mod kv;
mod local;
mod metrics;
mod monitor;
mod operator;
mod query;
mod raft;
mod session;
mod shared;
mod sharing;
mod snapshot;
mod txn;
mod values;

/// An API over a view, and the calls that reach its node.
pub(super) struct World {
    pub(super) api: Api,
    calls: Receiver<Call>,
}

/// What the node answers.
type Answer = Result<Response, RequestError>;

pub(in crate::http) fn settings() -> HttpSettings {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let serf = (8301, 8302);
    HttpSettings {
        facts: Facts {
            server: true,
            bootstrap: true,
            bootstrap_expect: 0,
            version: "1.8.7",
            bind: local,
            bind_lan: local,
            tagged_addresses: BTreeMap::from([("wan_ipv4".to_owned(), local.to_string())]),
            advertise: local,
            advertise_wan: local,
            client_addresses: vec![local],
            ports: Ports {
                http: Some(8500),
                dns: Some(8600),
                rpc: None,
                serf_lan: serf.0,
                serf_wan: Some(serf.1),
                server: 8300,
            },
            domain: "terraform.".to_owned(),
            data_dir: "/data".to_owned(),
            coordinates: true,
            node_meta: Arc::new(ArcSwap::from_pointee(BTreeMap::from([(
                "rack".to_owned(),
                "r1".to_owned(),
            )]))),
        },
        remote_script_checks: false,
        session_ttl_min: Duration::from_secs(10),
        use_cache: true,
        reload: None,
        rules: HttpRules::default(),
        limits: ServerLimits::default(),
        connections_per_client_max: Arc::new(AtomicUsize::new(200)),
        logs: Arc::default(),
        scratch: std::env::temp_dir(),
    }
}

pub(crate) fn view(local: LocalView) -> View {
    let member = Member {
        name: NodeName::parse("n1").unwrap(),
        address: "127.0.0.1:8301".parse().unwrap(),
        tags: Tags::from_iter([("role", "terraform")]),
        status: MemberStatus::Alive,
        status_time: LamportTime::ZERO,
        versions: Versions {
            protocol_min: 1,
            protocol_max: 5,
            protocol: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate: 4,
        },
    };
    View {
        name: member.name.clone(),
        id: NodeId::from_bytes([7; 16]),
        datacenter: Datacenter::parse("dc1").unwrap(),
        members: [member].into_iter().collect(),
        wan_members: Some(terraform_core::serf::Members::default()),
        datacenters: Arc::from([DatacenterCoordinates::unknown(Datacenter::parse("dc1").unwrap())]),
        local,
        events: KeptEvents::new(),
        consensus: None,
        catalog: None,
        version: 1,
    }
}

impl World {
    pub(super) fn new(settings: HttpSettings, local: LocalView) -> Self {
        Self::seeing(view(local), settings)
    }

    fn seeing(view: View, settings: HttpSettings) -> Self {
        let (sender, calls) = smol::channel::bounded(4);
        let view = Arc::new(ArcSwap::from_pointee(view));
        let node = NodeHandle::new(view, sender, Clock::start());
        Self { api: Api::new(node, settings), calls }
    }

    /// Sends `text` as a request; the node answers what it is asked with `answers`, in order.
    /// Returns the reply and what the node was asked.
    pub(super) fn exchange(&self, text: &str, answers: Vec<Answer>) -> (Reply, Vec<Request>) {
        self.exchange_request(&request(text), answers)
    }

    /// The same with a request that is made already.
    fn exchange_request(
        &self,
        request: &HttpRequest,
        answers: Vec<Answer>,
    ) -> (Reply, Vec<Request>) {
        let mut asked = Vec::new();
        let node = async {
            for answer in answers {
                let Ok(call) = self.calls.recv().await else { break };
                asked.push(Arc::unwrap_or_clone(call.request));
                call.reply.send(answer);
            }
            smol::future::pending::<Reply>().await
        };
        let reply = smol::block_on(smol::future::or(self.api.answer(request, None), node));
        assert!(self.calls.is_empty(), "the node was asked more than it answers");
        (reply, asked)
    }

    /// The status and body of an exchange in which the node is not asked.
    pub(super) fn say(&self, text: &str) -> (u16, String) {
        let (reply, _) = self.exchange(text, vec![]);
        (reply.status, body(&reply))
    }

    /// The reply to a read whose rows are given.
    pub(super) fn read(&self, text: &str, rows: Rows) -> (Reply, Request) {
        let (reply, mut asked) = self.exchange(text, vec![answer(rows)]);
        (reply, asked.pop().expect("a read asks the node"))
    }

    /// What the node was asked by a request whose answer is `Done`.
    pub(super) fn write(&self, text: &str) -> (u16, String, RequestBody) {
        let (reply, mut asked) = self.exchange(text, vec![Ok(Response::Done)]);
        let asked = asked.pop().unwrap_or_else(|| panic!("not asked: {}", body(&reply)));
        (reply.status, body(&reply), asked.body)
    }
}

/// The request of `METHOD TARGET [Header: value…]` lines, with a body behind an empty line.
pub(super) fn request(text: &str) -> HttpRequest {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let head = head.replace('\n', "\r\n");
    let (line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
    let length = body.len();
    let bytes =
        format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    let mut connection = Connection::new(ConnectionLimits::default());
    connection.feed(bytes.as_bytes());
    let event = connection.poll();
    let Event::Request(request) = event else { panic!("{event:?}") };
    *request
}

pub(super) fn body(reply: &Reply) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

pub(super) fn answer(rows: Rows) -> Answer {
    Ok(Response::Answer(Arc::new(QueryAnswer {
        rows,
        index: ModifyIndex::new(42),
        known_leader: true,
        last_contact: Duration::from_millis(3),
        consistency: Consistency::Leader,
    })))
}

/// The value of a header.
pub(super) fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    if name == "Vary" {
        return reply.varies.then_some("Accept-Encoding");
    }
    reply.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

pub(super) fn server() -> World {
    World::new(settings(), LocalView::default())
}

pub(super) fn with_reload(result: Result<(), String>) -> World {
    let mut settings = settings();
    settings.reload = Some(Reload::new(move || {
        let result = result.clone();
        async move { result }
    }));
    World::new(settings, LocalView::default())
}
