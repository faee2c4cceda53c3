//! The rules of addresses besides the main ones (agent-config.md §4, §5).

use super::super::{NetworkSettings, Settings};
use super::{Checked, Machine, addresses, advertise, bind, refuse, wan_addresses};
use std::collections::BTreeMap;
use std::net::IpAddr;
use terraform_core::gossip::{Network, NetworkError};

/// Tagged addresses that a node has at most.
const TAGGED_MAX: usize = 64;
/// Bytes of one of them at most.
const ADDRESS_BYTES_MAX: usize = 512;

/// Where an agent listens for other agents, and where they reach it.
pub(super) struct Addresses {
    pub(super) bind: IpAddr,
    pub(super) bind_lan: IpAddr,
    pub(super) bind_wan: IpAddr,
    pub(super) advertise: IpAddr,
    pub(super) advertise_wan: IpAddr,
    pub(super) tagged: BTreeMap<String, String>,
}

/// Decides all of them.
pub(super) fn decide(
    settings: &Settings,
    dev: bool,
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> Checked<Addresses> {
    let bind = bind(settings, dev, machine)?;
    let bind_lan = bind_lan(&settings.network, bind, machine)?;
    let advertise = advertise(settings, bind, machine, warnings)?;
    let (bind_wan, advertise_wan) = wan_addresses(settings, (bind, advertise), machine)?;
    let tagged = tagged(&settings.network, [advertise, advertise_wan], machine, warnings)?;
    Ok(Addresses { bind, bind_lan, bind_wan, advertise, advertise_wan, tagged })
}

/// Where gossip of the datacenter listens.
fn bind_lan(network: &NetworkSettings, bind: IpAddr, machine: &Machine) -> Checked<IpAddr> {
    Ok(given(network, "serf_lan", machine)?.unwrap_or(bind))
}

/// Where the members of a pool are; the agent itself must be there, too.
pub(super) fn allowed(key: &str, texts: &[String], own: IpAddr) -> Checked<Vec<Network>> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        match text.trim().parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(NetworkError) => {
                return refuse(format!("{key}: {text:?} is no network: address/bits"));
            }
        }
    }
    if !networks.is_empty() && !networks.iter().any(|network| network.contains(own)) {
        return refuse(format!("{key}: the agent's own address {own} is in none of them"));
    }
    Ok(networks)
}

/// The tagged addresses of the node, but for those that the advertised ones make by themselves.
/// These win over `tagged_addresses`, which is warned of.
fn tagged(
    network: &NetworkSettings,
    [advertise, advertise_wan]: [IpAddr; 2],
    machine: &Machine,
    warnings: &mut Vec<String>,
) -> Checked<BTreeMap<String, String>> {
    let mut tagged = network.tagged.clone();
    if tagged.len() > TAGGED_MAX {
        return refuse(format!("tagged_addresses cannot have more than {TAGGED_MAX} entries"));
    }
    for (tag, address) in &tagged {
        if tag.is_empty() || address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
            let rule = format!("tag and address have 1 to {ADDRESS_BYTES_MAX} bytes");
            return refuse(format!("tagged_addresses.{tag}: {rule}"));
        }
    }
    let mut win = |tag: String, (key, ip): (&str, IpAddr), kept: bool| {
        let old = tagged.remove(&tag).filter(|old| *old != ip.to_string());
        if old.is_some() {
            warnings.push(format!("tagged_addresses.{tag} has no effect: {key} decides it"));
        }
        if kept {
            tagged.insert(tag, ip.to_string());
        }
    };
    for (tag, key, ip) in
        [("lan", "advertise_addr", advertise), ("wan", "advertise_addr_wan", advertise_wan)]
    {
        win(tag.to_owned(), (key, ip), false);
        for family in ["ipv4", "ipv6"] {
            let of_family = format!("{key}_{family}");
            let fits = |ip: IpAddr| ip.is_ipv4() == (family == "ipv4");
            match given(network, &of_family, machine)? {
                Some(ip) if !fits(ip) => {
                    return refuse(format!("{of_family} must be an {family} address"));
                }
                Some(ip) if ip.is_unspecified() => {
                    return refuse(format!("{of_family} cannot be 0.0.0.0, :: or [::]"));
                }
                Some(ip) => win(format!("{tag}_{family}"), (&of_family, ip), true),
                None if fits(ip) => win(format!("{tag}_{family}"), (key, ip), false),
                None => {}
            }
        }
    }
    Ok(tagged)
}

