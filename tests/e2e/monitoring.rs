//! What agents tell of themselves, and reads that are answered from what an agent keeps.

use crate::cluster::dig;
use e2e::{Agent, LONG, Options, binary, wait_until};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};

/// Has an agent show its metrics to Prometheus; for `-hcl`.
pub(crate) const SHOWN: &str =
    "telemetry {\n prometheus_retention_time = \"10m\"\n disable_hostname = true\n}";

/// A metric as agent/docs/monitoring.md has it, and its kind as Prometheus and Consul 1.8.7 have
/// it. A name that ends with a dot goes on with the identity of a server.
pub(crate) type Promised = (&'static str, &'static str);

/// Waits until each of these metrics is shown by one of the agents.
pub(crate) fn wait_for_metrics(agents: &[&Agent], promised: &[Promised]) {
    let lacking = || {
        let text = |agent: &&Agent| agent.get("/v1/agent/metrics?format=prometheus").body;
        let texts: Vec<String> = agents.iter().map(text).collect();
        let is_shown = |(name, kind): &Promised| {
            let name = format!("# TYPE consul_{}", name.replace(['.', '-'], "_"));
            let whole = format!("{name} {kind}");
            texts.iter().flat_map(|text| text.lines()).any(|line| {
                let goes_on = name.ends_with('_') && line.starts_with(&name);
                line == whole || goes_on && line.ends_with(&format!(" {kind}"))
            })
        };
        promised.iter().copied().filter(|metric| !is_shown(metric)).collect::<Vec<_>>()
    };
    let mut missing = Vec::new();
    wait_until("what each agent has measured", LONG, || {
        let now = lacking();
        if now != missing {
            println!("not shown yet: {now:?}");
            missing = now;
        }
        missing.is_empty().then_some(())
    });
}

/// What a server alone shows after [`use_everything`].
const OF_A_SERVER: &[Promised] = &[
    ("agent.checks.passing", "gauge"),
    ("agent.services", "gauge"),
    ("autopilot.failure_tolerance", "gauge"),
    ("autopilot.healthy", "gauge"),
    ("catalog.deregister", "summary"),
    ("catalog.register", "summary"),
    ("catalog.service.not-found", "counter"),
    ("catalog.service.query", "counter"),
    ("client.api.catalog_service_nodes", "counter"),
    ("client.rpc", "counter"),
    ("dns.domain_query", "summary"),
    ("dns.ptr_query", "summary"),
    ("health.service.not-found", "counter"),
    ("health.service.query", "counter"),
    ("http.PUT.v1.kv._", "summary"),
    ("kvs.apply", "summary"),
    ("leader.barrier", "summary"),
    ("leader.reconcile", "summary"),
    ("leader.reconcileMember", "summary"),
    ("memberlist.health.score", "gauge"),
    ("memberlist.queue.broadcasts", "gauge"),
    ("prepared-query.execute", "summary"),
    ("raft.applied_index", "gauge"),
    ("raft.apply", "counter"),
    ("raft.commitTime", "summary"),
    ("raft.fsm.apply", "summary"),
    ("raft.leader.dispatchLog", "summary"),
    ("raft.log_bytes", "gauge"),
    ("raft.peers", "gauge"),
    ("raft.snapshot.persist", "summary"),
    ("raft.snapshot_bytes", "gauge"),
    ("raft.state.candidate", "counter"),
    ("raft.state.follower", "counter"),
    ("raft.state.leader", "counter"),
    ("rpc.consistentRead", "summary"),
    ("rpc.queries_blocking", "gauge"),
    ("rpc.query", "counter"),
    ("serf.events", "counter"),
    ("serf.member.join", "counter"),
    ("serf.members.alive", "gauge"),
    ("serf.queue.Event", "gauge"),
    ("serf.queue.Intent", "gauge"),
    ("serf.queue.Query", "gauge"),
    ("server.isLeader", "gauge"),
    ("session.apply", "summary"),
    ("session.renew", "summary"),
    ("session_ttl.active", "gauge"),
    ("state.kv_entries", "gauge"),
    ("txn.apply", "summary"),
];

