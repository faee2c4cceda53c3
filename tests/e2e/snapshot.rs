//! Everything that servers hold as a file, and back, through processes.

use crate::cluster::Cluster;
use e2e::{Agent, Folder, LONG, Options, command, wait_until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Exit code and everything printed.
type Shown = (Option<i32>, String);

fn run(group: &str, agent: &Agent, words: &[&str]) -> Shown {
    let http = format!("-http-addr={}:8500", agent.address());
    let (name, rest) = words.split_first().expect("a command has a name");
    let mut all = vec![group, *name, http.as_str()];
    all.extend(rest);
    shown(&all)
}

fn shown(words: &[&str]) -> Shown {
    let output = command(words);
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    (output.status.code(), text)
}

fn path(file: &Path) -> &str {
    file.to_str().expect("temporary folders have plain names")
}

/// Saves a snapshot; the index it is said to have.
fn save(agent: &Agent, file: &Path) -> u64 {
    let (code, text) = run("snapshot", agent, &["save", path(file)]);
    let index = text.strip_prefix("Saved and verified snapshot to index ");
    let index = index.and_then(|index| index.trim_end().parse().ok());
    index.unwrap_or_else(|| panic!("{code:?}: {text}"))
}

fn restore(agent: &Agent, file: &Path) {
    let restored = run("snapshot", agent, &["restore", path(file)]);
    assert_eq!(restored, (Some(0), "Restored snapshot\n".to_owned()));
}

fn single(name: &str) -> Agent {
    let agent = Options::new(name, &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    agent
}

fn index(agent: &Agent, path: &str) -> u64 {
    let response = agent.get(path);
    let index = response.header("x-consul-index").expect("a read tells its index");
    index.parse().expect("an index is a number")
}

/// Entries of all kinds, and nodes with services that no agent stands for.
fn fill(agent: &Agent) {
    for number in 0..20 {
        let put = agent.put(&format!("/v1/kv/base/{number}?flags={number}"), &"v".repeat(50_000));
        assert_eq!(put.body, "true");
        let node = format!(
            r#"{{"Node": "ext-{number}", "Address": "192.0.2.{number}",
                "Service": {{"Service": "ext", "Port": {number}, "Tags": ["t{number}"]}},
                "Check": {{"Name": "c", "Status": "warning", "Output": "{number}"}}}}"#
        );
        assert_eq!(agent.put("/v1/catalog/register", &node).status, 200);
    }
    assert_eq!(agent.put("/v1/kv/base/empty", "").body, "true");
}

/// What was filled in, as readers see it.
fn contents(agent: &Agent, mode: &str) -> Vec<Value> {
    let nodes = (0..20).map(|number| format!("/v1/catalog/node/ext-{number}?"));
    let others = ["/v1/kv/base?recurse&", "/v1/catalog/service/ext?", "/v1/health/checks/ext?"];
    let paths = others.into_iter().map(str::to_owned).chain(nodes);
    let all: Vec<Value> = paths.map(|path| agent.json(&format!("{path}{mode}"))).collect();
    assert!(all.iter().all(|value| !value.is_null()), "{all:?}");
    all
}

/// Writes numbered keys until it is told to stop; how many.
fn load(agent: &Agent, stop: &AtomicBool) -> u64 {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let put = agent.put(&format!("/v1/kv/load/{written:06}"), "x");
        assert_eq!(put.body, "true");
        written += 1;
    }
    written
}

