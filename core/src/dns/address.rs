//! Where a node or an instance can be reached, seen from its own datacenter or from another
//! (dns.md §9).

use super::QueryType;
use super::name::Name;
use crate::catalog::model::Node;
use crate::catalog::query::Instance;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From where addresses are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// From the datacenter they are in, or from another one that reaches the same addresses.
    Inside,
    /// From another datacenter, which reaches the `wan` ones (`translate_wan_addrs`).
    Outside,
}

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
        let tags = &node.tagged_addresses;
        if tags.is_empty() {
            return Self::of(&node.address, None, None);
        }
        let (main, v4, v6) = chosen(seen, |tag| tags.get(tag).map(String::as_str));
        Self::of(main.unwrap_or(&node.address), v4, v6)
    }

    /// The instance's own address; `None` if it has none and is reached at its node's.
    pub(super) fn of_service(instance: &Instance, seen: Seen) -> Option<Self> {
        let service = &instance.service;
        let tags = &service.tagged_addresses;
        if tags.is_empty() {
            let has_own = !service.address.is_empty();
            return has_own.then(|| Self::of(&service.address, None, None));
        }
        let tagged = |tag: &str| tags.get(tag).map(|at| at.address.as_str());
        let (main, v4, v6) = chosen(seen, tagged);
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

/// The tagged addresses that count: one for both families, one for each.
fn chosen<'a>(
    seen: Seen,
    tagged: impl Fn(&str) -> Option<&'a str>,
) -> (Option<&'a str>, Option<&'a str>, Option<&'a str>) {
    let (v4, v6) = (tagged("lan_ipv4"), tagged("lan_ipv6"));
    match seen {
        Seen::Inside => (None, v4, v6),
        Seen::Outside => (tagged("wan"), tagged("wan_ipv4").or(v4), tagged("wan_ipv6").or(v6)),
    }
}

/// The port of an instance; that of its `wan` address where that counts and has one.
pub(super) fn port(instance: &Instance, seen: Seen) -> Option<u16> {
    let service = &instance.service;
    let wan = service.tagged_addresses.get("wan").map(|at| at.port).filter(|port| *port != 0);
    let port = match seen {
        Seen::Inside => service.port,
        Seen::Outside => wan.unwrap_or(service.port),
    };
    u16::try_from(port).ok()
}
