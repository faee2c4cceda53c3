//! Keys and values through processes: any agent, the command line, and reads that wait.

use crate::cluster::Cluster;
use e2e::{Agent, LONG, Options, command, wait_until};
use std::process::{Command, Output, Stdio};
use std::thread;

fn kv(agent: &Agent, words: &[&str]) -> Output {
    let http = format!("-http-addr={}:8500", agent.address());
    let (name, rest) = words.split_first().expect("a command has a name");
    let mut all = vec!["kv", *name, http.as_str()];
    all.extend(rest);
    command(&all)
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn index(agent: &Agent, path: &str) -> u64 {
    let response = agent.get(path);
    let index = response.header("x-consul-index").expect("a read tells its index");
    index.parse().expect("an index is a number")
}

#[test]
fn what_one_agent_writes_every_other_reads() {
    let cluster = Cluster::start();
    let (client, other) = (&cluster.clients[0], &cluster.clients[1]);
    assert_eq!(client.put("/v1/kv/app/name?flags=7", "web").body, "true");
    for agent in cluster.servers.iter().chain(&cluster.clients) {
        for mode in ["", "&consistent"] {
            let response = agent.get(&format!("/v1/kv/app/name?raw{mode}"));
            assert_eq!((response.status, response.body.as_str()), (200, "web"), "{mode}");
        }
        wait_until("the value on every server", LONG, || {
            (agent.get("/v1/kv/app/name?raw&stale").body == "web").then_some(())
        });
    }
    let at = index(other, "/v1/kv/app/name");
    assert_eq!(other.put(&format!("/v1/kv/app/name?cas={at}"), "web2").body, "true");
    assert_eq!(client.put(&format!("/v1/kv/app/name?cas={at}"), "web3").body, "false");
    let transaction = r#"[{"KV": {"Verb": "get", "Key": "app/name"}},
        {"KV": {"Verb": "set", "Key": "app/b", "Value": "Yg=="}},
        {"KV": {"Verb": "check-not-exists", "Key": "app/name"}}]"#;
    let failed = client.put("/v1/txn", transaction);
    let what = r#"{"Results":null,"Errors":[{"OpIndex":2,"What":"key \"app/name\" exists"}]}"#;
    assert_eq!((failed.status, failed.body.as_str()), (409, what));
    assert_eq!(client.json("/v1/kv/app?keys").to_string(), r#"["app/name"]"#);
}

#[test]
fn the_command_line_reads_and_writes_whatever_bytes() {
    let agent = Options::new("kv-cli", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    let ok = |words: &[&str], shown: &str| {
        let output = kv(&agent, words);
        assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), shown), "{words:?}");
    };
    ok(&["put", "a/b", "hello"], "Success! Data written to: a/b\n");
    ok(&["get", "/a/b"], "hello\n");
    ok(&["put", "-base64", "-flags=9", "a/raw", "/wA="], "Success! Data written to: a/raw\n");
    assert_eq!(kv(&agent, &["get", "a/raw"]).stdout, b"\xff\x00\n");
    ok(&["get", "-keys"], "a/\n");
    ok(&["get", "-keys", "-separator=", "a"], "a/b\na/raw\n");
    ok(&["get", "-recurse", "-base64"], "a/b:aGVsbG8=\na/raw:/wA=\n");
    ok(&["get", "-recurse", "nothing"], "");
    let missing = kv(&agent, &["get", "nope"]);
    assert_eq!((missing.status.code(), text(&missing)), (Some(1), no_key()));
    let at = index(&agent, "/v1/kv/a/b").to_string();
    ok(&["put", "-cas", "-modify-index", &at, "a/b", "x"], "Success! Data written to: a/b\n");
    let late = kv(&agent, &["put", "-cas", "-modify-index", &at, "a/b", "y"]);
    assert_eq!(text(&late), "Error! Did not write to a/b: CAS failed\n");
    let exported = kv(&agent, &["export", "a/"]);
    ok(&["delete", "-recurse", "a/"], "Success! Deleted keys with prefix: a/\n");
    ok(&["export"], "[]\n");
    let mut import = Command::new(e2e::binary())
        .args(["kv", "import", &format!("-http-addr={}:8500", agent.address()), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = import.stdin.take().expect("stdin is piped");
    std::io::Write::write_all(&mut stdin, &exported.stdout).expect("the program reads");
    drop(stdin);
    let imported = import.wait_with_output().expect("the program ends");
    assert_eq!(text(&imported), "Imported: a/b\nImported: a/raw\n");
    assert_eq!(kv(&agent, &["export", "a/"]).stdout, exported.stdout);
    ok(&["delete", "nope"], "Success! Deleted key: nope\n");
    let unreachable = command(&["kv", "get", "-http-addr=127.0.0.1:1", "a"]);
    assert!(text(&unreachable).starts_with("Error querying Consul agent: Get \"http://"));
}

fn no_key() -> String {
    "Error! No key exists at: nope\n".to_owned()
}

#[test]
fn a_read_that_waits_is_woken_through_the_next_leader_too() {
    let mut cluster = Cluster::start();
    let client = &cluster.clients[0];
    assert_eq!(client.put("/v1/kv/watched", "1").body, "true");
    let path = format!("/v1/kv/watched?raw&wait=25s&index={}", index(client, "/v1/kv/watched"));
    let waiting = |path: &str| {
        let (host, path) = (client.address(), path.to_owned());
        thread::spawn(move || e2e::get(&host, &path))
    };
    let first = waiting(&path);
    assert_eq!(cluster.clients[1].put("/v1/kv/other", "1").body, "true");
    assert!(!first.is_finished(), "another key wakes nobody");
    assert_eq!(cluster.clients[1].put("/v1/kv/watched", "2").body, "true");
    assert_eq!(first.join().expect("the thread ends").body, "2");
    let path = format!("/v1/kv/watched?raw&wait=25s&index={}", index(client, "/v1/kv/watched"));
    let second = waiting(&path);
    drop(cluster.take_leader().kill());
    wait_until("a write after the failover", LONG, || {
        let response = cluster.clients[1].put("/v1/kv/watched", "3");
        (response.body == "true").then_some(())
    });
    assert_eq!(second.join().expect("the thread ends").body, "3");
}
