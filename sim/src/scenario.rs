//! Named scenarios: short scripts of what happens to a cluster and what must follow.
//!
//! Source: simulation.md §6. One statement a line, performed in order; `#` begins a comment:
//!
//! | statement | meaning |
//! |---|---|
//! | `servers N`, `clients N [later]` | the hosts; those that come later are not started |
//! | `seeds A..B` | the worlds the script is performed in |
//! | `short-logs` | logs are cut after some entries, so that snapshots are needed |
//! | `at T do DEED` | waits for world time T, then does it |
//! | `when FACT do DEED` | waits for the fact, then does it |
//! | `do DEED` | does it now |
//! | `wait D` | lets the time pass |
//! | `expect FACT within D` | the fact must come true in time |
//!
//! Deeds: `kill`, `power-off`, `start` (a host, `all` or `clients`), `leave`, `force-leave`,
//! `stop` (as SIGTERM does), `isolate`, `mute`, `deafen` a host, `cut` two hosts, `filter`
//! datagrams of one host to another, `rot` a part of the disk of a host that is down, counted from
//! a place, `stall` a host's disk for a time, `fill` it but for so many bytes for a time, `pause`
//! a host or `all` for a time, `hand-over` leadership to a host, `serve` (a service is registered
//! on a host's agent), `lease` (one is whose check lets it go), `intrude` (the catalog gets a
//! service and a check of a host that its agent does not have), `rob` (the catalog loses a host's
//! node with everything on it), `heal`, `work`, `rest-work`, `note-term`. A host is its name,
//! `leader`, `follower`, or `it`: the host of the deed before. Facts: `leader`, `new-leader` (one
//! that is not `it`), `leads` (`it` does), `failed` and `left` (all see `it` so), `installed` (a
//! snapshot took the place of the log of `it`), `recovering` and `recovered` (`it` runs, and lacks
//! a part of its log, or none), `full` (`it` runs on a full disk), `leased` (the catalog has the
//! service of `lease`), `lapsed` (it has that of `serve` alone), `unheard` (another one's log says
//! that the UDP of `it` does not arrive), `unreached` (the log of `it` says that its UDP does not
//! arrive elsewhere), `same-term` (nobody has raised the term since it was noted), `unlike` (the
//! catalog does not show what an agent has), `rest` (every rule of a world at rest holds). The
//! rules that are checked after every event are checked all the time.

use crate::checker::{Expectation, Violation, ask, has_leader, seen_by_all};
use crate::disk::{Crash, Loss};
use crate::net::HostId;
use crate::plan::Plan;
use crate::rot::Part;
use crate::run::Run;
use crate::workload;
use crate::world::Note;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use terraform_core::catalog::command::{Command, Deregistration, Registration};
use terraform_core::catalog::model::{Check, CheckRecipe, CheckStatus, Node};
use terraform_core::catalog::query::{Query, Rows, ServiceQuery};
use terraform_core::gossip::GossipTrace;
use terraform_core::id::{CheckId, ModifyIndex, NodeName, Term};
use terraform_core::local::definition::{
    CheckDefinition, CheckKind, DEREGISTER_AFTER_MIN, Origin, ServiceDefinition, TcpCheck,
};
use terraform_core::node::input::Input;
use terraform_core::node::request::{OperatorRequest, Request, RequestBody};
use terraform_core::raft::{Raft, RaftLimits, RoleKind};
use terraform_core::serf::MemberStatus;
use terraform_core::time::Instant;
use terraform_core::trace::TraceKind;

/// Time between looks at a fact.
const LOOK: Duration = Duration::from_millis(100);
/// How long a `when` waits.
const WHEN_LIMIT: Duration = Duration::from_secs(120);

