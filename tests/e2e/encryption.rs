//! Encrypted agents as processes: keys, their file, and what a wrong one meets.

use e2e::{Agent, LONG, Options, command, wait_until};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

fn keygen() -> String {
    let output = command(&["keygen"]);
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn keyring_file(agent: &Agent) -> PathBuf {
    agent.options.data_dir.join("serf").join("local.keyring")
}

fn wait_for_members(agent: &Agent, count: usize) {
    wait_until("all members", LONG, || {
        let members = agent.json("/v1/agent/members");
        (members.as_array().map(Vec::len) == Some(count)).then_some(())
    });
}

fn wait_for_keyring(agent: &Agent, keys: &str) {
    let file = keyring_file(agent);
    wait_until("the keyring", LONG, || {
        (std::fs::read_to_string(&file).ok()? == format!("[\"{keys}\"]")).then_some(())
    });
    let mode = std::fs::metadata(&file).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads the keys");
}

#[test]
fn agents_with_the_same_key_meet_and_one_with_another_is_refused() {
    let (key, other) = (keygen(), keygen());
    let server = Options::new("server", &["-server", "-bootstrap", "-encrypt", &key]).start();
    wait_for_keyring(&server, &key);
    let address = server.address();
    let join = ["-join", address.as_str()];
    let client = Options::new("client", &["-encrypt", &key]).with(&join).start();
    wait_for_members(&server, 2);
    wait_for_members(&client, 2);
    wait_for_keyring(&client, &key);

    let reasons = [
        (vec!["-encrypt", other.as_str()], "none of the keys installed here opens the message"),
        (Vec::new(), "gossip is encrypted here, but the message is not"),
    ];
    for (arguments, reason) in reasons {
        let stranger = Options::new("stranger", &arguments).with(&join);
        let output = stranger.command().output().expect("the program runs");
        assert_eq!(output.status.code(), Some(1), "nobody could be joined");
        wait_until("the reason in the server's log", LONG, || {
            server.lines().iter().any(|line| line.contains(reason)).then_some(())
        });
        assert!(!stranger.data_dir.join("serf").join("local.keyring").exists());
    }
    wait_for_members(&server, 2);

    // The keyring wins over the settings of a later start, which says so.
    let mut options = client.kill();
    options.arguments = Vec::new();
    let again = options.with(&["-encrypt", &other]).with(&join).start();
    wait_for_members(&again, 2);
    let told = "LAN keyring exists but -encrypt given, using keyring";
    assert!(again.lines().iter().any(|line| line.contains(told)), "{:?}", again.lines());
}

#[test]
fn keyring_rotates_the_key_of_all_members() {
    let (old, new) = (keygen(), keygen());
    let server = Options::new("server", &["-server", "-bootstrap", "-encrypt", &old]).start();
    let address = server.address();
    let client = Options::new("client", &["-encrypt", &old, "-join", address.as_str()]).start();
    wait_for_members(&server, 2);
    wait_for_members(&client, 2);

    let keyring = |action: &str| server.command(&["keyring", action]);
    let refused = keyring(&format!("-use={new}"));
    assert_eq!(refused.status.code(), Some(1), "nobody has the key yet");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.starts_with("error: 2/2 nodes reported failure\n"), "{stderr}");
    for action in ["-install", "-use"] {
        assert!(keyring(&format!("{action}={new}")).status.success(), "{action}");
    }
    assert!(keyring(&format!("-remove={old}")).status.success());
    let listed = keyring("-list");
    let expected = format!("==> Gathering installed encryption keys...\n\n  {new} [2/2]\n");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), expected);
    wait_for_keyring(&server, &new);
    wait_for_keyring(&client, &new);

    // The same over HTTP, which knows relays and the keys in use, and asks servers alone.
    let over_http = |agent: &Agent, words: &[&str]| {
        let address = format!("-http-addr={}:8500", agent.address());
        command(&[&["keyring", &address], words].concat())
    };
    for action in [format!("-install={old}"), format!("-use={old}"), format!("-remove={new}")] {
        let output = over_http(&server, &["-relay-factor=1", &action]);
        assert!(output.status.success(), "{output:?}");
    }
    let listed = over_http(&server, &["-list-primary"]);
    let banner = "==> Gathering installed primary encryption keys...";
    let expected = format!("{banner}\n\nWAN:\n  {old} [1/1]\n\ndc1 (LAN):\n  {old} [2/2]\n");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), expected);
    let refused = over_http(&client, &["-list"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("keyring operations must run against a server node"), "{text}");
}

