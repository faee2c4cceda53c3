//! Recordings of agents, replayed by the simulator's core.

use e2e::{Agent, Folder, Options};
use sim::replay::{End, Options as Wanted, Progress, replay};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

/// Bytes before the first record, and before the content of each.
const HEAD: usize = 12;
/// The second byte of a record that is an input.
const INPUT: u8 = 4;

fn recorded(name: &str, arguments: &[&str], file: &Path) -> Options {
    Options::new(name, arguments).with(&["-record", file.to_str().expect("the path is text")])
}

/// `cargo run -p sim -- replay FILE`, in this process.
fn command(file: &Path) -> ExitCode {
    sim::cli::command(&["replay".to_owned(), file.display().to_string()])
}

fn replayed(bytes: &[u8]) -> (End, Progress) {
    let mut progress = Progress::default();
    let end = replay(bytes, &Wanted::default(), &mut progress);
    (end.expect("the recording is whole"), progress)
}

/// The content of a recording, one record after the other.
fn records(bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let mut rest = &bytes[HEAD..];
    while let Some(length) = rest.first_chunk() {
        let length = HEAD + u32::from_be_bytes(*length) as usize;
        let Some((record, behind)) = rest.split_at_checked(length) else { break };
        records.push(record);
        rest = behind;
    }
    records
}

/// Writes, registers, reads and waits through an agent.
fn use_everything(agent: &Agent) {
    for number in 0..40 {
        assert_eq!(agent.put(&format!("/v1/kv/planted/{number}"), "value").body, "true");
    }
    let body = r#"{"Name": "web", "ID": "web-1", "Port": 80, "Check": {"TTL": "10m"}}"#;
    assert_eq!(agent.put("/v1/agent/service/register", body).status, 200);
    assert_eq!(agent.put("/v1/agent/check/pass/service:web-1", "fine").status, 200);
    assert_eq!(agent.get("/v1/kv/planted/7?consistent&raw").body, "value");
    assert!(agent.command(&["info"]).status.success());
    assert_eq!(agent.put("/v1/event/fire/deploy", "v7").status, 200);
    let index = agent.get("/v1/kv/watched").header("x-consul-index").map(str::to_owned);
    let path = format!("/v1/kv/watched?raw&wait=60s&index={}", index.expect("an index"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| agent.get(&path).body);
        assert_eq!(agent.put("/v1/kv/watched", "now").body, "true");
        let body = waiting.join().expect("the reader ends");
        assert!(body == "now" || body.is_empty(), "{body}");
    });
}

/// A server that ran, was stopped, ran again on its data and was stopped, and a client that joined
/// it and was killed; the recordings of all three runs.
fn runs(folder: &Path) -> [PathBuf; 3] {
    let files = ["first", "second", "client"].map(|name| folder.join(name));
    let [first, second, client] = &files;
    let mut server = recorded("recorded", &["-server", "-bootstrap"], first).start();
    server.wait_for_leader();
    let said = format!("[INFO] agent: recording to {}, which holds keys", first.display());
    assert!(server.lines().iter().any(|line| line.starts_with(&said)), "{:?}", server.lines());
    let mode = std::fs::metadata(first).expect("the recording is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let member = recorded("client", &[], client).start();
    assert!(member.command(&["join", &server.address()]).status.success());
    member.wait_for_leader();
    use_everything(&server);
    use_everything(&member);
    member.kill();
    server.signal("TERM");
    assert!(server.wait().success());
    let mut options = server.options.clone();
    drop(server);
    options.arguments.truncate(options.arguments.len() - 1);
    let mut server = options.with(&[second.to_str().expect("the path is text")]).start();
    server.wait_for_leader();
    assert_eq!(server.put("/v1/kv/again", "value").body, "true");
    assert!(server.interrupt().success());
    files
}

#[test]
fn recorded_agents_are_repeated_and_a_planted_change_is_named() {
    let folder = Folder::new("recordings");
    let files = runs(&folder);
    for (file, stops) in files.iter().zip([true, true, false]) {
        assert_eq!(command(file), ExitCode::SUCCESS, "{}", file.display());
        let (end, progress) = replayed(&std::fs::read(file).expect("the recording is readable"));
        let End::Same { stopped, refused, .. } = end else { panic!("{end:?}") };
        assert_eq!((stopped.is_some(), refused), (stops, None), "{}", file.display());
        assert!(progress.inputs > 100 || *file == files[1], "{progress:?}");
    }

    let bytes = std::fs::read(&files[0]).expect("the recording is readable");
    let records = records(&bytes);
    let key = b"planted/20";
    let is_input = |record: &[u8]| record[HEAD + 1] == INPUT;
    let holds_key = |record: &[u8]| record.windows(key.len()).any(|part| part == key);
    let place = records.iter().position(|record| is_input(record) && holds_key(record));
    let place = place.expect("the write was recorded");
    let number = records[..=place].iter().filter(|record| is_input(record)).count() as u64;
    let kept = records.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, record)| *record);
    let mut changed = bytes[..HEAD].to_vec();
    kept.for_each(|record| changed.extend_from_slice(record));
    let End::Differs(found) = replayed(&changed).0 else { panic!("nothing is noticed") };
    let at = found.input.as_ref().map(|(at, ..)| *at);
    // The input behind it has its number now; if it was alone in its turn, the one before is named.
    assert!(at == Some(number) || at == Some(number - 1), "{number}: {found}");
    let planted = folder.join("planted");
    std::fs::write(&planted, &changed).expect("the folder is writable");
    assert_eq!(command(&planted), ExitCode::from(10));

    changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    std::fs::write(&planted, &changed).expect("the folder is writable");
    assert_eq!(command(&planted), ExitCode::from(2));
}

#[test]
fn an_agent_records_to_no_file_that_is_there() {
    let folder = Folder::new("recording");
    let file = folder.join("kept");
    std::fs::write(&file, "kept").expect("the folder is writable");
    let refused = recorded("kept", &["-server", "-bootstrap"], &file).command().output();
    let refused = refused.expect("the program runs");
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    let rule = "exists already: name a new file with -record";
    assert!(text.starts_with("==> Error starting agent: the recording") && text.contains(rule));
    assert_eq!(std::fs::read(&file).expect("it is there"), b"kept");
}