/// All scenarios by name.
pub const SCENARIOS: [(&str, &str); 34] = [
    ("bootstrap-race", include_str!("../scenarios/bootstrap-race.txt")),
    ("leader-crash", include_str!("../scenarios/leader-crash.txt")),
    ("symmetric-partition", include_str!("../scenarios/symmetric-partition.txt")),
    ("one-way-partition", include_str!("../scenarios/one-way-partition.txt")),
    ("deaf-leader", include_str!("../scenarios/deaf-leader.txt")),
    ("partial-partition", include_str!("../scenarios/partial-partition.txt")),
    ("restart-of-all", include_str!("../scenarios/restart-of-all.txt")),
    ("power-loss", include_str!("../scenarios/power-loss.txt")),
    ("leave-of-a-client", include_str!("../scenarios/leave-of-a-client.txt")),
    ("leave-of-a-follower", include_str!("../scenarios/leave-of-a-follower.txt")),
    ("leave-of-the-leader", include_str!("../scenarios/leave-of-the-leader.txt")),
    ("stop-of-the-leader", include_str!("../scenarios/stop-of-the-leader.txt")),
    ("kill-and-rejoin", include_str!("../scenarios/kill-and-rejoin.txt")),
    ("killed-while-leaving", include_str!("../scenarios/killed-while-leaving.txt")),
    ("force-leave", include_str!("../scenarios/force-leave.txt")),
    ("mass-restart", include_str!("../scenarios/mass-restart.txt")),
    ("filtered-datagrams", include_str!("../scenarios/filtered-datagrams.txt")),
    ("mass-join", include_str!("../scenarios/mass-join.txt")),
    ("snapshot-for-a-late-server", include_str!("../scenarios/snapshot-for-a-late-server.txt")),
    ("snapshot-interrupted", include_str!("../scenarios/snapshot-interrupted.txt")),
    ("snapshots-after-power-loss", include_str!("../scenarios/snapshots-after-power-loss.txt")),
    ("rot-in-an-old-segment", include_str!("../scenarios/rot-in-an-old-segment.txt")),
    ("rot-of-both-snapshots", include_str!("../scenarios/rot-of-both-snapshots.txt")),
    ("vote-after-restart", include_str!("../scenarios/vote-after-restart.txt")),
    ("terms-apart", include_str!("../scenarios/terms-apart.txt")),
    ("full-disks", include_str!("../scenarios/full-disks.txt")),
    ("removed-while-away", include_str!("../scenarios/removed-while-away.txt")),
    ("late-voter-asks-first", include_str!("../scenarios/late-voter-asks-first.txt")),
    ("two-servers-leave", include_str!("../scenarios/two-servers-leave.txt")),
    ("everybody-wakes", include_str!("../scenarios/everybody-wakes.txt")),
    ("leader-disk-stalls", include_str!("../scenarios/leader-disk-stalls.txt")),
    ("tampered-catalog", include_str!("../scenarios/tampered-catalog.txt")),
    ("lapsed-lease", include_str!("../scenarios/lapsed-lease.txt")),
    ("watchers-change-leaders", include_str!("../scenarios/watchers-change-leaders.txt")),
];

/// One script.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The worlds it is performed in.
    pub seeds: Range<u64>,
    servers: usize,
    clients: usize,
    later: bool,
    short_logs: bool,
    steps: Vec<String>,
}

fn span(text: &str) -> Option<Duration> {
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

impl Scenario {
    /// Reads a script; an error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = Vec::new();
        let mut scenario =
            Self { seeds: 1..2, servers: 3, clients: 0, later: false, short_logs: false, steps };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            let bad = || format!("not a statement: {line}");
            let number = |text: &str| text.parse().map_err(|_| bad());
            match words.as_slice() {
                [] => {}
                ["servers", count] => scenario.servers = number(count)?,
                ["clients", count, more @ ..] if matches!(more, [] | ["later"]) => {
                    scenario.clients = number(count)?;
                    scenario.later = !more.is_empty();
                }
                ["short-logs"] => scenario.short_logs = true,
                ["seeds", range] => {
                    let (from, to) = range.split_once("..").ok_or_else(bad)?;
                    let read = |text: &str| text.parse::<u64>().map_err(|_| bad());
                    scenario.seeds = read(from)?..read(to)?;
                }
                ["at" | "when" | "do" | "wait" | "expect", ..] => {
                    scenario.steps.push(line.to_owned());
                }
                _ => return Err(bad()),
            }
        }
        Ok(scenario)
    }

    /// Performs the script in the world of `seed`; the world is returned for the report.
    pub fn perform(&self, seed: u64) -> (Result<(), Violation>, Run) {
        let mut plan = Plan::quiet(seed, self.servers, self.clients);
        if self.short_logs {
            plan.limits = RaftLimits {
                snapshot_entries: 20,
                snapshot_interval: Duration::from_secs(1),
                trailing_entries: 5,
                block_bytes: 1 << 10,
                ..plan.limits
            };
        }
        let run = Run::new(plan);
        let started = if self.later { self.servers } else { self.servers + self.clients };
        let mut play = Play { run, it: 0, busy: false, noted: Term::ZERO };
        let result = play.all(started, &self.steps).and_then(|()| play.run.judge_history());
        (result, play.run)
    }
}

/// A script being performed.
struct Play {
    run: Run,
    it: HostId,
    busy: bool,
    /// The highest term there was when it was noted.
    noted: Term,
}

