//! Servers that come, go and are replaced while clients write.

use e2e::{Agent, Connection, LONG, Options, command, wait_until};
use serde_json::Value;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Servers, and a client that stays while they change.
struct Pool {
    servers: Vec<Agent>,
    client: Agent,
    config: e2e::Folder,
}

impl Pool {
    fn start() -> Self {
        let config = e2e::Folder::new("autopilot");
        let text = r#"{"autopilot": {"server_stabilization_time": "1s"}}"#;
        fs::write(config.join("autopilot.json"), text).expect("the file can be written");
        let mut options: Vec<Options> = (1..=3)
            .map(|n| Options::new(&format!("server-{n}"), &["-server", "-bootstrap-expect=3"]))
            .collect();
        let joins: Vec<String> = options.iter().map(|it| it.address.to_string()).collect();
        for options in &mut options {
            options.arguments.push(format!("-config-dir={}", config.display()));
        }
        let join = |options: Options| {
            joins.iter().fold(options, |options, at| options.with(&["-retry-join", at]))
        };
        let servers: Vec<Agent> = options.into_iter().map(join).map(Options::start).collect();
        let client = join(Options::new("client", &[])).start();
        client.wait_for_leader();
        Self { servers, client, config }
    }

    /// Starts one more server and waits until it votes.
    fn add(&mut self, name: &str, arguments: &[&str]) {
        let mut options = Options::new(name, &["-server"]).with(arguments);
        options.arguments.push(format!("-config-dir={}", self.config.display()));
        options.arguments.push(format!("-retry-join={}", self.client.address()));
        self.servers.push(options.start());
    }

    /// Waits until exactly these servers vote.
    fn wait_for_voters(&self, names: &[&str]) {
        wait_until(&format!("{names:?} to vote"), LONG, || {
            (self.those(|server| server["Voter"] == true) == names).then_some(())
        });
    }

    /// The names of the configuration's servers for which this holds, sorted.
    fn those(&self, holds: impl Fn(&Value) -> bool) -> Vec<String> {
        let configuration = self.client.json("/v1/operator/raft/configuration");
        let servers = configuration["Servers"].as_array().cloned().unwrap_or_default();
        let those = servers.iter().filter(|server| holds(server));
        let mut names: Vec<String> =
            those.filter_map(|server| server["Node"].as_str().map(str::to_owned)).collect();
        names.sort();
        names
    }

    fn take(&mut self, name: &str) -> Agent {
        let at = self.servers.iter().position(|server| server.options.name == name);
        self.servers.remove(at.expect("the server is one of them"))
    }

    fn health(&self) -> (u16, Value) {
        let response = self.client.get("/v1/operator/autopilot/health");
        (response.status, serde_json::from_str(&response.body).unwrap_or_default())
    }
}

/// Writes keys one after the other until told to stop; the number of those that were acknowledged.
fn write(client: &Agent, stop: &'static AtomicBool) -> JoinHandle<usize> {
    let host = SocketAddr::V4(SocketAddrV4::new(client.options.address, 8500));
    std::thread::spawn(move || {
        let mut connection =
            Connection::open(host, Duration::from_secs(30)).expect("the client listens");
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let path = format!("/v1/kv/kept/{number}");
            let answer = connection.exchange("PUT", &path, "value").expect("it answers");
            // One that failed may have been stored all the same; it is simply done again.
            if answer.text() == "true" {
                number += 1;
            }
        }
        number
    })
}

