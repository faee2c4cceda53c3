//! Settings of the agent that change what it does, one by one.

use crate::cluster::dig;
use e2e::{Agent, Folder, LONG, Options};

/// A server with these flags, and a configuration file to be changed later.
fn server(name: &str, flags: &[&str], config: &str) -> (Folder, Agent) {
    let folder = Folder::new("settings");
    std::fs::write(folder.join("config.json"), config).expect("the folder is writable");
    let words = ["-server", "-bootstrap", "-config-dir", folder.to_str().expect("text")];
    let agent = Options::new(name, &words).with(flags).start();
    agent.wait_for_leader();
    (folder, agent)
}

fn reload(folder: &Folder, agent: &Agent, config: &str) {
    std::fs::write(folder.join("config.json"), config).expect("the folder is writable");
    let reloaded = agent.command(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
}

#[test]
fn output_of_checks_is_kept_as_far_as_it_is_wanted() {
    let checks = r#""checks": [{"name": "c", "ttl": "1h"}, {"name": "d", "ttl": "1h", "output_max_size": 2}]"#;
    let (folder, agent) = server("kept", &["-check_output_max_size=4"], &format!("{{{checks}}}"));
    let output = |check: &str| agent.json("/v1/agent/checks")[check]["Output"].clone();
    let say = |check: &str| {
        let path = format!("/v1/agent/check/pass/{check}?note=abcdefgh");
        assert_eq!(agent.put(&path, "").status, 200);
        output(check)
    };
    assert_eq!(say("c"), "abcd ... (captured 4 of 8 bytes)");
    assert_eq!(say("d"), "ab ... (captured 2 of 8 bytes)");
    reload(&folder, &agent, &format!(r#"{{"discard_check_output": true, {checks}}}"#));
    assert_eq!(say("c"), "");
}

#[test]
fn tagged_addresses_are_in_the_catalog_in_dns_and_over_http() {
    let lan = e2e::loopback().to_string();
    let config = r#"{"advertise_addr_ipv6": "2001:db8::1", "advertise_addr_wan_ipv4": "192.0.2.9",
                     "tagged_addresses": {"rack": "192.0.2.4"}}"#;
    let (_folder, agent) = server("tagged", &["-serf-lan-bind", &lan, "-advertise", &lan], config);
    let address = agent.address();
    let expected = serde_json::json!({
        "lan": lan, "lan_ipv4": lan, "lan_ipv6": "2001:db8::1", "wan": lan,
        "wan_ipv4": "192.0.2.9", "rack": "192.0.2.4",
    });
    e2e::wait_until("the node in the catalog", LONG, || {
        let node = agent.json("/v1/catalog/node/tagged")["Node"].clone();
        (node["TaggedAddresses"] == expected && node["Address"] == lan).then_some(())
    });
    let own = agent.json("/v1/agent/self");
    assert_eq!(own["DebugConfig"]["TaggedAddresses"], expected);
    assert_eq!(own["DebugConfig"]["SerfBindAddrLAN"], format!("tcp://{lan}:8301"));
    assert_eq!(dig(&address, "tagged.node.terraform", 28).answers, 1, "the IPv6 address");
    let joined = Options::new("joined", &["-retry-join", &lan]).start();
    e2e::wait_until("the member at the LAN address", LONG, || {
        let members = joined.json("/v1/agent/members");
        (members.as_array().map(Vec::len) == Some(2)).then_some(())
    });
}

#[test]
fn a_member_outside_the_allowed_networks_is_not_accepted() {
    let inside = e2e::loopback().to_string();
    let own = Options::new("open", &[]);
    let networks = format!("{}/32", own.address);
    let words = [
        "-server",
        "-bootstrap",
        "-serf-lan-allowed-cidrs",
        &networks,
        "-serf-lan-allowed-cidrs",
        &format!("{inside}/32"),
    ];
    let server = own.with(&words).start();
    server.wait_for_leader();
    let at = format!("-retry-join={}", server.address());
    let mut friend = Options::new("friend", &[&at]);
    friend.address = inside.parse().expect("an address");
    let stranger = Options::new("stranger", &[&at]).start();
    let friend = friend.start();
    e2e::wait_until("the refusal", LONG, || {
        let text = format!("Member 'stranger' at {} is in no allowed network", stranger.address());
        stranger.lines().iter().any(|line| line.contains(&text)).then_some(())
    });
    e2e::wait_until("the friend", LONG, || {
        let members = server.json("/v1/agent/members");
        let names = members.as_array()?.iter().map(|member| member["Name"].as_str());
        let names: Vec<&str> = names.collect::<Option<_>>()?;
        (names == ["friend", "open"]).then_some(())
    });
    assert_eq!(friend.json("/v1/agent/members").as_array().map(Vec::len), Some(2));

    let refused = e2e::command(&[
        "agent",
        "-data-dir=/tmp/never",
        "-bind=127.0.0.1",
        "-serf-lan-allowed-cidrs=10.0.0.0/8",
    ]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    let rule = "==> serf_lan_allowed_cidrs: the agent's own address 127.0.0.1 is in none of them\n";
    assert_eq!((refused.status.code(), text.as_str()), (Some(1), rule));
}

#[test]
fn values_are_as_long_as_is_set() {
    let config = r#"{"limits": {"kv_max_value_size": 1015808, "txn_max_req_len": 8}}"#;
    let (folder, agent) = server("longer", &[], config);
    let value = "v".repeat(1_015_808);
    let put = |value: &str| agent.put(&format!("/v1/kv/{}?flags=1", "k".repeat(16_000)), value);
    assert_eq!(put(&value).body, "true", "with a key as long as a request line takes");
    let rule = "Request body(1015809 bytes) too large, max size: 1015808 bytes. See \
                https://www.consul.io/docs/agent/options.html#kv_max_value_size.";
    let refused = put(&format!("{value}v"));
    assert_eq!((refused.status, refused.body.as_str()), (413, rule));
    let read = agent.get(&format!("/v1/kv/{}?raw", "k".repeat(16_000)));
    assert!(read.body == value, "{} bytes were read", read.body.len());

    reload(&folder, &agent, "{}");
    let told = "limits.kv_max_value_size or limits.txn_max_req_len changed and takes effect after";
    e2e::wait_until("the warning", LONG, || {
        agent.lines().iter().any(|line| line.contains(told)).then_some(())
    });
}

#[test]
fn a_client_sends_no_more_requests_than_its_rate_allows() {
    let folder = Folder::new("rate");
    let config = folder.join("config.json");
    // A day and more for each further one.
    let slow = r#"{"limits": {"rpc_rate": 1e-5, "rpc_max_burst": 60}}"#;
    std::fs::write(&config, slow).expect("the folder is writable");
    let (_folder, server) = server("asked", &[], "{}");
    let join = format!("-retry-join={}", server.address());
    let words = [join.as_str(), "-config-dir", folder.to_str().expect("text")];
    let client = Options::new("asks", &words).start();
    e2e::wait_until("the client to know its server", LONG, || {
        (client.json("/v1/agent/members").as_array().map(Vec::len) == Some(2)).then_some(())
    });
    let ask = || client.get("/v1/catalog/nodes");
    let answers: Vec<u16> = (0..70).map(|_| ask().status).collect();
    let refused = answers.iter().position(|status| *status == 429).expect("some are refused");
    assert!(answers.iter().take(refused).any(|status| *status == 200), "{answers:?}");
    assert!(answers.iter().skip(refused).all(|status| *status == 429), "{answers:?}");
    assert_eq!(ask().body, "RPC rate limit exceeded");
    assert_eq!(dig(&client.address(), "asked.node.terraform", 1).rcode, 2, "SERVFAIL");
    reload(&folder, &client, "{}");
    assert_eq!(ask().status, 200);
}
