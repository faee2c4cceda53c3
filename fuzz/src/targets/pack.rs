//! Values in our own msgpack form: the input is one value of each type in turn.

use std::fmt::Debug;
use terraform_core::catalog::command::{Command, Registration};
use terraform_core::local::definition::{CheckDefinition, ServiceDefinition};
use terraform_core::raft::bootstrap::BootstrapMessage;
use terraform_core::raft::{Configuration, Message};
use terraform_core::storage::registrations::Change;
use terraform_core::wire::pack::{Pack, from_bytes, to_bytes};

fn survives<T: Pack + Debug + PartialEq>(data: &[u8]) {
    if let Ok(value) = from_bytes::<T>(data) {
        let again = from_bytes(&to_bytes(&value));
        assert_eq!(again, Ok(value), "a value survives its encoding");
    }
}

/// Content of log entries, and of the registrations on disk.
pub fn pack(data: &[u8]) {
    if let Ok(command) = Command::decode(data) {
        let again = Command::decode(&command.encode());
        assert_eq!(again, Ok(command), "a command survives its encoding");
    }
    survives::<Registration>(data);
    survives::<Configuration>(data);
    survives::<ServiceDefinition>(data);
    survives::<CheckDefinition>(data);
    survives::<Change>(data);
}

/// Messages of consensus and bootstrap.
pub fn raft_wire(data: &[u8]) {
    survives::<Message>(data);
    survives::<BootstrapMessage>(data);
}