#[test]
fn three_servers_become_five_and_three_others_while_a_client_writes() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let mut pool = Pool::start();
    let writer = write(&pool.client, &STOP);
    pool.add("server-4", &[]);
    pool.add("server-5", &[]);
    pool.wait_for_voters(&["server-1", "server-2", "server-3", "server-4", "server-5"]);
    wait_until("two may fail", LONG, || {
        let (status, health) = pool.health();
        (status == 200 && health["FailureTolerance"] == 2).then_some(())
    });
    for name in ["server-1", "server-2"] {
        assert!(pool.take(name).interrupt().success());
    }
    pool.wait_for_voters(&["server-3", "server-4", "server-5"]);
    // The last of the first ones dies; a new one takes its place.
    drop(pool.take("server-3").kill());
    wait_until("its failure is seen", LONG, || {
        let (status, health) = pool.health();
        (status == 429 && health["FailureTolerance"] == 0).then_some(())
    });
    pool.add("server-6", &[]);
    pool.wait_for_voters(&["server-4", "server-5", "server-6"]);
    STOP.store(true, Ordering::Relaxed);
    let written = writer.join().expect("the writer ends");
    let kept = pool.client.json("/v1/kv/kept/?keys");
    assert!(written > 100, "{written}");
    assert!(kept.as_array().expect("there are keys").len() >= written);
    wait_until("it is gone from the catalog", LONG, || {
        let nodes = pool.client.json("/v1/catalog/nodes");
        let mut names: Vec<&str> =
            nodes.as_array()?.iter().filter_map(|node| node["Node"].as_str()).collect();
        names.sort_unstable();
        (names == ["client", "server-4", "server-5", "server-6"]).then_some(())
    });
}

#[test]
fn a_server_whose_disk_was_wiped_comes_back_with_everything() {
    let mut pool = Pool::start();
    pool.wait_for_voters(&["server-1", "server-2", "server-3"]);
    assert_eq!(pool.client.put("/v1/kv/kept", "value").body, "true");
    let options = pool.take("server-2").kill();
    fs::remove_dir_all(&options.data_dir).expect("the folder can be removed");
    pool.servers.push(options.start());
    wait_until("it votes again", LONG, || {
        let health = pool.health().1;
        let servers = health["Servers"].as_array()?.clone();
        let all = servers.iter().all(|it| it["Voter"] == true && it["Healthy"] == true);
        (servers.len() == 3 && all).then_some(())
    });
    let again = pool.servers.last().expect("there are servers");
    wait_until("it has everything", LONG, || {
        (again.get("/v1/kv/kept?raw&stale").body == "value").then_some(())
    });
}

#[test]
fn a_spare_server_has_everything_and_does_not_vote() {
    let mut pool = Pool::start();
    pool.add("spare", &["-non-voting-server"]);
    wait_until("the spare is there", LONG, || {
        (pool.those(|server| server["Voter"] == false) == ["spare"]).then_some(())
    });
    let http = format!("-http-addr={}:8500", pool.client.address());
    let run = |words: &[&str]| {
        let output = command(&[&["operator", "autopilot"], words, &[http.as_str()]].concat());
        let (out, err) = (&output.stdout, &output.stderr);
        format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
    };
    let shown = run(&["get-config"]);
    assert!(shown.contains("ServerStabilizationTime = 1s\n"), "{shown}");
    assert_eq!(run(&["set-config", "-min-quorum=3"]), "Configuration updated!\n");
    let shown = run(&["get-config"]);
    assert!(shown.contains("MinQuorum = 3\n") && shown.contains("MaxTrailingLogs = 250\n"));
    assert_eq!(pool.client.put("/v1/kv/kept", "value").body, "true");
    let spare = pool.servers.last().expect("there are servers");
    wait_until("the spare has everything", LONG, || {
        (spare.get("/v1/kv/kept?raw&stale").body == "value").then_some(())
    });
    assert_eq!(pool.those(|server| server["Voter"] == false), ["spare"]);
}

