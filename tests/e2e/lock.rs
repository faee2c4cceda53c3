//! Programs that run while a lock is held.

use e2e::{Agent, LONG, Options, binary, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn lock(agent: &Agent, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("lock").arg(format!("-http-addr={}:8500", agent.address())).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(agent: &Agent, words: &[&str]) -> (Option<i32>, String) {
    said(lock(agent, words).output().expect("the program runs"))
}

fn said(output: Output) -> (Option<i32>, String) {
    let (out, err) = (&output.stdout, &output.stderr);
    let text = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    (output.status.code(), text)
}

/// A command that holds a lock until it is let go.
struct Holder {
    child: Child,
    gate: PathBuf,
}

impl Holder {
    /// Starts it and waits until its program runs.
    fn start(agent: &Agent, name: &str, words: &[&str]) -> Self {
        let gate = agent.options.folder.join(name);
        assert!(Command::new("mkfifo").arg(&gate).status().expect("mkfifo runs").success());
        let started = agent.options.folder.join(format!("{name}.started"));
        let told = agent.options.folder.join(format!("{name}.told"));
        // The shell tells of a signal, and ends the reader, which does not hear SIGINT.
        let line = format!(
            "trap 'echo told > {told}; kill $! 2> {told}; exit 0' TERM INT; echo $CONSUL_LOCK_HELD > {started}; \
             cat {gate} & wait",
            told = told.display(),
            started = started.display(),
            gate = gate.display()
        );
        let child = lock(agent, words).arg(line).spawn().expect("the program runs");
        wait_until("the program's start", LONG, || {
            (std::fs::read_to_string(&started).ok()? == "true\n").then_some(())
        });
        Self { child, gate }
    }

    /// Lets its program end.
    fn go(self) -> (Option<i32>, String) {
        std::fs::write(&self.gate, "").expect("somebody reads");
        self.end()
    }

    fn end(self) -> (Option<i32>, String) {
        said(self.child.wait_with_output().expect("the program ends"))
    }

    fn was_told(gate: &Path) -> bool {
        gate.with_extension("told").exists()
    }
}

fn nothing_is_left(agent: &Agent, prefix: &str) {
    assert_eq!(agent.get(&format!("/v1/kv/{prefix}?keys")).status, 404);
    assert_eq!(agent.get("/v1/session/list").body, "[]");
}

const LATE: &str = "Shutdown triggered or timeout during lock acquisition\n";

#[test]
fn one_at_a_time_holds_a_lock_and_it_is_given_back() {
    let agent = Options::new("mutex", &["-server", "-bootstrap"]).start();
    agent.wait_until_listed();
    let first = Holder::start(&agent, "first", &["job"]);
    let entry = &agent.json("/v1/kv/job/.lock")[0];
    assert_eq!(entry["Flags"], 0x2ddc_cbc0_58a5_0c18_u64);
    assert!(entry["Session"].is_string());
    assert_eq!(run(&agent, &["-timeout=100ms", "job", "true"]), (Some(1), LATE.to_owned()));
    let conflict = run(&agent, &["-n=2", "job", "true"]);
    let rule = "Lock acquisition failed: Existing key does not match semaphore use\n";
    assert_eq!(conflict, (Some(1), rule.to_owned()));
    let second = lock(&agent, &["job", "echo mine"]).spawn().expect("the program runs");
    wait_until("the second contender", LONG, || {
        let sessions = agent.json("/v1/session/list");
        (sessions.as_array().map(Vec::len) == Some(2)).then_some(())
    });
    assert_eq!(first.go(), (Some(0), String::new()));
    let second = said(second.wait_with_output().expect("the program ends"));
    assert_eq!(second, (Some(0), "mine\n".to_owned()));
    nothing_is_left(&agent, "job");

    let failed = "Error running handler: exit status 3\n".to_owned();
    assert_eq!(run(&agent, &["job", "exit 3"]), (Some(0), failed.clone()));
    assert_eq!(run(&agent, &["-child-exit-code", "job", "exit 3"]), (Some(2), failed));
    let steps = "Setting up lock at path: job/.lock\nAttempting lock acquisition\n\
                 Starting handler 'true'\nChild terminated, releasing lock\nCleanup succeeded\n";
    assert_eq!(run(&agent, &["-verbose", "job", "true"]), (Some(0), steps.to_owned()));
    nothing_is_left(&agent, "job");
}

#[test]
fn a_program_is_stopped_when_its_lock_is_lost_or_the_command_is_told_to_end() {
    let agent = Options::new("lost", &["-server", "-bootstrap"]).start();
    agent.wait_until_listed();
    for (name, signal) in [("lost", None), ("stopped", Some("-TERM")), ("cancelled", Some("-INT"))]
    {
        let holder = Holder::start(&agent, name, &[name]);
        let gate = holder.gate.clone();
        if let Some(signal) = signal {
            let id = holder.child.id().to_string();
            let sent = Command::new("kill").args([signal, &id]).status();
            assert!(sent.expect("kill runs").success());
            assert_eq!(holder.end(), (Some(0), String::new()), "{name}");
            nothing_is_left(&agent, name);
        } else {
            let session = agent.json(&format!("/v1/kv/{name}/.lock"))[0]["Session"].clone();
            let path = format!("/v1/session/destroy/{}", session.as_str().expect("a session"));
            assert_eq!(agent.put(&path, "").status, 200);
            let lost = "Lock lost, killing child: it was taken away\n\
                        Lock release failed: Lock not held\n";
            assert_eq!(holder.end(), (Some(1), lost.to_owned()));
        }
        assert!(Holder::was_told(&gate), "{name}");
    }
}

#[test]
fn as_many_as_agreed_hold_a_semaphore() {
    let agent = Options::new("semaphore", &["-server", "-bootstrap"]).start();
    agent.wait_until_listed();
    let first = Holder::start(&agent, "first", &["-n=2", "pool"]);
    let second = Holder::start(&agent, "second", &["-n=2", "pool"]);
    let keys = agent.json("/v1/kv/pool?keys");
    assert_eq!(keys.as_array().map(Vec::len), Some(3), "{keys}");
    let entry = &agent.json("/v1/kv/pool/.lock")[0];
    assert_eq!(entry["Flags"], 0xe0f6_9a2b_aa41_4de0_u64);
    let list: Value = serde_json::from_str(&agent.get("/v1/kv/pool/.lock?raw").body).expect("JSON");
    assert_eq!(
        (&list["Limit"], list["Holders"].as_object().map(|all| all.len())),
        (&2.into(), Some(2))
    );
    assert_eq!(run(&agent, &["-n=2", "-try=100ms", "pool", "true"]), (Some(1), LATE.to_owned()));
    let conflict = "Lock acquisition failed: semaphore limit conflict (lock: 2, local: 3)\n";
    assert_eq!(run(&agent, &["-n=3", "pool", "true"]), (Some(1), conflict.to_owned()));
    assert_eq!(first.go(), (Some(0), String::new()));
    assert_eq!(run(&agent, &["-n=2", "-timeout=60s", "pool", "echo mine"]).1, "mine\n");
    assert_eq!(second.go(), (Some(0), String::new()));
    nothing_is_left(&agent, "pool");
}
