//! Who may be in a pool, judged by what a member says of itself.
//!
//! Source: cluster-behaviour.md §11. A join that brings one member who may not be here is refused
//! as a whole, and the joiner is told why before it learns anybody's address; a single record of
//! such a member has no effect, wherever it comes from.
//!
//! Differs: the WAN pool wants its members' names to end in their datacenter, so that an agent that
//! mistakes a Serf WAN port for a Serf LAN port does not merge the two pools.

use crate::id::{Datacenter, NodeName};
use crate::wire::serf::decode_tags;
use thiserror::Error;

/// The rule of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Whoever speaks the protocol.
    Anyone,
    /// Members that are in this datacenter or name none, as plain Serf agents do.
    Datacenter(Datacenter),
    /// Servers, called `NODE.DC`.
    Servers,
}

/// Why a member may not be in a pool. Nothing of it is taken over; its operator is at fault. The
/// texts are Consul's, since people search logs for them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
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
        if let Self::Datacenter(own) = self {
            return match theirs.filter(|theirs| theirs.as_str() != own.as_str()) {
                Some(dc) => Err(Refusal::WrongDatacenter { name: name(), datacenter: dc.clone() }),
                None => Ok(()),
            };
        }
        let (true, Some(dc)) = (tags.get("role").is_some_and(|role| role == "terraform"), theirs)
        else {
            return Err(Refusal::NotServer { name: name() });
        };
        let named = name().as_str().strip_suffix(dc.as_str()).is_some_and(|n| n.ends_with('.'));
        if named { Ok(()) } else { Err(Refusal::NotInWan { name: name() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::tests::name;
    use crate::wire::serf::encode_tags;
    use std::collections::BTreeMap;

    fn meta(tags: &[(&str, &str)]) -> bytes::Bytes {
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
    }

    #[test]
    fn the_wan_pool_takes_servers_by_their_full_names() {
        let wan = Admission::Servers;
        let server = meta(&[("dc", "dc2"), ("role", "terraform")]);
        assert_eq!(wan.check(&name("a.dc2"), &server), Ok(()));
        assert!(matches!(wan.check(&name("adc2"), &server), Err(Refusal::NotInWan { .. })));
        for stranger in [meta(&[("dc", "dc2"), ("role", "node")]), bytes::Bytes::new()] {
            let refused = wan.check(&name("x.dc2"), &stranger).unwrap_err();
            assert_eq!(refused.to_string(), "Member 'x.dc2' is not a server");
        }
    }
}
