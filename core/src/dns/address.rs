//! Where a node or an instance can be reached, for those who ask for one family or for both.

use super::QueryType;
use super::name::Name;
use crate::catalog::address::{Seen, Tagged};
use crate::catalog::model::Node;
use crate::catalog::query::Instance;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// At these, at least one.
    Ips(Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// At whatever this name resolves to.
    Host(Name),
    /// Nowhere.
    Nothing,
}

impl Address {
    /// A tagged address of a family wins over the main one of that family.
    fn of(main: &str, v4: Option<&str>, v6: Option<&str>) -> Self {
        let parsed = main.parse::<IpAddr>().ok();
        let main_v4 = parsed.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
        let main_v6 = parsed.and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
        let v4 = v4.and_then(|text| text.parse().ok()).or(main_v4);
        let v6 = v6.and_then(|text| text.parse().ok()).or(main_v6);
        if v4.is_some() || v6.is_some() {
            return Self::Ips(v4, v6);
        }
        Name::parse(main).map_or(Self::Nothing, Self::Host)
    }

    /// That of a node.
    pub(super) fn of_node(node: &Node, seen: Seen) -> Self {
        if node.tagged_addresses.is_empty() {
            return Self::of(&node.address, None, None);
        }
        let Tagged { main, v4, v6 } = seen.tagged_of_node(node);
        Self::of(main.unwrap_or(&node.address), v4, v6)
    }

    /// The instance's own address; `None` if it has none and is reached at its node's.
    pub(super) fn of_service(instance: &Instance, seen: Seen) -> Option<Self> {
        let service = &instance.service;
        if service.tagged_addresses.is_empty() {
            let has_own = !service.address.is_empty();
            return has_own.then(|| Self::of(&service.address, None, None));
        }
        let Tagged { main, v4, v6 } = seen.tagged_of_service(service);
        let main = main.unwrap_or(&service.address);
        let has_own = !main.is_empty() || v4.is_some() || v6.is_some();
        has_own.then(|| Self::of(main, v4, v6))
    }

    /// Those of the families that are asked for.
    pub(super) fn ips(&self, qtype: QueryType) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = match self {
            Self::Ips(v4, v6) => (*v4, *v6),
            Self::Host(_) | Self::Nothing => (None, None),
        };
        let any = matches!(qtype, QueryType::Any | QueryType::Srv);
        let v4 = v4.filter(|_| any || qtype == QueryType::A);
        let v6 = v6.filter(|_| any || qtype == QueryType::Aaaa);
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }
}

/// The port of an instance, if it is one.
pub(super) fn port(instance: &Instance, seen: Seen) -> Option<u16> {
    u16::try_from(seen.port_of_service(&instance.service)).ok()
}
