//! Where an agent serves programs.

use crate::cluster::dig;
use e2e::{LONG, Options, binary, get, loopback, wait_until};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

#[test]
fn programs_are_served_on_each_address_and_on_a_socket() {
    let second = loopback().to_string();
    let options = Options::new("listening", &["-server", "-bootstrap"]);
    let (first, socket) = (options.address.to_string(), options.folder.join("http.sock"));
    let text = format!(
        "client_addr = \"{first} {second}\"\n\
         addresses {{ http = \"{first} {second} unix://{}\" }}\n\
         unix_sockets {{ mode = \"600\" user = \"{}\" }}",
        socket.display(),
        own_user(),
    );
    let mut agent = options.with(&["-hcl", &text]).start();
    agent.wait_for_leader();
    let client = format!("     Client Addr: {first} {second} (HTTP: 8500, DNS: 8600, RPC: 8400)");
    assert!(agent.lines().contains(&client), "{:?}", agent.lines());
    for host in [&first, &second] {
        assert_eq!(get(host, "/v1/status/leader").status, 200);
        wait_until("the node's name", LONG, || {
            let found = dig(host, "listening.node.terraform", 1);
            (found.addresses == [first.as_str()]).then_some(())
        });
        let members = e2e::command(&["members", &format!("-rpc-addr={host}:8400")]);
        assert!(String::from_utf8_lossy(&members.stdout).contains("listening"), "{members:?}");
    }
    let mode = socket.metadata().expect("the socket is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let address = format!("unix://{}", socket.display());
    let asked = |words: &[&str]| {
        let mut command = Command::new(binary());
        let output = command.args(words).env("TERRAFORM_HTTP_ADDR", &address).output();
        let output = output.expect("the program runs");
        let (out, err) = (&output.stdout, &output.stderr);
        format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
    };
    assert!(asked(&["members"]).contains("listening"));
    assert_eq!(asked(&["kv", "put", "a", "1"]), "Success! Data written to: a\n");
    assert_eq!(e2e::command(&["kv", "get", "-http-addr", &address, "a"]).stdout, b"1\n");
    assert!(agent.interrupt().success());
    assert!(!socket.exists());
    let gone = asked(&["kv", "get", "a"]);
    let reason = format!("dial unix {}: connect: no such file or directory", socket.display());
    assert!(gone.contains(&reason), "{gone}");
}

/// The number of the user that the tests run as: only a superuser may choose another.
fn own_user() -> String {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
