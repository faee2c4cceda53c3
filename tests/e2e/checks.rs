//! Checks of every kind turn, and DNS and HTTP follow.

use crate::cluster::dig;
use e2e::{Agent, LONG, Options, wait_until};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn server(arguments: &[&str]) -> Agent {
    let agent = Options::new("checked", &["-server", "-bootstrap"]).with(arguments).start();
    agent.wait_for_leader();
    agent
}

fn wait_for(agent: &Agent, check: &str, status: &str) {
    wait_until(&format!("{check} {status}"), LONG, || {
        (agent.json("/v1/agent/checks")[check]["Status"] == status).then_some(())
    });
}

fn register(agent: &Agent, name: &str, check: &str) {
    let body = format!(r#"{{"Name": "{name}", "Port": 80, "Check": {{{check}}}}}"#);
    let response = agent.put("/v1/agent/service/register", &body);
    assert_eq!((response.status, response.body.as_str()), (200, ""));
}

#[test]
fn a_ttl_check_follows_its_program_and_its_time() {
    let agent = server(&[]);
    register(&agent, "ttl", r#""TTL": "2s""#);
    wait_for(&agent, "service:ttl", "critical");
    assert_eq!(dig(&agent.address(), "ttl.service.terraform", 1).rcode, 3);
    assert_eq!(agent.put("/v1/agent/check/pass/service:ttl?note=fine", "").status, 200);
    wait_until("the service in DNS", LONG, || {
        (dig(&agent.address(), "ttl.service.terraform", 1).answers == 1).then_some(())
    });
    wait_for(&agent, "service:ttl", "critical");
    let output = agent.json("/v1/agent/checks")["service:ttl"]["Output"].clone();
    assert_eq!(output, "TTL expired (last output before timeout follows): fine");
    assert_eq!(agent.put("/v1/agent/check/warn/service:ttl", "").status, 200);
    assert_eq!(agent.json("/v1/agent/checks")["service:ttl"]["Status"], "warning");
    assert_eq!(agent.put("/v1/agent/check/pass/nope", "").status, 500);
}

#[test]
fn an_http_check_follows_the_status_it_fetches() {
    let agent = server(&[]);
    let listener = TcpListener::bind((agent.options.address, 0)).expect("a port is free");
    let target = listener.local_addr().expect("the listener is bound");
    let healthy = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&healthy);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let status = if state.load(Ordering::Relaxed) { "200 OK" } else { "500 No" };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi");
            let _ = stream.write_all(head.as_bytes());
        }
    });
    register(&agent, "http", &format!(r#""HTTP": "http://{target}/", "Interval": "1s""#));
    wait_for(&agent, "service:http", "passing");
    healthy.store(false, Ordering::Relaxed);
    wait_for(&agent, "service:http", "critical");
}

#[test]
fn a_tcp_check_follows_the_port() {
    let agent = server(&[]);
    let listener = TcpListener::bind((agent.options.address, 0)).expect("a port is free");
    let target = listener.local_addr().expect("the listener is bound");
    register(&agent, "tcp", &format!(r#""TCP": "{target}", "Interval": "1s""#));
    wait_for(&agent, "service:tcp", "passing");
    drop(listener);
    wait_for(&agent, "service:tcp", "critical");
}

#[test]
fn a_script_check_follows_its_exit_code_where_scripts_are_allowed() {
    let agent = server(&[]);
    let body = r#"{"Name": "s", "Args": ["true"], "Interval": "1s"}"#;
    let refused = agent.put("/v1/agent/check/register", body);
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("Scripts are disabled on this agent"), "{}", refused.body);
    drop(agent);

    let folder = e2e::Folder::new("scripts");
    let flag = folder.join("healthy");
    let config = folder.join("scripts.json");
    std::fs::write(&flag, "").expect("the folder is writable");
    std::fs::write(&config, r#"{"enable_script_checks": true}"#).expect("the folder is writable");
    let agent = server(&["-config-dir", folder.to_str().expect("the folder's name is text")]);
    let body = format!(
        r#"{{"Name": "file", "Args": ["test", "-e", "{}"], "Interval": "1s"}}"#,
        flag.display()
    );
    assert_eq!(agent.put("/v1/agent/check/register", &body).status, 200);
    wait_for(&agent, "file", "passing");
    std::fs::remove_file(&flag).expect("the file is there");
    // `test` exits with 1, which is a warning.
    wait_for(&agent, "file", "warning");
}

#[test]
fn an_alias_follows_a_service_here_and_on_another_node() {
    let agent = server(&[]);
    register(&agent, "web", r#""TTL": "10m""#);
    register(&agent, "front", r#""AliasService": "web""#);
    let node = r#"{"Node": "far", "Address": "192.0.2.1",
        "Service": {"Service": "db"}, "Check": {"Name": "d", "ServiceID": "db", "Status": "passing"}}"#;
    assert_eq!(agent.put("/v1/catalog/register", node).body, "true");
    register(&agent, "back", r#""AliasNode": "far", "AliasService": "db""#);
    register(&agent, "lost", r#""AliasNode": "nowhere", "AliasService": "db""#);
    wait_for(&agent, "service:back", "passing");
    assert_eq!(agent.json("/v1/agent/checks")["service:front"]["Status"], "critical");
    assert_eq!(agent.put("/v1/agent/check/pass/service:web", "").status, 200);
    assert_eq!(agent.json("/v1/agent/checks")["service:front"]["Status"], "passing");
    wait_until("the alias in DNS", LONG, || {
        (dig(&agent.address(), "front.service.terraform", 1).answers == 1).then_some(())
    });
    let turned = node.replace("passing", "warning");
    assert_eq!(agent.put("/v1/catalog/register", &turned).body, "true");
    wait_for(&agent, "service:back", "warning");
    let lost = agent.json("/v1/agent/checks")["service:lost"]["Output"].clone();
    assert_eq!(lost, "Service db could not be found on node nowhere");
}