/// Does everything once that a server alone measures.
fn use_everything(agent: &Agent) {
    let session = agent.put("/v1/session/create", r#"{"TTL": "60s"}"#);
    let session: Value = serde_json::from_str(&session.body).expect("it is JSON");
    let id = session["ID"].as_str().expect("a session has an identity");
    let transaction = r#"[{"KV": {"Verb": "set", "Key": "b", "Value": "eA=="}}]"#;
    for (path, body) in [
        (&*format!("session/renew/{id}"), ""),
        ("txn", transaction),
        ("catalog/register", r#"{"Node": "n", "Address": "192.0.2.1"}"#),
        ("catalog/deregister", r#"{"Node": "n"}"#),
        ("event/fire/e", ""),
    ] {
        assert_eq!(agent.put(&format!("/v1/{path}"), body).status, 200, "{path}");
    }
    assert_eq!(agent.get("/v1/kv/b?consistent").status, 200);
    assert_eq!(agent.get("/v1/health/service/none").status, 200);
    execute_query(agent, r#"{"Service": "terraform"}"#);
    dig(&agent.address(), "told.node.terraform", 1);
    dig(&agent.address(), "1.0.0.127.in-addr.arpa", 12);
    // A snapshot is due after so many writes and so long a time.
    let kept = || agent.get("/v1/agent/metrics?format=prometheus").body;
    wait_until("a snapshot", LONG, || {
        assert_eq!(agent.put("/v1/kv/c", "x").status, 200);
        kept().contains("\nconsul_raft_snapshot_persist_count ").then_some(())
    });
}

/// Creates the prepared query `q` for such a service and executes it; returns the answer.
pub(crate) fn execute_query(agent: &Agent, service: &str) -> Value {
    let query = format!(r#"{{"Name": "q", "Service": {service}}}"#);
    let head = "POST /v1/query HTTP/1.1\r\nHost: x\r\nConnection: close";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{query}", query.len());
    let created = e2e::raw(&agent.address(), 8500, request);
    assert_eq!(created.status, 200, "{}", created.body);
    agent.json("/v1/query/q/execute")
}

#[test]
fn a_server_is_collected_by_prometheus_and_statsd_and_its_filter_is_reloaded() {
    let collector = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    collector.set_read_timeout(Some(LONG)).expect("the socket takes a timeout");
    let statsd = collector.local_addr().expect("the socket is bound");
    let folder = e2e::Folder::new("telemetry");
    let configure = |filter: &str| {
        let text = format!(
            r#"{{"raft_snapshot_threshold": 5, "raft_snapshot_interval": "1s",
                "telemetry": {{"prometheus_retention_time": "10m", "disable_hostname": true,
                "statsd_address": "{statsd}", "prefix_filter": [{filter}]}}}}"#
        );
        std::fs::write(folder.join("telemetry.json"), text).expect("the folder is writable");
    };
    configure(r#""-consul.runtime""#);
    let flag = folder.to_str().expect("the folder's name is text");
    let agent = Options::new("told", &["-server", "-bootstrap", "-config-dir", flag]).start();
    agent.wait_until_listed();
    assert_eq!(agent.put("/v1/kv/a", "x").status, 200);
    assert_eq!(agent.put("/v1/session/create", r#"{"TTL": "60s"}"#).status, 200);
    for path in ["catalog/service/web", "catalog/service/web?pretty", "health/service/terraform"] {
        assert_eq!(agent.get(&format!("/v1/{path}")).status, 200);
    }
    assert_eq!(agent.get("/v1/catalog/service/").status, 400);
    let scraped = || agent.get("/v1/agent/metrics?format=prometheus");
    wait_until("a leader's numbers", LONG, || {
        scraped().body.contains("\nconsul_server_isLeader 1\n").then_some(())
    });
    let text = scraped();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(text.header("content-type"), Some(kind));
    for line in [
        "# TYPE consul_http_PUT_v1_kv__ summary",
        "consul_http_PUT_v1_kv___count 1",
        "consul_kvs_apply_count 1",
        "consul_state_kv_entries 1",
        "consul_autopilot_healthy 1",
        "consul_session_ttl_active 1",
        "consul_catalog_service_query{service=\"web\"} 2",
        "consul_catalog_service_not_found{service=\"web\"} 2",
        "consul_health_service_query{service=\"terraform\"} 1",
        "consul_client_api_catalog_service_nodes{node=\"told\"} 3",
        "consul_client_api_success_catalog_service_nodes{node=\"told\"} 2",
        "consul_client_rpc_error_catalog_service_nodes{node=\"told\"} 1",
    ] {
        assert!(text.body.contains(&format!("\n{line}\n")), "{line} is not in {}", text.body);
    }
    assert!(!text.body.contains("consul_runtime"), "{}", text.body);
    use_everything(&agent);
    wait_for_metrics(&[&agent], OF_A_SERVER);
    let mut packet = [0; 2048];
    let length = collector.recv(&mut packet).expect("an interval is sent");
    let lines = String::from_utf8_lossy(&packet[..length]).into_owned();
    assert!(lines.lines().all(|line| line.starts_with("consul.")), "{lines}");
    configure("");
    assert!(agent.command(&["reload"]).status.success());
    assert!(scraped().body.contains("\nconsul_runtime_uptime_seconds "));
}

#[test]
fn a_monitor_shows_finer_lines_than_the_agent_says_by_itself() {
    let folder = e2e::Folder::new("meta");
    let flag = folder.to_str().expect("the folder's name is text");
    let agent = Options::new("said", &["-server", "-bootstrap", "-config-dir", flag]).start();
    agent.wait_for_leader();
    let mut stream = TcpStream::connect((agent.address(), 8500)).expect("the agent listens");
    stream.set_read_timeout(Some(LONG)).expect("the socket takes a timeout");
    let request = "GET /v1/agent/monitor?loglevel=debug HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the agent reads");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
    assert!(lines.any(|line| line.is_empty()), "the head comes before any line");
    // A node that is written to the catalog again says so in a line of this level.
    let meta = r#"{"node_meta": {"rack": "r1"}}"#;
    std::fs::write(folder.join("meta.json"), meta).expect("the folder is writable");
    assert!(agent.command(&["reload"]).status.success());
    let found = lines.find(|line| line.contains("[DEBUG]"));
    let said = "[DEBUG] agent: Synced node info";
    assert!(found.as_deref().is_some_and(|line| line.ends_with(said)), "{found:?}");
    assert!(!agent.lines().iter().any(|line| line.contains("[DEBUG]")), "{:?}", agent.lines());
}

#[test]
fn the_monitor_command_streams_over_http_as_over_the_rpc_port() {
    let agent = Options::new("heard", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    let way = format!("-http-addr={}:8500", agent.address());
    let words = ["monitor", &way, "-token=t", "-log-json"];
    let monitor = Command::new(binary()).args(words).stdout(Stdio::piped()).spawn();
    let mut monitor = monitor.expect("the program runs");
    let mut lines = BufReader::new(monitor.stdout.take().expect("stdout is piped")).lines();
    // Nothing tells that it listens, so that something is said again and again until it is heard.
    let reader = std::thread::spawn(move || lines.next().and_then(Result::ok));
    let mut number = 0;
    wait_until("a line", LONG, || {
        number += 1;
        let service = format!(r#"{{"Name": "web-{number}"}}"#);
        assert_eq!(agent.put("/v1/agent/service/register", &service).status, 200);
        reader.is_finished().then_some(())
    });
    let line = reader.join().expect("the reader ends").expect("a line comes");
    let line: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert!(line["@message"].as_str().is_some_and(|text| text.contains("web-")), "{line}");
    let _ = (monitor.kill(), monitor.wait());
    let refused = agent.command(&["monitor", "-log-json"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("-log-json needs the HTTP interface"), "{told}");
}

#[test]
fn a_client_answers_from_what_it_keeps_and_waits_for_what_changes() {
    let server = Options::new("s", &["-server", "-bootstrap"]).start();
    server.wait_for_leader();
    let client = Options::new("c", &["-retry-join", &server.address()]).start();
    client.wait_for_leader();
    // What the leader registers of a node is less than its agent tells then, which wakes readers.
    wait_until("the node as its agent tells it", LONG, || {
        let meta = &client.json("/v1/catalog/node/c")["Node"]["Meta"];
        meta.get("consul-network-segment").map(|_| ())
    });
    let body = r#"{"Name": "web", "Port": 80}"#;
    assert_eq!(client.put("/v1/agent/service/register", body).status, 200);
    let path = "/v1/health/service/web?cached";
    let first = client.get(path);
    assert_eq!((first.status, first.header("x-cache")), (200, Some("MISS")));
    let index = first.header("x-consul-index").expect("a read has an index").to_owned();
    let hash = client.json("/v1/agent/service/web")["ContentHash"].to_string();
    let hash = hash.trim_matches('"');
    let (waiting, hashed) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.get(&format!("{path}&index={index}&wait=60s")));
        let hashed = scope.spawn(|| client.get(&format!("/v1/agent/service/web?hash={hash}")));
        let body = r#"{"Name": "web", "Port": 81}"#;
        assert_eq!(client.put("/v1/agent/service/register", body).status, 200);
        (waiting.join().expect("it waits"), hashed.join().expect("it waits"))
    });
    assert!(hashed.body.contains("\"Port\":81"), "{}", hashed.body);
    assert_eq!(waiting.header("x-cache"), Some("HIT"));
    assert!(waiting.body.contains("\"Port\":81"), "{}", waiting.body);
    let services = client.json("/v1/internal/ui/services");
    assert_eq!(services[1]["Name"], "web");
    assert_eq!(services[1]["Nodes"][0], "c");
    drop(server.kill());
    let kept = client.get(path);
    assert_eq!((kept.status, kept.header("x-cache")), (200, Some("HIT")));
    assert!(kept.body.contains("\"Port\":81"), "{}", kept.body);
}
