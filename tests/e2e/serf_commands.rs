//! The distribution's `serf` command against our control port: outputs and exit codes are those
//! that its own agent gives.

use crate::serf_peer::options;
use e2e::{Agent, LONG, SerfAgent, serf_command, wait_until};
use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};

/// One of our agents and one of serf's, in one pool.
fn pair() -> (Agent, SerfAgent) {
    let server = options("ours", &["-server", "-bootstrap"]).start();
    let serf = SerfAgent::start("serf", &[&format!("-join={}:8301", server.address())]);
    wait_until("both in one pool", LONG, || {
        (server.statuses().len() == 2 && serf.statuses().len() == 2).then_some(())
    });
    (server, serf)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn commands_end_as_they_do_with_serfs_own_agent() {
    let (server, serf) = pair();
    // Both need a probe of the other before they know where it is.
    wait_until("coordinates on both sides", LONG, || {
        let rtt = ["rtt", "serf", "ours"];
        (server.serf(&rtt).status.success() && serf.command(&rtt).status.success()).then_some(())
    });
    let commands: [(&[&str], i32); 17] = [
        (&["members"], 0),
        (&["members", "-detailed"], 0),
        (&["members", "-status=failed"], 0),
        (&["members", "-name=nobody"], 0),
        (&["members", "-tag=role=terra.*"], 0),
        (&["members", "-status=("], 1),
        (&["info"], 0),
        (&["event", "deploy", "1.2"], 0),
        (&["event"], 1),
        (&["query", "-timeout=200ms", "load"], 0),
        (&["query", "-timeout=200ms", "_serf_load"], 1),
        (&["rtt", "serf"], 0),
        (&["rtt", "nobody"], 1),
        (&["tags", "-set", "zone=a"], 0),
        (&["tags", "-delete", "zone"], 0),
        (&["keys", "-list"], 1),
        (&["join", "127.0.0.1:1"], 1),
    ];
    for (words, code) in commands {
        for (side, output) in [("ours", server.serf(words)), ("serf", serf.command(words))] {
            assert_eq!(output.status.code(), Some(code), "{words:?} of {side}: {output:?}");
        }
    }
}

#[test]
fn commands_tell_what_our_agent_knows() {
    let (server, serf) = pair();
    let members = stdout(&server.serf(&["members", "-tag=role=terra.*"]));
    let start = format!("ours  {}:8301  alive  ", server.address());
    assert!(members.starts_with(&start) && members.contains("role=terraform"), "{members}");
    assert_eq!(members.lines().count(), 1, "{members}");

    let info = stdout(&server.serf(&["info"]));
    for line in ["\tname = ours", "\tmembers = 2", "\tencrypted = false", "\trole = terraform"] {
        assert!(info.lines().any(|other| other == line), "{line:?} in {info}");
    }
    let fired = stdout(&server.serf(&["event", "deploy"]));
    assert_eq!(fired, "Event 'deploy' dispatched! Coalescing enabled: true\n");

    let reached = stdout(&server.serf(&["reachability", "-verbose"]));
    assert!(reached.contains("Total members: 2, live members: 2\n"), "{reached}");
    assert!(reached.contains("Ack from 'ours'") && reached.contains("Ack from 'serf'"));
    assert!(reached.contains("Successfully contacted all live nodes\n"), "{reached}");

    let rtt = wait_until("coordinates", LONG, || {
        let output = server.serf(&["rtt", "serf"]);
        output.status.success().then(|| stdout(&output))
    });
    assert!(rtt.starts_with("Estimated serf <-> ours rtt: ") && rtt.ends_with(" ms\n"), "{rtt}");

    let keys = server.serf(&["keys", "-list"]);
    let reason = "failed:  ours  Keyring is empty (encryption not enabled)";
    let text = stdout(&keys) + &String::from_utf8_lossy(&keys.stderr);
    assert!(text.contains(reason), "{text}");

    // Differs from serf's own agent, which says nothing of either: a name nobody has, and an
    // expression that matches nobody because it cannot be read, are errors.
    let bad = server.serf(&["query", "-timeout=200ms", "-tag=role=(", "load"]);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let unknown = server.serf(&["force-leave", "nobody"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned() + &stdout(&unknown);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text.contains("No node found with name 'nobody'"), "{text}");
    drop(serf);
}

#[test]
fn monitor_join_force_leave_and_leave_steer_our_agent() {
    let server = options("ours", &["-server", "-bootstrap"]).start();
    let mut monitor = serf_command(&server.control(), &["monitor", "-log-level=debug"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("serf runs");
    let mut lines = BufReader::new(monitor.stdout.take().expect("stdout is piped")).lines();

    let peers = ["left", "gone"].map(|name| SerfAgent::start(name, &[]));
    let addresses = peers.each_ref().map(SerfAgent::gossip);
    let joined = server.serf(&["join", &addresses[0], &addresses[1]]);
    assert_eq!(stdout(&joined), "Successfully joined cluster by contacting 2 nodes.\n");
    let line =
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("EventMemberJoin: gone")));
    assert!(line.is_some(), "the monitor shows the join");
    let _ = (monitor.kill(), monitor.wait());

    let status = |name: &str| server.statuses().get(name).cloned();
    drop(peers);
    wait_until("both failed", LONG, || {
        let failed = |name: &str| status(name).as_deref() == Some("failed");
        (failed("left") && failed("gone")).then_some(())
    });
    assert!(server.serf(&["force-leave", "left"]).status.success());
    assert!(server.serf(&["force-leave", "-prune", "gone"]).status.success());
    wait_until("one left, the other forgotten", LONG, || {
        (status("left").as_deref() == Some("left") && status("gone").is_none()).then_some(())
    });

    let client = options("client", &["-join", &server.address()]);
    let mut client = client.start();
    assert!(client.serf(&["leave"]).status.success());
    assert_eq!(client.wait().code(), Some(0));
    wait_until("the client left", LONG, || {
        (status("client").as_deref() == Some("left")).then_some(())
    });
}
