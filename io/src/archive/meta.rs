//! `meta.json`.

use serde_json::{Value, json};
use terraform_core::node::request::BackupOpened;
use terraform_core::time::WallClock;
use terraform_core::wire::{base64, pack};

/// The version of archives.
const VERSION: u64 = 1;

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Which archive: term, index and civil time.
    pub id: String,
    /// The last entry of the log that is in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The version of the archive's form.
    pub version: u64,
    /// Bytes of `state.bin`.
    pub size: u64,
    /// Who took part in consensus, as members of the JSON object.
    configuration: Vec<(&'static str, Value)>,
}

impl Meta {
    /// Of a backup whose `state.bin` has `size` bytes.
    pub fn new(opened: &BackupOpened, wall: WallClock, size: u64) -> Self {
        let (index, term) = (opened.applied.get(), opened.term.get());
        let servers = &opened.configuration.servers;
        let mut peers = Vec::new();
        pack::put_array(&mut peers, servers.len());
        for server in servers {
            pack::put_text(&mut peers, &server.address.to_string());
        }
        let servers: Vec<Value> = servers
            .iter()
            .map(|server| {
                let (id, address) = (server.id.to_string(), server.address.to_string());
                json!({"Suffrage": i32::from(!server.voter), "ID": id, "Address": address})
            })
            .collect();
        let configuration = vec![
            ("Peers", json!(base64::encode(&peers))),
            ("Configuration", json!({ "Servers": servers })),
            ("ConfigurationIndex", json!(opened.configuration.index.get())),
        ];
        let id = format!("{term}-{index}-{}", wall.as_millis());
        Self { id, index, term, version: VERSION, size, configuration }
    }

    /// The file's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut members = serde_json::Map::new();
        let mut member = |name: &str, value: Value| members.insert(name.to_owned(), value);
        member("Version", json!(self.version));
        member("ID", json!(self.id));
        member("Index", json!(self.index));
        member("Term", json!(self.term));
        for (name, value) in &self.configuration {
            member(name, value.clone());
        }
        member("Size", json!(self.size));
        format!("{}\n", Value::Object(members)).into_bytes()
    }

    /// Reads the file's bytes; the error names the rule that they break. What it says of consensus
    /// is of no use to anybody and is not read.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let number = |name: &str| {
            let number = value.get(name).and_then(Value::as_u64);
            number.ok_or_else(|| format!("{name:?} is no number"))
        };
        let version = number("Version")?;
        if version != VERSION {
            return Err(format!("version {version} is not supported"));
        }
        let id = value.get("ID").and_then(Value::as_str).ok_or("\"ID\" is no text")?.to_owned();
        let (index, term, size) = (number("Index")?, number("Term")?, number("Size")?);
        Ok(Self { id, index, term, version, size, configuration: Vec::new() })
    }
}
