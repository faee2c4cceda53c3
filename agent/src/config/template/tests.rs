//! Templates on the addresses of a machine; what they stand for is what Consul 1.8.7 makes of them.

use super::*;

/// An address of `interface`, as `address/prefix`.
fn one(interface: &str, text: &str) -> InterfaceAddress {
    let (address, prefix) = text.split_once('/').unwrap();
    InterfaceAddress {
        name: interface.to_owned(),
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        is_up: true,
        is_loopback: interface == "lo",
        is_broadcast: interface != "lo",
        is_point_to_point: false,
        is_multicast: interface != "lo",
        is_default: interface == "d0",
    }
}

fn machine() -> Vec<InterfaceAddress> {
    let all = [
        ("lo", "127.0.0.1/8"),
        ("lo", "::1/128"),
        ("d0", "10.1.0.5/16"),
        ("d0", "10.2.0.9/24"),
        ("d0", "fe80::1/64"),
        ("d1", "172.16.0.3/12"),
        ("d1", "8.8.4.4/24"),
        ("d1", "192.168.3.3/30"),
        ("d1", "2a00::1/48"),
        ("d1", "fd00::7/64"),
        ("d1", "fe80::2/64"),
    ];
    all.map(|(interface, text)| one(interface, text)).to_vec()
}

fn expanded_here(text: &str) -> String {
    expand(text, &machine()).unwrap()
}

/// What interfaces, as a pipeline gives them, are.
fn addresses(pipeline: &str) -> String {
    expanded_here(&format!("{{{{ {pipeline} | join \"address\" \" \" }}}}"))
}

#[test]
fn the_usual_functions_give_what_consul_gives() {
    let cases = [
        ("{{ GetPrivateIPs }}", "172.16.0.3 10.1.0.5 10.2.0.9 192.168.3.3 fd00::7"),
        ("{{ GetPublicIPs }}", "8.8.4.4 2a00::1"),
        ("{{GetPrivateIP}}", "10.1.0.5"),
        ("{{ GetPublicIP }}", "8.8.4.4"),
        ("{{ GetInterfaceIP \"d1\" }}", "172.16.0.3"),
        ("{{ GetInterfaceIP \"lo\" }}", ""),
        ("{{ GetInterfaceIPs \"d1\" }}", "172.16.0.3 8.8.4.4 192.168.3.3 2a00::1 fd00::7 fe80::2"),
        ("{{ GetPrivateInterfaces | attr \"name\" }}", "d0"),
        ("{{ GetPrivateInterfaces | attr \"network\" }}", "10.1.0.0"),
        ("{{ attr \"ADDRESS\" (GetPrivateInterfaces) }}", "10.1.0.5"),
        ("{{ attr `type` GetPublicInterfaces }}", "IPv4"),
        ("{{ GetAllInterfaces | include \"name\" \"nope\" | attr \"address\" }}", ""),
        ("{{ GetPrivateIP }} {{- \" 127.0.0.1\" -}} ", "10.1.0.5 127.0.0.1"),
        ("127.0.0.{{ 9 }} {{/* nine */}}", "127.0.0.9 "),
        ("no template", "no template"),
    ];
    for (text, expected) in cases {
        assert_eq!(expanded_here(text), expected, "{text}");
    }
}

