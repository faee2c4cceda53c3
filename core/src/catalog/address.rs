//! Which of its addresses a node or a service is reached at, seen from its own datacenter or from
//! another (dns.md §9).

use super::model::{Node, Service};
use crate::id::Datacenter;

/// From where addresses are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// From the datacenter they are in, or from another one that reaches the same addresses.
    Inside,
    /// From another datacenter, which reaches the `wan` ones (`translate_wan_addrs`).
    Outside,
}

/// The tagged addresses that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tagged<'a> {
    /// For both families, in the place of the main address.
    pub(crate) main: Option<&'a str>,
    /// For IPv4.
    pub(crate) v4: Option<&'a str>,
    /// For IPv6.
    pub(crate) v6: Option<&'a str>,
}

impl Seen {
    /// How an agent of `own` that translates addresses or not looks at those of `datacenter`.
    pub fn of(datacenter: &Datacenter, own: &Datacenter, translates: bool) -> Self {
        if translates && datacenter != own { Self::Outside } else { Self::Inside }
    }

    /// The tagged addresses that count for a node.
    pub(crate) fn tagged_of_node(self, node: &Node) -> Tagged<'_> {
        self.tagged(|tag| node.tagged_addresses.get(tag).map(String::as_str))
    }

    /// The tagged addresses that count for a service.
    pub(crate) fn tagged_of_service(self, service: &Service) -> Tagged<'_> {
        self.tagged(|tag| service.tagged_addresses.get(tag).map(|at| at.address.as_str()))
    }

    fn tagged<'a>(self, find: impl Fn(&str) -> Option<&'a str>) -> Tagged<'a> {
        let (v4, v6) = (find("lan_ipv4"), find("lan_ipv6"));
        match self {
            Self::Inside => Tagged { main: None, v4, v6 },
            Self::Outside => Tagged {
                main: find("wan"),
                v4: find("wan_ipv4").or(v4),
                v6: find("wan_ipv6").or(v6),
            },
        }
    }

    /// The one address under which a node is shown.
    pub fn address_of_node(self, node: &Node) -> &str {
        self.shown(&node.address, || self.tagged_of_node(node))
    }

    /// The one address under which a service is shown; empty if it is reached at its node's.
    pub fn address_of_service(self, service: &Service) -> &str {
        self.shown(&service.address, || self.tagged_of_service(service))
    }

    /// Inside it is the main one. Outside a tagged one of a family wins over it, IPv6 over IPv4, as
    /// in Consul 1.8.7.
    fn shown<'a>(self, main: &'a str, tagged: impl FnOnce() -> Tagged<'a>) -> &'a str {
        match self {
            Self::Inside => main,
            Self::Outside => {
                let tagged = tagged();
                let mut chosen = [tagged.v6, tagged.v4, tagged.main].into_iter().flatten();
                chosen.find(|text| !text.is_empty()).unwrap_or(main)
            }
        }
    }

    /// The port of a service; that of its `wan` address where that counts and has one.
    pub fn port_of_service(self, service: &Service) -> i64 {
        let wan = || service.tagged_addresses.get("wan").map(|at| at.port);
        match self {
            Self::Inside => service.port,
            Self::Outside => wan().filter(|port| *port != 0).unwrap_or(service.port),
        }
    }
}