impl Play {
    fn all(&mut self, started: usize, steps: &[String]) -> Result<(), Violation> {
        for host in 0..self.run.world.hosts.len() {
            if host < started {
                self.run.start(host)?;
            } else {
                self.run.expect(host, Expectation::Absent);
            }
        }
        steps.iter().try_for_each(|step| {
            self.run.world.note(format!("  {step}"));
            self.step(step)
        })
    }

    fn step(&mut self, step: &str) -> Result<(), Violation> {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words.as_slice() {
            ["at", time, "do", deed @ ..] => {
                let at = Instant::ZERO + span(time).ok_or_else(|| unclear(step))?;
                let left = at.since(self.run.world.now);
                self.run.advance(left, self.busy)?;
                self.deed(deed)
            }
            ["when", fact, "do", deed @ ..] => {
                self.until(fact, WHEN_LIMIT)?;
                self.deed(deed)
            }
            ["do", deed @ ..] => self.deed(deed),
            ["wait", time] => {
                let time = span(time).ok_or_else(|| unclear(step))?;
                self.run.advance(time, self.busy)
            }
            ["expect", fact, "within", limit] => {
                self.until(fact, span(limit).ok_or_else(|| unclear(step))?)
            }
            _ => Err(unclear(step)),
        }
    }

    fn until(&mut self, fact: &str, limit: Duration) -> Result<(), Violation> {
        let end = self.run.world.now + limit;
        loop {
            match self.holds(fact) {
                Ok(()) => return Ok(()),
                Err(violation) if self.run.world.now >= end => {
                    let facts = format!("no `{fact}` within {limit:?}: {}", violation.facts);
                    return Err(Violation { rule: violation.rule, facts });
                }
                Err(_) => self.run.advance(LOOK, self.busy)?,
            }
        }
    }

    fn holds(&self, fact: &str) -> Result<(), Violation> {
        let (world, expected) = (&self.run.world, self.run.expected());
        match fact {
            "leader" => has_leader(world, None),
            "new-leader" => has_leader(world, Some(self.it)),
            "unheard" => self.one_way_told(false),
            "unreached" => self.one_way_told(true),
            "failed" => seen_by_all(world, expected, self.it, MemberStatus::Failed),
            "left" => seen_by_all(world, expected, self.it, MemberStatus::Left),
            "installed" => self.is_so(fact, |raft| raft.stats().snapshots_installed > 0),
            "recovering" => self.is_so(fact, Raft::is_recovering),
            "recovered" => self.is_so(fact, |raft| !raft.is_recovering()),
            "full" if world.hosts[self.it].full_until.is_some() => self.is_so(fact, |_| true),
            "leads" => self.is_so(fact, |raft| raft.role() == RoleKind::Leader),
            "same-term" if self.highest_term() == self.noted => Ok(()),
            "same-term" => {
                let facts = format!("term {} became {}", self.noted, self.highest_term());
                Err(Violation { rule: "I16", facts })
            }
            "unlike" => match self.run.is_at_rest() {
                Err(violation) if violation.rule == "C4" => Ok(()),
                other => Err(Violation { rule: "script", facts: format!("not unlike: {other:?}") }),
            },
            "leased" => self.are_served(fact, &["lease"], &[]),
            "lapsed" => self.are_served(fact, &["web"], &["lease"]),
            "rest" => self.run.is_at_rest(),
            _ => Err(unclear(fact)),
        }
    }

    /// Whether the leader's catalog has instances of these services, and none of the others.
    fn are_served(&self, fact: &str, there: &[&str], gone: &[&str]) -> Result<(), Violation> {
        let leader = self.host("leader")?;
        let serves = |service: &&str| {
            let name = workload::definition(service, 0).service.name;
            let answer =
                ask(&self.run.world, leader, &Query::ServiceNodes(ServiceQuery::all(name)));
            let rows = answer.map(|answer| answer.rows);
            matches!(rows, Some(Rows::ServiceNodes(rows)) if !rows.is_empty())
        };
        if there.iter().all(serves) && !gone.iter().any(serves) {
            return Ok(());
        }
        Err(Violation { rule: "C5", facts: format!("the catalog is not {fact}") })
    }

    fn highest_term(&self) -> Term {
        let running = self.run.world.hosts.iter().filter_map(|host| host.running.as_ref());
        let terms = running.filter_map(|running| Some(running.node.raft()?.term()));
        terms.max().unwrap_or_default()
    }

    /// Whether something is so of the server `it`.
    fn is_so(&self, fact: &str, so: impl Fn(&Raft) -> bool) -> Result<(), Violation> {
        let running = self.run.world.hosts[self.it].running.as_ref();
        if running.and_then(|running| running.node.raft()).is_some_and(so) {
            return Ok(());
        }
        Err(Violation { rule: "script", facts: format!("host {} is not {fact}", self.it) })
    }