fn given(network: &NetworkSettings, key: &str, machine: &Machine) -> Checked<Option<IpAddr>> {
    let text = network.addresses.get(key).filter(|text| !text.is_empty());
    text.map(|text| addresses::single(key, text, machine)).transpose()
}

#[cfg(test)]
mod tests {
    use super::super::tests::machine;
    use super::*;
    use crate::config::parse;

    fn of(text: &str) -> (Result<BTreeMap<String, String>, String>, Vec<String>) {
        let mut warnings = Vec::new();
        let advertised = ["10.0.0.1", "198.51.100.1"].map(|text| text.parse().unwrap());
        let tagged = tagged(&parse(text).unwrap().network, advertised, &machine(), &mut warnings);
        (tagged.map_err(|error| error.to_string()), warnings)
    }

    #[test]
    fn what_is_advertised_wins_and_the_rest_stays() {
        let text = r#"{"advertise_addr_ipv6": "2001:db8::1", "advertise_addr_wan_ipv4": "192.0.2.9",
            "tagged_addresses": {"lan": "10.0.0.9", "rack": "10.9.0.1", "wan": "198.51.100.1",
                                 "wan_ipv6": "2001:db8::7"}}"#;
        let (tagged, warnings) = of(text);
        let expected = [
            ("lan_ipv6", "2001:db8::1"),
            ("rack", "10.9.0.1"),
            ("wan_ipv4", "192.0.2.9"),
            ("wan_ipv6", "2001:db8::7"),
        ];
        let expected = expected.map(|(tag, address)| (tag.to_owned(), address.to_owned()));
        assert_eq!(tagged, Ok(expected.into_iter().collect()));
        assert_eq!(warnings, ["tagged_addresses.lan has no effect: advertise_addr decides it"]);
    }

    #[test]
    fn the_agent_is_in_the_networks_that_it_allows() {
        let own = "10.0.0.1".parse().unwrap();
        let of = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            allowed("serf_lan_allowed_cidrs", &texts, own).map_err(|error| error.to_string())
        };
        assert_eq!(of(&[]), Ok(vec![]));
        let networks = ["192.0.2.0/24", "10.0.0.0/8"];
        assert_eq!(of(&networks), Ok(networks.map(|text| text.parse().unwrap()).to_vec()));
        let rule = "serf_lan_allowed_cidrs: the agent's own address 10.0.0.1 is in none of them";
        assert_eq!(of(&["192.0.2.0/24"]), Err(rule.to_owned()));
        let rule = "serf_lan_allowed_cidrs: \"10.0.0.0\" is no network: address/bits";
        assert_eq!(of(&["10.0.0.0"]), Err(rule.to_owned()));
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_by_key_and_rule() {
        for (text, rule) in [
            (r#"{"advertise_addr_ipv4": "::1"}"#, "advertise_addr_ipv4 must be an ipv4 address"),
            (
                r#"{"advertise_addr_wan_ipv6": "10.0.0.1"}"#,
                "advertise_addr_wan_ipv6 must be an ipv6 address",
            ),
            (
                r#"{"advertise_addr_ipv6": "::"}"#,
                "advertise_addr_ipv6 cannot be 0.0.0.0, :: or [::]",
            ),
            (r#"{"advertise_addr_ipv4": "x"}"#, "advertise_addr_ipv4: invalid ip address: x"),
            (
                r#"{"tagged_addresses": {"a": ""}}"#,
                "tagged_addresses.a: tag and address have 1 to 512 bytes",
            ),
        ] {
            assert_eq!(of(text).0, Err(rule.to_owned()));
        }
        let bind = "10.0.0.1".parse().unwrap();
        let lan = |text: &str| {
            bind_lan(&parse(text).unwrap().network, bind, &machine()).map_err(|e| e.to_string())
        };
        assert_eq!(lan("{}"), Ok(bind));
        assert_eq!(lan(r#"{"serf_lan": "10.0.0.7"}"#), Ok("10.0.0.7".parse().unwrap()));
        assert!(lan(r#"{"serf_lan": "10.0.0.7:1"}"#).unwrap_err().starts_with("serf_lan: "));
    }
}
