//! What is done to a pool in which all is well, so that the result can be demanded at once.

use super::plan::Drill;
use super::{Fate, GossipRun, Member, settled};
use crate::checker::{Violation, broken};
use crate::disk::Crash;
use crate::net::HostId;
use std::time::Duration;
use terraform_core::id::NodeName;
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::serf::{KeyOperation, KeyReport, MemberStatus, SerfRequest};
use terraform_core::time::Instant;
use terraform_core::wire::gossip::PeerState;
use terraform_core::wire::seal::Key;

/// Between two looks at what members believe.
const LOOK: Duration = Duration::from_millis(100);
/// How long a refutation, or the news of a death, may take to reach everybody: gossip misses a few
/// (gossip-protocol.md §25), whom a state exchange tells.
const SPREAD_LIMIT: Duration = Duration::from_secs(35);
/// How long a leave takes.
const LEAVE_TIME: Duration = Duration::from_secs(12);
/// How long a query of a small pool runs.
const QUERY_TIME: Duration = Duration::from_secs(15);

impl GossipRun {
    pub(super) fn drills(&mut self) -> Result<(), Violation> {
        // What is demanded at once must not be mistaken for news that are on their way.
        self.busy = false;
        self.drill()?;
        self.busy = true;
        Ok(())
    }

    fn drill(&mut self) -> Result<(), Violation> {
        let count = self.members.len();
        match self.plan.drill {
            Some(Drill::Crash) if count >= 3 => self.drill_crash(),
            Some(Drill::ForceLeave) => self.drill_force_leave(),
            Some(Drill::Sleeper) if count >= 4 => self.drill_sleeper(),
            Some(Drill::Move) => self.drill_move(),
            Some(Drill::Rotate) if self.plan.key.is_some() => self.drill_rotate(),
            Some(Drill::Crash | Drill::Sleeper | Drill::Rotate) | None => Ok(()),
        }
    }

    /// G3: once somebody suspects a crashed member, it is dead soon: each of the others probes it
    /// within two passes and confirms, and with two confirmations the timeout is the shortest.
    fn drill_crash(&mut self) -> Result<(), Violation> {
        self.checkers.permissions.quiet = false;
        let (victim, n) = (self.rng.index(self.members.len()), self.members.len());
        self.vanish(victim);
        let name = self.members[victim].name.clone();
        let suspected = self.first(&name, PeerState::Suspect)?;
        let dead = self.first(&name, PeerState::Dead)?;
        let gossip = self.plan.config(0).gossip;
        let passes = u32::try_from(2 * (n - 1)).unwrap_or(u32::MAX);
        let limit = gossip.probe_interval * passes + Duration::from_secs(4);
        let took = dead.since(suspected);
        // Above this size two passes last longer than the longest suspicion.
        if (4..=9).contains(&n) && took > limit {
            let facts = format!("{name} was suspected for {took:?}, {limit:?} are allowed");
            return broken("G3", facts);
        }
        self.until(SPREAD_LIMIT, settled::all_agree)
    }

    /// When somebody first holds `name` for at least as gone as `state`.
    fn first(&mut self, name: &NodeName, state: PeerState) -> Result<Instant, Violation> {
        let limit = self.world.now + Duration::from_secs(120);
        while self.world.now < limit {
            self.advance(LOOK)?;
            let seen = self.up().any(|member| {
                let believed = self.node(self.members[member].host);
                let believed = believed.and_then(|node| node.gossip().peer(name));
                believed.is_some_and(|(_, now)| now == state || now == PeerState::Dead)
            });
            if seen {
                return Ok(self.world.now);
            }
        }
        broken("G3", format!("nobody has {name} as {state:?}"))
    }

    /// G6: a member that runs says no when it is made to leave.
    fn drill_force_leave(&mut self) -> Result<(), Violation> {
        let member = self.rng.index(self.members.len());
        self.force_leave(member, false);
        self.advance(SPREAD_LIMIT)?;
        settled::all_agree(self)
    }

    /// G7: a member sleeps through the death of another one, until the rest have forgotten that;
    /// when it wakes up, it is the only one that believes the dead one alive.
    fn drill_sleeper(&mut self) -> Result<(), Violation> {
        self.checkers.permissions.quiet = false;
        let n = self.members.len();
        let sleeper = self.rng.index(n);
        let victim = (sleeper + 1 + self.rng.index(n - 1)) % n;
        let host = self.members[sleeper].host;
        let passes = u32::try_from(3 * n).unwrap_or(u32::MAX);
        let sleeps = Duration::from_secs(110) + self.plan.config(0).gossip.probe_interval * passes;
        self.world.pause(host, sleeps);
        self.vanish(victim);
        self.advance(sleeps)?;
        let name = self.members[victim].name.clone();
        let end = self.world.now + Duration::from_secs(45);
        while self.world.now < end {
            self.advance(LOOK)?;
            self.has_no_other_friend("G7", host, &name)?;
        }
        self.until(Duration::from_secs(300), settled::all_agree)
    }

