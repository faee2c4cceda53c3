//! The addresses of this machine's network interfaces.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use std::io;
use std::net::IpAddr;

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network's part of it.
    pub prefix: u8,
    /// Whether the interface is up.
    pub is_up: bool,
    /// Whether it is the machine itself.
    pub is_loopback: bool,
    /// Whether it has other machines on it that all hear a broadcast.
    pub is_broadcast: bool,
    /// Whether it is the way to one other machine.
    pub is_point_to_point: bool,
    /// Whether it takes multicast.
    pub is_multicast: bool,
    /// Whether the default route of IPv4 leads through it.
    pub is_default: bool,
}

/// All of them, as the system orders them: by interface, IPv4 first.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    // A system that does not show its routes is one without a default route.
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = default_interface(&routes);
    let mut order: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for entry in getifaddrs().map_err(io::Error::from)? {
        let name = entry.interface_name;
        if !order.contains(&name) {
            order.push(name.clone());
        }
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let mask = entry.netmask.as_ref().and_then(ip);
        let has = |flag| entry.flags.contains(flag);
        found.push(InterfaceAddress {
            is_default: Some(name.as_str()) == default,
            name,
            address,
            prefix: mask.map_or_else(|| bits(address), ones),
            is_up: has(InterfaceFlags::IFF_UP),
            is_loopback: has(InterfaceFlags::IFF_LOOPBACK),
            is_broadcast: has(InterfaceFlags::IFF_BROADCAST),
            is_point_to_point: has(InterfaceFlags::IFF_POINTOPOINT),
            is_multicast: has(InterfaceFlags::IFF_MULTICAST),
        });
    }
    // The system lists all of one family before those of the other.
    found.sort_by_key(|one| order.iter().position(|name| *name == one.name));
    Ok(found)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn ones(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

/// The interface of the default route in the text of `/proc/net/route` (proc(5)): its destination
/// and its mask are zero.
fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, destination, mask) = (fields.next()?, fields.next()?, fields.nth(5)?);
        (destination == "00000000" && mask == "00000000").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_is_among_its_interfaces() {
        let found = interface_addresses().unwrap();
        let local = found.iter().find(|one| one.address == IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!((local.prefix, local.is_up, local.is_loopback), (8, true, true));
        assert!(!local.is_default);
    }

    #[test]
    fn the_default_route_leads_through_an_interface() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                      eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\n\
                      eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n";
        assert_eq!(default_interface(routes), Some("eth0"));
        assert_eq!(default_interface(""), None);
    }
}