#[test]
fn what_is_saved_under_load_comes_back_in_a_fresh_cluster() {
    let cluster = Cluster::start();
    let (client, other) = (&cluster.clients[0], &cluster.clients[1]);
    fill(client);
    let folder = Folder::new("snapshots");
    let (busy, quiet) = (folder.join("busy.tgz"), folder.join("quiet.tgz"));
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| load(other, &stop));
        wait_until("some load", LONG, || {
            (client.get("/v1/kv/load/000020").status == 200).then_some(())
        });
        let saved = save(client, &busy);
        stop.store(true, Ordering::Relaxed);
        assert!(saved > 40);
        writer.join().expect("all writes succeed")
    });
    let saved = save(&cluster.servers[2], &quiet);

    let inspected = shown(&["snapshot", "inspect", path(&quiet)]);
    let (code, table) = &inspected;
    let row = |name: &str| {
        let row = table.lines().find_map(|line| line.strip_prefix(&format!("{name:<13}")));
        row.unwrap_or_else(|| panic!("{inspected:?}")).to_owned()
    };
    assert_eq!((*code, row("Index"), row("Version")), (Some(0), saved.to_string(), "1".to_owned()));
    assert!(row("ID").starts_with(&format!("{}-{saved}-", row("Term"))), "{table}");
    assert!(!folder.join("quiet.tgz.unverified").exists());
    let sent = client.get("/v1/snapshot?stale");
    assert_eq!(sent.header("content-type"), Some("application/x-gzip"));
    assert_eq!(sent.header("transfer-encoding"), Some("chunked"));

    let fresh = single("fresh");
    restore(&fresh, &busy);
    let keys = fresh.json("/v1/kv/load?keys");
    let keys: Vec<&str> = keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let expected: Vec<String> = (0..keys.len()).map(|key| format!("load/{key:06}")).collect();
    assert_eq!(keys, expected, "the writes of one moment and all before it");
    assert!(keys.len() > 20 && keys.len() as u64 <= written);
    restore(&fresh, &quiet);
    assert_eq!(run("kv", &fresh, &["export"]), run("kv", client, &["export"]));
    assert_eq!(contents(&fresh, ""), contents(client, ""));
    let kept = index(&fresh, "/v1/kv/base/1");
    assert!(kept > saved, "{kept} is above every index of the backup, {saved}");
}

