//! Programs that are run whenever something has changed.

use e2e::{Agent, LONG, Options, binary, command, wait_until};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn http(agent: &Agent) -> String {
    format!("-http-addr={}:8500", agent.address())
}

fn shown(agent: &Agent, words: &[&str]) -> Value {
    let output = command(&[&["watch", http(agent).as_str()], words].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A watch whose handler appends to a file.
fn start(agent: &Agent, words: &[&str], file: &Path) -> Child {
    let line = format!("echo $CONSUL_INDEX >> {0}; cat >> {0}", file.display());
    Command::new(binary())
        .arg("watch")
        .arg(http(agent))
        .args(words)
        .arg(line)
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs")
}

/// The results that a handler was told, once there are `count`.
fn told(file: &Path, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} results"), LONG, || {
        let text = std::fs::read_to_string(file).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        (text.ends_with('\n') && lines.len() == 2 * count).then_some(())?;
        let indexes = lines.iter().step_by(2);
        assert!(indexes.clone().all(|index| index.parse::<u64>().is_ok()), "{text}");
        let results = lines.iter().skip(1).step_by(2);
        results.map(|line| serde_json::from_str(line).ok()).collect()
    })
}

fn terminate(mut child: Child) -> Option<i32> {
    let sent = Command::new("kill").arg(child.id().to_string()).status();
    assert!(sent.expect("kill runs").success());
    child.wait().expect("the program ends").code()
}

#[test]
fn without_a_program_what_is_there_is_shown() {
    let agent = Options::new("shown", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    assert_eq!(shown(&agent, &["-type=key", "-key=a/b"]), Value::Null);
    assert_eq!(agent.put("/v1/kv/a/b", "hello").body, "true");
    assert_eq!(shown(&agent, &["-type=key", "-key=a/b"])["Value"], "aGVsbG8=");
    assert_eq!(shown(&agent, &["-type=keyprefix", "-prefix=a/"])[0]["Key"], "a/b");
    assert_eq!(shown(&agent, &["-type=nodes"])[0]["Node"], "shown");
    assert_eq!(shown(&agent, &["-type=services"])["terraform"], Value::Array(Vec::new()));
    let service = shown(&agent, &["-type=service", "-service=terraform", "-passingonly=true"]);
    assert_eq!(service[0]["Service"]["Port"], 8300);
    assert_eq!(shown(&agent, &["-type=checks", "-state=passing"])[0]["CheckID"], "serfHealth");
    assert_eq!(shown(&agent, &["-type=event"]), Value::Array(Vec::new()));

    let failing = command(&["watch", &http(&agent), "-type=nodes", "exit 3"]);
    let text = String::from_utf8_lossy(&failing.stderr).into_owned();
    let expected = "Error executing handler: exit status 3\n";
    assert_eq!((failing.status.code(), text.as_str()), (Some(1), expected));
    let missing = command(&["watch", &http(&agent), "-type=nodes", "-shell=false", "/nope"]);
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(text, "Error starting handler: no such file or directory\n");
    let unreachable = command(&["watch", "-http-addr=127.0.0.1:1", "-type=nodes"]);
    let text = String::from_utf8_lossy(&unreachable.stderr).into_owned();
    let expected = "Error querying Consul agent: Get \"http://127.0.0.1:1/v1/agent/self\": ";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_program_is_run_for_every_change_and_the_watch_outlives_the_agent() {
    let agent = Options::new("watched", &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    let folder = agent.options.folder.clone();
    let (keys, events) = (folder.join("keys"), folder.join("events"));
    let on_keys = start(&agent, &["-type=keyprefix", "-prefix=a/"], &keys);
    let on_events = start(&agent, &["-type=event", "-name=x"], &events);
    assert_eq!(told(&keys, 1), [Value::Null]);
    assert_eq!(told(&events, 1), [Value::Array(Vec::new())]);
    assert_eq!(agent.put("/v1/kv/other", "1").body, "true");
    assert_eq!(agent.put("/v1/kv/a/b", "1").body, "true");
    assert_eq!(told(&keys, 2)[1][0]["Value"], "MQ==", "another key is none of its business");
    for (count, payload) in [(2, "b25l"), (3, "dHdv")] {
        let plain = if count == 2 { "one" } else { "two" };
        assert_eq!(agent.put("/v1/event/fire/x", plain).status, 200);
        let newest = told(&events, count)[count - 1].clone();
        assert_eq!(newest[0]["Payload"], payload);
        assert_eq!(newest.as_array().map(Vec::len), Some(1), "what was told is not told again");
    }
    assert_eq!(terminate(on_events), Some(0));

    let agent = agent.kill().start();
    agent.wait_for_leader();
    assert_eq!(agent.put("/v1/kv/a/b", "2").body, "true");
    assert_eq!(told(&keys, 3)[2][0]["Value"], "Mg==");
    assert_eq!(terminate(on_keys), Some(0));
}
