//! Networks that are set aside for something, by the RFC that does so.

use ipnet::IpNet;
use std::net::IpAddr;

/// RFC 6890, tables 1 to 31: special purposes, private ones among them.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b::/96",
    "::ffff:0:0/96",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
];

/// Those of them whose addresses are not to be passed on to other networks.
const NOT_FORWARDED: &[&str] = &[
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "2001:db8::/32",
    "fe80::/10",
];

/// Whether one of these networks has the address.
fn holds(networks: &[&str], address: IpAddr) -> bool {
    let holds = |network: &IpNet| network.contains(&address);
    networks.iter().filter_map(|network| network.parse().ok()).any(|network| holds(&network))
}

/// Whether the address may be passed on to other networks.
pub(super) fn is_forwardable(address: IpAddr) -> bool {
    !holds(NOT_FORWARDED, address) && !address.is_multicast()
}

/// Whether the address is for a special purpose, such as private networks.
pub(super) fn is_special(address: IpAddr) -> bool {
    holds(SPECIAL, address)
}

/// Whether the address is of a network that this RFC sets aside; `None` for an unknown one.
pub(super) fn is_of_rfc(address: IpAddr, rfc: &str) -> Option<bool> {
    let networks: &[&str] = match rfc {
        "919" => &["255.255.255.255/32"],
        "1112" => &["224.0.0.0/4"],
        "1122" => &["0.0.0.0/8", "127.0.0.0/8"],
        "1918" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        "2544" => &["198.18.0.0/15"],
        "3849" => &["2001:db8::/32"],
        "3927" => &["169.254.0.0/16"],
        "4193" => &["fc00::/7"],
        "4291" => &["::/128", "::1/128", "fe80::/10", "ff00::/8"],
        "5737" => &["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"],
        "6598" => &["100.64.0.0/10"],
        "6890" => SPECIAL,
        _ => return None,
    };
    Some(holds(networks, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_of_the_tables_is_one() {
        for network in SPECIAL.iter().chain(NOT_FORWARDED) {
            let parsed: IpNet = network.parse().unwrap();
            assert!(holds(SPECIAL, parsed.addr()), "{network}");
        }
        for rfc in ["919", "1112", "1122", "1918", "2544", "3849", "3927", "4193", "4291"] {
            assert_eq!(is_of_rfc([8, 8, 8, 8].into(), rfc), Some(false), "{rfc}");
        }
        assert_eq!(is_of_rfc([10, 0, 0, 1].into(), "1"), None);
    }
}
