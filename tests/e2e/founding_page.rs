//! The page the system was asked for with, line by line.

use e2e::{LONG, Options, wait_until};

/// The log story of a first start, in the page's order.
const STORY: [&str; 11] = [
    "[INFO] serf: EventMemberJoin: {name} {address}",
    "[INFO] raft: Node at {address}:8300 [Follower] entering Follower state",
    "[INFO] terraform: adding server for datacenter: dc1, addr: {address}:8300",
    "[ERR] agent: failed to sync remote state: rpc error: No cluster leader",
    "[WARN] raft: Heartbeat timeout reached, starting election",
    "[INFO] raft: Node at {address}:8300 [Candidate] entering Candidate state",
    "[INFO] raft: Election won. Tally: 1",
    "[INFO] raft: Node at {address}:8300 [Leader] entering Leader state",
    "[INFO] terraform: cluster leadership acquired",
    "[INFO] terraform: New leader elected: {name}",
    "[INFO] terraform: member '{name}' joined, marking health alive",
];

#[test]
fn everything_on_the_founding_page_happens_as_printed() {
    let name = "Armons-MacBook-Air";
    let mut agent = Options::new(name, &["-server", "-bootstrap"]).start();
    let address = agent.address();
    let fill = |line: &str| line.replace("{name}", name).replace("{address}", &address);
    let story: Vec<String> = STORY.iter().copied().map(fill).collect();
    let last = story.last().cloned();
    let lines = wait_until("the end of the log story", LONG, || {
        let lines = agent.lines();
        lines.iter().any(|line| Some(line) == last.as_ref()).then_some(lines)
    });
    let banner: Vec<String> = [
        "==> WARNING: Bootstrap mode enabled! Do not enable unless necessary",
        "==> Starting Terraform agent...",
        "==> Starting Terraform agent RPC...",
        "==> Terraform agent running!",
        "       Node name: '{name}'",
        "      Datacenter: 'dc1'",
        "          Server: true (bootstrap: true)",
        "     Client Addr: {address} (HTTP: 8500, DNS: 8600, RPC: 8400)",
        "    Cluster Addr: {address} (LAN: 8301, WAN: 8302)",
        "",
        "==> Log data will now stream in as it occurs:",
        "",
    ]
    .map(fill)
    .to_vec();
    // On a machine with one processor a second, true warning follows the first.
    let cpu = |line: &&String| !line.contains("run on more than 1 CPU");
    let shown: Vec<String> = lines.iter().filter(cpu).cloned().collect();
    assert_eq!(shown.get(..banner.len()), Some(banner.as_slice()));
    assert_eq!(shown.get(banner.len()..banner.len() + story.len()), Some(story.as_slice()));

    let members = agent.command(&["members"]);
    let expected = format!(
        "{name}  {address}:8301  alive  \
         role=terraform,dc=dc1,vsn=1,vsn_min=1,vsn_max=1,port=8300,bootstrap=1\n"
    );
    assert_eq!(String::from_utf8_lossy(&members.stdout), expected);

    let nodes = agent.json("/v1/catalog/nodes");
    assert_eq!(nodes[0]["Node"], name);
    assert_eq!(nodes[0]["Address"], address.as_str());

    let answer = super::cluster::dig(&address, &format!("{name}.node.terraform"), 1);
    assert_eq!(answer.rcode, 0);
    assert_eq!(answer.addresses, std::slice::from_ref(&address));

    assert_eq!(agent.interrupt().code(), Some(0));
}

#[test]
fn a_second_interrupt_stops_at_once_with_exit_code_1() {
    let first = Options::new("first", &["-server", "-bootstrap"]).start();
    first.wait_for_leader();
    let join = first.address();
    let mut second = Options::new("second", &["-retry-join", &join]).start();
    wait_until("the join", LONG, || {
        let members = second.json("/v1/agent/members");
        members.as_array().is_some_and(|members| members.len() == 2).then_some(())
    });
    second.signal("INT");
    wait_until("the leave to begin", LONG, || {
        let leaving = "==> Gracefully shutting down agent...";
        second.lines().iter().any(|line| line == leaving).then_some(())
    });
    second.signal("INT");
    assert_eq!(second.wait().code(), Some(1));
}
