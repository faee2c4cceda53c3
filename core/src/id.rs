//! Every identity and protocol number as a type of its own, so that no two can be swapped.
//!
//! Text is parsed at the border; code that holds the type never checks again.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use uuid::Uuid;

/// Why a name was refused. Nothing changed; the giver of the name is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text was empty.
    #[error("{what} cannot be empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// The text was longer than the limit.
    #[error("{what} is {length} bytes long, at most {limit} are allowed")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The text held a character that is not allowed.
    #[error("{what} {text:?} holds a character that is not allowed: use {allowed}")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The refused text.
        text: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The text was not a UUID.
    #[error("{what} {text:?} is not a UUID")]
    NotUuid {
        /// Which kind of identity.
        what: &'static str,
        /// The refused text.
        text: String,
    },
}

/// Bytes a node, service or check name may have at most.
pub const NAME_BYTES_MAX: usize = 255;

/// One of the two gossip pools of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PoolName {
    /// All agents of one datacenter.
    Lan,
    /// The servers of all datacenters.
    Wan,
}
crate::pack_enum!(PoolName { 1 => Lan, 2 => Wan });

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "LAN",
            Self::Wan => "WAN",
        })
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to 255 bytes without control characters.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_text($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn check_text(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what, length: text.len(), limit: NAME_BYTES_MAX });
    }
    if text.chars().any(char::is_control) {
        let allowed = "printable characters";
        return Err(NameError::Character { what, text: text.to_owned(), allowed });
    }
    Ok(())
}

text_id!(
    /// A node's name, unique in its datacenter; the key of gossip membership.
    NodeName,
    "node name"
);
text_id!(
    /// A service's name, shared by its instances.
    ServiceName,
    "service name"
);
text_id!(
    /// One service instance on one node.
    ServiceId,
    "service id"
);
text_id!(
    /// One check on one node.
    CheckId,
    "check id"
);

impl NodeName {
    /// The name in the WAN pool: node names are unique in their datacenter only.
    ///
    /// - Errors: the two together are longer than a name may be.
    pub fn in_wan(&self, datacenter: &Datacenter) -> Result<Self, NameError> {
        Self::parse(&format!("{self}.{datacenter}"))
    }

    /// The name in its own datacenter, if this is one of the WAN pool.
    pub fn out_of_wan(&self, datacenter: &Datacenter) -> Option<Self> {
        let name = self.0.strip_suffix(datacenter.as_str())?.strip_suffix('.')?;
        Self::parse(name).ok()
    }

    /// The key under which the catalog finds the node: names match without regard to case.
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }

    /// Whether every character may stand in a DNS label (RFC 1123 §2.1).
    pub fn is_dns_label(&self) -> bool {
        self.0.len() <= 63 && self.0.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    }
}

impl ServiceName {
    /// The name in its own datacenter, if this is one of the WAN pool.
    pub fn out_of_wan(&self, datacenter: &Datacenter) -> Option<Self> {
        let name = self.0.strip_suffix(datacenter.as_str())?.strip_suffix('.')?;
        Self::parse(name).ok()
    }

    /// The key under which the catalog finds the service.
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

/// A datacenter's name: `[a-z0-9-_]`, lower-cased on parsing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datacenter(Arc<str>);

impl Datacenter {
    /// Lower-cases `text` and accepts 1 to 64 characters of `[a-z0-9-_]`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let what = "datacenter";
        check_text(what, text)?;
        let text = text.to_ascii_lowercase();
        if text.len() > 64 {
            return Err(NameError::TooLong { what, length: text.len(), limit: 64 });
        }
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if !text.chars().all(legal) {
            return Err(NameError::Character { what, text, allowed: "only [a-z0-9-_]" });
        }
        Ok(Self(Arc::from(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Datacenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Datacenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Accepts the 36-character form.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let refused = || NameError::NotUuid { what: $what, text: text.to_owned() };
                if text.len() != 36 {
                    return Err(refused());
                }
                Uuid::parse_str(text).map(Self).map_err(|_| refused())
            }

            /// A random (version 4) identity from 16 random bytes.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// The identity with exactly these bytes, as read from a file or a message.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_id!(
    /// A node's identity, the content of `node-id`; in consensus, the server's identity.
    NodeId,
    "node id"
);
uuid_id!(
    /// One data directory's identity: new for each directory, so a wiped server is recognised.
    StoreId,
    "store id"
);
uuid_id!(
    /// One event's identity, made where it is fired.
    EventId,
    "event id"
);

impl StoreId {
    /// The cluster that a server with this store founds (raft.md §10.5): a store is random and new
    /// for each data directory, so it makes one cluster at most.
    pub const fn own_cluster(&self) -> ClusterId {
        ClusterId::from_bytes(*self.as_bytes())
    }
}

uuid_id!(
    /// One session's identity, made by whoever creates it.
    SessionId,
    "session id"
);
uuid_id!(
    /// One prepared query's identity, made by whoever creates it.
    PreparedQueryId,
    "prepared query id"
);
uuid_id!(
    /// One restore of a backup's identity, made by whoever begins it.
    RestoreId,
    "restore id"
);
uuid_id!(
    /// One cluster's identity, made at bootstrap.
    ClusterId,
    "cluster id"
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Zero: before the first.
            pub const ZERO: Self = Self(0);

            /// The value `n`.
            pub const fn new(n: $inner) -> Self {
                Self(n)
            }

            /// The plain number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The next one; stays at the type's maximum.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// A Raft term (Raft thesis §3.3).
    Term,
    u64
);
number!(
    /// A position in the Raft log; the first entry has 1.
    LogIndex,
    u64
);
number!(
    /// The catalog index a client sees as `X-Consul-Index`, `CreateIndex`, `ModifyIndex`.
    ModifyIndex,
    u64
);
number!(
    /// A member's incarnation (SWIM §4.2); grows only by its owner.
    Incarnation,
    u32
);
number!(
    /// A Serf Lamport time.
    LamportTime,
    u64
);
number!(
    /// The number of a gossip probe, chosen by its sender.
    SeqNo,
    u32
);
number!(
    /// A stream between two agents, or between a client program and this agent. Numbers are never
    /// used twice within a run: the host gives even ones to streams it accepted, the node odd ones
    /// to streams it opens.
    StreamId,
    u64
);
number!(
    /// One storage operation on its way; completions name it.
    WriteId,
    u64
);
number!(
    /// One request on its way through the node; replies name it.
    RequestId,
    u64
);

impl LogIndex {
    /// How many entries `self` is above `earlier`; zero if it is not.
    pub const fn above(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The position before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_with_the_rule_it_breaks() {
        assert!(matches!(NodeName::parse(""), Err(NameError::Empty { .. })));
        assert!(matches!(NodeName::parse(&"x".repeat(256)), Err(NameError::TooLong { .. })));
        assert!(matches!(NodeName::parse("a\nb"), Err(NameError::Character { .. })));
        assert!(NodeName::parse("armons.local").is_ok_and(|name| !name.is_dns_label()));
    }

    #[test]
    fn a_datacenter_is_lower_cased_and_restricted() {
        assert_eq!(Datacenter::parse("DC1").map(|dc| dc.to_string()), Ok("dc1".to_owned()));
        assert!(Datacenter::parse("bad dc!").is_err());
    }

    #[test]
    fn an_identity_survives_its_text_form() {
        let id = NodeId::from_random([7; 16]);
        assert_eq!(NodeId::parse(&id.to_string()), Ok(id));
        assert!(NodeId::parse("7").is_err());
    }
}