#[test]
fn the_last_of_three_begins_anew_as_peers_json_says() {
    let mut pool = Pool::start();
    pool.wait_for_voters(&["server-1", "server-2", "server-3"]);
    assert_eq!(pool.client.put("/v1/kv/kept", "value").body, "true");
    wait_until("the key is everywhere", LONG, || {
        let all = pool.servers.iter();
        all.clone().all(|it| it.get("/v1/kv/kept?raw&stale").body == "value").then_some(())
    });
    let id = pool.servers[0].json("/v1/agent/self")["Config"]["NodeID"].clone();
    let all = ["server-1", "server-2", "server-3"].map(|name| pool.take(name).kill());
    let [survivor, strange, wiped] = all;
    let file = survivor.data_dir.join("raft/peers.json");
    let address = format!("{}:8300", survivor.address);
    // What it says must fit, or nothing changes.
    let wrong = r#"[{"id": "01010101-0101-0101-0101-010101010101", "address": "10.0.0.1:8300"}]"#;
    fs::write(&file, wrong).expect("the file can be written");
    let output = survivor.command().output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("raft/peers.json cannot be followed: it names 01010101"), "{text}");
    let servers = serde_json::json!([{"id": id, "address": address}]);
    fs::write(&file, servers.to_string()).expect("the file can be written");
    let agent = survivor.start();
    agent.wait_for_leader();
    assert_eq!(agent.get("/v1/kv/kept?raw").body, "value");
    assert!(!file.exists(), "it was used");
    let told = agent.lines().into_iter().any(|line| line.contains("a new cluster begins as"));
    assert!(told, "{:?}", agent.lines());
    pool.servers.push(agent);
    // One comes back as it was: it is a stranger now. The other one begins from nothing.
    pool.servers.push(strange.start());
    fs::remove_dir_all(&wiped.data_dir).expect("the folder can be removed");
    pool.servers.push(wiped.start());
    pool.wait_for_voters(&["server-1", "server-3"]);
    wait_until("the stranger is told so", LONG, || {
        let lines = pool.servers[1].lines();
        lines.iter().any(|line| line.contains("another cluster")).then_some(())
    });
    assert_eq!(pool.client.put("/v1/kv/kept", "newer").body, "true");
    let wiped = pool.servers.last().expect("there are servers");
    wait_until("it has everything", LONG, || {
        (wiped.get("/v1/kv/kept?raw&stale").body == "newer").then_some(())
    });
}

#[test]
fn a_server_whose_leave_would_end_the_quorum_stays_or_only_stops() {
    let mut pool = Pool::start();
    pool.wait_for_voters(&["server-1", "server-2", "server-3"]);
    drop(pool.take("server-3").kill());
    let [first, second] = &mut pool.servers[..] else { panic!("two servers are left") };
    wait_until("its failure is seen", LONG, || {
        let failed = |agent: &Agent| {
            let members = String::from_utf8_lossy(&agent.command(&["members"]).stdout).into_owned();
            members.lines().any(|line| line.contains("failed") && line.contains("  for "))
        };
        (failed(first) && failed(second)).then_some(())
    });
    let over_http = command(&["members", &format!("-http-addr={}:8500", first.address())]);
    let text = String::from_utf8_lossy(&over_http.stdout).into_owned();
    assert!(text.lines().any(|line| line.contains("failed") && line.contains("  for ")), "{text}");
    let refused = first.command(&["leave"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text.contains("the servers that remain would have no quorum; use -force"), "{text}");
    assert_eq!(first.put("/v1/kv/kept", "value").body, "true", "it is still there");
    // Whoever presses Ctrl-C wants it to stop, which costs no vote.
    assert!(second.interrupt().success());
    let told = "stopping without leaving: the servers that remain would have no quorum";
    assert!(second.lines().iter().any(|line| line.contains(told)), "{:?}", second.lines());
    assert!(first.command(&["leave", "-force"]).status.success());
    assert!(first.wait().success());
}

#[test]
fn an_agent_that_lost_all_servers_finds_others_where_it_was_told_to() {
    let begins = &["-server", "-bootstrap"];
    let old = Options::new("old", begins);
    let new = Options::new("new", begins);
    let joins = [&old, &new].map(|server| format!("-retry-join={}", server.address));
    let client = Options::new("client", &["-retry-interval", "1s"]);
    let client = client.with(&joins.each_ref().map(String::as_str));
    let old = old.start();
    let client = client.start();
    client.wait_for_leader();
    // None of the old pool knows of it, so only the client's own list leads there.
    drop(old.kill());
    let new = new.start();
    wait_until("the client to be known by the new server", LONG, || {
        let members = new.json("/v1/agent/members");
        let known = members.as_array()?.iter().any(|member| member["Name"] == "client");
        known.then_some(())
    });
    client.wait_for_leader();
    let told = client.lines();
    assert!(told.iter().any(|line| line.contains("Lost the cluster, joining again")), "{told:?}");
}
