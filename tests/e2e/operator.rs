//! Consensus in the hands of an operator.

use crate::cluster::Cluster;
use e2e::{Agent, LONG, command, wait_until};

fn raft(agent: &Agent, words: &[&str]) -> (Option<i32>, String) {
    let http = format!("-http-addr={}:8500", agent.address());
    let (name, rest) = words.split_first().expect("a command has a name");
    let mut all = vec!["operator", "raft", *name, http.as_str()];
    all.extend(rest);
    let output = command(&all);
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    (output.status.code(), text)
}

/// The identities of the voters, the leader's last.
fn voters(agent: &Agent) -> Vec<String> {
    let configuration = agent.json("/v1/operator/raft/configuration");
    let servers = configuration["Servers"].as_array().cloned().unwrap_or_default();
    let id = |leads: bool| {
        let those = servers.iter().filter(move |server| server["Leader"] == leads);
        those.filter_map(|server| server["ID"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    [id(false), id(true)].concat()
}

#[test]
fn leadership_is_handed_over_and_a_lost_server_taken_out() {
    let mut cluster = Cluster::start();
    let client = &cluster.clients[0];
    let (code, list) = raft(client, &["list-peers"]);
    assert_eq!((code, list.lines().count()), (Some(0), 4), "{list}");
    assert!(list.lines().any(|line| line.starts_with("server-1 ")), "{list}");
    let before = voters(client);
    let heir = before[0].clone();
    let handed = raft(client, &["transfer-leader", &format!("-id={heir}")]);
    assert_eq!(handed, (Some(0), "Success\n".to_owned()));
    wait_until("the heir leads", LONG, || (voters(client).last() == Some(&heir)).then_some(()));
    assert_eq!(client.put("/v1/kv/after", "x").body, "true");
    let nobody = raft(client, &["remove-peer", "-id=nobody"]).1;
    assert!(nobody.contains("id \"nobody\" was not found in the Raft configuration"), "{nobody}");
    // The one that is killed does not lead, so that the removal needs no election.
    let lost = before[1].clone();
    let at = cluster.servers.iter().position(|server| {
        server.json("/v1/agent/self")["Config"]["NodeID"].as_str() == Some(lost.as_str())
    });
    drop(cluster.servers.remove(at.expect("a voter is one of the servers")).kill());
    let client = &cluster.clients[0];
    wait_until("gossip misses it", LONG, || {
        let members = client.json("/v1/agent/members");
        let failed = members.as_array()?.iter().filter(|member| member["Status"] == 4).count();
        (failed == 1).then_some(())
    });
    let removed = raft(client, &["remove-peer", &format!("-id={lost}")]);
    assert_eq!(removed, (Some(0), format!("Removed peer with id \"{lost}\"\n")));
    assert_eq!(voters(client).len(), 2);
    assert_eq!(client.put("/v1/kv/after", "y").body, "true");
}
