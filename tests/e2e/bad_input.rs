//! Bad input gets one clear line and changes nothing.

use crate::cluster::dig;
use e2e::{Folder, Options, command, raw};
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};

fn refusal(arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn flags_and_settings_are_refused_by_name_and_rule() {
    let data = Folder::new("data");
    let data = data.to_str().expect("the folder's name is text");
    let cases: [(&[&str], &str); 10] = [
        (&["agent", "-nope"], "flag provided but not defined: -nope"),
        (&["agent", "-data-dir"], "flag needs an argument: -data-dir"),
        (&["agent", "-server=maybe"], "invalid boolean value \"maybe\" for -server: parse error"),
        (&["agent"], "==> data_dir cannot be empty"),
        (&["agent", "-data-dir", data, "a", "b"], "==> Unexpected extra arguments: [a b]"),
        (
            &["agent", "-data-dir", data, "-bootstrap"],
            "==> 'bootstrap = true' requires 'server = true'",
        ),
        (
            &["agent", "-data-dir", data, "-http-port", "70000"],
            "==> ports.http: invalid port: 70000",
        ),
        (&["agent", "-data-dir", data, "-log-level", "loud"], "==> Invalid log level: loud."),
        (
            &["agent", "-data-dir", data, "-retry-join", "a:b"],
            "==> retry_join: \"a:b\" is not an address",
        ),
        (
            &["agent", "-data-dir", data, "-node", "a\nb"],
            "==> node_name: node name \"a\\nb\" holds",
        ),
    ];
    for (arguments, expected) in cases {
        let (code, text) = refusal(arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(text.starts_with(expected), "{arguments:?}: {text}");
    }
    assert_eq!(refusal(&["nosuch"]).0, Some(127));
    let left: Vec<_> = std::fs::read_dir(data).expect("the folder is there").collect();
    assert!(left.is_empty(), "a refused start writes nothing");
}

#[test]
fn a_second_agent_on_a_data_directory_and_a_port_in_use_are_refused_at_once() {
    let first = Options::new("first", &["-server", "-bootstrap"]).start();
    first.wait_for_leader();
    let mut second = Options::new("second", &["-server"]);
    second.data_dir.clone_from(&first.options.data_dir);
    let output = second.command().output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("==> Error starting agent: "), "{text}");
    assert!(text.contains("in use"), "{text}");

    let mut third = Options::new("third", &["-server"]);
    third.address = first.options.address;
    let output = third.command().output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let address = first.address();
    assert!(text.contains(&format!("{address}:8301")), "{text}");
    assert!(text.contains("ports.serf_lan"), "{text}");
    assert_eq!(first.get("/v1/status/leader").status, 200, "the first goes on");
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused_by_path() {
    let mut options = Options::new("homeless", &["-server"]);
    let file = options.folder.join("f");
    std::fs::write(&file, "x").expect("the folder is writable");
    options.data_dir = file.join("below");
    let output = options.command().output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("==> Error starting agent: the data directory {:?}", options.data_dir);
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn another_programs_data_directory_is_refused_by_name() {
    let options = Options::new("consul", &["-server"]);
    let raft = options.data_dir.join("raft");
    std::fs::create_dir_all(&raft).expect("the folder is writable");
    std::fs::write(raft.join("raft.db"), "x").expect("the folder is writable");
    let output = options.command().output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("raft/raft.db"), "{text}");
}

#[test]
fn garbage_on_every_port_changes_nothing() {
    let agent = Options::new("sturdy", &["-server", "-bootstrap"]).start();
    agent.wait_until_listed();
    let address = agent.address();
    let host = address.as_str();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let garbage: Vec<u8> = (0..2000_u32).map(|n| (n * 7919 % 251).to_le_bytes()[0]).collect();
    for length in [0, 1, 2, 11, 12, 13, 100, 600, 2000] {
        for port in [8301, 8600] {
            let _ = socket.send_to(&garbage[..length], (host, port));
        }
        for port in [8300, 8301, 8400, 8500, 8600] {
            if let Ok(mut stream) = TcpStream::connect((host, port)) {
                let _ = stream.write_all(&garbage[..length]);
            }
        }
    }
    assert_eq!(raw(host, 8500, "NONSENSE\r\n\r\n").status, 400);
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    assert!(matches!(raw(host, 8500, huge).status, 400 | 414 | 431));
    let large = "PUT /v1/catalog/register HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(raw(host, 8500, large).status, 413);
    let body = agent.put("/v1/catalog/register", "{\"Node\":").body;
    assert!(body.starts_with("Request decode failed: "), "{body}");
    assert_eq!(agent.get("/v1/acl/tokens").status, 401);
    assert_eq!(agent.get("/v1/catalog/nodes").status, 200);
    let found = dig(host, "sturdy.node.terraform", 1).addresses;
    assert_eq!(found, std::slice::from_ref(&address));
    let members = agent.command(&["members"]);
    assert_eq!(members.status.code(), Some(0));
    let info = String::from_utf8_lossy(&agent.command(&["info"]).stdout).into_owned();
    let dropped = info.split("serf_lan:").nth(1).and_then(|lan| lan.split("dropped = ").nth(1));
    let dropped = dropped.and_then(|rest| rest.lines().next()?.parse().ok());
    assert!(dropped.is_some_and(|count: u64| count >= 9), "{info}");
}
