//! The rules of agent-config.md §3, by their texts.

use super::*;
use crate::config::parse;
use terraform_io::http::listen::HttpAddress;

fn interface() -> InterfaceAddress {
    InterfaceAddress {
        name: "eth0".to_owned(),
        address: "10.1.10.38".parse().unwrap(),
        prefix: 24,
        is_up: true,
        is_loopback: false,
        is_broadcast: true,
        is_point_to_point: false,
        is_multicast: true,
        is_default: true,
    }
}

pub(super) fn machine() -> Machine {
    Machine {
        host_name: "host-1".to_owned(),
        route_source: "10.1.10.38".parse().ok(),
        interfaces: Ok(vec![interface()]),
        processors: 4,
        temporary: PathBuf::from("/nonexistent"),
    }
}

pub(super) fn resolved(text: &str) -> Checked<Resolved> {
    resolve(parse(text).unwrap(), false, &machine())
}

pub(super) fn refusal(text: &str) -> String {
    resolved(text).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_founding_page() {
    let resolved = resolved(r#"{"data_dir": "/d", "server": true, "bootstrap": true}"#).unwrap();
    assert_eq!(resolved.node.name.as_str(), "host-1");
    assert_eq!(resolved.node.datacenter.as_str(), "dc1");
    assert_eq!(resolved.node.advertise.to_string(), "10.1.10.38");
    let Listeners { http, dns, rpc, .. } = resolved.listeners;
    assert_eq!(http, [HttpAddress::Tcp("127.0.0.1:8500".parse().unwrap())]);
    assert_eq!(dns, ["127.0.0.1:8600".parse().unwrap()]);
    assert_eq!(rpc, ["127.0.0.1:8400".parse().unwrap()]);
    assert_eq!(resolved.warnings, ["Bootstrap mode enabled! Do not enable unless necessary"]);
}

#[test]
fn a_server_is_in_the_wan_pool_unless_its_port_is_switched_off() {
    let with =
        |more: &str| resolved(&format!(r#"{{"data_dir": "/d", "server": true, {more}}}"#)).unwrap();
    let given = with(
        r#""serf_wan": "10.9.9.9", "advertise_addr_wan": "198.51.100.7", "ports": {"serf_wan": 99},
           "gossip_wan": {"gossip_nodes": 9}, "gossip_lan": {"gossip_nodes": 8},
           "reconnect_timeout_wan": "9h", "reconnect_timeout": "5m",
           "retry_join_wan": ["a"], "retry_interval_wan": "5s""#,
    );
    let wan = given.node.wan().unwrap();
    assert_eq!((wan.port, given.bind_wan.to_string()), (99, "10.9.9.9".to_owned()));
    assert_eq!(given.node.advertise_wan.to_string(), "198.51.100.7");
    assert_eq!((wan.gossip.gossip_nodes, given.node.gossip.gossip_nodes), (9, 8));
    assert_eq!(wan.serf.reconnect_timeout, Duration::from_secs(9 * 3600));
    assert_eq!(given.node.serf.reconnect_timeout, Duration::from_secs(300), "minutes will do");
    assert_eq!(given.joins_wan.again, ["a"]);
    assert_eq!(given.joins_wan.interval, Duration::from_secs(5));
    let plain = with(r#""ports": {}"#);
    assert_eq!(plain.node.wan().map(|wan| wan.port), Some(8302));
    assert_eq!(plain.node.advertise_wan, plain.node.advertise);
    let without = with(r#""ports": {"serf_wan": -1}"#);
    assert_eq!((without.node.wan(), without.serf_wan_port), (None, None));
    assert_eq!(
        resolved(r#"{"data_dir": "/d"}"#).unwrap().node.wan(),
        None,
        "clients are not in it"
    );
}

#[test]
fn every_rule_of_the_wan_pool_is_named() {
    let cases = [
        (
            r#"{"data_dir": "/d", "advertise_addr_wan": "::"}"#,
            "Advertise WAN address cannot be 0.0.0.0, :: or [::]",
        ),
        (
            r#"{"data_dir": "/d", "retry_join_wan": ["a"]}"#,
            "'retry_join_wan' requires 'server = true'",
        ),
        (
            r#"{"data_dir": "/d", "server": true, "start_join_wan": ["a"],
                "ports": {"serf_wan": -1}}"#,
            "'start_join_wan' requires ports.serf_wan, which is switched off",
        ),
        (
            r#"{"data_dir": "/d", "server": true, "ports": {"serf_wan": 8301}}"#,
            "ports.serf_wan: 8301 is already ports.serf_lan",
        ),
        (
            r#"{"data_dir": "/d", "server": true, "gossip_wan": {"probe_timeout": "50s"}}"#,
            "gossip_wan.probe_timeout must be shorter than gossip_wan.probe_interval",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn every_rule_is_named() {
    let cases = [
        (r#"{}"#, "data_dir cannot be empty"),
        (r#"{"data_dir": "/d", "bootstrap": true}"#, "'bootstrap = true' requires 'server = true'"),
        (
            r#"{"data_dir": "/d", "server": true, "bootstrap": true, "bootstrap_expect": 3}"#,
            "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive",
        ),
        (
            r#"{"data_dir": "/d", "non_voting_server": true}"#,
            "'non_voting_server = true' requires 'server = true'",
        ),
        (
            r#"{"data_dir": "/d", "server": true, "bootstrap": true, "non_voting_server": true}"#,
            "'non_voting_server = true' and a bootstrap alone are mutually exclusive: somebody \
             must vote",
        ),
        (
            r#"{"data_dir": "/d", "server": true, "autopilot": {"max_trailing_logs": -1}}"#,
            "autopilot.max_trailing_logs cannot be -1. Must be greater than or equal to zero",
        ),
        (
            r#"{"data_dir": "/d", "datacenter": "Bad dc!"}"#,
            "datacenter cannot be \"bad dc!\". Please use only [a-z0-9-_]",
        ),
        (
            r#"{"data_dir": "/d", "retry_join": ["a", ""]}"#,
            "retry_join: \"\" is not an address: use HOST, HOST:PORT or [IP]:PORT",
        ),
        (
            r#"{"data_dir": "/d", "retry_interval": "0s"}"#,
            "retry_interval cannot be 0s. Must be greater than zero",
        ),
        (r#"{"data_dir": "/d", "ports": {"http": 70000}}"#, "ports.http: invalid port: 70000"),
        (
            r#"{"data_dir": "/d", "ports": {"http": 9000, "dns": 9000}}"#,
            "DNS address 127.0.0.1:9000 already configured for HTTP",
        ),
        (
            r#"{"data_dir": "/d", "advertise_addr": "0.0.0.0"}"#,
            "Advertise address cannot be 0.0.0.0, :: or [::]",
        ),
        (
            r#"{"data_dir": "/d", "performance": {"raft_multiplier": 11}}"#,
            "performance.raft_multiplier cannot be 11. Must be between 1 and 10",
        ),
        (
            r#"{"data_dir": "/d", "log_level": "nope"}"#,
            "Invalid log level: nope. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]",
        ),
        (
            r#"{"data_dir": "/d", "ca_file": "x"}"#,
            "ca_file is not built yet: the agent would be less safe than this setting says",
        ),
        (
            r#"{"data_dir": "/d", "encrypt": "!"}"#,
            "encrypt has invalid key: illegal base64 data at input byte 0",
        ),
        (
            r#"{"data_dir": "/d", "encrypt": "c2hvcnQ="}"#,
            "Failed to configure keyring: Invalid key: key size must be 16, 24 or 32 bytes",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn a_public_outgoing_address_is_refused_and_no_route_is_a_warning() {
    let with = |route: Option<&str>| {
        let route_source = route.and_then(|route| route.parse().ok());
        let machine = Machine { route_source, ..machine() };
        resolve(parse(r#"{"data_dir": "/d"}"#).unwrap(), false, &machine)
    };
    let candidates = "with -bind or -advertise. This machine has 10.1.10.38 (eth0)";
    let public = with(Some("8.8.8.8")).unwrap_err().to_string();
    assert!(public.ends_with(candidates), "{public}");
    let none = with(None).unwrap();
    assert_eq!(none.node.advertise.to_string(), "127.0.0.1");
    let told = |warning: &String| {
        warning.contains("advertising 127.0.0.1") && warning.ends_with(candidates)
    };
    assert!(none.warnings.iter().any(told), "{:?}", none.warnings);
}

#[test]
fn candidates_are_what_others_may_reach_with_their_interfaces() {
    let of = |interfaces| addresses::candidates(&Machine { interfaces, ..machine() });
    let at = |name: &str, address: &str| InterfaceAddress {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        ..interface()
    };
    let lo = InterfaceAddress { is_loopback: true, ..at("lo", "127.0.0.1") };
    let down = InterfaceAddress { is_up: false, ..at("eth1", "10.2.0.1") };
    let mut all = vec![lo, down, at("eth0", "fe80::1")];
    let none = "This machine has no address that others could reach";
    assert_eq!(of(Ok(all.clone())), none);
    all.extend([at("eth0", "10.1.10.38"), at("eth2", "8.8.8.8"), at("eth2", "2001:db8::1")]);
    let few = "This machine has 10.1.10.38 (eth0), 8.8.8.8 (eth2), 2001:db8::1 (eth2)";
    assert_eq!(of(Ok(all.clone())), few);
    all.extend((0..20).map(|number| at("br0", &format!("172.16.0.{number}"))));
    let many = of(Ok(all));
    assert!(many.ends_with("172.16.0.12 (br0) and 7 more"), "{many}");
    let unknown = of(Err("no permission".to_owned()));
    assert_eq!(unknown, "The addresses of this machine are not known: no permission");
}

#[test]
fn odd_node_names_are_warned_of_and_impossible_ones_refused() {
    let dotted = resolved(r#"{"data_dir": "/d", "node_name": "a.local"}"#).unwrap();
    assert!(dotted.warnings.iter().any(|warning| warning.contains("-node")));
    let odd = resolved(r#"{"data_dir": "/d", "node_name": "a_b"}"#).unwrap();
    assert!(odd.warnings.iter().any(|warning| warning.contains("discoverable via DNS")));
    assert!(refusal(r#"{"data_dir": "/d", "node_name": "a\nb"}"#).starts_with("node_name: "));
}

#[test]
fn a_script_check_needs_its_switch() {
    let text = |switch: &str| {
        format!(
            r#"{{"data_dir": "/d", {switch} "check": {{"name": "c", "args": ["true"], "interval": "5s"}}}}"#
        )
    };
    assert!(refusal(&text("")).contains("Scripts are disabled on this agent"));
    assert!(resolved(&text(r#""enable_local_script_checks": true,"#)).is_ok());
}

#[test]
fn gossip_is_encrypted_as_the_settings_say() {
    let gossip = |text: &str| resolve(parse(text).unwrap(), false, &machine()).unwrap().node.gossip;
    let plain = gossip(r#"{"data_dir": "/d", "encrypt": ""}"#);
    assert_eq!(plain.encrypt, None);
    assert!(plain.verify_incoming && plain.verify_outgoing && plain.keyring_file);
    let encrypted = gossip(
        r#"{"data_dir": "/d", "encrypt": "AQEBAQEBAQEBAQEBAQEBAQ==",
            "encrypt_verify_incoming": false, "encrypt_verify_outgoing": false,
            "disable_keyring_file": true}"#,
    );
    assert_eq!(encrypted.encrypt.unwrap().as_bytes(), [1; 16]);
    assert!(!encrypted.verify_incoming && !encrypted.verify_outgoing && !encrypted.keyring_file);
}

#[test]
fn every_address_may_be_a_template() {
    let text = |address: &str| {
        format!(
            r#"{{"data_dir": "/d", "server": true, "bind_addr": "{address}",
                 "advertise_addr": "{address}", "advertise_addr_wan": "{address}",
                 "serf_wan": "{address}", "client_addr": "127.0.0.1 {address}",
                 "addresses": {{"dns": "{address}"}}}}"#
        )
    };
    let template = r#"{{ GetInterfaceIP \"eth0\" }}"#;
    let (given, plain) =
        (resolved(&text(template)).unwrap(), resolved(&text("10.1.10.38")).unwrap());
    assert_eq!(given.listeners, plain.listeners);
    assert_eq!((given.bind, given.bind_wan), (plain.bind, plain.bind_wan));
    assert_eq!(given.node.advertise, plain.node.advertise);
    assert_eq!(given.node.advertise_wan, plain.node.advertise_wan);
    let nothing = r#"{"data_dir": "/d", "bind_addr": "{{ GetPublicIP }}"}"#;
    let told = "bind_addr cannot be empty. This machine has 10.1.10.38 (eth0)";
    assert_eq!(refusal(nothing), told);
    let plain = r#"{"data_dir": "/d", "bind_addr": ""}"#;
    assert_eq!(refusal(plain), "bind_addr cannot be empty");
    let wrong = r#"{"data_dir": "/d", "advertise_addr": "{{ Nope }}"}"#;
    let rule = "advertise_addr: error parsing \"{{ Nope }}\": function \"Nope\" not defined";
    assert_eq!(refusal(wrong), rule);
    let two = r#"{"data_dir": "/d", "bind_addr": "{{ GetPrivateIP }} {{ GetPrivateIP }}"}"#;
    let two = refusal(two);
    assert!(two.starts_with("bind_addr cannot contain multiple addresses. Use"), "{two}");
    assert!(two.ends_with("instead. This machine has 10.1.10.38 (eth0)"), "{two}");
}
