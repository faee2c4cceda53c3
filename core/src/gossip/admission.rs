//! Who may be in a pool, judged by what a member says of itself.
//!
//! Source: cluster-behaviour.md §11. A join that brings one member who may not be here is refused
//! as a whole, and the joiner is told why before it learns anybody's address but that of a member
//! whose identity it has; a single record of such a member has no effect, wherever it comes from.
//!
//! - An identity belongs to one member of a LAN pool; whoever copied a data directory is refused.
//!   Every member guards its own identity, and at a join those of all members that it believes
//!   alive (agent-config.md §10). The same agent under a new name is at the old address.
//! - A pool may be kept to some networks: whoever says that it is elsewhere is no member.
//! - Differs: the WAN pool wants its members' names to end in their datacenter, and a LAN pool
//!   knows a server of it by that, so that an agent that mistakes one port for the other does not
//!   merge the two pools.
//! - Differs: two members that share an identity in spite of that keep nobody else from joining;
//!   Consul refuses every join of such a pool.

use super::state::is_gone;
use super::{Gossip, Peer};
use crate::id::{Datacenter, NodeName};
use crate::pack_enum;
use crate::wire::gossip::PushPullState;
use crate::wire::serf::decode_tags;
use crate::wire::tags::tag_of_meta;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// The rule of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Whoever speaks the protocol.
    Anyone,
    /// Members that are in this datacenter or name none, as plain Serf agents do; each has its own
    /// identity.
    Datacenter(Datacenter),
    /// Servers, called `NODE.DC`.
    Servers,
}
pack_enum!(Admission { 1 => Anyone, 2 => Datacenter(Datacenter), 3 => Servers });

/// Why a member may not be in a pool. Nothing of it is taken over; its operator is at fault. The
/// texts begin with Consul's, since people search logs for them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is in none of the pool's networks.
    #[error("Member '{name}' at {address} is in no allowed network")]
    Elsewhere {
        /// Who.
        name: NodeName,
        /// Where it says it is.
        address: IpAddr,
    },
    /// It is in another datacenter.
    #[error("Member '{name}' part of wrong datacenter '{datacenter}'")]
    WrongDatacenter {
        /// Who.
        name: NodeName,
        /// Where it says it is.
        datacenter: String,
    },
    /// It is no server.
    #[error("Member '{name}' is not a server")]
    NotServer {
        /// Who.
        name: NodeName,
    },
    /// It has the identity of the member that judges.
    #[error(
        "Member '{name}' has conflicting node ID '{id}' with this agent's ID: it is at {address}, \
         this agent at {own}"
    )]
    OwnIdentity {
        /// Who.
        name: NodeName,
        /// The identity.
        id: String,
        /// Where it is.
        address: SocketAddr,
        /// Where the member that judges is.
        own: SocketAddr,
    },
    /// It has the identity of a member that is alive.
    #[error(
        "Member '{name}' has conflicting node ID '{id}' with member '{holder}': it is at \
         {address}, '{holder}' at {held_at}"
    )]
    Identity {
        /// Who.
        name: NodeName,
        /// The identity.
        id: String,
        /// Where it is.
        address: SocketAddr,
        /// Whose it is.
        holder: NodeName,
        /// Where that one is.
        held_at: SocketAddr,
    },
    /// It is a server under its name in the WAN pool.
    #[error("Member '{name}' is a server of the WAN pool: join a Serf WAN port")]
    NotInLan {
        /// Who.
        name: NodeName,
    },
    /// It is a server, but not under its name in the WAN pool.
    #[error("Member '{name}' is a server of the LAN pool: join its Serf LAN port")]
    NotInWan {
        /// Who.
        name: NodeName,
    },
}

impl Admission {
    /// Judges a member by its name and meta; unreadable meta says nothing.
    pub fn check(&self, name: &NodeName, meta: &[u8]) -> Result<(), Refusal> {
        let tags = match self {
            Self::Anyone => return Ok(()),
            Self::Datacenter(_) | Self::Servers => decode_tags(meta).unwrap_or_default(),
        };
        let name = || name.clone();
        let theirs = tags.get("dc");
        let is_server = tags.get("role").is_some_and(|role| role == "terraform");
        let in_wan = theirs.is_some_and(|theirs| is_in_wan(&name(), theirs));
        if let Self::Datacenter(own) = self {
            return match theirs.filter(|theirs| theirs.as_str() != own.as_str()) {
                Some(_) if is_server && in_wan => Err(Refusal::NotInLan { name: name() }),
                Some(dc) => Err(Refusal::WrongDatacenter { name: name(), datacenter: dc.clone() }),
                None => Ok(()),
            };
        }
        match (is_server && theirs.is_some(), in_wan) {
            (false, _) => Err(Refusal::NotServer { name: name() }),
            (true, false) => Err(Refusal::NotInWan { name: name() }),
            (true, true) => Ok(()),
        }
    }
}

