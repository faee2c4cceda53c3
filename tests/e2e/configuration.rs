//! Configuration files in both languages, and what is told of bad ones before a start.

use e2e::{Folder, Options, command};
use std::path::Path;

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder is writable");
    path.to_str().expect("text").to_owned()
}

fn validate(words: &[&str]) -> (Option<i32>, String) {
    let output = command(&[&["validate"], words].concat());
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    (output.status.code(), text)
}

#[test]
fn an_agent_starts_with_both_languages_in_the_order_of_files_flags_and_fragments() {
    let options = Options::new("languages", &["-server", "-bootstrap", "-datacenter=flag"]);
    let folder = options.folder.join("config");
    std::fs::create_dir(&folder).expect("the folder is writable");
    let first = "datacenter = \"first\"\nnode_meta { a = \"1\" b = \"1\" }\nlog_level = \"WARN\"\n\
                 service { name = \"web\" port = 80 check { ttl = \"1h\" status = \"passing\" } }";
    write(&folder, "1.hcl", first);
    let second = r#"{"datacenter": "second", "node_meta": {"b": "2"}, "log_level": "ERR"}"#;
    write(&folder, "2.json", second);
    write(&folder, "3.txt", "not read");
    let agent = options
        .with(&["-config-dir", folder.to_str().expect("text")])
        .with(&["-hcl", "datacenter = \"fragment\"", "-hcl", "node_meta { c = \"3\" }"])
        .start();
    let config = &agent.json("/v1/agent/self");
    assert_eq!(config["Config"]["Datacenter"], "fragment");
    let meta = r#"{"a":"1","b":"2","c":"3","consul-network-segment":""}"#;
    assert_eq!(config["Meta"].to_string(), meta);
    let checks = agent.json("/v1/agent/checks");
    assert_eq!(checks["service:web"]["Status"], "passing");
    let skipped = "3.txt, extension must be .hcl or .json, or config format must be set";
    assert!(agent.lines().iter().any(|line| line.ends_with(skipped)), "{:?}", agent.lines());
}

#[test]
fn a_configuration_is_refused_with_file_key_and_rule() {
    let folder = Folder::new("validated");
    let file = |name: &str, text: &str| write(&folder, name, text);
    let good = file("good.hcl", "data_dir = \"/tmp/x\"\nbind_addr = \"127.0.0.1\"");
    assert_eq!(validate(&["-quiet", &good]), (Some(0), String::new()));
    let (code, text) = validate(&[&good]);
    assert!(code == Some(0) && text.starts_with("Configuration is valid!\n"), "{text}");
    let plain = file("plain", "data_dir = \"/tmp/x\"\nbind_addr = \"127.0.0.1\"");
    assert_eq!(validate(&["-quiet", "-config-format=hcl", &plain]), (Some(0), String::new()));
    let cases = [
        ("a.hcl", "data_dir = \"x\n", "failed to parse F: At 1:14: literal not terminated"),
        (
            "b.hcl",
            "ports { nope = 1 }\nnope = 2",
            "failed to parse F: 2 error(s) occurred:\n * invalid config key ports.nope\n \
             * invalid config key nope",
        ),
        (
            "c.hcl",
            "service { name = \"a\" }\nservice { name = \"b\" }",
            "failed to parse F: 1 error(s) decoding:\n * 'service' expected a map, got 'slice'",
        ),
        (
            "d.json",
            r#"{"ports": {"http": "x"}}"#,
            "failed to parse F: 1 error(s) decoding:\n * 'ports.http' expected type 'int', got \
             unconvertible type 'string'",
        ),
        ("e.hcl", "server = true", "data_dir cannot be empty"),
        (
            "f.hcl",
            "data_dir = \"/tmp/x\"\nlog_level = \"loud\"",
            "Invalid log level: loud. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]",
        ),
        (
            "g.hcl",
            "data_dir = \"/tmp/x\"\ncheck { name = \"c\" http = \"http://h\" }",
            "failed to parse F: 1 error occurred:\n * check: Interval must be > 0 for Script, \
             HTTP, or TCP checks",
        ),
        (
            "h.hcl",
            "data_dir = \"/tmp/x\"\nbind_addr = \"127.0.0.1\"\nnode_id = \"x\"",
            "failed to setup node ID: specified NodeID is invalid: uuid string is wrong length",
        ),
    ];
    for (name, text, error) in cases {
        let path = file(name, text);
        let expected = format!(
            "Config validation failed: {}\n",
            error.replace("parse F:", &format!("parse {path}:"))
        );
        assert_eq!(validate(&[&path]), (Some(1), expected), "{name}");
    }
    let missing = validate(&["/nope"]);
    let rule = "Config validation failed: config: Open failed on /nope. open /nope: no such file \
                or directory\n";
    assert_eq!(missing, (Some(1), rule.to_owned()));
}

#[test]
fn a_pid_file_is_there_while_its_agent_runs() {
    let options = Options::new("numbered", &["-server", "-bootstrap"]);
    let path = options.folder.join("pid");
    let flag = format!("-pid-file={}", path.display());
    let mut agent = options.with(&[&flag]).start();
    let number = std::fs::read_to_string(&path).expect("the file is there");
    assert!(Path::new("/proc").join(&number).exists(), "{number}");
    // Another one that cannot start leaves it alone.
    let second = agent.options.command().output().expect("the program runs");
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), number);
    assert!(agent.interrupt().success());
    assert!(!path.exists());

    let refused = Options::new("unnumbered", &["-server", "-bootstrap", "-pid-file=/nope/pid"]);
    let output = refused.command().output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr);
    let rule = "==> Error starting agent: Could not open pid file: open /nope/pid: no such file or \
                directory\n";
    assert_eq!((output.status.code(), &*error), (Some(1), rule));
}

#[test]
fn a_template_is_settled_with_the_addresses_of_the_machine() {
    let folder = Folder::new("template");
    let start = "data_dir = \"/tmp/x\"\nbind_addr = ";
    let told = |template: &str| {
        let path = write(&folder, "template.hcl", &format!("{start}{template:?}"));
        validate(&["-quiet", &path])
    };
    let own = r#"{{ GetAllInterfaces | include "flags" "loopback" | limit 1 | attr "address" }}"#;
    assert_eq!(told(own), (Some(0), String::new()));
    let refused = |rule: &str| (Some(1), format!("Config validation failed: {rule}\n"));
    let nothing = r#"{{ GetInterfaceIP "nope" }}"#;
    let (code, text) = told(nothing);
    let rule = "Config validation failed: bind_addr cannot be empty. This machine has ";
    assert!(code == Some(1) && text.starts_with(rule), "{code:?} {text}");
    let rule = "bind_addr: error parsing \"{{ Nope }}\": function \"Nope\" not defined";
    assert_eq!(told("{{ Nope }}"), refused(rule));
}
