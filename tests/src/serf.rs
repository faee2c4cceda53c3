//! The distribution's `serf`: an agent of another program to gossip with, and its commands.

use crate::{Agent, LONG, loopback, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Output, Stdio};

/// The status of each member by its name, in Serf's words.
pub type Statuses = BTreeMap<String, String>;

/// Runs a command of `serf` against the control port at `address`, to its end.
///
/// Panics if `serf` is not installed.
pub fn serf(address: &str, words: &[&str]) -> Output {
    serf_command(address, words).output().unwrap_or_else(|error| panic!("{}", missing(&error)))
}

/// A command of `serf` against the control port at `address`.
pub fn serf_command(address: &str, words: &[&str]) -> Command {
    let (name, rest) = words.split_first().expect("a command has a name");
    let mut command = Command::new("serf");
    command.arg(name).arg(format!("-rpc-addr={address}")).args(rest);
    command
}

fn missing(error: &std::io::Error) -> String {
    format!("cannot run `serf` ({error}): these tests need the package serf, see README.md")
}

/// The members that the agent behind the control port at `address` knows; empty if it says nothing.
pub fn serf_members(address: &str) -> Value {
    let output = serf(address, &["members", "-format=json"]);
    let members: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    members.get("members").cloned().unwrap_or_default()
}

/// A running `serf agent`; dropping it kills it.
#[derive(Debug)]
pub struct SerfAgent {
    name: String,
    ip: Ipv4Addr,
    arguments: Vec<String>,
    child: Child,
}

impl SerfAgent {
    /// Starts one called `name` on an address of its own and waits until its control port answers.
    ///
    /// Panics if `serf` is not installed.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Self::start_at(name, loopback(), arguments)
    }

    fn start_at(name: &str, ip: Ipv4Addr, arguments: Vec<String>) -> Self {
        let child = Command::new("serf")
            .arg("agent")
            .args([format!("-node={name}"), format!("-bind={ip}:8301")])
            // Faster than the LAN's times where both sides allow it.
            .args([format!("-rpc-addr={ip}:7373"), "-profile=local".to_owned()])
            .args(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}", missing(&error)));
        let mut agent = Self { name: name.to_owned(), ip, arguments, child };
        wait_until("serf's control port", LONG, || {
            let ended = agent.child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "serf agent {} ended: {ended:?}", agent.name);
            agent.command(&["info"]).status.success().then_some(())
        });
        agent
    }

    /// Where others join it.
    pub fn gossip(&self) -> String {
        format!("{}:8301", self.ip)
    }

    /// Its control port.
    pub fn control(&self) -> String {
        format!("{}:7373", self.ip)
    }

    /// A command of `serf` that talks to this agent.
    pub fn command(&self, words: &[&str]) -> Output {
        serf(&self.control(), words)
    }

    /// The members it knows, with their statuses.
    pub fn statuses(&self) -> Statuses {
        let members = serf_members(&self.control());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let members = members.as_array().cloned().unwrap_or_default();
        members.iter().map(|member| (text(&member["name"]), text(&member["status"]))).collect()
    }

    /// A tag of a member, as this agent sees it.
    pub fn tag(&self, member: &str, tag: &str) -> Option<String> {
        let members = serf_members(&self.control());
        let found = members.as_array()?.iter().find(|other| other["name"] == member)?.clone();
        found.get("tags")?.get(tag)?.as_str().map(str::to_owned)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) {
        wait_until("the end of serf agent", LONG, || {
            self.child.try_wait().expect("the child can be asked")
        });
    }

    /// Starts it again, where it was, once it has ended.
    #[must_use]
    pub fn restart(self) -> Self {
        let (name, ip, arguments) = (self.name.clone(), self.ip, self.arguments.clone());
        drop(self);
        Self::start_at(&name, ip, arguments)
    }
}

impl Drop for SerfAgent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// Where its control port is.
    pub fn control(&self) -> String {
        format!("{}:8400", self.address())
    }

    /// A command of `serf` that talks to this agent.
    pub fn serf(&self, words: &[&str]) -> Output {
        serf(&self.control(), words)
    }

    /// The members it knows, with their statuses.
    pub fn statuses(&self) -> Statuses {
        let members = self.json("/v1/agent/members");
        let word = |status: &Value| match status.as_u64() {
            Some(1) => "alive",
            Some(2) => "leaving",
            Some(3) => "left",
            Some(4) => "failed",
            Some(_) | None => "unknown",
        };
        let pair = |member: &Value| {
            let name = member["Name"].as_str().unwrap_or_default().to_owned();
            (name, word(&member["Status"]).to_owned())
        };
        members.as_array().into_iter().flatten().map(pair).collect()
    }

    /// A tag of a member, as this agent sees it.
    pub fn tag(&self, member: &str, tag: &str) -> Option<String> {
        let members = self.json("/v1/agent/members");
        let found = members.as_array()?.iter().find(|other| other["Name"] == member)?.clone();
        found.get("Tags")?.get(tag)?.as_str().map(str::to_owned)
    }
}