/// Whether this is the name of a member of `datacenter` in the WAN pool.
fn is_in_wan(name: &NodeName, datacenter: &str) -> bool {
    name.as_str().strip_suffix(datacenter).is_some_and(|rest| rest.ends_with('.'))
}

/// The identity that a meta tells, if any.
pub(super) fn identity(meta: &[u8]) -> Option<&str> {
    tag_of_meta(meta, "id").filter(|id| !id.is_empty())
}

impl Gossip {
    /// Whether a member, at this address, may be in this pool. What its meta says was judged when
    /// it said so first; its address may be another.
    pub(super) fn admits(
        &self,
        member: (&NodeName, SocketAddr),
        meta: &Bytes,
    ) -> Result<(), Refusal> {
        let address = member.1.ip();
        let networks = &self.config.networks;
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(address)) {
            return Err(Refusal::Elsewhere { name: member.0.clone(), address });
        }
        if self.has_judged(member.0, meta) {
            return Ok(());
        }
        self.config.admission.check(member.0, meta)?;
        let own = self.own();
        match identity(meta).filter(|id| identity(&own.meta) == Some(*id)) {
            Some(id) => self.beside(member, id, own),
            None => Ok(()),
        }
    }

    /// Whether all members that a join would add may be in this pool.
    pub(super) fn admits_all<'a>(
        &self,
        states: impl Iterator<Item = &'a PushPullState>,
    ) -> Result<(), Refusal> {
        let mut holders: Option<BTreeMap<&str, &Peer>> = None;
        for state in states.filter(|state| !self.has_judged(&state.name, &state.meta)) {
            let member = (&state.name, self.claimed_address(state.address, state.port));
            self.admits(member, &state.meta)?;
            let Some(id) = identity(&state.meta) else { continue };
            let holders = holders.get_or_insert_with(|| {
                let alive = self.table.iter().filter(|record| !is_gone(record.state));
                let peers = alive.map(|record| &record.peer);
                peers.filter_map(|peer| Some((identity(&peer.meta)?, peer))).collect()
            });
            if let Some(holder) = holders.get(id) {
                self.beside(member, id, holder)?;
            }
        }
        Ok(())
    }

    /// Whether a member was judged by the same meta, and has been here since.
    fn has_judged(&self, name: &NodeName, meta: &Bytes) -> bool {
        let judged = self.table.get(name);
        judged.is_some_and(|known| !is_gone(known.state) && known.peer.meta == *meta)
    }

    /// Whether a member may have the identity of `holder`.
    fn beside(
        &self,
        (name, address): (&NodeName, SocketAddr),
        id: &str,
        holder: &Peer,
    ) -> Result<(), Refusal> {
        let Admission::Datacenter(own) = &self.config.admission else { return Ok(()) };
        if *name == holder.name || address == holder.address {
            return Ok(());
        }
        let (name, id) = (name.clone(), id.to_owned());
        if holder.name.in_wan(own).as_ref() == Ok(&name) {
            return Err(Refusal::NotInLan { name });
        }
        if holder.name == self.local {
            return Err(Refusal::OwnIdentity { name, id, address, own: holder.address });
        }
        let (holder, held_at) = (holder.name.clone(), holder.address);
        Err(Refusal::Identity { name, id, address, holder, held_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::tests::name;
    use crate::wire::serf::encode_tags;
    use std::collections::BTreeMap;

    fn meta(tags: &[(&str, &str)]) -> Bytes {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        encode_tags(&tags.collect::<BTreeMap<_, _>>()).unwrap()
    }

    #[test]
    fn a_lan_pool_takes_its_datacenter_and_agents_without_one() {
        let own = Admission::Datacenter(Datacenter::parse("dc1").unwrap());
        assert_eq!(own.check(&name("a"), &meta(&[("dc", "dc1"), ("role", "node")])), Ok(()));
        assert_eq!(own.check(&name("serf"), b""), Ok(()));
        let refused = own.check(&name("x"), &meta(&[("dc", "dc2")])).unwrap_err();
        assert_eq!(refused.to_string(), "Member 'x' part of wrong datacenter 'dc2'");
        let server = meta(&[("dc", "dc2"), ("role", "terraform")]);
        let refused = own.check(&name("x.dc2"), &server).unwrap_err();
        let rule = "Member 'x.dc2' is a server of the WAN pool: join a Serf WAN port";
        assert_eq!(refused.to_string(), rule, "the port was mistaken, not the datacenter");
    }

    #[test]
    fn the_wan_pool_takes_servers_by_their_full_names() {
        let wan = Admission::Servers;
        let server = meta(&[("dc", "dc2"), ("role", "terraform")]);
        assert_eq!(wan.check(&name("a.dc2"), &server), Ok(()));
        assert!(matches!(wan.check(&name("adc2"), &server), Err(Refusal::NotInWan { .. })));
        for stranger in [meta(&[("dc", "dc2"), ("role", "node")]), Bytes::new()] {
            let refused = wan.check(&name("x.dc2"), &stranger).unwrap_err();
            assert_eq!(refused.to_string(), "Member 'x.dc2' is not a server");
        }
    }
}
