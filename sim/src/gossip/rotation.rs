//! The key of a pool is changed while members crash, sleep, leave and are cut off (simulation.md
//! §8, workload admin).
//!
//! An operator does as `terraform keyring` and Serf's documents say: the new key is installed until
//! all members have answered in one go, then used, then the old one is removed. What has not come
//! to its end while things went wrong is done once they are healed.
//!
//! - G9: a step that all have answered holds on each of them, whatever befalls it: all have the new
//!   key, all encrypt with it, none has the old one. So no two members are ever without a key that
//!   both have, and once everything is healed all agree.

use super::{Fate, GossipRun, settled};
use crate::checker::{Violation, broken};
use crate::streams::Process;
use crate::world::world_rng;
use bytes::Bytes;
use std::time::Duration;
use terraform_core::id::RequestId;
use terraform_core::node::request::{Request, RequestBody};
use terraform_core::rng::{Rng, Stream};
use terraform_core::serf::{KeyOperation, KeyReport, SerfRequest};
use terraform_core::time::Instant;
use terraform_core::wire::seal::Key;

/// How long the operator waits for an answer: longer than a query of a small pool runs.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the rest of a change may take once all is well: gossip misses a few at each try.
const END_LIMIT: Duration = Duration::from_secs(600);

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Install,
    Use,
    Remove,
    Done,
}

/// What the operator has asked.
#[derive(Clone, Debug)]
struct Asked {
    request: (Process, RequestId),
    at: Instant,
    /// Members there were then, whether they ran or not.
    members: u64,
}

/// A change of the key.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    old: Key,
    new: Key,
    step: Step,
    asked: Option<Asked>,
    /// Draws whom the operator asks: nothing else is shifted by it.
    rng: Rng,
}

impl Rotation {
    fn operation(&self) -> Option<KeyOperation> {
        let bytes = |key: &Key| Bytes::copy_from_slice(key.as_bytes());
        match self.step {
            Step::Install => Some(KeyOperation::Install(bytes(&self.new))),
            Step::Use => Some(KeyOperation::Use(bytes(&self.new))),
            Step::Remove => Some(KeyOperation::Remove(bytes(&self.old))),
            Step::Done => None,
        }
    }

    /// An answer has come: the next step is taken if all members did this one.
    pub(super) fn told(&mut self, request: (Process, RequestId), report: &KeyReport) {
        let Some(asked) = self.asked.take_if(|asked| asked.request == request) else { return };
        if report.failure().is_none() && report.responses >= asked.members {
            self.step = match self.step {
                Step::Install => Step::Use,
                Step::Use => Step::Remove,
                Step::Remove | Step::Done => Step::Done,
            };
        }
    }

    /// Whether a member holds what all have answered.
    fn holds(&self, keys: &[Key]) -> bool {
        match self.step {
            Step::Install => true,
            Step::Use => keys.contains(&self.new),
            Step::Remove => keys.first() == Some(&self.new),
            Step::Done => keys == std::slice::from_ref(&self.new),
        }
    }
}

impl GossipRun {
    /// The operator begins to change the key, if that is planned.
    pub(super) fn begin_rotation(&mut self) {
        let old = self.world.hosts.first().and_then(|host| host.config.gossip.encrypt.clone());
        let Some(old) = old.filter(|_| self.plan.rotates) else { return };
        let new = Key::new(&[9; 24]).expect("24 bytes are a key");
        let rng = world_rng(self.plan.seed, Stream::Identity);
        self.rotation = Some(Rotation { old, new, step: Step::Install, asked: None, rng });
    }

    /// The operator asks for the next step, unless an answer may come; what is done must hold.
    pub(super) fn rotate(&mut self) -> Result<(), Violation> {
        let Some(rotation) = &self.rotation else { return Ok(()) };
        for member in self.up() {
            let host = self.members[member].host;
            let Some(node) = self.node(host) else { continue };
            let keys = node.gossip().keyring().keys();
            if !rotation.holds(keys) {
                let (count, step) = (keys.len(), rotation.step);
                let facts = format!("host {host} has {count} keys, which are not those before");
                return broken("G9", format!("{facts} {step:?}"));
            }
        }
        let now = self.world.now;
        if rotation.asked.as_ref().is_some_and(|asked| now.since(asked.at) < PATIENCE) {
            return Ok(());
        }
        self.ask_for_step();
        Ok(())
    }

    fn ask_for_step(&mut self) {
        let up: Vec<usize> = self.up().collect();
        let members = self.members.iter().filter(|member| member.fate != Fate::Gone).count() as u64;
        let Some(rotation) = &mut self.rotation else { return };
        let Some(operation) = rotation.operation().filter(|_| !up.is_empty()) else { return };
        let host = self.members[up[rotation.rng.index(up.len())]].host;
        self.world.note(format!("> host {host} is asked to {operation:?}"));
        let process = self.world.hosts[host].process();
        let request = SerfRequest::Keys { operation, relay_factor: 0 };
        let request = self.world.request(host, Request::new(RequestBody::Serf(request)));
        let at = self.world.now;
        rotation.asked = request.map(|request| Asked { request: (process, request), at, members });
    }

    /// Whatever went wrong meanwhile, the change comes to its end, and all agree.
    pub(super) fn rotate_to_the_end(&mut self) -> Result<(), Violation> {
        let Some(new) = self.rotation.as_ref().map(|rotation| rotation.new.clone()) else {
            return Ok(());
        };
        self.until(END_LIMIT, |run| match run.rotation.as_ref().map(|rotation| rotation.step) {
            Some(Step::Done) | None => Ok(()),
            Some(step) => broken("G9", format!("not all members ever answer {step:?}")),
        })?;
        for host in &mut self.world.hosts {
            host.config.gossip.encrypt = Some(new.clone());
        }
        self.until(PATIENCE, settled::all_agree)
    }

    /// A member that was away for the rest of a change gets the key from its operator.
    pub(super) fn give_key(&mut self, member: usize) -> Result<(), Violation> {
        let Some(mut rotation) = self.rotation.take() else { return Ok(()) };
        let host = self.members[member].host;
        for step in [Step::Install, Step::Use, Step::Remove] {
            rotation.step = step;
            let Some(operation) = rotation.operation() else { continue };
            let request = SerfRequest::Keys { operation, relay_factor: 0 };
            self.world.request(host, Request::new(RequestBody::Serf(request)));
            self.advance(PATIENCE)?;
        }
        rotation.step = Step::Done;
        self.rotation = Some(rotation);
        Ok(())
    }
}
