//! Two datacenters of three servers as processes: one join connects all, requests cross, and
//! each datacenter works on while the other does not answer.

use crate::cluster::dig;
use crate::monitoring::{SHOWN, execute_query, wait_for_metrics};
use e2e::{Agent, LONG, Options, wait_until};
use serde_json::Value;

/// Two datacenters, and a client of the first.
struct Federation {
    first: Vec<Agent>,
    second: Vec<Agent>,
    client: Agent,
}

fn datacenter(name: &str) -> Vec<Agent> {
    let servers: Vec<Options> = (1..=3)
        .map(|n| {
            let words = ["-server", "-bootstrap-expect", "3", "-datacenter", name, "-hcl", SHOWN];
            Options::new(&format!("s{n}"), &words)
        })
        .collect();
    let join = servers[0].address.to_string();
    servers.into_iter().map(|options| options.with(&["-retry-join", &join]).start()).collect()
}

impl Federation {
    /// Both have their leaders, and know nothing of each other.
    fn start() -> Self {
        let (first, second) = (datacenter("dc1"), datacenter("dc2"));
        let join = first[0].address();
        let words = ["-retry-join", &join, "-hcl", "translate_wan_addrs = true", "-hcl", SHOWN];
        let client = Options::new("c1", &words).start();
        let federation = Self { first, second, client };
        federation.agents().for_each(Agent::wait_for_leader);
        federation
    }

    /// The same after one server of each has met the other, and all the others through them.
    fn joined() -> Self {
        let federation = Self::start();
        let join = federation.first[1].address();
        let joined = federation.second[2].command(&["join", "-wan", &join]);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        let servers = federation.first.iter().chain(&federation.second);
        servers.for_each(|server| {
            wait_until("all servers of both in the WAN pool", LONG, || {
                let members = server.json("/v1/agent/members?wan=1");
                let alive = members.as_array()?.iter().filter(|member| member["Status"] == 1);
                (alive.count() == 6).then_some(())
            });
        });
        federation
    }

    fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.first.iter().chain(&self.second).chain([&self.client])
    }
}

fn register(agent: &Agent, node: &str, datacenter: &str) -> (u16, String) {
    let body = serde_json::json!({"Node": node, "Address": "192.0.2.7", "Datacenter": datacenter,
        "TaggedAddresses": {"wan": "198.51.100.7"}});
    let response = agent.put("/v1/catalog/register", &body.to_string());
    (response.status, response.body)
}

fn names(agent: &Agent, path: &str) -> Vec<String> {
    let nodes = agent.json(path);
    let name = |node: &Value| node["Node"].as_str().unwrap_or_default().to_owned();
    nodes.as_array().map(|nodes| nodes.iter().map(name).collect()).unwrap_or_default()
}

