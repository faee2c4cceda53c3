//! Full and partial syncs against the catalog's own tables, driven by hand.

use super::*;
use crate::catalog::Tables;
use crate::catalog::command::{Command, Deregistration, Registration, SERF_HEALTH};
use crate::catalog::model::{CheckRecipe, CheckStatus, Service, Weights};
use crate::catalog::query::{Consistency, NodeChecksQuery, QueryAnswer};
use crate::id::{LogIndex, NodeName, ServiceName};

const UPDATE_INTERVAL: Duration = Duration::from_secs(300);

#[test]
fn the_first_sync_is_tried_at_once_and_without_waiting_for_a_leader() {
    let mut rig = Rig::new(LocalView::default());
    let submitted = rig.at(Instant::ZERO);
    assert!(matches!(&submitted[..], [AntiEntropyOutput::Submit { hold: false, .. }]));
    let outputs = rig.reply(SyncTicket(1), Err(RequestError::NoLeader));
    let [AntiEntropyOutput::Trace(Level::Error, line)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let expected = "failed to sync remote state: rpc error: No cluster leader";
    assert_eq!(line.to_string(), expected);
    let retry = rig.machine.next_timeout().unwrap();
    assert!(retry >= rig.now + Duration::from_secs(15));
    assert!(retry < rig.now + Duration::from_secs(30));
}

#[test]
fn a_failed_sync_is_repeated_soon_once_a_server_is_reachable() {
    let mut rig = Rig::new(LocalView::default());
    rig.at(Instant::ZERO);
    rig.reply(SyncTicket(1), Err(RequestError::NoLeader));
    rig.input(AntiEntropyInput::ServerReachable);
    let soon = rig.machine.next_timeout().unwrap();
    assert!(soon < rig.now + Duration::from_millis(25));
    let submitted = rig.at(soon);
    assert!(matches!(&submitted[..], [AntiEntropyOutput::Submit { hold: true, .. }]));
}

#[test]
fn services_that_went_while_the_agent_was_thought_dead_come_back_soon() {
    let mut rig = Rig::new(view_of(&["web"]));
    rig.input(AntiEntropyInput::ThoughtDead);
    rig.run(Instant::ZERO);
    let planned = rig.machine.next_timeout().unwrap();
    assert!(planned >= rig.now + Duration::from_secs(60), "nothing was there to lose");
    let target = Deregistration {
        node: rig.node_name.clone(),
        service: Some(service_id("web")),
        check: None,
    };
    rig.apply(Command::Deregister(target));
    rig.input(AntiEntropyInput::ServerReachable);
    assert_eq!(rig.machine.next_timeout(), Some(planned));
    rig.input(AntiEntropyInput::ThoughtDead);
    let soon = rig.machine.next_timeout().unwrap();
    assert!(soon < rig.now + Duration::from_millis(25));
    rig.run(soon);
    assert_eq!(rig.services("n1"), ["web"]);
}

#[test]
fn a_full_sync_makes_the_catalog_equal_to_the_agent() {
    let mut view = view_of(&["web", "db"]);
    put_check(&mut view, "web-up", Some("web"));
    put_check(&mut view, "disk", None);
    let mut rig = Rig::new(view);
    rig.register("old", Some("n1"));
    rig.register("other", Some("n2"));
    rig.register(SERVER_SERVICE, Some("n1"));
    rig.register_check(SERF_HEALTH, "n1");
    rig.register_check("stray", "n1");
    rig.run(Instant::ZERO);
    assert_eq!(rig.services("n1"), ["db", SERVER_SERVICE, "web"]);
    assert_eq!(rig.checks("n1"), ["disk", SERF_HEALTH, "web-up"]);
    assert_eq!(rig.services("n2"), ["other"]);
    let (Rows::Node(Some(node)), _) = rig.tables.node_with_services("n1") else { panic!() };
    assert_eq!(node.node.tagged_addresses["lan"], "127.0.0.1");
    let written = rig.writes;
    let next = rig.machine.next_timeout().unwrap();
    assert!(next >= rig.now + Duration::from_secs(60));
    assert!(next < rig.now + Duration::from_secs(120));
    rig.run(next);
    assert_eq!(rig.writes, written, "a catalog that agrees is not written to");
}

#[test]
fn a_check_that_lets_its_service_go_otherwise_is_written_again() {
    let mut view = view_of(&["web"]);
    put_check(&mut view, "web-up", Some("web"));
    let mut rig = Rig::new(view.clone());
    rig.run(Instant::ZERO);
    let after = Duration::from_secs(90);
    let ours = Arc::make_mut(view.checks.get_mut(&check_id("web-up")).unwrap());
    ours.recipe.deregister_critical_service_after = after;
    // As an agent of this release finds what one of an earlier release wrote.
    rig.machine.local = view;
    let next = rig.machine.next_timeout().unwrap();
    rig.run(next);
    let (Rows::Checks(checks), _) = rig.tables.node_checks(&rig.node_name) else { panic!() };
    assert_eq!(checks[0].recipe.deregister_critical_service_after, after);
}

#[test]
fn a_node_whose_identity_begins_with_the_name_is_not_taken_for_the_own_one() {
    let mut rig = Rig::new(LocalView::default());
    rig.machine.node.name = NodeName::parse("0101").unwrap();
    rig.node_name = rig.machine.node.name.clone();
    let other = own("elsewhere", 1);
    let registration =
        Registration { node: other, skip_node_update: false, service: None, checks: vec![] };
    rig.apply(Command::Register(Box::new(registration)));
    rig.machine.node.id = Some(NodeId::from_bytes([9; 16]));
    rig.run(Instant::ZERO);
    let names = |rows| match rows {
        (Rows::Nodes(nodes), _) => nodes.iter().map(|node| node.name.to_string()).collect(),
        other => panic!("{other:?}"),
    };
    let names: Vec<String> = names(rig.tables.all_nodes(&Vec::new()));
    assert_eq!(names, ["0101", "elsewhere"]);
}

#[test]
fn the_catalogs_tags_win_where_the_service_allows_it() {
    let mut view = view_of(&["web"]);
    Arc::make_mut(view.services.get_mut(&service_id("web")).unwrap()).enable_tag_override = true;
    let mut theirs = (*view.services[&service_id("web")]).clone();
    theirs.tags = vec!["blue".to_owned()];
    let mut rig = Rig::new(view);
    rig.apply(registration("n1", Some(theirs.clone()), vec![]));
    rig.run(Instant::ZERO);
    let adopt =
        AntiEntropyOutput::AdoptTags { service: service_id("web"), tags: theirs.tags.clone() };
    assert!(rig.seen.contains(&adopt));
    let (Rows::Node(Some(node)), _) = rig.tables.node_with_services("n1") else { panic!() };
    assert_eq!(node.services[0].tags, theirs.tags);
}

#[test]
fn a_change_is_written_at_once_and_its_request_answered_after_it() {
    let mut rig = Rig::new(LocalView::default());
    rig.run(Instant::ZERO);
    let view = view_of(&["web"]);
    let change = Change::Service(service_id("web"));
    let outputs = rig.input(AntiEntropyInput::Local { change, view });
    let [AntiEntropyOutput::Submit { ticket, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(rig.input(AntiEntropyInput::Answer(RequestId::new(1))), []);
    let outputs = rig.reply(*ticket, Ok(Response::Done));
    assert!(matches!(&outputs[..], [AntiEntropyOutput::Trace(Level::Info, line),
        AntiEntropyOutput::Done(_)] if line.to_string() == "Synced service 'web'"));
}

#[test]
fn a_failed_write_answers_the_request_and_stays_to_be_done() {
    let mut rig = Rig::new(LocalView::default());
    rig.run(Instant::ZERO);
    let change = Change::Service(service_id("web"));
    let view = view_of(&["web"]);
    rig.input(AntiEntropyInput::Local { change, view });
    rig.input(AntiEntropyInput::Answer(RequestId::new(1)));
    let ticket = SyncTicket(rig.machine.tickets);
    let outputs = rig.reply(ticket, Err(RequestError::NoLeader));
    assert!(outputs.contains(&AntiEntropyOutput::Done(RequestId::new(1))));
    let retry = rig.machine.next_timeout().unwrap();
    rig.run(retry);
    assert_eq!(rig.services("n1"), ["web"]);
}

#[test]
fn a_refused_write_does_not_hold_up_the_others() {
    let names: Vec<String> = (0..200).map(|n| format!("s{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rig = Rig::new(view_of(&names));
    rig.refuse = Some(service_id("s000"));
    rig.run(Instant::ZERO);
    assert_eq!(rig.services("n1").len(), 199);
    assert!(rig.machine.next_timeout().unwrap() < rig.now + Duration::from_secs(30));
    assert!(rig.in_flight_max <= BATCH_MAX);
}

#[test]
fn more_checks_than_fit_beside_their_service_follow_it() {
    let mut view = view_of(&["web"]);
    for n in 0..100 {
        put_check(&mut view, &format!("c{n:03}"), Some("web"));
    }
    let mut rig = Rig::new(view);
    rig.run(Instant::ZERO);
    assert_eq!(rig.checks("n1").len(), 100);
    assert!(rig.machine.synced);
}

#[test]
fn a_new_output_alone_waits_and_a_new_state_does_not() {
    let mut view = view_of(&[]);
    put_check(&mut view, "disk", None);
    let mut rig = Rig::new(view.clone());
    rig.run(Instant::ZERO);
    let check = view.checks.get_mut(&check_id("disk")).unwrap();
    Arc::make_mut(check).output = "other".to_owned();
    let change = Change::Output(check_id("disk"));
    assert_eq!(rig.input(AntiEntropyInput::Local { change, view: view.clone() }), []);
    let at = rig.machine.timers.deadline(&SyncTimer::Output(check_id("disk"))).unwrap();
    assert!(at >= rig.now + UPDATE_INTERVAL / 2 && at < rig.now + UPDATE_INTERVAL * 3 / 2);
    // A full sync in between leaves the output alone.
    let written = rig.writes;
    let full = rig.machine.timers.deadline(&SyncTimer::Full).unwrap();
    assert!(full < at);
    rig.run(full);
    assert_eq!(rig.writes, written);
    let change = Change::Check(check_id("disk"));
    let outputs = rig.input(AntiEntropyInput::Local { change, view });
    assert!(matches!(&outputs[..], [AntiEntropyOutput::Submit { .. }]));
    assert_eq!(rig.machine.timers.deadline(&SyncTimer::Output(check_id("disk"))), None);
}

#[test]
fn after_a_stop_nothing_is_submitted_and_the_last_write_is_waited_for() {
    let mut rig = Rig::new(LocalView::default());
    rig.run(Instant::ZERO);
    let view = view_of(&["web"]);
    let change = Change::Service(service_id("web"));
    rig.input(AntiEntropyInput::Local { change: change.clone(), view: view.clone() });
    let ticket = SyncTicket(rig.machine.tickets);
    rig.input(AntiEntropyInput::Answer(RequestId::new(1)));
    let done = |id| AntiEntropyOutput::Done(RequestId::new(id));
    assert_eq!(rig.input(AntiEntropyInput::Stop), [done(1)]);
    assert_eq!(rig.input(AntiEntropyInput::Local { change, view }), []);
    assert_eq!(rig.input(AntiEntropyInput::ServerReachable), []);
    assert_eq!(rig.input(AntiEntropyInput::Answer(RequestId::new(2))), [done(2)]);
    assert_eq!(rig.reply(ticket, Ok(Response::Done)), [AntiEntropyOutput::Stopped]);
    assert_eq!(rig.machine.next_timeout(), None);
}

#[test]
fn a_stop_waits_for_a_silent_server_only_so_long() {
    let mut rig = Rig::new(LocalView::default());
    rig.run(Instant::ZERO);
    let change = Change::Service(service_id("web"));
    rig.input(AntiEntropyInput::Local { change, view: view_of(&["web"]) });
    assert_eq!(rig.input(AntiEntropyInput::Stop), []);
    let end = rig.machine.next_timeout().unwrap();
    assert_eq!(rig.at(end), [AntiEntropyOutput::Stopped]);
    assert_eq!(rig.at(end + Duration::from_secs(600)), []);
}

struct Rig {
    machine: AntiEntropy,
    tables: Tables,
    out: Outbox<AntiEntropyOutput>,
    now: Instant,
    node_name: NodeName,
    index: u64,
    writes: u32,
    in_flight_max: usize,
    refuse: Option<ServiceId>,
    seen: Vec<AntiEntropyOutput>,
}

impl Rig {
    fn new(view: LocalView) -> Self {
        let seed = Seed::from_number(3);
        Self {
            machine: AntiEntropy::new(own("n1", 7), view, UPDATE_INTERVAL, seed, Instant::ZERO),
            tables: Tables::default(),
            out: Outbox::new(Level::Info),
            now: Instant::ZERO,
            node_name: NodeName::parse("n1").unwrap(),
            index: 0,
            writes: 0,
            in_flight_max: 0,
            refuse: None,
            seen: Vec::new(),
        }
    }

    fn input(&mut self, input: AntiEntropyInput) -> Vec<AntiEntropyOutput> {
        self.machine.handle(self.now, input, &mut self.out);
        self.out.drain().collect()
    }

    fn reply(
        &mut self,
        ticket: SyncTicket,
        result: Result<Response, RequestError>,
    ) -> Vec<AntiEntropyOutput> {
        self.input(AntiEntropyInput::Reply { ticket, result })
    }

    fn at(&mut self, now: Instant) -> Vec<AntiEntropyOutput> {
        self.now = now;
        self.machine.handle_timeout(now, &mut self.out);
        self.out.drain().collect()
    }

    /// Fires what is due at `now` and answers every request from the tables until all is quiet.
    fn run(&mut self, now: Instant) {
        let mut queue: Vec<_> = self.at(now);
        while !queue.is_empty() {
            let submitted =
                |it: &&AntiEntropyOutput| matches!(it, AntiEntropyOutput::Submit { .. });
            self.in_flight_max = self.in_flight_max.max(queue.iter().filter(submitted).count());
            for output in std::mem::take(&mut queue) {
                if let AntiEntropyOutput::Submit { ticket, body, .. } = &output {
                    let result = self.serve((**body).clone());
                    queue.extend(self.reply(*ticket, result));
                }
                self.seen.push(output);
            }
        }
    }

    fn write(&mut self, command: Command) -> Result<Response, RequestError> {
        self.writes += 1;
        let refused = matches!(&command, Command::Register(registration)
            if self.refuse.is_some()
                && registration.service.as_ref().map(|it| &it.id) == self.refuse.as_ref());
        if refused {
            return Err(RequestError::Refused("no".to_owned()));
        }
        self.apply(command);
        Ok(Response::Done)
    }

    fn serve(&mut self, body: RequestBody) -> Result<Response, RequestError> {
        if let RequestBody::Write(command) = body {
            return self.write(command);
        }
        let RequestBody::Query(query) = body else { panic!("neither a read nor a write") };
        let (rows, index) = if let Query::Node(wanted) = &query {
            self.tables.node_with_services(&wanted.node)
        } else {
            assert_eq!(query, Query::NodeChecks(NodeChecksQuery::all(self.node_name.clone())));
            self.tables.node_checks(&self.node_name)
        };
        let (known_leader, last_contact) = (true, Duration::ZERO);
        let consistency = Consistency::Leader;
        let answer = QueryAnswer { rows, index, known_leader, last_contact, consistency };
        Ok(Response::Answer(Arc::new(answer)))
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        self.tables.apply(LogIndex::new(self.index), command).unwrap();
    }

    fn register(&mut self, service: &str, node: Option<&str>) {
        let service = view_of(&[service]).services[&service_id(service)].clone();
        self.apply(registration(node.unwrap(), Some((*service).clone()), vec![]));
    }

    fn register_check(&mut self, id: &str, node: &str) {
        self.apply(registration(node, None, vec![check(id, node, None)]));
    }

    fn services(&self, node: &str) -> Vec<String> {
        match self.tables.node_with_services(node) {
            (Rows::Node(Some(node)), _) => {
                node.services.iter().map(|it| it.id.to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn checks(&self, node: &str) -> Vec<String> {
        match self.tables.node_checks(&NodeName::parse(node).unwrap()) {
            (Rows::Checks(checks), _) => checks.iter().map(|it| it.id.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn own(name: &str, id: u8) -> Node {
    let address = "127.0.0.1".to_owned();
    Node {
        id: Some(NodeId::from_bytes([id; 16])),
        name: NodeName::parse(name).unwrap(),
        tagged_addresses: BTreeMap::from([("lan".to_owned(), address.clone())]),
        address,
        meta: BTreeMap::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn registration(node: &str, service: Option<Service>, checks: Vec<Check>) -> Command {
    let mut node = own(node, 0);
    node.id = None;
    Command::Register(Box::new(Registration { node, skip_node_update: false, service, checks }))
}

fn view_of(services: &[&str]) -> LocalView {
    let mut view = LocalView::default();
    for name in services {
        let service = Service {
            id: service_id(name),
            name: ServiceName::parse(name).unwrap(),
            tags: Vec::new(),
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
            port: 80,
            weights: Weights::default(),
            enable_tag_override: false,
            create_index: ModifyIndex::ZERO,
            modify_index: ModifyIndex::ZERO,
        };
        view.services.insert(service_id(name), Arc::new(service));
    }
    view
}

fn put_check(view: &mut LocalView, id: &str, service: Option<&str>) {
    view.checks.insert(check_id(id), Arc::new(check(id, "n1", service)));
}

fn check(id: &str, node: &str, service: Option<&str>) -> Check {
    Check {
        node: NodeName::parse(node).unwrap(),
        id: check_id(id),
        name: id.to_owned(),
        status: CheckStatus::Passing,
        notes: String::new(),
        output: String::new(),
        service_id: service.map(service_id),
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: "tcp".to_owned(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    }
}

fn service_id(id: &str) -> ServiceId {
    ServiceId::parse(id).unwrap()
}

fn check_id(id: &str) -> CheckId {
    CheckId::parse(id).unwrap()
}
