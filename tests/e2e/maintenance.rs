//! Maintenance keeps traffic away until it is ended, whatever happens to the agent meanwhile.

use crate::cluster::dig;
use e2e::{Agent, LONG, Options, command, wait_until};

fn maint(agent: &Agent, words: &[&str]) -> String {
    let address = format!("-http-addr={}:8500", agent.address());
    let mut all = vec!["maint", address.as_str()];
    all.extend(words);
    let done = command(&all);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn wait_for_answers(agent: &Agent, name: &str, count: u16) {
    wait_until(&format!("{count} answers for {name}"), LONG, || {
        let answers = dig(&agent.address(), &format!("{name}.service.terraform"), 1).answers;
        (answers == count).then_some(())
    });
}

#[test]
fn maintenance_takes_node_and_service_out_of_dns_and_survives_a_kill() {
    let agent = Options::new("maint", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    for name in ["web", "db"] {
        let body = format!(r#"{{"Name": "{name}", "Port": 80}}"#);
        assert_eq!(agent.put("/v1/agent/service/register", &body).status, 200);
        wait_for_answers(&agent, name, 1);
    }
    let said = maint(&agent, &["-enable", "-service", "web", "-reason", "new disk"]);
    assert_eq!(said, "Service maintenance is now enabled for \"web\"\n");
    wait_for_answers(&agent, "web", 0);
    wait_for_answers(&agent, "db", 1);

    let agent = agent.kill().start();
    agent.wait_for_leader();
    assert_eq!(maint(&agent, &[]), "Service:\n  ID:     web\n  Reason: new disk\n\n");
    let health = agent.get("/v1/agent/health/service/id/web?format=text");
    assert_eq!((health.status, health.body.as_str()), (503, "maintenance"));
    wait_for_answers(&agent, "web", 0);

    assert_eq!(agent.put("/v1/agent/maintenance?enable=true", "").status, 200);
    wait_for_answers(&agent, "db", 0);
    assert_eq!(maint(&agent, &["-disable"]), "Node maintenance is now disabled\n");
    assert_eq!(agent.put("/v1/agent/service/maintenance/web?enable=false", "").status, 200);
    wait_for_answers(&agent, "web", 1);
    wait_for_answers(&agent, "db", 1);
    assert_eq!(maint(&agent, &[]), "");
}
