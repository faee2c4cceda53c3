//! Disks that rot: what a server makes of them when it starts again.

use crate::cluster::Cluster;
use e2e::{Agent, Connection, LONG, Options, wait_until};
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// Writes that make a snapshot due, and a few more.
const WRITES: usize = 17_000;
/// Clients that write at once.
const WRITERS: usize = 16;

fn server(name: &str) -> Agent {
    let agent = Options::new(name, &["-server", "-bootstrap"]).start();
    agent.wait_for_leader();
    agent
}

/// Stores so many keys.
fn fill(agent: &Agent) {
    let host = SocketAddr::V4(SocketAddrV4::new(agent.options.address, 8500));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut connection =
                    Connection::open(host, Duration::from_secs(30)).expect("the server listens");
                for number in (writer..WRITES).step_by(WRITERS) {
                    let path = format!("/v1/kv/rot/{number}");
                    let answer = connection.exchange("PUT", &path, "value").expect("it answers");
                    assert_eq!(answer.text(), "true");
                }
            });
        }
    });
}

fn keys(agent: &Agent) -> usize {
    let keys = agent.json("/v1/kv/rot/?keys");
    keys.as_array().map_or(0, Vec::len)
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).expect("the folder is there").flatten();
    let paths = names.map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|kind| kind == ending)).collect();
    found.sort();
    found
}

/// Flips a bit in the middle of a file's content.
fn rot(file: &Path) {
    let mut bytes = fs::read(file).expect("the file can be read");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("something is in it");
    bytes[end / 2] ^= 1;
    fs::write(file, bytes).expect("the file can be written");
}

fn snapshots(agent: &Options) -> Vec<PathBuf> {
    files(&agent.data_dir.join("raft/snap"), "snap")
}

#[test]
fn a_server_begins_with_its_snapshot_and_survives_that_it_rots() {
    let agent = server("rotten-snapshot");
    fill(&agent);
    wait_until("a snapshot", LONG, || (!snapshots(&agent.options).is_empty()).then_some(()));
    let agent = agent.kill().start();
    agent.wait_for_leader();
    assert_eq!(keys(&agent), WRITES);
    let options = agent.kill();
    rot(&snapshots(&options)[0]);
    let agent = options.start();
    agent.wait_for_leader();
    assert_eq!(keys(&agent), WRITES, "the log gives what the snapshot does not");
    let told = agent.lines().into_iter().find(|line| line.contains("raft/snap/"));
    assert!(told.is_some_and(|line| line.contains("[WARN]")), "{:?}", agent.lines());
    assert_eq!(files(&agent.options.data_dir.join("raft/snap"), "bad").len(), 1);
}

#[test]
fn an_only_voter_whose_log_rots_where_it_was_synced_refuses_the_start() {
    let agent = server("rotten-log");
    for number in 0..50 {
        assert_eq!(agent.put(&format!("/v1/kv/rot/{number}"), "value").body, "true");
    }
    let options = agent.kill();
    let segments = files(&options.data_dir.join("raft/wal"), "seg");
    rot(&segments[0]);
    let before = fs::read(&segments[0]).expect("the segment can be read");
    let Output { status, stderr, .. } = options.command().output().expect("the program runs");
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("raft/wal/0000000000000001.seg is damaged at byte"), "{text}");
    assert!(text.contains("no other server is known that holds what is lost"), "{text}");
    assert!(fs::read(&segments[0]).is_ok_and(|after| after == before), "nothing was changed");
}

#[test]
fn a_follower_whose_log_rots_takes_it_again_from_the_others() {
    const KEYS: usize = 100;
    let mut cluster = Cluster::start();
    let leader = cluster.take_leader();
    let put = |number: usize| leader.put(&format!("/v1/kv/rot/{number}"), "value").body;
    (0..KEYS / 2).for_each(|number| assert_eq!(put(number), "true"));
    let options = cluster.servers.remove(0).kill();
    // Acknowledged while it is away: the two that are left hold it.
    (KEYS / 2..KEYS).for_each(|number| assert_eq!(put(number), "true"));
    rot(&files(&options.data_dir.join("raft/wal"), "seg")[0]);
    let agent = options.start();
    wait_until("all keys on the server itself", LONG, || {
        let keys = agent.json("/v1/kv/rot/?keys&stale");
        (keys.as_array().map_or(0, Vec::len) == KEYS).then_some(())
    });
    wait_until("the end of its recovery", LONG, || {
        let stats = &agent.json("/v1/agent/self")["Stats"]["raft"];
        (stats["recovering"] == "false").then_some(())
    });
    let told = |what: &str| agent.lines().into_iter().find(|line| line.contains(what));
    let found = told("raft/wal/0000000000000001.seg is damaged at byte");
    assert!(found.is_some_and(|line| line.contains("[WARN]")), "{:?}", agent.lines());
    assert!(told("holds again what its disk lost").is_some(), "{:?}", agent.lines());
    // It counts again: with the other follower gone, it is the one that makes the quorum.
    drop(cluster.servers.remove(0).kill());
    leader.wait_for_leader();
    assert_eq!(leader.put("/v1/kv/rot/last", "value").body, "true");
}
