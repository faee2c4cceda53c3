//! A read of the published view is rendered once for each state of the catalog (DESIGN.md §6).

use super::*;
use terraform_core::catalog::Tables;
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::catalog::model::Node;
use terraform_core::id::{LogIndex, Term};
use terraform_core::time::Instant;
use terraform_core::view::{ConsensusView, Leader};

/// A server's API whose view a test replaces; the node itself is never asked.
pub(super) struct Server {
    api: Api,
    cell: Arc<ArcSwap<View>>,
}

impl Server {
    pub(super) fn new() -> Self {
        let (sender, _) = smol::channel::bounded(1);
        let cell = Arc::new(ArcSwap::from_pointee(leader()));
        let node = NodeHandle::new(Arc::clone(&cell), sender, Clock::start());
        Self { api: Api::new(node, settings()), cell }
    }

    fn publish(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.cell.load());
        change(&mut view);
        view.version += 1;
        self.cell.store(Arc::new(view));
    }

    /// Applies a registration of the node `name` and publishes what that makes.
    fn register(&self, name: &str) {
        let node = Arc::unwrap_or_clone(values::bare_node());
        let node = Node { name: NodeName::parse(name).unwrap(), ..node };
        let registration =
            Registration { node, skip_node_update: false, service: None, checks: Vec::new() };
        self.apply(Command::Register(Box::new(registration)));
    }

    /// Applies a command and publishes what that makes.
    pub(super) fn apply(&self, command: Command) {
        self.publish(|view| {
            let consensus = view.consensus.as_mut().unwrap();
            consensus.applied = LogIndex::new(consensus.applied.get() + 1);
            view.catalog.as_mut().unwrap().apply(consensus.applied, command).unwrap();
        });
    }

    fn get(&self, text: &str) -> Reply {
        let reply = self.say(text);
        assert_eq!(reply.status, 200, "{}", body(&reply));
        reply
    }

    pub(super) fn say(&self, text: &str) -> Reply {
        smol::block_on(self.api.answer(&request(text), None))
    }
}

fn leader() -> View {
    let id = NodeId::from_bytes([7; 16]);
    let consensus = ConsensusView {
        leader: Some(Leader { id, address: "127.0.0.1:8300".parse().unwrap() }),
        lease_until: Some(Instant::from_nanos(u64::MAX)),
        ..ConsensusView::of_new_leader(Term::new(1))
    };
    let catalog = Some(Tables::default());
    View { consensus: Some(consensus), catalog, ..view(LocalView::default()) }
}

/// Every read whose body is shared.
const READS: [&str; 7] = [
    "GET /v1/catalog/nodes",
    "GET /v1/catalog/services",
    "GET /v1/catalog/service/web",
    "GET /v1/health/node/n1",
    "GET /v1/health/checks/web",
    "GET /v1/health/service/web",
    "GET /v1/health/state/any",
];

fn is_same(a: &Reply, b: &Reply) -> bool {
    a.body.as_ptr() == b.body.as_ptr() && a.body.len() == b.body.len()
}

#[test]
fn the_same_read_of_the_same_state_shares_its_body() {
    let server = Server::new();
    server.register("n1");
    for read in READS {
        for asked in [read.to_owned(), format!("{read}?pretty"), format!("{read}?stale")] {
            let first = server.get(&asked);
            assert!(is_same(&first, &server.get(&asked)), "{asked}");
        }
        let packed = format!("{read}\nAccept-Encoding: gzip");
        assert!(server.get(&packed).form.gzip);
        assert!(is_same(&server.get(&packed), &server.get(&packed)), "{packed}");
        assert!(!server.get(read).form.gzip);
    }
}

#[test]
fn forms_and_filters_have_bodies_of_their_own() {
    let server = Server::new();
    server.register("n1");
    let nodes = server.get("GET /v1/catalog/nodes");
    assert_ne!(server.get("GET /v1/catalog/nodes?pretty").body, nodes.body);
    assert_eq!(body(&server.get("GET /v1/catalog/nodes?node-meta=a:b")), "[]");
    assert!(is_same(&server.get("GET /v1/catalog/nodes?stale"), &nodes));
    let none = server.get("GET /v1/catalog/nodes?filter=Node==n2");
    assert_eq!(body(&none), "[]");
    assert!(is_same(&server.get("GET /v1/catalog/nodes?stale&filter=Node==n2"), &none));
    assert_ne!(server.get("GET /v1/catalog/nodes?filter=Node==n1").body, none.body);
    let near = server.get("GET /v1/catalog/nodes?near=n1");
    assert!(near.body == nodes.body && !is_same(&near, &nodes));
}

#[test]
fn a_change_of_the_catalog_is_seen_by_the_next_read() {
    let server = Server::new();
    server.register("n1");
    let before = server.get("GET /v1/catalog/nodes");
    assert_eq!(before.meta.unwrap().index, 1);
    server.register("n2");
    let after = server.get("GET /v1/catalog/nodes");
    assert!(body(&after).contains(r#""Node":"n2""#), "{}", body(&after));
    assert_eq!(after.meta.unwrap().index, 2);
}

#[test]
fn a_view_with_the_same_catalog_shares_bodies_but_not_what_heads_say() {
    let server = Server::new();
    server.register("n1");
    let before = server.get("GET /v1/catalog/nodes?stale");
    server.publish(|view| {
        let consensus = view.consensus.as_mut().unwrap();
        consensus.role = "Follower";
        consensus.leader = None;
        consensus.leader_contact_at = Some(Instant::ZERO);
    });
    let after = server.get("GET /v1/catalog/nodes?stale");
    assert!(is_same(&before, &after));
    assert!(before.meta.unwrap().known_leader && !after.meta.unwrap().known_leader);
    assert_eq!(before.meta.unwrap().last_contact, Duration::ZERO);
    assert_ne!(after.meta.unwrap().last_contact, Duration::ZERO);
}

#[test]
fn agents_of_one_process_do_not_share() {
    let (first, second) = (Server::new(), Server::new());
    first.register("n1");
    second.register("n2");
    assert!(body(&first.get("GET /v1/catalog/nodes")).contains("n1"));
    assert!(body(&second.get("GET /v1/catalog/nodes")).contains("n2"));
}

#[test]
fn a_read_that_need_not_wait_is_answered_from_the_view() {
    let server = Server::new();
    server.register("n1");
    let reply = server.get("GET /v1/catalog/nodes");
    let index = reply.meta.unwrap().index;
    let newer = server.get(&format!("GET /v1/catalog/nodes?index={}", index - 1));
    assert_eq!(newer.body.as_ptr(), reply.body.as_ptr(), "and shares its body");
    // The node of this test is gone, so whatever goes to it fails.
    let reply = server.say(&format!("GET /v1/catalog/nodes?index={index}"));
    assert_eq!(reply.status, 503, "{}", body(&reply));
}