#[test]
fn one_join_connects_two_datacenters_and_requests_cross() {
    let federation = Federation::joined();
    let Federation { first, second, client } = &federation;

    let members = first[2].command(&["members", "-wan"]);
    let members = String::from_utf8_lossy(&members.stdout).into_owned();
    let shown: Vec<&str> = members.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(shown, ["s1.dc1", "s1.dc2", "s2.dc1", "s2.dc2", "s3.dc1", "s3.dc2"]);
    assert_eq!(client.command(&["members", "-wan"]).status.code(), Some(2), "it is in no WAN");
    let join = second[0].address();
    let refused = client.command(&["join", "-wan", &join]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("Must be a server to join WAN cluster"), "{text}");

    assert_eq!(client.json("/v1/catalog/datacenters"), serde_json::json!(["dc1", "dc2"]));
    assert_eq!(second[0].json("/v1/catalog/datacenters"), serde_json::json!(["dc2", "dc1"]));

    // A registration crosses from a client; it stands there, and not here.
    assert_eq!(register(client, "there", "dc2"), (200, "true".to_owned()));
    assert!(names(client, "/v1/catalog/nodes?dc=dc2").contains(&"there".to_owned()));
    assert!(names(&second[1], "/v1/catalog/nodes").contains(&"there".to_owned()));
    assert!(!names(client, "/v1/catalog/nodes").contains(&"there".to_owned()));

    // A prepared query finds there what is nowhere here.
    let service = r#"{"Node": "there", "Address": "192.0.2.7", "Datacenter": "dc2",
        "SkipNodeUpdate": true, "Service": {"Service": "far"}}"#;
    assert_eq!(client.put("/v1/catalog/register", service).status, 200);
    let wanted = r#"{"Service": "far", "Failover": {"Datacenters": ["dc2"]}}"#;
    let executed = execute_query(client, wanted);
    assert_eq!((&executed["Datacenter"], &executed["Failovers"]), (&"dc2".into(), &1.into()));
    let servers: Vec<&Agent> = first.iter().collect();
    let crossed = [("rpc.cross-dc", "counter"), ("prepared-query.execute_remote", "summary")];
    wait_for_metrics(&servers, &crossed);

    // Only the client is told to translate, and does it over DNS as over HTTP.
    let seen = [(client, "198.51.100.7"), (&first[0], "192.0.2.7"), (&second[0], "192.0.2.7")];
    for (agent, address) in seen {
        let answer = dig(&agent.address(), "there.node.dc2.terraform", 1);
        assert_eq!(answer.addresses, [address]);
        let shown = agent.json("/v1/catalog/node/there?dc=dc2");
        assert_eq!(shown["Node"]["Address"], address);
    }
    let header = |agent: &Agent| {
        let answer = agent.get("/v1/catalog/nodes");
        answer.header("x-consul-translate-addresses").map(str::to_owned)
    };
    assert_eq!((header(client).as_deref(), header(&first[0])), (Some("true"), None));
    for asked in [client, &first[0]] {
        let unknown = asked.get("/v1/catalog/nodes?dc=dc9");
        assert_eq!((unknown.status, unknown.body.as_str()), (500, "No path to datacenter"));
    }

    // An event for the other datacenter is fired by a server there.
    let http = format!("-http-addr={}:8500", client.address());
    let fired = e2e::command(&["event", &http, "-name=deploy", "-datacenter=dc2"]);
    assert!(fired.status.success(), "{}", String::from_utf8_lossy(&fired.stderr));
    let heard = |agent: &Agent| names_of(&agent.json("/v1/event/list"));
    wait_until("all of dc2 have heard of it", LONG, || {
        second.iter().all(|server| heard(server) == ["deploy"]).then_some(())
    });
    assert_eq!(heard(&first[0]), [""; 0]);

    // The LAN pools stay apart, whoever joins whom.
    let lan = format!("{}:8301", first[0].address());
    let mistaken = first[0].command(&["join", "-wan", &lan]);
    let text = String::from_utf8_lossy(&mistaken.stderr).into_owned();
    let rule = "Member 's1.dc1' is a server of the WAN pool: join a Serf WAN port";
    assert!(text.contains(rule), "{text}");
    let crossing = second[0].command(&["join", &first[0].address()]);
    let text = String::from_utf8_lossy(&crossing.stderr).into_owned();
    assert!(text.contains("part of wrong datacenter"), "{text}");
    let lan = names_of_members(&first[0]);
    assert_eq!(lan, ["c1", "s1", "s2", "s3"]);
}

fn names_of_members(agent: &Agent) -> Vec<String> {
    names_of(&agent.json("/v1/agent/members"))
}

/// The names of what is listed, in order.
fn names_of(list: &Value) -> Vec<String> {
    let name = |listed: &Value| listed["Name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> =
        list.as_array().map(|all| all.iter().map(name).collect()).unwrap_or_default();
    names.sort();
    names
}

#[test]
fn a_datacenter_that_does_not_answer_fails_clearly_and_works_again() {
    let federation = Federation::joined();
    let Federation { first, second, client } = &federation;
    second.iter().for_each(|server| server.signal("STOP"));
    let failed = client.get("/v1/catalog/nodes?dc=dc2");
    assert_eq!(failed.status, 500, "{}", failed.body);
    assert_eq!(failed.body, "Remote DC has no server currently reachable");
    wait_for_metrics(&[client], &[("client.rpc.failed", "counter")]);
    assert_eq!(dig(&client.address(), "s1.node.dc2.terraform", 1).rcode, 2, "SERVFAIL");
    assert_eq!(register(&first[0], "here", "dc1"), (200, "true".to_owned()));
    assert!(names(client, "/v1/catalog/nodes").contains(&"here".to_owned()));
    second.iter().for_each(|server| server.signal("CONT"));
    wait_until("the other datacenter to answer again", LONG, || {
        let nodes = names(client, "/v1/catalog/nodes?dc=dc2");
        nodes.contains(&"s1".to_owned()).then_some(())
    });
}

#[test]
fn a_server_that_leaves_says_so_in_both_pools() {
    let mut federation = Federation::joined();
    assert_eq!(federation.second[2].interrupt().code(), Some(0));
    let left = |agent: &Agent, path: &str, name: &str| {
        wait_until("the leave to be seen", LONG, || {
            let members = agent.json(path);
            let member = members.as_array()?.iter().find(|member| member["Name"] == name)?.clone();
            (member["Status"] == 3).then_some(())
        });
    };
    left(&federation.first[0], "/v1/agent/members?wan=1", "s3.dc2");
    left(&federation.second[0], "/v1/agent/members", "s3");
}
