//! `terraform debug`: collects what an agent tells of itself, for people who look for a fault
//! (cli.md §8).
//!
//! | file | what | from |
//! |---|---|---|
//! | `index.json` | what was collected, from which agent, how long | |
//! | `agent.json` `host.json` `cluster.json` | once | `/v1/agent/self`, `host`, `members` |
//! | `UNIX-TIME/metrics.json` | at each interval | `/v1/agent/metrics` |
//! | `UNIX-TIME/terraform.log` | during each interval | `/v1/agent/monitor` |
//!
//! What an agent does not tell is named and left out. The folder is its owner's alone, since logs
//! may hold secrets.

mod capture;

use super::Exit;
use super::client::{self, Client};
use super::flags::span;
use crate::signals::Wishes;
use argh::{ArgsInfo, FromArgs};
use capture::Capture;
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use terraform_io::archive::bundle;
use terraform_io::duration;
use terraform_io::http::client::system_text;
use terraform_io::http::json::pretty;

/// The shortest time to collect for.
const DURATION_MIN: Duration = Duration::from_secs(10);
/// The shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The version of the folder's layout.
const VERSION: u32 = 1;

/// Collects metrics, logs and facts of an agent for a while, and saves them in an archive.
#[derive(FromArgs, ArgsInfo)]
struct Arguments {
    /// save one archive; otherwise the folder stays as it is (true)
    #[argh(option, arg_name = "bool")]
    archive: Option<bool>,
    /// collect only this: metrics, logs, pprof, host, agent or cluster; may be repeated
    #[argh(option, arg_name = "what", from_str_fn(target))]
    capture: Vec<Target>,
    /// how long to collect, at least 10s (2m0s)
    #[argh(option, arg_name = "duration", default = "Duration::from_secs(120)", from_str_fn(span))]
    duration: Duration,
    /// the time between two looks at what changes, at least 5s (30s)
    #[argh(option, arg_name = "duration", default = "Duration::from_secs(30)", from_str_fn(span))]
    interval: Duration,
    /// the folder, and with .tar.gz the archive (terraform-debug-UNIX-TIME)
    #[argh(option, arg_name = "path")]
    output: Option<String>,
    /// nothing else is taken
    #[argh(positional, hidden_help)]
    rest: Vec<String>,
}

/// What can be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Metrics,
    Logs,
    Pprof,
    Host,
    Agent,
    Cluster,
}

const TARGETS: [Target; 6] =
    [Target::Metrics, Target::Logs, Target::Pprof, Target::Host, Target::Agent, Target::Cluster];

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Pprof => "pprof",
            Self::Host => "host",
            Self::Agent => "agent",
            Self::Cluster => "cluster",
        }
    }
}

fn target(name: &str) -> Result<Target, String> {
    let found = TARGETS.iter().find(|target| target.name() == name);
    found.copied().ok_or_else(|| format!("target not found: {name}"))
}

pub(super) fn run(words: &[String]) -> Exit {
    match try_run(words) {
        Ok(()) => Exit::default(),
        Err(exit) => exit,
    }
}

fn try_run(words: &[String]) -> Result<(), Exit> {
    let (arguments, client) = client::parse_local::<Arguments>("debug", words)?;
    let refuse = |rule: String| Exit::failure(format!("==> {rule}\n"));
    if let Some(count) = Some(arguments.rest.len()).filter(|count| *count > 0) {
        return Err(refuse(format!("Too many arguments (expected 0, got {count})")));
    }
    let plan = prepare(arguments, &client);
    let plan = plan.map_err(|error| refuse(format!("Capture validation failed: {error}")))?;
    let wishes =
        Wishes::watch().map_err(|error| refuse(format!("Error watching for signals: {error}")))?;
    announce(&plan);
    let capture = Capture { client: &client, plan: &plan };
    let done = smol::block_on(capture.run(wishes)).and_then(|()| write_index(&plan));
    let saved = done.and_then(|()| save(&plan));
    let saved = saved.map_err(|error| refuse(format!("Capture failed: {error}")))?;
    println!("==> Saved debug {}: {}", saved.0, saved.1.display());
    Ok(())
}

/// What is to be done.
struct Plan {
    folder: PathBuf,
    archive: Option<PathBuf>,
    targets: Vec<Target>,
    duration: Duration,
    interval: Duration,
    /// What the agent says of itself.
    agent: Value,
}

