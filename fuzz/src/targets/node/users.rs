//! What programs and people ask of the agent.

use super::host::Host;
use crate::choices::Choices;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use terraform_core::catalog::command::{Command, Deregistration, Registration};
use terraform_core::catalog::model::{CheckStatus, Node, NodeCoordinate, Service, Weights};
use terraform_core::catalog::query::{Consistency, NodeChecksQuery, Query};
use terraform_core::coordinate::Coordinate;
use terraform_core::event::{Filters, FireEvent};
use terraform_core::id::{CheckId, ModifyIndex, NodeName, PoolName, ServiceId, ServiceName};
use terraform_core::local::definition::{
    CheckDefinition, CheckKind, Origin, ServiceDefinition, TcpCheck,
};
use terraform_core::node::input::Input;
use terraform_core::node::request::{Reloadable, Request, RequestBody, RequestContext};
use terraform_core::rpc::RequestRate;
use terraform_core::time::WallClock;
use terraform_core::trace::Level;

const NAMES: [&str; 4] = ["web", "db", "agent", "p1"];

fn name(choices: &mut Choices<'_>) -> &'static str {
    let [web, db, agent, p1] = NAMES;
    match choices.byte() % 4 {
        0 => web,
        1 => db,
        2 => agent,
        _ => p1,
    }
}

fn node_name(choices: &mut Choices<'_>) -> NodeName {
    NodeName::parse(name(choices)).expect("letters are a name")
}

fn service_id(choices: &mut Choices<'_>) -> ServiceId {
    ServiceId::parse(name(choices)).expect("letters are an id")
}

fn check_id(choices: &mut Choices<'_>) -> CheckId {
    CheckId::parse(name(choices)).expect("letters are an id")
}

fn service(choices: &mut Choices<'_>) -> Service {
    Service {
        id: service_id(choices),
        name: ServiceName::parse(name(choices)).expect("letters are a name"),
        tags: vec![name(choices).to_owned()],
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port: i64::from(choices.byte()),
        weights: Weights { passing: 1, warning: 1 },
        enable_tag_override: choices.byte() & 1 == 0,
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn check(choices: &mut Choices<'_>) -> CheckDefinition {
    let interval = Duration::from_secs(1 + u64::from(choices.byte() % 8));
    let tcp =
        TcpCheck { target: "127.0.0.1:80".to_owned(), interval, timeout: Duration::from_secs(1) };
    let kind = if choices.byte() & 1 == 0 { CheckKind::Ttl(interval) } else { CheckKind::Tcp(tcp) };
    CheckDefinition {
        id: check_id(choices),
        name: String::new(),
        notes: String::new(),
        service_id: (choices.byte() & 1 == 0).then(|| service_id(choices)),
        status: CheckStatus::Critical,
        kind,
        output_max_size: 4096,
        success_before_passing: u32::from(choices.byte() % 3),
        failures_before_critical: u32::from(choices.byte() % 3),
        deregister_critical_service_after: (choices.byte() & 1 == 0)
            .then_some(Duration::from_secs(60)),
        token: String::new(),
        origin: Origin::Api,
    }
}

fn registration(choices: &mut Choices<'_>) -> Registration {
    let node = Node {
        id: None,
        name: node_name(choices),
        address: "10.0.0.77".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let service = (choices.byte() & 1 == 0).then(|| service(choices));
    Registration { node, skip_node_update: false, service, checks: Vec::new() }
}

fn body(choices: &mut Choices<'_>) -> RequestBody {
    match choices.byte() % 16 {
        0 => RequestBody::Query(Query::Leader),
        1 => RequestBody::Query(Query::Peers),
        2 => RequestBody::Query(Query::NodeChecks(NodeChecksQuery::all(node_name(choices)))),
        3 | 4 => RequestBody::Write(Command::Register(Box::new(registration(choices)))),
        5 => RequestBody::Write(Command::Deregister(Deregistration {
            node: node_name(choices),
            service: None,
            check: None,
        })),
        6 => {
            let choice = choices.byte();
            let (last, wan) = (choice % 4, choice & 4 != 0);
            let (pool, port) = if wan { (PoolName::Wan, 8302) } else { (PoolName::Lan, 8301) };
            RequestBody::Join {
                pool,
                addresses: vec![SocketAddr::from(([10, 0, 0, last], port))],
                replay: choices.byte() & 1 == 0,
            }
        }
        7 => {
            let prune = choices.byte() & 1 == 0;
            RequestBody::ForceLeave { node: node_name(choices), prune }
        }
        8 | 9 => RequestBody::RegisterService {
            definition: Box::new(ServiceDefinition {
                service: service(choices),
                checks: Vec::new(),
                token: String::new(),
                origin: Origin::Api,
            }),
            replace_existing_checks: choices.byte() & 1 == 0,
        },
        10 => RequestBody::DeregisterService(service_id(choices)),
        11 => RequestBody::RegisterCheck(Box::new(check(choices))),
        12 => RequestBody::DeregisterCheck(check_id(choices)),
        13 => RequestBody::UpdateTtl {
            check: check_id(choices),
            status: CheckStatus::Passing,
            output: "ok".to_owned(),
        },
        14 => RequestBody::Reload(Box::new(Reloadable {
            services: Vec::new(),
            checks: vec![CheckDefinition { origin: Origin::File, ..check(choices) }],
            node_meta: BTreeMap::new(),
            discard_check_output: false,
            rpc_rate: Some(RequestRate { interval: Duration::from_secs(1), burst: 3 }),
            level: Level::Info,
        })),
        _ => match choices.byte() {
            0..8 => RequestBody::Leave { force: choices.byte() & 1 == 0 },
            8..64 => RequestBody::Info,
            64..72 => RequestBody::Coordinates,
            72..80 => RequestBody::Write(Command::Coordinates(vec![NodeCoordinate {
                node: node_name(choices),
                segment: String::new(),
                coordinate: Coordinate::ORIGIN,
            }])),
            80..96 => RequestBody::FireEvent(Box::new(fire_event(choices))),
            96.. => RequestBody::Serf(super::serf::request(choices)),
        },
    }
}

fn fire_event(choices: &mut Choices<'_>) -> FireEvent {
    let mut filter = || match choices.byte() % 4 {
        0 => "a".to_owned(),
        1 => "(".to_owned(),
        _ => String::new(),
    };
    let filters = Filters { node: filter(), service: filter(), tag: filter() };
    let payload = Bytes::from(vec![0; usize::from(choices.byte()) * 4]);
    FireEvent { name: "deploy".to_owned(), payload, filters }
}

impl Host {
    /// Somebody asks for something.
    pub(super) fn request(&mut self, choices: &mut Choices<'_>) {
        let consistency = match choices.byte() % 4 {
            0 => Consistency::Stale,
            1 => Consistency::Consistent,
            _ => Consistency::Leader,
        };
        let context = RequestContext { consistency, ..RequestContext::default() };
        let request = Arc::new(Request { context, body: body(choices) });
        let millis = i64::try_from(self.now.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let wall = WallClock::from_millis(1_700_000_000_000_i64.saturating_add(millis));
        let id = self.new_request();
        self.input(Input::Request { id, wall, request });
    }
}