    /// Whether somebody's log tells that datagrams of `it` get lost: its own, or another one's.
    fn one_way_told(&self, by_it: bool) -> Result<(), Violation> {
        let name = &self.run.world.hosts[self.it].config.name;
        let tells = |note: &Note| {
            let Note::Trace(observer, event) = note else { return false };
            let TraceKind::Gossip(_, GossipTrace::OneWay { name: about, silent, .. }) = &event.kind
            else {
                return false;
            };
            if by_it {
                *observer == self.it && silent.is_none()
            } else {
                about == name && silent.is_some()
            }
        };
        if self.run.world.ring().any(|(_, note)| tells(note)) {
            return Ok(());
        }
        Err(Violation { rule: "script", facts: format!("no log tells of the UDP of {name}") })
    }

    fn host(&self, name: &str) -> Result<HostId, Violation> {
        let hosts = &self.run.world.hosts;
        let role = |host: HostId| {
            let running = hosts[host].running.as_ref()?;
            Some(running.node.raft()?.role())
        };
        let with = |wanted| (0..hosts.len()).find(|host| role(*host) == Some(wanted));
        match name {
            "it" => Some(self.it),
            "leader" => with(RoleKind::Leader),
            "follower" => with(RoleKind::Follower),
            _ => hosts.iter().position(|host| host.config.name.as_str() == name),
        }
        .ok_or_else(|| unclear(name))
    }

    fn hosts(&mut self, name: &str) -> Result<Vec<HostId>, Violation> {
        let all = 0..self.run.world.hosts.len();
        let servers = self.run.servers();
        match name {
            "all" => Ok(all.collect()),
            "clients" => Ok((servers..all.end).collect()),
            _ => {
                self.it = self.host(name)?;
                Ok(vec![self.it])
            }
        }
    }

    fn deed(&mut self, words: &[&str]) -> Result<(), Violation> {
        self.run.checkers.permissions.quiet = false;
        match words {
            ["work"] => self.busy = true,
            ["rest-work"] => self.busy = false,
            ["note-term"] => self.noted = self.highest_term(),
            ["pause", hosts, time] => {
                let time = span(time).ok_or_else(|| unclear(time))?;
                for host in self.hosts(hosts)? {
                    self.run.world.pause(host, time);
                }
            }
            ["heal"] => self.run.world.net.heal(),
            ["kill", hosts] => self.crash(hosts, Crash::Process)?,
            ["power-off", hosts] => self.crash(hosts, Crash::Power(Loss::Mixed))?,
            ["start", hosts] => {
                for host in self.hosts(hosts)? {
                    self.run.start(host)?;
                }
            }
            ["leave", host] => {
                self.it = self.host(host)?;
                self.left(self.it);
                self.run.world.tell(self.it, Input::Leave);
            }
            ["stop", host] => {
                self.it = self.host(host)?;
                self.run.expect(self.it, Expectation::Failed);
                self.run.world.tell(self.it, Input::Shutdown);
            }
            ["force-leave", host] => {
                self.it = self.host(host)?;
                self.left(self.it);
                let node = self.run.world.hosts[self.it].config.name.clone();
                let by = self.host("leader")?;
                let body = RequestBody::ForceLeave { node, prune: false };
                self.run.world.request(by, Request::new(body));
            }
            [how @ ("rot" | "stall" | "fill"), host, rest @ ..] => {
                self.it = self.host(host)?;
                self.spoil_disk(how, rest)?;
            }
            ["hand-over", host] => {
                self.it = self.host(host)?;
                let to = self.run.world.hosts[self.it].running.as_ref();
                let to = to.map(|running| running.node.id());
                let by = self.host("leader")?;
                let wanted = OperatorRequest::TransferLeadership(to);
                self.run.world.request(by, Request::new(RequestBody::Operator(wanted)));
            }
            [how @ ("serve" | "lease" | "intrude" | "rob"), host] => {
                self.it = self.host(host)?;
                self.tamper(how)?;
            }
            ["cut", one, other] => {
                self.it = self.host(one)?;
                let other = self.host(other)?;
                self.run.world.net.partition(&[self.it], &[other]);
            }
            ["filter", one, other] => {
                let other = self.host(other)?;
                self.it = self.host(one)?;
                self.run.world.net.filter(self.it, other);
            }
            [how @ ("isolate" | "mute" | "deafen"), host] => {
                self.it = self.host(host)?;
                self.cut_off(*how != "mute", *how != "deafen");
            }
            _ => return Err(unclear(&words.join(" "))),
        }
        Ok(())
    }