    /// Nobody but `alone` holds `name` for alive.
    fn has_no_other_friend(
        &self,
        rule: &'static str,
        alone: HostId,
        name: &NodeName,
    ) -> Result<(), Violation> {
        for member in self.up() {
            let host = self.members[member].host;
            let seen = self.node(host).and_then(|node| node.serf().member(name));
            let alive = seen.is_some_and(|member| member.status == MemberStatus::Alive);
            if host != alone && alive {
                return broken(rule, format!("host {host} has {name} for alive"));
            }
        }
        Ok(())
    }

    /// G5: a member comes back at another address, and everybody sees it there.
    fn drill_move(&mut self) -> Result<(), Violation> {
        self.checkers.permissions.quiet = false;
        let member = self.rng.index(self.members.len());
        if self.rng.chance(3, 4) {
            // The name of one that left is free at once.
            self.leave(member);
            self.advance(LEAVE_TIME)?;
            self.relocate(member);
            self.members[member].fate = Fate::Down(self.world.now);
        } else {
            self.move_away(member);
        }
        if let Fate::Down(until) = self.members[member].fate {
            self.advance(until.since(self.world.now) + Duration::from_secs(2))?;
        }
        self.until(Duration::from_secs(180), settled::all_agree)
    }

    /// Asks for a key operation until all members have answered, as an operator must: gossip misses
    /// a few.
    fn change_keys(&mut self, operation: &KeyOperation) -> Result<(), Violation> {
        for _ in 0..5 {
            self.ask_for_keys(operation)?;
            let complete = |report: &KeyReport| report.responses == report.nodes;
            if self.keys_changed.as_ref().is_some_and(complete) {
                return Ok(());
            }
        }
        broken("G9", format!("{operation:?} never reaches all: {:?}", self.keys_changed))
    }

    /// Asks once for a key operation, and waits for the answers.
    fn ask_for_keys(&mut self, operation: &KeyOperation) -> Result<(), Violation> {
        match self.any_up() {
            Some(member) => self.ask_for_keys_at(member, operation),
            None => Ok(()),
        }
    }

    fn ask_for_keys_at(
        &mut self,
        member: usize,
        operation: &KeyOperation,
    ) -> Result<(), Violation> {
        let request = SerfRequest::Keys { operation: operation.clone(), relay_factor: 0 };
        self.keys_changed = None;
        let host = self.members[member].host;
        self.world.request(host, Request::new(RequestBody::Serf(request)));
        self.advance(QUERY_TIME)
    }

    /// G9: the key of all members is changed, and nobody loses anybody meanwhile; one member may be
    /// away for all of it, or but for the installation of the new key.
    fn drill_rotate(&mut self) -> Result<(), Violation> {
        let (old, new) = ([7; 16], [8; 32]);
        let [old, new] = [&old[..], &new].map(bytes::Bytes::copy_from_slice);
        let remove = KeyOperation::Remove(old);
        let straggler = (self.members.len() >= 3 && self.rng.chance(1, 2))
            .then(|| self.rng.index(self.members.len()));
        let knows_new = self.rng.chance(1, 2);
        if let Some(straggler) = straggler.filter(|_| !knows_new) {
            self.send_away(straggler)?;
        }
        self.change_keys(&KeyOperation::Install(new.clone()))?;
        if let Some(straggler) = straggler.filter(|_| knows_new) {
            self.send_away(straggler)?;
        }
        self.change_keys(&KeyOperation::Use(new.clone()))?;
        if let Some(straggler) = straggler {
            // Once: whoever hears it twice does not understand the straggler any more.
            self.ask_for_keys(&remove)?;
            self.bring_back(straggler, (!knows_new).then_some(&new))?;
            self.change_keys(&KeyOperation::Use(new.clone()))?;
        }
        self.change_keys(&remove)?;
        let key = Key::new(&new).expect("32 bytes are a key");
        for member in self.up() {
            let host = self.members[member].host;
            let keys = self.node(host).map(|node| node.gossip().keyring().keys());
            if keys != Some(std::slice::from_ref(&key)) {
                return broken("G9", format!("host {host} has other keys than the new one"));
            }
        }
        for host in &mut self.world.hosts {
            host.config.gossip.encrypt = Some(key.clone());
        }
        settled::all_agree(self)
    }

    /// A member is switched off, and all others know that.
    fn send_away(&mut self, member: usize) -> Result<(), Violation> {
        self.checkers.permissions.quiet = false;
        self.crash(member, Crash::Process, Duration::from_secs(3600));
        let Member { host, name, .. } = self.members[member].clone();
        self.until(Duration::from_secs(300), |run| run.has_no_other_friend("G9", host, &name))
    }

    /// A member that missed a rotation is switched on: who lacks the new key is nobody's member
    /// until its operator gives it that; who has it comes back by itself.
    fn bring_back(&mut self, member: usize, key: Option<&bytes::Bytes>) -> Result<(), Violation> {
        self.start(member)?;
        if let Some(key) = key {
            let Member { host, name, .. } = self.members[member].clone();
            let end = self.world.now + Duration::from_secs(60);
            while self.world.now < end {
                self.advance(LOOK)?;
                self.has_no_other_friend("G9", host, &name)?;
            }
            self.ask_for_keys_at(member, &KeyOperation::Install(key.clone()))?;
        }
        self.until(Duration::from_secs(180), settled::all_agree)
    }
}
