//! The catalog and the services of an agent on the command line.

use e2e::{Agent, LONG, Options, command, wait_until};

fn run(agent: &Agent, words: &[&str]) -> (Option<i32>, String) {
    let http = format!("-http-addr={}:8500", agent.address());
    let (group, rest) = words.split_at(2);
    let output = command(&[group, &[http.as_str()], rest].concat());
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    (output.status.code(), text)
}

#[test]
fn services_come_and_go_on_the_command_line() {
    let agent = Options::new("alone", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    let ok = |words: &[&str], shown: &str| {
        assert_eq!(run(&agent, words), (Some(0), shown.to_owned()), "{words:?}");
    };
    let file = agent.options.folder.join("db.json");
    let definitions = r#"{"services": [
        {"name": "db", "id": "db-1", "port": 5432, "tags": ["b", "a"],
         "check": {"ttl": "1h", "status": "passing"}},
        {"name": "db", "id": "db-2", "port": 5433, "tags": ["c"]}]}"#;
    std::fs::write(&file, definitions).expect("the folder is writable");
    let file = file.to_str().expect("text");
    ok(&["services", "register", file], "Registered service: db\nRegistered service: db\n");
    let words =
        ["services", "register", "-name=web", "-port=80", "-meta=k=v", "-tagged-address=wan=h:81"];
    ok(&words, "Registered service: web\n");
    let check = &agent.json("/v1/health/checks/db")[0];
    assert_eq!((&check["CheckID"], &check["Status"]), (&"service:db-1".into(), &"passing".into()));
    let web = &agent.json("/v1/agent/services")["web"];
    assert_eq!(
        (&web["Meta"]["k"], &web["TaggedAddresses"]["wan"]["Port"]),
        (&"v".into(), &81.into())
    );

    ok(&["catalog", "datacenters"], "dc1\n");
    ok(&["catalog", "services"], "db\nterraform\nweb\n");
    let tagged = "db             a,b,c\nterraform      \nweb            \n";
    ok(&["catalog", "services", "-tags", "-node=alone"], tagged);
    let id = agent.json("/v1/agent/self")["Config"]["NodeID"].as_str().unwrap_or("").to_owned();
    let (short, address) = (&id[..8], agent.address());
    let gap = " ".repeat(address.len() - "Address".len());
    let nodes = format!("Node   ID        Address{gap}  DC\nalone  {short}  {address}  dc1\n");
    ok(&["catalog", "nodes", "-near=_agent"], &nodes);
    let twice = format!("{nodes}alone  {short}  {address}  dc1\n");
    ok(&["catalog", "nodes", "-service=db"], &twice);
    let (_, detailed) = run(&agent, &["catalog", "nodes", "-detailed"]);
    assert!(detailed.contains(&id) && detailed.contains(&format!("lan={address}")), "{detailed}");
    let hint = "match the given query - try expanding your search.\n";
    ok(&["catalog", "nodes", "-node-meta=a=b"], &format!("No nodes {hint}"));
    ok(&["catalog", "services", "-node=nobody"], &format!("No services {hint}"));
    let no_path = "Error listing nodes: Unexpected response code: 500 (No path to datacenter)\n";
    assert_eq!(run(&agent, &["catalog", "nodes", "-datacenter=x"]), (Some(1), no_path.to_owned()));

    let gone = "Deregistered service: db-1\nDeregistered service: db-2\n";
    ok(&["services", "deregister", file], gone);
    ok(&["services", "deregister", "-id=nope"], "Deregistered service: nope\n");
    wait_until("the services' end", LONG, || {
        (run(&agent, &["catalog", "services"]).1 == "terraform\nweb\n").then_some(())
    });
    let refused = run(&agent, &["services", "register", "-name=mesh", "-kind=connect-proxy"]);
    assert_eq!(refused.0, Some(1), "{}", refused.1);
    assert!(refused.1.starts_with("Error registering service \"mesh\": "), "{}", refused.1);
}