    /// Something is registered on the agent of `it`, or behind its back.
    fn tamper(&mut self, how: &str) -> Result<(), Violation> {
        let definition = workload::definition("web", 80);
        let name = self.run.world.hosts[self.it].config.name.clone();
        let (by, body) = match how {
            "serve" | "lease" => {
                let lease = how == "lease";
                let definition = Box::new(if lease { leased() } else { definition });
                let body =
                    RequestBody::RegisterService { definition, replace_existing_checks: false };
                (self.it, body)
            }
            "intrude" => (self.host("leader")?, RequestBody::Write(intruder(name))),
            _ => {
                let (node, service, check) = (name, None, None);
                let target = Deregistration { node, service, check };
                (self.host("leader")?, RequestBody::Write(Command::Deregister(target)))
            }
        };
        self.run.world.request(by, Request::new(body));
        Ok(())
    }

    /// What goes wrong with the disk of `it`.
    fn spoil_disk(&mut self, how: &str, words: &[&str]) -> Result<(), Violation> {
        match (how, words) {
            ("rot", [part, place]) => {
                let known = Part::ALL.into_iter().find(|known| known.as_str() == *part);
                let place = place.parse().ok().zip(known);
                let (place, part) = place.ok_or_else(|| unclear(part))?;
                if !self.run.world.rot(self.it, part, place) {
                    let facts = format!("nothing rots on host {}", self.it);
                    return Err(Violation { rule: "script", facts });
                }
            }
            ("stall", [time]) => {
                let time = span(time).ok_or_else(|| unclear(time))?;
                self.run.world.stall_disk(self.it, time);
            }
            ("fill", [room, time]) => {
                let parsed = room.parse().ok().zip(span(time));
                let (room, time) = parsed.ok_or_else(|| unclear(room))?;
                self.run.world.fill_disk(self.it, room, time);
            }
            _ => return Err(unclear(how)),
        }
        Ok(())
    }

    fn cut_off(&mut self, deaf: bool, mute: bool) {
        for other in (0..self.run.world.hosts.len()).filter(|other| *other != self.it) {
            if mute {
                self.run.world.net.cut(self.it, other);
            }
            if deaf {
                self.run.world.net.cut(other, self.it);
            }
        }
    }

    fn crash(&mut self, hosts: &str, crash: Crash) -> Result<(), Violation> {
        for host in self.hosts(hosts)? {
            self.run.take_down(host, crash);
            self.run.expect(host, Expectation::Failed);
        }
        Ok(())
    }

    fn left(&mut self, host: HostId) {
        let name = self.run.world.hosts[host].config.name.clone();
        self.run.checkers.permissions.may_leave.insert(name);
        self.run.expect(host, Expectation::Left);
    }
}

/// A service with a check that lets it go a minute after its agent.
fn leased() -> ServiceDefinition {
    let definition = workload::definition("lease", 81);
    let target = "192.0.2.1:81".to_owned();
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(1));
    let check = CheckDefinition {
        id: CheckId::parse("lease-check").expect("letters and a dash are an id"),
        name: String::new(),
        notes: String::new(),
        service_id: Some(definition.service.id.clone()),
        status: CheckStatus::Critical,
        kind: CheckKind::Tcp(TcpCheck { target, interval, timeout }),
        output_max_size: 0,
        success_before_passing: 0,
        failures_before_critical: 0,
        deregister_critical_service_after: Some(DEREGISTER_AFTER_MIN),
        token: String::new(),
        origin: Origin::Api,
    };
    ServiceDefinition { checks: vec![check], ..definition }
}

/// Registers a service of a node, with a critical check, that its agent knows nothing of.
fn intruder(name: NodeName) -> Command {
    let service = workload::definition("intruder", 666).service;
    let id = CheckId::parse("intruder-check").expect("letters and a dash are an id");
    let check = Check {
        node: name.clone(),
        id,
        name: String::new(),
        status: CheckStatus::Critical,
        notes: String::new(),
        output: String::new(),
        service_id: Some(service.id.clone()),
        service_name: String::new(),
        service_tags: Vec::new(),
        kind: String::new(),
        recipe: CheckRecipe::default(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let node = Node {
        id: None,
        name,
        address: "192.0.2.1".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        create_index: ModifyIndex::ZERO,
        modify_index: ModifyIndex::ZERO,
    };
    let (service, checks) = (Some(service), vec![check]);
    Command::Register(Box::new(Registration { node, skip_node_update: true, service, checks }))
}

fn unclear(what: &str) -> Violation {
    Violation { rule: "script", facts: format!("not understood: {what}") }
}
