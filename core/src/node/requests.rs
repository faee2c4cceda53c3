//! What becomes of a request: which machine answers it.

use super::request::{Reloadable, Request, RequestBody, RequestError, Response, multi_error};
use super::serf_requests::Asker;
use super::{Node, Pending};
use crate::anti_entropy::AntiEntropyInput;
use crate::event::Event;
use crate::gossip::{GossipInput, JoinId};
use crate::id::{NodeName, PoolName, RequestId};
use crate::local::{LocalInput, LocalRequest};
use crate::machine::Machine as _;
use crate::rpc::{Caller, RpcInput};
use crate::serf::SerfInput;
use crate::time::{Instant, WallClock};
use crate::trace::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Requests that may wait at one time; further ones are refused.
const WAITING_MAX: usize = 16_384;
/// Addresses one join may name.
const JOIN_ADDRESSES_MAX: usize = 256;

/// Requests whose answer is not known yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// Everything that waits, whatever for.
    all: BTreeSet<RequestId>,
    /// Who waits for a join.
    joins: Pending<(PoolName, JoinId)>,
    joins_issued: u64,
    /// Events handed to Serf, by the number that its answer names.
    pub(super) fired: BTreeMap<RequestId, Box<Event>>,
}

impl Waiting {
    /// Ends all waiting.
    pub(super) fn take_all(&mut self) -> BTreeSet<RequestId> {
        self.joins.clear();
        self.fired.clear();
        std::mem::take(&mut self.all)
    }

    /// A number for a join; no two joins share one, whatever their pools.
    pub(super) const fn issue_join(&mut self) -> JoinId {
        self.joins_issued += 1;
        JoinId(self.joins_issued)
    }
}

impl Node {
    /// Takes one request to the machine that answers it.
    pub(super) fn route_request(
        &mut self,
        now: Instant,
        id: RequestId,
        wall: WallClock,
        request: Arc<Request>,
    ) {
        if self.waiting.all.len() >= WAITING_MAX {
            self.stats.requests_refused += 1;
            let queue = "too many unanswered requests on this agent".to_owned();
            self.reply(id, Err(RequestError::Overloaded(queue)));
            return;
        }
        self.waiting.all.insert(id);
        if let RequestBody::Query(_) = request.body {
            // It is parked as it came: whoever asked can keep it at no cost.
            return self.submit(now, id, wall, request);
        }
        let Request { context, body } = Arc::unwrap_or_clone(request);
        let asked = context.datacenter.as_ref();
        let is_elsewhere = asked.is_some_and(|asked| *asked != self.config.datacenter);
        match body {
            RequestBody::FireEvent(fire) if !is_elsewhere => {
                self.fire_event(now, Asker::Request(id), *fire);
            }
            RequestBody::Keys(keys) if !is_elsewhere => {
                self.ask_for_keys(now, Asker::Request(id), keys);
            }
            RequestBody::Query(_)
            | RequestBody::Write(_)
            | RequestBody::FireEvent(_)
            | RequestBody::Keys(_)
            | RequestBody::Operator(_)
            | RequestBody::Backup(_)
            | RequestBody::RenewSession(_)
            | RequestBody::ExecutePrepared(_) => {
                self.submit(now, id, wall, Arc::new(Request { context, body }));
            }
            RequestBody::Join { pool, addresses, replay } => {
                self.join(now, id, pool, (addresses, replay));
            }
            RequestBody::Serf(request) => {
                self.ask_serf(now, Asker::Request(id), PoolName::Lan, request);
            }
            RequestBody::Coordinates => {
                let known = self.lan.serf.coordinates().iter();
                let coordinates = known.map(|(name, at)| (name.clone(), at.clone())).collect();
                self.answer(id, Ok(Response::Coordinates(coordinates)));
            }
            RequestBody::ForceLeave { node, prune } => self.force_leave(now, id, node, prune),
            RequestBody::Leave { force } => self.leave_requested(now, id, force),
            RequestBody::RegisterService { definition, replace_existing_checks } => {
                let body = LocalRequest::RegisterService { definition, replace_existing_checks };
                self.ask_local(now, id, wall, body);
            }
            RequestBody::DeregisterService(service) => {
                self.ask_local(now, id, wall, LocalRequest::DeregisterService(service));
            }
            RequestBody::RegisterCheck(definition) => {
                self.ask_local(now, id, wall, LocalRequest::RegisterCheck(definition));
            }
            RequestBody::DeregisterCheck(check) => {
                self.ask_local(now, id, wall, LocalRequest::DeregisterCheck(check));
            }
            RequestBody::UpdateTtl { check, status, output } => {
                self.ask_local(now, id, wall, LocalRequest::UpdateTtl { check, status, output });
            }
            RequestBody::Maintenance(maintenance) => {
                self.ask_local(now, id, wall, LocalRequest::Maintenance(maintenance));
            }
            RequestBody::Reload(reloadable) => self.reload(now, id, wall, *reloadable),
            RequestBody::Status => self.tell_status(now, id),
            RequestBody::Monitor(level) => self.monitored(id, level),
            RequestBody::Info => {
                let sections = self.info(now);
                self.answer(id, Ok(Response::Info(sections)));
            }
        }
    }

