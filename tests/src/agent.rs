//! One agent process, its data directory, its output.

use crate::{Folder, LONG, http, wait_until};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// A loopback address that no other agent of this run uses.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) + 1;
    let [high, low] = number.to_be_bytes();
    // The process number keeps two runs on one machine apart.
    let run = u8::try_from(std::process::id() % 200).unwrap_or(0) + 20;
    Ipv4Addr::new(127, run, high, low)
}

/// The program under test.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TERRAFORM_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace");
    // A target folder of its own: the outer cargo holds the lock of the usual one.
    let target = root.join("target").join("e2e");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "-p", "agent", "--target-dir"])
        .arg(&target)
        .current_dir(root)
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the agent builds");
    target.join("debug").join("terraform")
}

/// Runs a command of the program to its end.
pub fn command(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the program runs")
}

/// How to start an agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// Its address, for everything.
    pub address: Ipv4Addr,
    /// Its data directory; kept between runs.
    pub data_dir: PathBuf,
    /// Where that is, unless it was changed.
    pub folder: Folder,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The program that runs it, with arguments; empty for none.
    pub within: Vec<String>,
}

impl Options {
    /// An agent called `name` on an address and a folder of its own.
    pub fn new(name: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new(name);
        Self {
            name: name.to_owned(),
            address: loopback(),
            data_dir: folder.to_path_buf(),
            folder,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            within: Vec::new(),
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn with(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Run by another program, which takes its command line as the last arguments.
    #[must_use]
    pub fn within(mut self, words: &[&str]) -> Self {
        self.within = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The command line.
    pub fn command(&self) -> Command {
        let mut words = self.within.iter().map(OsStr::new).chain([binary().as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let address = self.address.to_string();
        command
            .args(["agent", "-node", &self.name, "-bind", &address, "-client", &address])
            .arg("-data-dir")
            .arg(&self.data_dir)
            .args(&self.arguments);
        command
    }

    /// Starts it and waits for its banner.
    pub fn start(self) -> Agent {
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().expect("stdout is piped");
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.lock().expect("no reader panicked").push(line);
            }
        });
        let mut agent = Agent { options: self, child, lines };
        wait_until("the agent's banner", LONG, || {
            if let Some(why) = agent.ended() {
                panic!("{why}");
            }
            agent.lines().iter().any(|line| line == "==> Terraform agent running!").then_some(())
        });
        agent
    }
}

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    /// How it was started.
    pub options: Options,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// What it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no writer panicked").clone()
    }

    /// How it ended and its last words; `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().expect("the child can be asked")?;
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut text);
        }
        Some(format!("{} ended with {status}: {:?} {text}", self.options.name, self.lines()))
    }

    /// Its address as text.
    pub fn address(&self) -> String {
        self.options.address.to_string()
    }

    /// `GET path` of its HTTP interface.
    pub fn get(&self, path: &str) -> http::Response {
        http::get(&self.address(), path)
    }

    /// `PUT path` with a body.
    pub fn put(&self, path: &str, body: &str) -> http::Response {
        http::put(&self.address(), path, body)
    }

    /// The JSON that `GET path` answers with; null if it does not answer with 200.
    pub fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        if response.status != 200 {
            return Value::Null;
        }
        serde_json::from_str(&response.body).unwrap_or(Value::Null)
    }

    /// A command of the program that talks to this agent.
    pub fn command(&self, words: &[&str]) -> Output {
        let rpc = format!("-rpc-addr={}:8400", self.address());
        let (name, rest) = words.split_first().expect("a command has a name");
        let mut all = vec![*name, rpc.as_str()];
        all.extend(rest);
        command(&all)
    }

    /// Waits until it knows a leader and answers reads.
    pub fn wait_for_leader(&self) {
        wait_until("a leader", LONG, || {
            let leader = self.json("/v1/status/leader");
            let nodes = self.get("/v1/catalog/nodes").status;
            (leader.as_str().is_some_and(|at| !at.is_empty()) && nodes == 200).then_some(())
        });
    }

    /// Waits until a leader is known and has this node in the catalog.
    pub fn wait_until_listed(&self) {
        self.wait_for_leader();
        let own = self.json("/v1/agent/self");
        let name = own["Config"]["NodeName"].as_str().expect("an agent has a name").to_owned();
        let path = format!("/v1/catalog/node/{name}");
        wait_until("its own node", LONG, || (!self.json(&path).is_null()).then_some(()));
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success(), "the agent takes a signal");
    }

    /// Its resident memory in KiB (proc(5), `VmRSS`).
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("the agent runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.expect("the system tells it")
    }

    /// Kills it as `kill -9` does and gives back how to start it again.
    pub fn kill(mut self) -> Options {
        self.child.kill().expect("the agent runs");
        self.child.wait().expect("the agent ends");
        self.options.clone()
    }

    /// The process number of what was started.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the agent's end", LONG, || {
            self.child.try_wait().expect("the child can be asked")
        })
    }

    /// Presses Ctrl-C and waits for the end.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT");
        self.wait()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