#[test]
fn pipelines_choose_sort_and_cut_as_consul_does() {
    let private = "10.1.0.5 10.2.0.9 172.16.0.3 192.168.3.3";
    let with_v6 = format!("{private} fd00::7");
    let cases = [
        ("GetDefaultInterfaces", "10.1.0.5 10.2.0.9 fe80::1"),
        ("GetPrivateInterfaces", with_v6.as_str()),
        (
            "GetPrivateInterfaces | sort \"size\"",
            "172.16.0.3 10.1.0.5 10.2.0.9 192.168.3.3 fd00::7",
        ),
        (
            "GetPrivateInterfaces | sort \"-size\"",
            "192.168.3.3 10.2.0.9 10.1.0.5 172.16.0.3 fd00::7",
        ),
        ("GetPrivateInterfaces | sort \"address\"", with_v6.as_str()),
        (
            "GetPrivateInterfaces | sort \"-name,+type,address\"",
            "172.16.0.3 192.168.3.3 fd00::7 10.1.0.5 10.2.0.9",
        ),
        (
            "GetAllInterfaces | include \"name\" \"d\" | exclude \"type\" \"ipv6\"",
            "10.1.0.5 10.2.0.9 172.16.0.3 8.8.4.4 192.168.3.3",
        ),
        (
            "GetAllInterfaces | include \"name\" \"^d1$\" | include \"type\" \"IPv6\"",
            "2a00::1 fd00::7 fe80::2",
        ),
        ("GetAllInterfaces | include \"flags\" \"up|loopback\"", "127.0.0.1 ::1"),
        (
            "GetAllInterfaces | include \"flag\" \"forwardable\"",
            "10.1.0.5 10.2.0.9 172.16.0.3 8.8.4.4 192.168.3.3 2a00::1 fd00::7",
        ),
        ("GetAllInterfaces | include \"rfc\" \"1918\"", private),
        ("GetAllInterfaces | include \"rfc\" \"1918|4193\"", with_v6.as_str()),
        ("GetAllInterfaces | exclude \"rfc\" \"6890\"", "8.8.4.4 2a00::1"),
        (
            "GetAllInterfaces | include \"network\" \"10.0.0.0/8|172.16.0.0/12\"",
            "10.1.0.5 10.2.0.9 172.16.0.3",
        ),
        ("GetAllInterfaces | include \"address\" \"^10\"", "10.1.0.5 10.2.0.9"),
        ("GetAllInterfaces | include \"size\" \"16\"", "10.1.0.5"),
        ("GetPrivateInterfaces | limit 2", "10.1.0.5 10.2.0.9"),
        ("GetPrivateInterfaces | offset 1 | limit 1", "10.2.0.9"),
        ("GetPrivateInterfaces | offset -1", "fd00::7"),
        ("GetPrivateInterfaces | limit 99", with_v6.as_str()),
        ("GetPrivateInterfaces | unique \"name\"", "10.1.0.5 172.16.0.3"),
    ];
    for (pipeline, expected) in cases {
        assert_eq!(addresses(pipeline), expected, "{pipeline}");
    }
}

#[test]
fn what_is_wrong_with_a_template_is_named() {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(99), ")".repeat(99));
    let cases = [
        ("{{ Nope }}", "function \"Nope\" not defined"),
        ("{{ printf \"x\" }}", "function \"printf\" is not built yet"),
        ("{{ with GetPrivateIP }}x{{ end }}", "function \"with\" is not built yet"),
        ("{{ GetAllInterfaces | math \"network\" \"+1\" }}", "function \"math\" is not built yet"),
        ("{{ GetPrivateIP", "unclosed action"),
        ("{{ $x }}", "unexpected '$' in a template"),
        ("{{ GetPrivateIP ) }}", "unexpected ')' in a template"),
        ("{{ }}", "unexpected '}' in a template"),
        ("{{ attr \"address", "unterminated quoted string"),
        ("{{ GetAllInterfaces }}", "interfaces are no address: end with attr \"address\" or join"),
        ("{{ GetInterfaceIP }}", "wrong number of args for GetInterfaceIP: want 1 got 0"),
        ("{{ GetInterfaceIP 1 }}", "GetInterfaceIP wants a quoted string"),
        ("{{ GetInterfaceIP \"[\" }}", "Unable to compile name regexp \"[\""),
        ("{{ GetPrivateIP | attr \"address\" }}", "attr wants interfaces"),
        ("{{ GetPrivateIP | \"x\" }}", "only a function takes what is piped"),
        ("{{ GetAllInterfaces | attr \"nope\" }}", "unsupported attribute name \"nope\""),
        ("{{ GetAllInterfaces | sort \"nope\" }}", "unknown sort type: \"nope\""),
        ("{{ GetAllInterfaces | include \"rfc\" \"9\" }}", "unsupported RFC 9"),
        ("{{ GetAllInterfaces | include \"type\" \"x\" }}", "unsupported type \"x\""),
        ("{{ GetAllInterfaces | include \"flag\" \"x\" }}", "Unknown interface flag: \"x\""),
        ("{{ GetAllInterfaces | include \"port\" \"1\" }}", "selector \"port\" is not known"),
        ("{{ GetAllInterfaces | offset 12 }}", "offset (12) exceeds the number of interfaces (11)"),
        (deep.as_str(), "too many parentheses"),
    ];
    for (text, reason) in cases {
        let expected = format!("error parsing {text:?}: {reason}");
        assert_eq!(expand(text, &machine()), Err(expected));
    }
}
