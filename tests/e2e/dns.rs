//! DNS through the built binary: recursors, reloads, the settings that only a running agent shows.

use crate::cluster::{DnsAnswer, dig};
use e2e::{Folder, LONG, Options, wait_until};

const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;
const NS: u16 = 2;
const SOA: u16 = 6;

fn outcome(answer: &DnsAnswer) -> (u8, Vec<String>) {
    (answer.rcode, answer.addresses.clone())
}

#[test]
fn weights_decide_who_comes_first_if_that_is_set() {
    let words = ["-server", "-bootstrap", "-hcl"];
    let dns = "dns_config { weighted_order = true a_record_limit = 1 }";
    let agent = Options::new("own", &words).with(&[dns]).start();
    agent.wait_for_leader();
    for (address, status) in [("10.0.0.1", "passing"), ("10.0.0.2", "warning")] {
        let body = serde_json::json!({"Node": address, "Address": address,
            "Service": {"Service": "web", "Weights": {"Passing": 1, "Warning": 0}},
            "Check": {"CheckID": "c", "ServiceID": "web", "Status": status}});
        assert_eq!(agent.put("/v1/catalog/register", &body.to_string()).body, "true");
    }
    for _ in 0..20 {
        let (rcode, addresses) = outcome(&dig(&agent.address(), "web.service.terraform", 1));
        assert_eq!((rcode, addresses), (0, vec!["10.0.0.1".to_owned()]));
    }
}

#[test]
fn an_agent_that_knows_no_server_answers_what_needs_none() {
    // dns.md §4: nobody is waited for; the zone is there, without name servers.
    let agent = Options::new("alone", &[]).start();
    let ask = |name: &str, kind: u16| dig(&agent.address(), name, kind);
    for name in ["alone.node", "web.service", "alone.node.dc1", "q.query"] {
        let answer = ask(&format!("{name}.terraform"), 1);
        assert_eq!((answer.rcode, answer.answers), (SERVFAIL, 0), "{name}");
    }
    for (name, kind, answers) in
        [("terraform", NS, 0), ("terraform", SOA, 1), ("0a000001.addr.terraform", 1, 1)]
    {
        let answer = ask(name, kind);
        assert_eq!((answer.rcode, answer.answers), (0, answers), "{name}");
    }
}

#[test]
fn names_of_another_zone_come_through_recursors_which_a_reload_changes() {
    let upstream = Options::new("up", &["-server", "-bootstrap", "-domain", "else.example"]);
    let upstream = upstream.start();
    upstream.wait_until_listed();
    let folder = Folder::new("config");
    let path = folder.join("dns.json");
    let write = |text: &str| std::fs::write(&path, text).expect("the folder is writable");
    write("{}");
    let flag = folder.to_str().expect("the folder's name is text");
    let agent = Options::new("own", &["-server", "-bootstrap", "-config-dir", flag]).start();
    agent.wait_until_listed();
    let ask = |name: &str| outcome(&dig(&agent.address(), name, 1));
    assert_eq!(ask("up.node.else.example"), (REFUSED, vec![]));

    // Nobody listens on the first, so the second is asked.
    let recursors = format!(r#"["{}:1", "{}:8600"]"#, upstream.address(), upstream.address());
    write(&format!(r#"{{"recursors": {recursors}, "domain": "other"}}"#));
    assert_eq!(agent.command(&["reload"]).status.code(), Some(0));
    assert_eq!(ask("up.node.else.example"), (0, vec![upstream.address()]));
    assert_eq!(ask("own.node.terraform"), (0, vec![agent.address()]), "a zone does not change");
    let warned = "[WARN] agent: domain, alt_domain or translate_wan_addrs changed and takes effect \
                  after a restart";
    wait_until("the warning of a restart", LONG, || {
        agent.lines().iter().any(|line| line == warned).then_some(())
    });

    // A host name is followed: into another zone, and inside the own one.
    for (service, host) in [("far", "up.node.else.example"), ("near", "own.node.terraform")] {
        let body = format!(
            r#"{{"Node": "ext", "Address": "10.0.0.1",
            "Service": {{"Service": "{service}", "Address": "{host}", "Port": 80}}}}"#
        );
        assert_eq!(agent.put("/v1/catalog/register", &body).body, "true");
    }
    assert_eq!(ask("far.service.terraform"), (0, vec![upstream.address()]));
    assert_eq!(ask("near.service.terraform"), (0, vec![agent.address()]));

    write(r#"{"recursors": ["0.0.0.0"]}"#);
    let refused = agent.command(&["reload"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("DNS recursor address cannot be 0.0.0.0, :: or [::]"), "{text}");
    let upstream = upstream.kill();
    assert_eq!(ask("up.node.else.example"), (SERVFAIL, vec![]), "{}", upstream.name);
    let cut = dig(&agent.address(), "far.service.terraform", 1);
    assert_eq!((cut.rcode, cut.answers), (0, 1), "the alias stands alone");
}
