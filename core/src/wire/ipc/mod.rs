//! The local control protocol on 8400: Serf's IPC and what is ours besides (gossip-wire.md §12).
//!
//! Msgpack values stand back to back in both directions, without framing: a request is a header
//! and, for most commands, a body; a response is the same. The agent reads with
//! [`RequestReader`], a client with [`ResponseReader`]; both write with `encode`.
//!
//! Ours, each absent on Serf's wire and zero there: the commands `members-lan`, `members-wan` and
//! `reload`, the field `WAN` of `join`, and the field `Force` in the header of `leave`.
//!
//! ```
//! use terraform_core::wire::ipc::{Command, Request, RequestReader};
//!
//! let request = Request { seq: 1, command: Command::Handshake { version: 1 } };
//! let mut reader = RequestReader::new();
//! reader.feed(&request.encode()).expect("it is far below the limit");
//! assert_eq!(reader.next_request(), Ok(Some(request)));
//! assert_eq!(reader.next_request(), Ok(None));
//! ```

mod request;
mod response;

pub use request::{Command, Event, Filter, Join, Query, Request, RequestReader, Respond, Tags};
pub use response::{
    BODYLESS_ERRORS, Body, Coordinate, CoordinateReply, EventRecord, KeysReply, Member,
    QueryRecord, Response, ResponseReader, Stats,
};

/// The one version of the protocol.
pub const IPC_VERSION: u64 = 1;

/// Bytes a header or body of a request may have.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Bytes a header or body of a response may have: the members of a very large cluster.
pub const RESPONSE_BYTES_MAX: usize = 64 << 20;