#[test]
fn an_agent_that_missed_a_rotation_is_named_and_comes_back_with_the_new_key() {
    let (old, new) = (keygen(), keygen());
    let server = Options::new("server", &["-server", "-bootstrap", "-encrypt", &old]).start();
    let address = server.address();
    let retry = ["-retry-join", address.as_str(), "-retry-interval", "1s"];
    let client = Options::new("client", &["-encrypt", &old]).with(&retry).start();
    wait_for_members(&server, 2);
    wait_for_keyring(&client, &old);
    let is = |status: u64| {
        let members = server.json("/v1/agent/members");
        let client = members.as_array()?.iter().find(|member| member["Name"] == "client")?;
        (client["Status"] == status).then_some(())
    };
    let options = client.kill();
    wait_until("the failure of the client", LONG, || is(4));
    for action in [format!("-install={new}"), format!("-use={new}"), format!("-remove={old}")] {
        let output = server.command(&["keyring", &action]);
        assert!(output.status.success(), "{action}: {output:?}");
    }

    let client = options.start();
    wait_until("the client's name in the server's log", LONG, || {
        let named = |line: &String| line.contains("encrypts gossip with the retired key");
        server.lines().iter().any(named).then_some(())
    });
    assert_eq!(is(4), Some(()), "what cannot be answered is no member");
    // Alone as it is, its own keyring is all that changes.
    for action in ["-install", "-use"] {
        let output = client.command(&["keyring", &format!("{action}={new}")]);
        assert!(output.status.success(), "{action}: {output:?}");
    }
    wait_until("the client's return", LONG, || is(1));
    wait_for_members(&client, 2);
}

#[test]
fn a_key_is_changed_in_all_datacenters_at_once() {
    let (old, new) = (keygen(), keygen());
    let server = |name: &str, datacenter: &str, more: &[&str]| {
        let words = ["-server", "-bootstrap", "-datacenter", datacenter, "-encrypt", &old];
        Options::new(name, &words).with(more).start()
    };
    let first = server("s1", "dc1", &[]);
    let second = server("s2", "dc2", &["-retry-join-wan", &first.address()]);
    for agent in [&first, &second] {
        wait_until("both servers in the WAN pool", LONG, || {
            let members = agent.json("/v1/agent/members?wan=1");
            let alive = members.as_array()?.iter().filter(|member| member["Status"] == 1);
            (alive.count() == 2).then_some(())
        });
    }
    for action in [format!("-install={new}"), format!("-use={new}"), format!("-remove={old}")] {
        let http = format!("-http-addr={}:8500", first.address());
        let output = command(&["keyring", &http, &action]);
        assert!(output.status.success(), "{action}: {output:?}");
    }
    let row = |wan: bool, datacenter: &str, nodes: u64| {
        serde_json::json!({
            "WAN": wan, "Datacenter": datacenter, "Segment": "",
            "Keys": {&new: nodes}, "PrimaryKeys": {&new: nodes}, "NumNodes": nodes,
        })
    };
    let listed = |own, other| serde_json::json!([row(true, own, 2), row(false, own, 1), other]);
    let second_rows = listed("dc2", row(false, "dc1", 1));
    assert_eq!(first.json("/v1/operator/keyring"), listed("dc1", row(false, "dc2", 1)));
    assert_eq!(second.json("/v1/operator/keyring"), second_rows);
    let local = serde_json::json!([row(false, "dc1", 1)]);
    assert_eq!(first.json("/v1/operator/keyring?local-only=1"), local);
}
