//! Watches of the configuration, which the agent runs by itself.

use e2e::{Agent, Folder, LONG, Options, wait_until};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// A server whose only configuration file holds `watches`.
fn start(name: &str, watches: &Value) -> (Folder, PathBuf, Agent) {
    let folder = Folder::new("watches");
    let path = folder.join("watches.json");
    write(&path, watches);
    let file = path.to_str().expect("the folder's name is text");
    let words = ["-server", "-bootstrap", "-log-level=DEBUG", "-config-file", file];
    let agent = Options::new(name, &words).start();
    agent.wait_for_leader();
    (folder, path, agent)
}

fn write(path: &Path, watches: &Value) {
    let text = json!({ "watches": watches }).to_string();
    std::fs::write(path, text).expect("the folder is writable");
}

/// A handler that appends index and result to a file.
fn appending(file: &Path) -> Value {
    json!(format!("echo $CONSUL_INDEX >> {0}; cat >> {0}", file.display()))
}

/// The last result in such a file, once there is one that is `wanted`.
fn told(file: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_until("a result", LONG, || {
        let text = std::fs::read_to_string(file).ok()?;
        let whole = text.ends_with('\n') && text.lines().count() % 2 == 0;
        let mut lines = whole.then(|| text.lines().rev())?;
        let result = serde_json::from_str(lines.next()?).ok().filter(&wanted)?;
        assert!(lines.next()?.parse::<u64>().is_ok(), "{text}");
        Some(result)
    })
}

fn logged(agent: &Agent, text: &str) {
    wait_until(text, LONG, || agent.lines().iter().any(|line| line.contains(text)).then_some(()));
}

#[test]
fn handlers_are_run_for_every_change_and_a_reload_changes_them() {
    let files = Folder::new("told");
    let (one, two, kept) = (files.join("one"), files.join("two"), files.join("kept"));
    let args = json!(["sh", "-c", appending(&kept)]);
    let stays = json!({"type": "key", "key": "stays", "args": args});
    let keys = |file: &Path| json!({"type": "key", "key": "a/b", "handler": appending(file)});
    let (_folder, path, agent) = start("w1", &json!([stays, keys(&one)]));
    assert_eq!(told(&one, Value::is_null), Value::Null);
    assert_eq!(agent.put("/v1/kv/a/b", "1").body, "true");
    assert_eq!(told(&one, |result| !result.is_null())["Value"], "MQ==");
    assert_eq!(told(&kept, Value::is_null), Value::Null);

    let before = std::fs::read_to_string(&kept).expect("it was told");
    let failing = json!({"type": "services", "args": ["sh", "-c", "echo bad luck; exit 3"]});
    write(&path, &json!([stays, keys(&two), failing]));
    assert_eq!(agent.command(&["reload"]).status.code(), Some(0));
    assert_eq!(told(&two, |result| !result.is_null())["Value"], "MQ==");
    let written = std::fs::read_to_string(&one).expect("it was told");
    assert_eq!(agent.put("/v1/kv/a/b", "2").body, "true");
    assert_eq!(told(&two, |result| result["Value"] == "Mg==")["Key"], "a/b");
    let same = std::fs::read_to_string(&one).expect("it was told");
    assert_eq!(same, written, "a watch that is gone tells nobody");
    let after = std::fs::read_to_string(&kept).expect("it was told");
    assert_eq!(after, before, "a watch that stays is not run again by a reload");
    logged(&agent, "error=\"exit status 3\" output=\"bad luck\\n\"");

    write(&path, &json!([{"type": "nosuch", "handler": "x"}]));
    let refused = agent.command(&["reload"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text.contains("watches: Unsupported watch type: nosuch"), "{text}");
}

#[test]
fn handlers_do_not_overlap_and_end_with_the_agent() {
    let files = Folder::new("told");
    let (numbers, ended) = (files.join("numbers"), files.join("ended"));
    // The first run stays until the agent ends it, whatever changes meanwhile.
    let line = format!(
        "trap 'echo $CONSUL_INDEX >> {1}; exit' TERM; echo $$ >> {0}; while :; do sleep 0.05; done",
        numbers.display(),
        ended.display()
    );
    let (_folder, _, mut agent) =
        start("w2", &json!([{"type": "event", "args": ["sh", "-c", line]}]));
    let running = wait_until("the handler runs", LONG, || {
        let text = std::fs::read_to_string(&numbers).ok()?;
        text.ends_with('\n').then_some(text)
    });
    assert_eq!(agent.put("/v1/event/fire/x", "one").status, 200);
    wait_until("the event is there", LONG, || {
        (agent.json("/v1/event/list")[0]["Name"] == "x").then_some(())
    });
    assert_eq!(agent.interrupt().code(), Some(0));
    let told = std::fs::read_to_string(&ended).expect("the handler was told to end");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert_eq!(std::fs::read_to_string(&numbers).ok(), Some(running), "no second one ran beside");
}

#[test]
fn a_url_is_told_of_a_result_and_its_index() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let config = json!({"path": url, "method": "PUT", "header": {"X-Own": ["a"]}});
    let watch = json!({"type": "keyprefix", "prefix": "p/", "handler_type": "http",
                       "http_handler_config": config});
    let (_folder, _, agent) = start("w3", &json!([watch]));
    let take = |status: &str| {
        let (mut stream, _) = listener.accept().expect("the agent connects");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).expect("the agent sends");
            request.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if let Ok(body) = serde_json::from_str::<Value>(body) {
                let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nnope");
                stream.write_all(reply.as_bytes()).expect("the agent reads");
                return (head.to_owned(), body);
            }
        }
    };
    let (head, body) = take("200 OK");
    assert!(head.starts_with("PUT /hook HTTP/1.1"), "{head}");
    assert!(head.contains("X-Own: a") && head.contains("X-Consul-Index: "), "{head}");
    assert_eq!(body, Value::Null);
    assert_eq!(agent.put("/v1/kv/p/x", "1").body, "true");
    let (_, body) = take("500 Internal Server Error");
    assert_eq!(body[0]["Key"], "p/x");
    logged(&agent, "error=\"500 Internal Server Error: nope\"");
}
