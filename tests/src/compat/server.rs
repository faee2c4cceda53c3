//! The server that is asked.

use super::pattern::Values;
use crate::{Folder, LONG, binary, get, loopback, wait_until};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The program under test.
    Terraform,
    /// Consul 1.8.7, in this file.
    Consul(PathBuf),
}

/// A running server called `n1`; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub address: String,
    child: Child,
    // Removed after the process ended.
    _folder: Folder,
}

impl Program {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Terraform => "terraform",
            Self::Consul(_) => "consul",
        }
    }

    /// Starts a server with the text of a configuration file, and waits until all that it tells of
    /// itself is in its catalog.
    pub fn start(&self, config: &str) -> Server {
        let (folder, address) = (Folder::new("compat"), loopback().to_string());
        let file = folder.join("config.json");
        std::fs::write(&file, config).expect("the folder is writable");
        let mut command = match self {
            Self::Terraform => Command::new(binary()),
            Self::Consul(path) => Command::new(path),
        };
        command.args(["agent", "-server", "-bootstrap", "-node", "n1"]);
        command.args(["-bind", &address, "-client", &address]);
        command.arg("-data-dir").arg(folder.join("data")).arg("-config-file").arg(file);
        if let Self::Consul(_) = self {
            command.args(["-hcl", "performance { raft_multiplier = 1 }"]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("the program starts");
        let server = Server { address, child, _folder: folder };
        wait_until("a node that is wholly in the catalog", LONG, || {
            server.node().is_some_and(|node| !node["TaggedAddresses"].is_null()).then_some(())
        });
        server
    }
}

impl Server {
    fn node(&self) -> Option<Value> {
        let response = get(&self.address, "/v1/catalog/node/n1");
        let answer: Value = serde_json::from_str(&response.body).ok()?;
        answer.get("Node").cloned()
    }

    /// What names stand for from the start.
    pub fn values(&self, program: &Program) -> Values {
        let node = self.node().unwrap_or_default();
        let id = node["ID"].as_str().unwrap_or_default().to_owned();
        let known = [
            ("address", self.address.clone()),
            ("node-id", id),
            ("program", program.name().to_owned()),
        ];
        known.map(|(name, value)| (name.to_owned(), value.into_bytes())).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
