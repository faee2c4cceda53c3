//! Servers whose disk is full: what they refuse, what goes on, and that nothing is lost.

use e2e::{Agent, LONG, Options, wait_until};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a value.
const VALUE: usize = 256 << 10;
/// Values that fit nowhere on such a disk.
const VALUES: usize = 1000;

/// A small disk, mounted at a server's data directory until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted, which is told.
    fn mount(folder: &Path) -> Option<Self> {
        let options = ["-t", "tmpfs", "-o", "size=112m", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        println!("not tested: nothing can be mounted here, so no disk can be full");
        None
    }

    /// Takes all the space there is, as other programs do.
    fn fill(&self) {
        let mut ballast = File::create(self.0.join("ballast")).expect("a file can be made");
        for size in [1 << 20, 4 << 10] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    /// Gives it back.
    fn clear(&self) {
        fs::remove_file(self.0.join("ballast")).expect("the file is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
        // The test's folder could not go while it was in use.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Stores a value; the status and the text of the answer.
fn put(agent: &Agent, key: &str) -> (u16, String) {
    let answer = agent.put(&format!("/v1/kv/{key}"), &"v".repeat(VALUE));
    (answer.status, answer.body)
}

fn keys(agent: &Agent) -> BTreeSet<String> {
    let keys = agent.json("/v1/kv/?keys");
    let keys = keys.as_array().cloned().unwrap_or_default();
    keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// Writes until that is refused; the keys that were acknowledged, and the refusal.
fn write_until_refused(agent: &Agent) -> (BTreeSet<String>, String) {
    let mut stored = BTreeSet::new();
    for number in 0..VALUES {
        let key = format!("full/{number}");
        let (status, text) = put(agent, &key);
        if status != 200 {
            assert_eq!(status, 500);
            return (stored, text);
        }
        stored.insert(key);
    }
    panic!("more was stored than fits on the disk");
}

/// Registers a service that takes more than a page of the disk.
fn register(agent: &Agent, name: &str) -> u16 {
    let body = format!(r#"{{"Name": "{name}", "Tags": ["{}"]}}"#, "t".repeat(10_000));
    agent.put("/v1/agent/service/register", &body).status
}

fn wait_until_written(agent: &Agent, key: &str) {
    wait_until("a write", LONG, || (put(agent, key).1 == "true").then_some(()));
}

#[test]
fn a_full_server_refuses_writes_serves_reads_and_survives_kill_9() {
    let options = Options::new("full-alone", &["-server", "-bootstrap"]);
    let Some(disk) = SmallDisk::mount(&options.data_dir) else { return };
    let agent = options.start();
    agent.wait_for_leader();
    assert_eq!(register(&agent, "before"), 200);
    disk.fill();
    let (stored, refusal) = write_until_refused(&agent);
    assert!(refusal.starts_with("no space left for the log"), "{refusal}");
    assert_eq!(keys(&agent), stored, "reads go on");
    assert!(agent.lines().iter().any(|line| line.contains("the disk is full")));
    assert_eq!(register(&agent, "during"), 500, "nothing is acknowledged that is not stored");
    // It also starts on the full disk, with everything.
    let agent = agent.kill().start();
    agent.wait_for_leader();
    assert_eq!(keys(&agent), stored);
    let services = agent.json("/v1/agent/services");
    assert!(services.get("before").is_some(), "{services}");
    disk.clear();
    wait_until_written(&agent, "full/after");
    assert_eq!(register(&agent, "after"), 200);
    let agent = agent.kill().start();
    agent.wait_for_leader();
    let mut all = stored;
    all.insert("full/after".to_owned());
    assert_eq!(keys(&agent), all);
    drop(agent.kill());
}

/// The number of the server that leads.
fn leader(servers: &[Agent]) -> Option<usize> {
    let leader = servers[0].json("/v1/status/leader");
    let host = leader.as_str()?.split(':').next()?.to_owned();
    servers.iter().position(|server| server.address() == host)
}

#[test]
fn a_full_leader_hands_over_and_catches_up_once_it_has_space() {
    let mut options: Vec<Options> = (1..=3)
        .map(|n| Options::new(&format!("full-{n}"), &["-server", "-bootstrap-expect=3"]))
        .collect();
    let mut disks = Vec::new();
    for options in &options {
        let Some(disk) = SmallDisk::mount(&options.data_dir) else { return };
        disks.push(disk);
    }
    let first = options[0].address.to_string();
    options = options.into_iter().map(|it| it.with(&["-retry-join", &first])).collect();
    let servers: Vec<Agent> = options.into_iter().map(Options::start).collect();
    servers.iter().for_each(Agent::wait_for_leader);
    let full = wait_until("a leader", LONG, || leader(&servers));
    let other = (full + 1) % servers.len();
    disks[full].fill();
    let mut number = 0;
    wait_until("another leader", LONG, || {
        put(&servers[other], &format!("full/{number}"));
        number += 1;
        leader(&servers).filter(|now| *now != full)
    });
    wait_until_written(&servers[other], "full/after");
    let all = keys(&servers[other]);
    disks[full].clear();
    wait_until("the full server to have everything", LONG, || {
        let stale = servers[full].json("/v1/kv/?keys&stale");
        (stale.as_array().map(Vec::len) == Some(all.len())).then_some(())
    });
    servers.into_iter().for_each(|server| drop(server.kill()));
}
