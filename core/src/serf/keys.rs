//! The keyrings of all members: operations asked of everybody, and those asked of this member.
//!
//! Implements gossip-protocol.md §22 and gossip-wire.md §11.7 and §11.8. Each operation is a query
//! to all members; the keyring itself is not known here, it is asked through
//! [`super::SerfOutput::KeyOperation`]. One operation has one outcome: there is no retry and no
//! order between members, so a key is used only once every member has it.
//!
//! Differs: a list of keys above 1024 bytes is sent whole on a stream instead of being cut.

use super::query::{Purpose, Running};
use super::request::{QueryParameters, SerfRefusal};
use super::{QueryId, Serf, SerfOutput, SerfTrace};
use crate::id::{NodeName, RequestId};
use crate::machine::Outbox;
use crate::time::Instant;
use crate::trace::Level;
use crate::wire::DecodeError;
use crate::wire::serf::{KeyRequest, KeyResponse, SerfMessage};
use crate::{pack_enum, pack_struct};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Keys of one member that are counted.
const KEYS_MAX: usize = 1024;

/// Something done with a keyring; keys are raw bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyOperation {
    /// Add a key.
    Install(Bytes),
    /// Encrypt with this key from now on.
    Use(Bytes),
    /// Take a key away.
    Remove(Bytes),
    /// Tell which keys there are.
    List,
}
pack_enum!(KeyOperation {
    1 => Install(Bytes), 2 => Use(Bytes), 3 => Remove(Bytes), 4 => List,
});

impl std::fmt::Debug for KeyOperation {
    /// Hides the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.query())
    }
}

impl KeyOperation {
    const fn query(&self) -> &'static str {
        match self {
            Self::Install(_) => "_serf_install-key",
            Self::Use(_) => "_serf_use-key",
            Self::Remove(_) => "_serf_remove-key",
            Self::List => "_serf_list-keys",
        }
    }
}

/// What became of an operation on this member's keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyResult {
    /// It is done.
    Done,
    /// The keys there are, in base64.
    Keys {
        /// All of them.
        keys: Vec<String>,
        /// The one that encrypts.
        primary: String,
    },
    /// Why it was not done.
    Failed(String),
}

/// What became of an operation on the keyrings of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// Members that were asked.
    pub nodes: u64,
    /// Members that answered.
    pub responses: u64,
    /// Members that answered with an error.
    pub errors: u64,
    /// What members said, above all why not.
    pub messages: BTreeMap<NodeName, String>,
    /// How many members have each key; keys in base64.
    pub keys: BTreeMap<String, u64>,
    /// How many members encrypt with each key; keys in base64.
    pub primary_keys: BTreeMap<String, u64>,
}
pack_struct!(KeyReport { nodes, responses, errors, messages, keys, primary_keys });

impl KeyReport {
    /// Why the operation did not succeed everywhere, in Serf's words (gossip-wire.md §12.3).
    pub fn failure(&self) -> Option<String> {
        let Self { nodes, responses, errors, .. } = self;
        if *errors > 0 {
            Some(format!("{errors}/{nodes} nodes reported failure"))
        } else if responses < nodes {
            Some(format!("{responses}/{nodes} nodes reported success"))
        } else {
            None
        }
    }

    fn count(&mut self, from: &NodeName, payload: &Bytes) {
        self.responses += 1;
        let said = match SerfMessage::decode(payload) {
            Ok(SerfMessage::KeyResponse(response)) => {
                let KeyResponse { keys, message, primary_key, result } = response;
                self.errors += u64::from(!result);
                for key in keys.unwrap_or_default().into_iter().take(KEYS_MAX) {
                    *self.keys.entry(key).or_default() += 1;
                }
                if !primary_key.is_empty() {
                    *self.primary_keys.entry(primary_key).or_default() += 1;
                }
                message
            }
            Ok(_) => {
                self.errors += 1;
                "Invalid key query response type".to_owned()
            }
            Err(error) => {
                self.errors += 1;
                format!("Failed to decode key query response: {error}")
            }
        };
        if !said.is_empty() {
            self.messages.insert(from.clone(), said);
        }
    }
}

/// What the answers to a key query come to.
pub(super) fn report(running: Running) -> KeyReport {
    let mut report = KeyReport { nodes: running.nodes as u64, ..KeyReport::default() };
    let answers = &running.outcome.answers;
    answers.iter().for_each(|(from, payload)| report.count(from, payload));
    report
}

/// The operation that the query `_serf_NAME` asks for.
pub(super) fn operation(name: &str, payload: &Bytes) -> Result<KeyOperation, DecodeError> {
    let make: fn(Bytes) -> KeyOperation = match name {
        "install-key" => KeyOperation::Install,
        "use-key" => KeyOperation::Use,
        "remove-key" => KeyOperation::Remove,
        "list-keys" => return Ok(KeyOperation::List),
        _ => return Err(DecodeError::Invalid { field: "Name", rule: "is no query of Serf's" }),
    };
    let SerfMessage::KeyRequest(KeyRequest { key }) = SerfMessage::decode(payload)? else {
        return Err(DecodeError::Type { field: "Payload", expected: "a key request" });
    };
    Ok(make(key))
}

impl Serf {
    /// Asks every member to do something with its keyring.
    pub(super) fn ask_for_keys(
        &mut self,
        now: Instant,
        id: RequestId,
        operation: KeyOperation,
        relay_factor: u8,
        out: &mut Outbox<SerfOutput>,
    ) -> Result<(), SerfRefusal> {
        let name = operation.query().to_owned();
        let key = match operation {
            KeyOperation::Install(key) | KeyOperation::Use(key) | KeyOperation::Remove(key) => key,
            KeyOperation::List => Bytes::new(),
        };
        let payload = SerfMessage::KeyRequest(KeyRequest { key }).encode();
        let parameters =
            QueryParameters { name, payload, relay_factor, ..QueryParameters::default() };
        self.ask(now, Purpose::Keys(id), parameters, out)
    }

    /// This member's keyring has done what a query asked for, or not.
    pub(super) fn key_result(
        &mut self,
        now: Instant,
        query: QueryId,
        result: KeyResult,
        out: &mut Outbox<SerfOutput>,
    ) {
        let mut response = KeyResponse {
            keys: None,
            message: String::new(),
            primary_key: String::new(),
            result: true,
        };
        match result {
            KeyResult::Done => {}
            KeyResult::Keys { keys, primary } => {
                response.keys = Some(keys);
                response.primary_key = primary;
            }
            KeyResult::Failed(message) => {
                response.message = message;
                response.result = false;
            }
        }
        let payload = SerfMessage::KeyResponse(response).encode();
        if let Err(refusal) = self.answer_query(now, query, payload, out) {
            crate::trace!(out, Level::Warn, SerfTrace::NotAnswered { refusal });
        }
    }
}