impl Plan {
    fn wants(&self, target: Target) -> bool {
        self.targets.contains(&target)
    }

    fn names(&self) -> Vec<&'static str> {
        self.targets.iter().map(|target| target.name()).collect()
    }

    fn agent_version(&self) -> &str {
        let config = self.agent.get("Config");
        config.and_then(|config| config.get("Version")?.as_str()).unwrap_or_default()
    }
}

/// Checks what is wanted and makes the folder.
fn prepare(arguments: Arguments, client: &Client) -> Result<Plan, String> {
    let Arguments { archive, capture, duration, interval, output, .. } = arguments;
    if duration < DURATION_MIN {
        return Err(format!("duration must be longer than {}", duration::text(DURATION_MIN)));
    }
    if interval < INTERVAL_MIN {
        return Err(format!("interval must be longer than {}", duration::text(INTERVAL_MIN)));
    }
    let agent = client.get("/v1/agent/self", &[]).map_err(|error| {
        format!("error querying target agent: {error}. verify connectivity and agent address")
    })?;
    let targets = if capture.is_empty() { TARGETS.to_vec() } else { capture };
    let folder = output.unwrap_or_else(|| format!("terraform-debug-{}", unix_time()));
    let folder = PathBuf::from(folder.trim_end_matches('/'));
    let archive = archive.unwrap_or(true).then(|| {
        let mut name = folder.clone().into_os_string();
        name.push(".tar.gz");
        PathBuf::from(name)
    });
    if folder.file_name().is_none() {
        return Err("output must name a folder".to_owned());
    }
    if folder.exists() {
        return Err(format!("output directory already exists: {}", folder.display()));
    }
    if let Some(archive) = archive.as_ref().filter(|archive| archive.exists()) {
        return Err(format!("output archive already exists: {}", archive.display()));
    }
    DirBuilder::new().mode(0o700).create(&folder).map_err(|error| {
        format!("could not create output directory: {}: {}", folder.display(), system_text(&error))
    })?;
    Ok(Plan { folder, archive, targets, duration, interval, agent })
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn announce(plan: &Plan) {
    let output = plan.archive.as_ref().unwrap_or(&plan.folder);
    println!("==> Starting debugger and capturing static information...");
    println!("     Agent Version: '{}'", plan.agent_version());
    println!("          Interval: '{}'", duration::text(plan.interval));
    println!("          Duration: '{}'", duration::text(plan.duration));
    println!("            Output: '{}'", output.display());
    println!("           Capture: '{}'", plan.names().join(", "));
    println!("     Debug Version: '{VERSION}'");
}

fn write_index(plan: &Plan) -> Result<(), String> {
    let index = json!({
        "Version": VERSION,
        "AgentVersion": plan.agent_version(),
        "Interval": duration::text(plan.interval),
        "Duration": duration::text(plan.duration),
        "Targets": plan.names(),
    });
    write_json(&plan.folder.join("index.json"), &index)
}

/// Writes JSON for people.
fn write_json(path: &Path, value: &Value) -> Result<(), String> {
    let text = pretty(value.to_string().as_bytes());
    fs::write(path, text).map_err(|error| of_file(path, &error))
}

fn of_file(path: &Path, error: &std::io::Error) -> String {
    format!("write {}: {}", path.display(), system_text(error))
}

/// Makes an archive of the folder if one is wanted; what there is then, and where.
fn save(plan: &Plan) -> Result<(&'static str, &Path), String> {
    let Some(path) = &plan.archive else { return Ok(("directory", &plan.folder)) };
    let failed = |error| of_file(path, &error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    bundle(&plan.folder, &file.map_err(failed)?).map_err(failed)?;
    fs::remove_dir_all(&plan.folder).map_err(|error| of_file(&plan.folder, &error))?;
    Ok(("archive", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_collected_is_refused_before_the_agent_is_asked() {
        for (words, rule) in [
            (
                &["-duration=1s"][..],
                "==> Capture validation failed: duration must be longer than 10s\n",
            ),
            (&["-interval=1s"], "==> Capture validation failed: interval must be longer than 5s\n"),
            (&["x"], "==> Too many arguments (expected 0, got 1)\n"),
            (&["-capture=x"], "invalid value \"x\" for flag -capture: target not found: x\n"),
        ] {
            let exit = run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!(exit.code, 1);
            assert!(exit.stderr.starts_with(rule), "{}", exit.stderr);
        }
    }
}
