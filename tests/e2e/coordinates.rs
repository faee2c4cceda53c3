//! Coordinates from probes into the catalog of all servers.

use e2e::{Agent, LONG, Options, wait_until};

fn nodes(agent: &Agent) -> Vec<String> {
    let rows = agent.json("/v1/coordinate/nodes?stale");
    let name = |row: &serde_json::Value| row["Node"].as_str().unwrap_or_default().to_owned();
    rows.as_array().into_iter().flatten().map(name).collect()
}

#[test]
fn where_nodes_are_is_replicated_and_survives_the_leader() {
    let mut options: Vec<Options> = (1..=3)
        .map(|n| Options::new(&format!("server-{n}"), &["-server", "-bootstrap-expect", "3"]))
        .collect();
    let first = options[0].address.to_string();
    options = options.into_iter().map(|o| o.with(&["-retry-join", &first])).collect();
    let mut servers: Vec<Agent> = options.into_iter().map(Options::start).collect();
    servers.iter().for_each(Agent::wait_for_leader);
    let all = ["server-1", "server-2", "server-3"];
    wait_until("all coordinates on all servers", LONG, || {
        servers.iter().all(|server| nodes(server) == all).then_some(())
    });

    let one = servers[0].get("/v1/coordinate/node/server-2");
    let rows: serde_json::Value = serde_json::from_str(&one.body).unwrap_or_default();
    assert_eq!(rows[0]["Coord"]["Vec"].as_array().map(Vec::len), Some(8), "{rows}");
    assert_ne!(one.header("x-consul-index"), Some("1"));
    assert_eq!(one.header("x-consul-effective-consistency"), None);
    // Those of the WAN pool, whose members probe each other every five seconds.
    wait_until("the places of all servers", LONG, || {
        let datacenters = servers[1].json("/v1/coordinate/datacenters");
        assert_eq!(datacenters[0]["Datacenter"], "dc1");
        let places = datacenters[0]["Coordinates"].as_array().map(Vec::len);
        (places == Some(3)).then_some(())
    });

    let at = servers.iter().position(|server| {
        let leader = server.json("/v1/status/leader");
        leader.as_str().is_some_and(|leader| leader.starts_with(&format!("{}:", server.address())))
    });
    servers.remove(at.expect("a server leads")).kill();
    // An external node has the coordinate that somebody writes.
    let node = r#"{"Node": "external", "Address": "192.0.2.1"}"#;
    wait_until("a write after the leader was killed", LONG, || {
        (servers[0].put("/v1/catalog/register", node).status == 200).then_some(())
    });
    let row = r#"{"Node": "external", "Coord": {"Vec": [0.5,0,0,0,0,0,0,0], "Height": 0.001}}"#;
    assert_eq!(servers[0].put("/v1/coordinate/update", row).status, 200);
    let with_external = ["external", "server-1", "server-2", "server-3"];
    wait_until("all coordinates and the written one", LONG, || {
        servers.iter().all(|server| nodes(server) == with_external).then_some(())
    });
    assert_eq!(servers[0].get("/v1/coordinate/node/nobody").status, 404);
}

#[test]
fn an_agent_without_coordinates_says_so() {
    let options = Options::new("plain", &["-server", "-bootstrap"]);
    let file = options.data_dir.join("plain.json");
    std::fs::write(&file, r#"{"disable_coordinates": true}"#).expect("the folder is writable");
    let agent = options.with(&["-config-file", file.to_str().expect("text")]).start();
    let refused = agent.get("/v1/coordinate/nodes");
    assert_eq!((refused.status, refused.body.as_str()), (401, "Coordinate support disabled"));
    assert!(agent.json("/v1/agent/self")["Coord"].is_null());
    assert!(!agent.lines().iter().any(|line| line.contains("disable_coordinates")), "it is built");
}
