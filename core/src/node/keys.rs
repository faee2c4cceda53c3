//! Key operations between Serf, which asks and answers all members, and the keyring of gossip.
//!
//! - Source: gossip-wire.md §11.7 and §11.8. Serf hands on the bytes of a key as they came; here
//!   they become a [`Key`] or an answer that says why not.

use super::Node;
use crate::gossip::GossipInput;
use crate::gossip::keyring::{KeyOperation as RingOperation, KeyTicket, Keyring, KeyringError};
use crate::id::PoolName;
use crate::serf::{KeyOperation, KeyResult, QueryId, SerfInput};
use crate::time::Instant;
use crate::wire::seal::{Key, KeyError};

impl Node {
    /// A member, or this one, asks for something to be done with this member's keyring.
    pub(super) fn key_operation(
        &mut self,
        now: Instant,
        pool: PoolName,
        (query, operation): (QueryId, KeyOperation),
    ) {
        match ring_operation(&operation) {
            Ok(operation) => {
                let ticket = ticket(query, operation == RingOperation::List);
                let input = GossipInput::Key { ticket, operation };
                self.tell_gossip(now, pool, input);
            }
            Err(error) => self.key_result(now, pool, query, KeyResult::Failed(error.to_string())),
        }
    }

    /// The keyring has done it, or not.
    pub(super) fn key_finished(
        &mut self,
        now: Instant,
        pool: PoolName,
        ticket: KeyTicket,
        result: Result<Keyring, KeyringError>,
    ) {
        let lists = ticket.0 % 2 == 1;
        let result = match result {
            Ok(ring) if lists => KeyResult::Keys {
                keys: ring.keys().iter().map(Key::to_base64).collect(),
                primary: ring.primary().map(Key::to_base64).unwrap_or_default(),
            },
            Ok(_) => KeyResult::Done,
            Err(error) => KeyResult::Failed(error.to_string()),
        };
        self.key_result(now, pool, QueryId(ticket.0 / 2), result);
    }

    fn key_result(&mut self, now: Instant, pool: PoolName, query: QueryId, result: KeyResult) {
        let input = SerfInput::KeyResult { query, result };
        self.tell_serf(now, pool, input);
    }
}

/// Names a query, and in its lowest bit whether the keys themselves are asked for.
fn ticket(query: QueryId, lists: bool) -> KeyTicket {
    KeyTicket(query.0 * 2 + u64::from(lists))
}

fn ring_operation(operation: &KeyOperation) -> Result<RingOperation, KeyError> {
    Ok(match operation {
        KeyOperation::Install(key) => RingOperation::Install(Key::new(key)?),
        KeyOperation::Use(key) => RingOperation::Use(Key::new(key)?),
        KeyOperation::Remove(key) => RingOperation::Remove(Key::new(key)?),
        KeyOperation::List => RingOperation::List,
    })
}
