//! The agent as the first process of a container.

use e2e::{LONG, Options, wait_until};
use std::process::Command;

/// A container as far as its processes go: the next program is process 1.
const CONTAINER: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

/// The children of a process that has one thread at most.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn as_process_one_it_takes_the_ends_of_orphans_and_stops_as_asked() {
    let allowed = Command::new("unshare").args(CONTAINER).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("not shown: this machine does not let us number processes anew");
        return;
    }
    let options = Options::new("process-one", &["-server", "-bootstrap"]);
    let started = options.folder.join("orphan");
    let definition = format!(
        r#"check {{ id = "orphan" name = "orphan" interval = "1s"
             args = ["sh", "-c", "sleep 0.1 >/dev/null 2>&1 & touch {}"] }}"#,
        started.display(),
    );
    let options = options.with(&["-enable-local-script-checks", "-hcl", &definition]);
    let container: Vec<&str> = ["unshare"].into_iter().chain(CONTAINER).collect();
    let mut agent = options.within(&container).start();

    wait_until("the check's end", LONG, || {
        let checks = agent.get("/v1/agent/checks?filter=Status==passing").body;
        checks.contains("orphan").then_some(())
    });
    assert!(started.exists());
    let [first] = children(agent.id())[..] else { panic!("unshare has one child") };
    wait_until("the orphan's end", LONG, || (children(first).len() == 1).then_some(()));
    let told = Command::new("kill").args(["-TERM", &first.to_string()]).status();
    assert!(told.is_ok_and(|status| status.success()));
    assert_eq!(agent.wait().code(), Some(0));
}