    /// Takes a request to the server that answers it, which may be this one.
    fn submit(&mut self, now: Instant, id: RequestId, wall: WallClock, request: Arc<Request>) {
        let caller = Caller::Request(id);
        let submit = RpcInput::Submit { caller, hold: true, wall, request };
        self.rpc.handle(now, submit, &mut self.boxes.rpc);
    }

    /// Answers a request that waits; one that was abandoned or answered is passed over.
    pub(super) fn answer(&mut self, id: RequestId, result: Result<Response, RequestError>) {
        if self.waiting.all.remove(&id) {
            self.reply(id, result);
        }
    }

    /// Nobody waits for this request any more; what it asked for goes on.
    pub(super) fn abandon(&mut self, now: Instant, id: RequestId) {
        self.waiting.all.remove(&id);
        self.rpc.handle(now, RpcInput::Abandoned(id), &mut self.boxes.rpc);
    }

    fn ask_local(&mut self, now: Instant, id: RequestId, wall: WallClock, body: LocalRequest) {
        if self.lifecycle.is_leaving() {
            self.answer(id, Err(RequestError::Stopping));
            return;
        }
        self.local.handle(now, LocalInput::Request { id, wall, body }, &mut self.boxes.local);
    }

    fn join(
        &mut self,
        now: Instant,
        id: RequestId,
        pool: PoolName,
        (addresses, replay): (Vec<SocketAddr>, bool),
    ) {
        if pool == PoolName::Wan && self.wan.is_none() {
            let rule = match self.server {
                None => "Must be a server to join WAN cluster",
                Some(_) => "this server stays out of the WAN pool: ports.serf_wan is -1",
            };
            self.answer(id, Err(RequestError::Refused(rule.to_owned())));
            return;
        }
        if addresses.is_empty() || addresses.len() > JOIN_ADDRESSES_MAX {
            let rule = format!("a join takes 1 to {JOIN_ADDRESSES_MAX} addresses");
            self.answer(id, Err(RequestError::Refused(rule)));
            return;
        }
        let join = self.waiting.issue_join();
        self.waiting.joins.insert((pool, join), id);
        if !replay {
            self.tell_serf(now, pool, SerfInput::JoinBegan(join));
        }
        self.tell_gossip(now, pool, GossipInput::Join { join, addresses });
    }

    /// A join is over, ours or one of Serf's own.
    pub(super) fn join_finished(
        &mut self,
        now: Instant,
        (pool, join): (PoolName, JoinId),
        contacted: usize,
        errors: &[String],
    ) {
        if contacted > 0 && !join.is_serf() {
            self.tell_serf(now, pool, SerfInput::JoinedCluster);
        }
        let finished = SerfInput::JoinFinished { join, contacted };
        self.tell_serf(now, pool, finished);
        if pool == PoolName::Wan {
            self.flood_finished(now, join);
        }
        let Some(id) = self.waiting.joins.remove(&(pool, join)) else { return };
        let result = match contacted {
            0 => {
                let errors: Vec<_> =
                    errors.iter().map(|error| format!("Failed to join {error}")).collect();
                Err(RequestError::Refused(multi_error(&errors)))
            }
            contacted => Ok(Response::Joined(contacted)),
        };
        self.answer(id, result);
    }

    fn force_leave(&mut self, now: Instant, id: RequestId, name: NodeName, prune: bool) {
        let own = &self.config.datacenter;
        let wan_name = match self.wan.as_deref() {
            Some(wan) if wan.serf.member(&name).is_some() => Some(name.clone()),
            Some(wan) => name.in_wan(own).ok().filter(|name| wan.serf.member(name).is_some()),
            None => None,
        };
        let in_lan = self.lan.serf.member(&name).is_some();
        if !in_lan && wan_name.is_none() {
            let text = format!("agent: No node found with name '{name}'");
            self.answer(id, Err(RequestError::NotFound(text)));
            return;
        }
        if in_lan {
            self.lan.tell_serf(now, SerfInput::ForceLeave { name, prune });
        }
        if let Some(name) = wan_name {
            self.tell_serf(now, PoolName::Wan, SerfInput::ForceLeave { name, prune });
        }
        self.answer(id, Ok(Response::Done));
    }

    /// Others want to see traces of a level, beside those of the settings.
    fn monitored(&mut self, id: RequestId, level: Option<Level>) {
        self.monitored = level;
        self.set_level();
        self.answer(id, Ok(Response::Done));
    }

    /// Lets every machine trace what the settings or monitors want.
    fn set_level(&mut self) {
        let level = self.config.level.min(self.monitored.unwrap_or(Level::Error));
        self.lan.set_level(level);
        if let Some(wan) = self.wan.as_deref_mut() {
            wan.set_level(level);
        }
        self.boxes.set_level(level);
    }

    fn reload(&mut self, now: Instant, id: RequestId, wall: WallClock, reloadable: Reloadable) {
        let Reloadable { services, checks, node_meta, discard_check_output, rpc_rate, level } =
            reloadable;
        self.config.level = level;
        self.set_level();
        self.rpc.handle(now, RpcInput::Rate(rpc_rate), &mut self.boxes.rpc);
        let meta = AntiEntropyInput::NodeMeta(node_meta);
        self.anti_entropy.handle(now, meta, &mut self.boxes.anti_entropy);
        self.ask_local(
            now,
            id,
            wall,
            LocalRequest::Reload { services, checks, discard_output: discard_check_output },
        );
    }
}
