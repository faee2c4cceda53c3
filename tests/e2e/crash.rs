//! Servers that are killed in the middle of writing much.

use e2e::{Agent, Folder, LONG, Options, command, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a value; the most that an entry of the key-value table may have.
const VALUE: usize = 512 << 10;
/// Values whose bytes make a snapshot due at once.
const VALUES: usize = 132;

fn server(name: &str) -> Agent {
    let agent = Options::new(name, &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    agent
}

/// Stores one value; whether that was acknowledged.
fn store(agent: &Agent, key: &str) -> bool {
    let value = key.repeat(VALUE / key.len());
    agent.put(&format!("/v1/kv/{key}"), &value).body == "true"
}

fn keys(agent: &Agent) -> BTreeSet<String> {
    let keys = agent.json("/v1/kv/?keys");
    let keys = keys.as_array().cloned().unwrap_or_default();
    keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// The names in a folder that end like this.
fn names(folder: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(ending)).collect()
}

/// Waits for this without pausing, as what it waits for is over soon; whether it came.
fn catch(limit: Duration, mut happens: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if happens() {
            return true;
        }
        thread::yield_now();
    }
    false
}

#[test]
fn a_server_killed_while_it_stores_a_snapshot_has_everything() {
    let agent = server("killed-snapshot");
    let folder = agent.options.data_dir.join("raft/snap");
    let stored: BTreeSet<String> = (0..VALUES).map(|number| format!("k{number}")).collect();
    for (number, key) in stored.iter().enumerate() {
        assert!(store(&agent, key));
        // The last ones make it due; it is half written for some tens of milliseconds.
        if number + 8 >= VALUES && catch(Duration::from_millis(20), || is_written(&folder)) {
            break;
        }
    }
    let acknowledged = keys(&agent);
    catch(Duration::from_secs(10), || is_written(&folder) || !names(&folder, "snap").is_empty());
    let agent = agent.kill().start();
    agent.wait_for_leader();
    assert_eq!(keys(&agent), acknowledged);
    assert!(store(&agent, "after"));
    wait_until("a whole snapshot, and nothing half written", LONG, || {
        (!is_written(&folder) && !names(&folder, "snap").is_empty()).then_some(())
    });
}

/// Whether a snapshot is being written; space that is set aside for one has no length.
fn is_written(folder: &Path) -> bool {
    let length = |name: &String| fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    names(folder, "tmp").iter().any(|name| length(name) > 0)
}

#[test]
fn a_server_killed_in_a_restore_has_all_of_the_old_or_all_of_the_new() {
    let agent = server("killed-restore");
    let folder = Folder::new("killed-restore");
    let file = folder.join("backup.tgz");
    let path = file.to_str().expect("temporary folders have plain names").to_owned();
    for number in 0..40 {
        assert!(store(&agent, &format!("new{number}")));
    }
    let backup = keys(&agent);
    let http = format!("-http-addr={}:8500", agent.address());
    assert!(command(&["snapshot", "save", &http, &path]).status.success());
    assert_eq!(http_delete(&agent), 200);
    for number in 0..3 {
        assert!(store(&agent, &format!("old{number}")));
    }
    let old = keys(&agent);
    let mut agent = agent;
    // Each time it gets a little further.
    for millis in [5, 20, 60, 120] {
        let mut restore = Command::new(e2e::binary())
            .args(["snapshot", "restore", &http, &path])
            .spawn()
            .expect("the program runs");
        thread::sleep(Duration::from_millis(millis));
        agent = agent.kill().start();
        drop(restore.kill());
        restore.wait().expect("the command ends");
        agent.wait_for_leader();
        let now = keys(&agent);
        assert!(now == old || now == backup, "{now:?}");
        if now == backup {
            break;
        }
    }
    assert!(store(&agent, "after"));
}

/// Deletes all keys.
fn http_delete(agent: &Agent) -> u16 {
    let request = "DELETE /v1/kv/?recurse HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    e2e::raw(&agent.address(), 8500, request).status
}
