//! Reading the configuration again, and what survives a restart.

use e2e::{LONG, Options, wait_until};

#[test]
fn a_reload_applies_what_changed_and_refuses_what_is_wrong() {
    let folder = e2e::Folder::new("config");
    let path = folder.join("services.json");
    let write = |text: &str| std::fs::write(&path, text).expect("the folder is writable");
    write(r#"{"services": [{"name": "one", "port": 1}, {"name": "two", "port": 2}]}"#);
    let flag = folder.to_str().expect("the folder's name is text");
    let agent = Options::new("r", &["-server", "-bootstrap", "-config-dir", flag]).start();
    agent.wait_for_leader();
    let services = || agent.json("/v1/agent/services");
    assert_eq!(services()["one"]["Port"], 1);

    write(r#"{"services": [{"name": "one", "port": 11}, {"name": "three", "port": 3}]}"#);
    let reloaded = agent.command(&["reload"]);
    assert_eq!(String::from_utf8_lossy(&reloaded.stdout), "Configuration reload triggered\n");
    assert_eq!(services()["one"]["Port"], 11);
    assert_eq!(services()["three"]["Port"], 3);
    assert!(services()["two"].is_null());

    write(r#"{"services": [{"nome": "four"}]}"#);
    let refused = agent.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.starts_with("Error reloading: ") && text.contains("services"), "{text}");
    assert_eq!(services()["three"]["Port"], 3, "the old configuration stays in force");

    write(r#"{"datacenter": "dc9", "ui": true, "services": [{"name": "five", "port": 5}]}"#);
    agent.signal("HUP");
    wait_until("the reload by signal", LONG, || (services()["five"]["Port"] == 5).then_some(()));
    wait_until("the warning of a restart", LONG, || {
        let warned = "[WARN] agent: datacenter changed and takes effect after a restart";
        agent.lines().iter().any(|line| line == warned).then_some(())
    });
    wait_until("the warning of what is not built", LONG, || {
        let warned = "[WARN] agent: ui is not built yet and has no effect";
        agent.lines().iter().any(|line| line == warned).then_some(())
    });
}

#[test]
fn registrations_and_the_catalog_survive_a_kill() {
    let agent = Options::new("kept", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    let body = r#"{"Name": "web", "ID": "web-1", "Port": 80, "Check": {"TTL": "10m"}}"#;
    assert_eq!(agent.put("/v1/agent/service/register", body).status, 200);
    assert_eq!(agent.put("/v1/agent/check/pass/service:web-1", "").status, 200);
    // A report does not wait for the disk; a registration does, for everything before it.
    assert_eq!(agent.put("/v1/agent/service/register", r#"{"Name": "db"}"#).status, 200);
    let node = r#"{"Node": "external", "Address": "192.0.2.1"}"#;
    assert_eq!(agent.put("/v1/catalog/register", node).body, "true");
    let agent = agent.kill().start();
    agent.wait_for_leader();
    assert_eq!(agent.json("/v1/agent/services")["web-1"]["Port"], 80);
    assert_eq!(agent.json("/v1/agent/checks")["service:web-1"]["Status"], "passing");
    assert_eq!(agent.json("/v1/catalog/node/external")["Node"]["Address"], "192.0.2.1");
}
