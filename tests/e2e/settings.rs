//! Settings of the agent that change what it does, one by one.

use e2e::{Agent, Folder, Options};

/// A server with these flags, and a configuration file to be changed later.
fn server(name: &str, flags: &[&str], config: &str) -> (Folder, Agent) {
    let folder = Folder::new("settings");
    std::fs::write(folder.join("config.json"), config).expect("the folder is writable");
    let words = ["-server", "-bootstrap", "-config-dir", folder.to_str().expect("text")];
    let agent = Options::new(name, &words).with(flags).start();
    agent.wait_for_leader();
    (folder, agent)
}

fn reload(folder: &Folder, agent: &Agent, config: &str) {
    std::fs::write(folder.join("config.json"), config).expect("the folder is writable");
    let reloaded = agent.command(&["reload"]);
    assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
}

#[test]
fn output_of_checks_is_kept_as_far_as_it_is_wanted() {
    let checks = r#""checks": [{"name": "c", "ttl": "1h"}, {"name": "d", "ttl": "1h", "output_max_size": 2}]"#;
    let (folder, agent) = server("kept", &["-check_output_max_size=4"], &format!("{{{checks}}}"));
    let output = |check: &str| agent.json("/v1/agent/checks")[check]["Output"].clone();
    let say = |check: &str| {
        let path = format!("/v1/agent/check/pass/{check}?note=abcdefgh");
        assert_eq!(agent.put(&path, "").status, 200);
        output(check)
    };
    assert_eq!(say("c"), "abcd ... (captured 4 of 8 bytes)");
    assert_eq!(say("d"), "ab ... (captured 2 of 8 bytes)");
    reload(&folder, &agent, &format!(r#"{{"discard_check_output": true, {checks}}}"#));
    assert_eq!(say("c"), "");
}
