//! Commands that operators run on the nodes that allow it.

use e2e::{Agent, LONG, Options, binary, wait_until};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn exec(agent: &Agent, words: &[&str], script: &str) -> (Option<i32>, String) {
    let mut child = Command::new(binary())
        .args(["exec", &format!("-http-addr={}:8500", agent.address())])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(script.as_bytes()).expect("the program reads");
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout) + &text(&stderr))
}

#[test]
fn only_nodes_that_allow_it_run_what_operators_want() {
    let server = Options::new("server", &["-server", "-bootstrap"]).start();
    server.wait_until_listed();
    let allows = ["-join", &server.address(), "-hcl", "disable_remote_exec = false"];
    let client = Options::new("client", &allows).start();
    wait_until("the members", LONG, || (client.statuses().len() == 2).then_some(()));
    let done = |code: i32| {
        format!(
            "==> client: finished with exit code {code}\n\
             1 / 1 node(s) completed / acknowledged\n"
        )
    };
    let hi = format!("    client: hi\n    client:\n{}", done(0));
    assert_eq!(exec(&server, &["echo", "hi"], ""), (Some(0), hi));
    assert_eq!(exec(&client, &["exit 3"], ""), (Some(2), done(3)));
    let script = "#!/bin/sh\necho $0 >&2\nprintf '%s' \"$(seq 2000)\"\n";
    let (code, text) = exec(&server, &["-wait=5s", "-"], script);
    let file = text.lines().next().and_then(|line| line.strip_prefix("    client: "));
    assert!(!std::path::Path::new(file.unwrap_or("/")).exists(), "the script is gone: {text}");
    let last = text.lines().rev().nth(2);
    assert_eq!((code, last), (Some(0), Some("    client: 2000")), "{text}");
    let missing = exec(&server, &["-shell=false", "/nope"], "");
    let expected = format!("    client: no such file or directory\n    client:\n{}", done(255));
    assert_eq!(missing, (Some(2), expected));
    let nobody = "0 / 0 node(s) completed / acknowledged\n".to_owned();
    assert_eq!(exec(&client, &["-node=server", "-wait=1s", "true"], ""), (Some(0), nobody));
    for agent in [&server, &client] {
        assert_eq!(agent.get("/v1/event/list").body, "[]", "a job is no event for others");
        assert_eq!(agent.get("/v1/kv/?keys").body, "[]");
        assert_eq!(agent.get("/v1/session/list").body, "[]");
    }
}
