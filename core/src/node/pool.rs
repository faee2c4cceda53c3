//! One gossip pool that this agent is a member of: the membership protocol, the Serf layer above
//! it, and the streams that carry its exchanges.
//!
//! Every agent is in the LAN pool; servers are in the WAN pool too, under a name with the
//! datacenter behind it.

use super::server::own_tags;
use crate::config::{Bootstrap, ConfigError, GossipConfig, NodeConfig, SerfConfig};
use crate::gossip::keyring::{Keyring, keyring_file};
use crate::gossip::{Admission, Gossip, GossipInput, GossipOutput};
use crate::id::{NodeId, NodeName, StreamId};
use crate::machine::{Machine as _, Outbox};
use crate::rng::Seed;
use crate::serf::{Serf, SerfInput, SerfOutput};
use crate::storage::recovery::RestoredPool;
use crate::time::{Instant, WallClock};
use crate::trace::Level;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The machines of one pool with their outboxes.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) gossip: Gossip,
    pub(super) serf: Serf,
    pub(super) gossip_out: Outbox<GossipOutput>,
    pub(super) serf_out: Outbox<SerfOutput>,
    /// The streams that belong to this pool.
    pub(super) streams: BTreeSet<StreamId>,
}

impl Pool {
    /// The pool of this agent's datacenter.
    pub(super) fn lan(
        config: &NodeConfig,
        id: NodeId,
        restored: RestoredPool,
        (seed, wall, now): (Seed, WallClock, Instant),
    ) -> Result<Self, ConfigError> {
        let (name, address) = (config.name.clone(), config.gossip_address());
        let admission = Admission::Datacenter(config.datacenter.clone());
        let gossip = GossipConfig { admission, ..config.gossip.clone() };
        let timers = (&gossip, &config.serf);
        Self::new(config, id, (name, address), timers, restored, (seed, wall, now))
    }

    /// The pool of the servers of all datacenters; `None` if this agent stays out of it.
    pub(super) fn wan(
        config: &NodeConfig,
        id: NodeId,
        restored: RestoredPool,
        (seed, wall, now): (Seed, WallClock, Instant),
    ) -> Result<Option<Self>, ConfigError> {
        let Some(wan) = config.wan() else { return Ok(None) };
        let name = config.name.in_wan(&config.datacenter).map_err(|error| {
            let rule = format!("with the datacenter behind it, {error}");
            ConfigError::Range { setting: "node_name", rule }
        })?;
        let address = SocketAddr::new(config.advertise_wan, wan.port);
        let gossip = GossipConfig { admission: Admission::Servers, ..wan.gossip.clone() };
        let timers = (&gossip, &wan.serf);
        Self::new(config, id, (name, address), timers, restored, (seed, wall, now)).map(Some)
    }

    fn new(
        config: &NodeConfig,
        id: NodeId,
        (name, address): (NodeName, SocketAddr),
        (timers, serf): (&GossipConfig, &SerfConfig),
        restored: RestoredPool,
        (seed, wall, now): (Seed, WallClock, Instant),
    ) -> Result<Self, ConfigError> {
        let (mut gossip_out, mut serf_out) = (Outbox::new(config.level), Outbox::new(config.level));
        let tags = own_tags(config, id, timers.pool);
        let snapshot = restored.snapshot.as_deref();
        let serf = Serf::new(name.clone(), &tags, serf, snapshot, seed, now, &mut serf_out);
        let meta = serf.meta();
        let mut gossip = Gossip::new(name, address, meta, timers, seed, now, &mut gossip_out);
        if let Some(last) = serf.last_incarnation() {
            gossip.restore_incarnation(last, &mut gossip_out);
        }
        let mut pool = Self { gossip, serf, gossip_out, serf_out, streams: BTreeSet::new() };
        pool.gossip.set_clock(now, wall);
        pool.restore_keys(now, timers, restored.keyring)?;
        if config.server.as_ref().is_some_and(|server| server.bootstrap == Bootstrap::Alone) {
            // Such a server has nobody to prove its key, so it is stored at once.
            pool.gossip.keys_proven(&mut pool.gossip_out);
        }
        Ok(pool)
    }

    /// Gives gossip the keys of an earlier run.
    fn restore_keys(
        &mut self,
        now: Instant,
        config: &GossipConfig,
        restored: Option<Keyring>,
    ) -> Result<(), ConfigError> {
        match restored {
            Some(ring) if config.keyring_file => {
                self.gossip.restore_keyring(now, ring, &mut self.gossip_out);
                Ok(())
            }
            Some(_) if config.encrypt.is_none() => {
                let setting = "disable_keyring_file";
                let rule = format!(
                    "{} holds the keys of gossip, which would go in clear without them: give \
                     encrypt, or remove the file",
                    keyring_file(config.pool)
                );
                Err(ConfigError::Range { setting, rule })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives an input to the membership protocol.
    pub(super) fn tell_gossip(&mut self, now: Instant, input: GossipInput) {
        self.gossip.handle(now, input, &mut self.gossip_out);
    }

    /// Gives an input to the Serf layer.
    pub(super) fn tell_serf(&mut self, now: Instant, input: SerfInput) {
        self.serf.handle(now, input, &mut self.serf_out);
    }

    /// Fires every timer that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.gossip.handle_timeout(now, &mut self.gossip_out);
        self.serf.handle_timeout(now, &mut self.serf_out);
    }

    /// Changes which traces are wanted.
    pub(super) fn set_level(&mut self, level: Level) {
        self.gossip_out.set_level(level);
        self.serf_out.set_level(level);
    }
}
