//! Executions of prepared queries: here, and where nothing is found, in other datacenters
//! (http-api.md §14).
//!
//! The datacenters are asked one after the other, those by distance first, until one has what is
//! wanted. What they are asked is what the query came to here, so they need not know it, and they
//! ask nobody further.

use super::request::{Request, RequestBody, RequestContext, RequestError, Response};
use super::{Node, NodeTrace};
use crate::catalog::prepared::{Executed, Execution, Selection};
use crate::catalog::query::{Query, Rows};
use crate::durations::Durations;
use crate::id::{Datacenter, ModifyIndex};
use crate::machine::Machine as _;
use crate::rpc::{Caller, RpcInput, Ticket};
use crate::time::{Instant, WallClock};
use crate::trace::Level;
use crate::view::ServerState;
use crate::watch::Parked;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Time between two warnings that a datacenter could not be asked; queries come by the thousand.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Executions that ask other datacenters. Each belongs to a call that somebody waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct Executions {
    issued: u64,
    asking: BTreeMap<u64, Asking>,
    /// Questions to other datacenters, until they were answered or failed.
    times: Durations,
    /// When it was last told of a datacenter that it could not be asked, within the interval.
    warned: BTreeMap<Datacenter, Instant>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Asking {
    ticket: Ticket,
    context: RequestContext,
    wanted: Box<Selection>,
    limit: u64,
    /// When the datacenter was asked whose answer is awaited.
    since: Instant,
    /// Whom to ask next.
    left: VecDeque<Datacenter>,
    /// The answer so far.
    executed: Box<Executed>,
}

impl Executions {
    /// How long other datacenters took.
    pub(super) const fn times(&self) -> &Durations {
        &self.times
    }

    /// Nobody waits for this call any more.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.asking.retain(|_, asking| asking.ticket != ticket);
    }

    /// Whether it is told again that this datacenter could not be asked.
    fn warns(&mut self, now: Instant, datacenter: &Datacenter) -> bool {
        self.warned.retain(|_, told| now < *told + WARNING_INTERVAL);
        if self.warned.contains_key(datacenter) {
            return false;
        }
        self.warned.insert(datacenter.clone(), now);
        true
    }
}

impl Node {
    /// Executes a prepared query; the state of this moment is as fresh as the read wants it.
    pub(super) fn execute_prepared(&mut self, now: Instant, read: &Parked, execution: &Execution) {
        let own = self.config.datacenter.clone();
        let Some(server) = self.server.as_deref_mut() else { return };
        let tables = &server.tables;
        let query = match tables.resolve_prepared(&execution.query) {
            Ok(Some(query)) => query.into_owned(),
            Ok(None) => {
                let text = "Query not found".to_owned();
                return self.executed(now, read.ticket, Err(RequestError::NotFound(text)));
            }
            Err(rule) => {
                let error = RequestError::Refused(rule.to_string());
                return self.executed(now, read.ticket, Err(error));
            }
        };
        let wanted = Box::new(query.service);
        let mut instances = tables.chosen(&wanted);
        let near = tables.near_of(execution, &wanted, &own);
        tables.arrange(&mut instances, near.as_ref(), &mut server.rng);
        let consensus = &server.raft.view(now);
        let datacenters = &self.wan_state.datacenters;
        let state = ServerState { tables, consensus, datacenters };
        let context = read.request.context.clone();
        let executed = Box::new(Executed {
            service: wanted.service.clone(),
            instances,
            ttl: query.ttl,
            ttl_text: query.ttl_text,
            datacenter: own,
            failovers: 0,
            known_leader: consensus.leader.is_some(),
            last_contact: state.last_contact(now),
            consistency: context.consistency,
        });
        let left = if executed.instances.is_empty() {
            self.failover_order(&wanted)
        } else {
            VecDeque::new()
        };
        let (ticket, limit) = (read.ticket, execution.limit);
        let context = RequestContext { min_index: ModifyIndex::ZERO, ..context };
        let since = now;
        self.ask_further(now, Asking { ticket, context, wanted, limit, since, left, executed });
    }

    /// The other datacenters that are asked where none is found, in their order.
    fn failover_order(&self, wanted: &Selection) -> VecDeque<Datacenter> {
        let others = self.wan_state.datacenters.iter().skip(1).map(|known| &known.datacenter);
        let nearest = usize::try_from(wanted.nearest).unwrap_or(usize::MAX);
        let mut order: VecDeque<Datacenter> = others.clone().take(nearest).cloned().collect();
        for name in &wanted.datacenters {
            let mut known = others.clone();
            let known = known.find(|known| known.as_str().eq_ignore_ascii_case(name));
            if let Some(known) = known.filter(|known| !order.contains(known)) {
                order.push_back(known.clone());
            }
        }
        order
    }