#[test]
fn an_old_backup_wakes_readers_on_every_server_and_no_index_goes_back() {
    let cluster = Cluster::start();
    let client = &cluster.clients[0];
    fill(client);
    let folder = Folder::new("old");
    let file = folder.join("old.tgz");
    save(client, &file);
    let before = contents(client, "");
    assert_eq!(client.put("/v1/kv/later", "x").body, "true");
    assert_eq!(client.put("/v1/kv/base/1", "changed").body, "true");
    assert_eq!(client.put("/v1/catalog/deregister", r#"{"Node": "ext-3"}"#).status, 200);
    let told = index(client, "/v1/kv/base?recurse").max(index(client, "/v1/catalog/nodes"));
    thread::scope(|scope| {
        let waiting: Vec<_> = ["/v1/kv/base/1?raw", "/v1/catalog/nodes?x", "/v1/kv/never?x"]
            .into_iter()
            .map(|path| {
                let at = index(client, path);
                scope.spawn(move || client.get(&format!("{path}&index={at}&wait=10m")))
            })
            .collect();
        thread::sleep(std::time::Duration::from_millis(500));
        restore(&cluster.servers[1], &file);
        for reader in waiting {
            let woken = reader.join().expect("a reader is answered");
            let now: u64 = woken.header("x-consul-index").expect("told").parse().expect("number");
            assert!(now > told, "{now} is above {told}");
        }
    });
    for agent in cluster.servers.iter().chain(&cluster.clients) {
        wait_until("the backup on every server", LONG, || {
            (agent.get("/v1/kv/later?stale").status == 404).then_some(())
        });
        assert_eq!(contents(agent, "stale"), before);
        assert!(index(agent, "/v1/kv/base/1?stale") > told);
    }
    assert_eq!(client.put("/v1/kv/later", "y").body, "true");
    let modified = client.json("/v1/kv/later")[0]["ModifyIndex"].as_u64();
    assert!(modified > Some(told), "{modified:?} is above {told}");
}

/// The archive with something done to its files, and `more` files in it.
fn repacked(file: &Path, more: &[&str], change: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = Folder::new("repacked");
    let (inside, packed) = (folder.join("inside"), folder.join("packed.tgz"));
    fs::create_dir(&inside).expect("the folder is writable");
    let tar = |words: &[&str]| {
        let ran = Command::new("tar").args(["-C", path(&inside)]).args(words).status();
        assert!(ran.expect("tar runs").success());
    };
    tar(&["-xzf", path(file)]);
    change(&inside);
    tar(&[&["-czf", path(&packed), "meta.json", "state.bin", "SHA256SUMS"], more].concat());
    fs::read(packed).expect("it was packed")
}

/// Flips one bit of a file's middle.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("the file is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(file, bytes).expect("the folder is writable");
}

#[test]
fn a_damaged_archive_is_refused_with_the_reason_and_nothing_changes() {
    let agent = single("damaged");
    fill(&agent);
    let folder = Folder::new("damaged");
    let file = folder.join("good.tgz");
    save(&agent, &file);
    assert_eq!(agent.put("/v1/kv/base/1", "newer").body, "true");
    let (before, told) = (contents(&agent, ""), index(&agent, "/v1/kv/base?recurse"));
    let good = fs::read(&file).expect("it was saved");
    let refused = |name: &str, bytes: &[u8]| {
        let file = folder.join(name);
        fs::write(&file, bytes).expect("the folder is writable");
        let (code, text) = run("snapshot", &agent, &["restore", path(&file)]);
        assert_eq!(code, Some(1), "{name}: {text}");
        let (code, inspected) = shown(&["snapshot", "inspect", path(&file)]);
        assert_eq!(code, Some(1), "{name}: {inspected}");
        let body = text.strip_prefix("Error restoring snapshot: Unexpected response code: 500 (");
        let reason = body.and_then(|body| body.strip_suffix(")\n")).expect("an answer in words");
        assert_eq!(inspected, format!("Error verifying snapshot: {reason}\n"));
        reason.to_owned()
    };
    assert_eq!(refused("empty", b""), "failed to decompress snapshot: EOF");
    assert_eq!(refused("garbage", b"junk"), "failed to decompress snapshot: unexpected EOF");
    let cut = refused("cut", &good[..good.len() / 2]);
    assert_eq!(cut, "failed to read snapshot file: failed reading snapshot: unexpected EOF");
    // A bit in the middle may change nothing: of what repeats, one copy is as good as the other.
    let mut flipped = good.clone();
    flipped[good.len() - 5] ^= 0x40;
    assert!(refused("flipped", &flipped).starts_with("failed to read snapshot file: "));
    let changed = repacked(&file, &[], |inside| flip(&inside.join("state.bin")));
    let integrity = "failed to read snapshot file: failed checking integrity of snapshot: hash \
                     check failed for \"state.bin\"";
    assert_eq!(refused("changed", &changed), integrity);
    let extra = repacked(&file, &["extra"], |inside| {
        fs::write(inside.join("extra"), "x").expect("the folder is writable");
    });
    let unexpected = "failed to read snapshot file: unexpected file \"extra\" in snapshot";
    assert_eq!(refused("extra", &extra), unexpected);

    assert_eq!(contents(&agent, ""), before);
    assert_eq!(index(&agent, "/v1/kv/base?recurse"), told, "not even an index has changed");
    let left = fs::read_dir(agent.options.data_dir.join("tmp")).map(Iterator::count);
    assert_eq!(left.ok(), Some(0), "no files stay behind");
    restore(&agent, &file);
    assert_eq!(agent.get("/v1/kv/base/1?raw").body.len(), 50_000);
}

#[test]
fn a_snapshot_that_cannot_be_had_leaves_no_file() {
    let folder = Folder::new("none");
    let file = folder.join("none.tgz");
    let nobody = Options::new("alone", &["-server", "-bootstrap-expect", "3"]).start();
    let (code, text) = run("snapshot", &nobody, &["save", path(&file)]);
    let expected = "Error saving snapshot: Unexpected response code: 500 (No cluster leader)\n";
    assert_eq!((code, text.as_str()), (Some(1), expected));
    assert_eq!(fs::read_dir(&*folder).map(Iterator::count).ok(), Some(0));
    let stale = run("snapshot", &nobody, &["save", "-stale", path(&file)]);
    assert_eq!(stale.0, Some(0), "{stale:?}");
    assert!(file.exists());
}
