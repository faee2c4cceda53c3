//! Sessions and locks through processes: one holder, whatever happens to it and to the leader.

use crate::cluster::Cluster;
use crate::monitoring::{SHOWN, wait_for_metrics};
use e2e::{Agent, Folder, LONG, Options, wait_until};
use std::time::{Duration, Instant};

fn create(agent: &Agent, body: &str) -> String {
    let response = agent.put("/v1/session/create", body);
    assert_eq!(response.status, 200, "{}", response.body);
    let json: serde_json::Value = serde_json::from_str(&response.body).expect("it is JSON");
    json["ID"].as_str().expect("it has an identity").to_owned()
}

fn acquire(agent: &Agent, key: &str, session: &str) -> bool {
    agent.put(&format!("/v1/kv/{key}?acquire={session}"), "mine").body == "true"
}

#[test]
fn a_lock_outlives_its_leader_and_ends_with_its_session() {
    let mut cluster = Cluster::start();
    let (one, other) = (&cluster.clients[0], &cluster.clients[1]);
    let body = r#"{"TTL": "10s", "LockDelay": "0s", "Name": "first"}"#;
    let (first, second) = (create(one, body), create(other, body));
    assert!(acquire(one, "job", &first));
    assert!(!acquire(other, "job", &second), "it is held");
    let held = other.json("/v1/kv/job");
    assert_eq!((held[0]["Session"].as_str(), &held[0]["LockIndex"]), (Some(&*first), &1.into()));
    cluster.take_leader().kill();
    let (one, other) = (&cluster.clients[0], &cluster.clients[1]);
    wait_until("a renewal by the next leader", LONG, || {
        let renewed = one.put(&format!("/v1/session/renew/{first}"), "");
        (renewed.status == 200).then_some(())
    });
    assert!(!acquire(other, "job", &second), "it still is");
    assert_eq!(one.put(&format!("/v1/session/destroy/{first}"), "").body, "true");
    assert_eq!(one.put(&format!("/v1/session/renew/{first}"), "").status, 404);
    assert!(acquire(other, "job", &second));
    // A node that leaves takes its sessions along.
    let list = format!("/v1/session/node/{}", cluster.clients[1].options.name);
    assert_eq!(cluster.clients[0].json(&list).as_array().map(Vec::len), Some(1));
    cluster.clients[1].interrupt();
    let one = &cluster.clients[0];
    wait_until("the end of the session", LONG, || {
        (one.json(&list).as_array().map(Vec::len) == Some(0)).then_some(())
    });
    assert_eq!(one.json("/v1/kv/job")[0]["Session"], serde_json::Value::Null);
}

#[test]
fn a_session_that_nobody_renews_ends_and_its_key_waits_for_the_delay() {
    let folder = Folder::new("sessions");
    let config = folder.join("ttl.json");
    std::fs::write(&config, r#"{"session_ttl_min": "1s"}"#).expect("the folder is writable");
    let config = config.to_str().expect("the folder's name is text");
    let words = ["-server", "-bootstrap", "-config-file", config, "-hcl", SHOWN];
    let agent = Options::new("ttl", &words).start();
    agent.wait_until_listed();
    let second = create(&agent, "{}");
    let asked = Instant::now();
    let first = create(&agent, r#"{"TTL": "2s", "LockDelay": "1s", "Behavior": "delete"}"#);
    assert!(acquire(&agent, "job", &first));
    wait_until("the end of the session", LONG, || {
        (agent.get("/v1/kv/job").status == 404).then_some(())
    });
    let ended = Instant::now();
    assert!(ended - asked >= Duration::from_secs(2), "never before its time");
    assert_eq!(agent.json(&format!("/v1/session/info/{first}")), serde_json::json!([]));
    wait_until("the end of the delay", LONG, || acquire(&agent, "job", &second).then_some(()));
    assert!(agent.lines().iter().any(|line| line.contains("session TTL expired")));
    wait_for_metrics(&[&agent], &[("session_ttl.invalidate", "counter")]);
}