    /// Asks the next datacenter, or answers.
    fn ask_further(&mut self, now: Instant, mut asking: Asking) {
        let next = asking.left.pop_front().filter(|_| asking.executed.instances.is_empty());
        let (Some(datacenter), Some(server)) = (next, self.server.as_deref_mut()) else {
            let limit = usize::try_from(asking.limit).unwrap_or(usize::MAX);
            if limit > 0 {
                asking.executed.instances.truncate(limit);
            }
            let executed = Response::Executed(asking.executed);
            return self.executed(now, asking.ticket, Ok(executed));
        };
        crate::mark!("prepared.failed_over");
        asking.since = now;
        asking.executed.failovers += 1;
        asking.executed.datacenter = datacenter.clone();
        let context = RequestContext { datacenter: Some(datacenter), ..asking.context.clone() };
        let body = RequestBody::Query(Query::Chosen(asking.wanted.clone()));
        let executions = &mut server.executions;
        executions.issued += 1;
        let caller = Caller::Execution(executions.issued);
        executions.asking.insert(executions.issued, asking);
        // A read needs no civil time, and a datacenter without a server in reach is passed over.
        let (wall, request) = (WallClock::from_millis(0), Arc::new(Request { context, body }));
        let input = RpcInput::Submit { caller, hold: false, wall, request };
        self.rpc.handle(now, input, &mut self.boxes.rpc);
    }

    /// Another datacenter answered, or could not.
    pub(super) fn execution_answered(
        &mut self,
        now: Instant,
        number: u64,
        result: Result<Response, RequestError>,
    ) {
        let Some(server) = self.server.as_deref_mut() else { return };
        let Some(mut asking) = server.executions.asking.remove(&number) else { return };
        server.executions.times.record_since(asking.since, now);
        let rows = match result.and_then(Response::rows) {
            Ok(rows) => rows,
            Err(error) => {
                let (datacenter, error) = (asking.executed.datacenter.clone(), error.to_string());
                if server.executions.warns(now, &datacenter) {
                    self.trace(Level::Warn, NodeTrace::FailoverFailed { datacenter, error });
                }
                Rows::Instances(Vec::new())
            }
        };
        if let (Rows::Instances(mut rows), Some(server)) = (rows, self.server.as_deref_mut()) {
            // No datacenter knows where the nodes of another one are.
            server.tables.arrange(&mut rows, None, &mut server.rng);
            asking.executed.instances = rows;
        }
        self.ask_further(now, asking);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::query::Consistency;
    use crate::config::{Bootstrap, ServerConfig};
    use crate::node::output::Output;
    use crate::node::tests::node_of;
    use crate::storage::testing::restored_server;
    use crate::trace::{TraceEvent, TraceKind};

    fn datacenter(name: &str) -> Datacenter {
        Datacenter::parse(name).unwrap()
    }

    /// The datacenters that the node warns of when each of these could not be asked at this second.
    fn warnings(failures: &[(u64, &str)]) -> Vec<Datacenter> {
        let mut node = node_of(Some(ServerConfig::new(Bootstrap::Join)), restored_server());
        node.boxes.set_level(Level::Warn);
        for (number, (second, name)) in (1..).zip(failures) {
            let executed = Executed {
                service: String::new(),
                instances: Vec::new(),
                ttl: None,
                ttl_text: String::new(),
                datacenter: datacenter(name),
                failovers: 1,
                known_leader: true,
                last_contact: Duration::ZERO,
                consistency: Consistency::default(),
            };
            let asking = Asking {
                ticket: Ticket(number),
                context: RequestContext::default(),
                wanted: Box::default(),
                limit: 0,
                since: Instant::ZERO,
                left: VecDeque::new(),
                executed: Box::new(executed),
            };
            node.server.as_deref_mut().unwrap().executions.asking.insert(number, asking);
            let now = Instant::ZERO + Duration::from_secs(*second);
            node.execution_answered(now, number, Err(RequestError::NoLeader));
        }
        let told = |output| {
            let Output::Trace(TraceEvent { kind: TraceKind::Node(trace), .. }) = output else {
                return None;
            };
            let NodeTrace::FailoverFailed { datacenter, .. } = trace else { return None };
            Some(datacenter)
        };
        std::iter::from_fn(|| node.poll_output()).filter_map(told).collect()
    }

    #[test]
    fn a_datacenter_that_cannot_be_asked_is_warned_of_once_a_minute() {
        let failures = [(0, "dc2"), (0, "dc2"), (1, "dc3"), (59, "dc2"), (60, "dc2"), (60, "dc3")];
        assert_eq!(warnings(&failures), ["dc2", "dc3", "dc2"].map(datacenter));
    }
}
