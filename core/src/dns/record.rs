//! Resource records without a wire form.

use super::name::Name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The name of the question, in the client's case.
    Question,
    /// Another name.
    Name(Name),
}

/// One record; its class is IN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Whose it is.
    pub owner: Owner,
    /// Seconds it may be remembered.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

impl Record {
    /// The host it names.
    pub fn target(&self) -> Option<&Name> {
        match &self.data {
            Data::Cname(name) | Data::Ns(name) | Data::Srv { target: name, .. } => Some(name),
            Data::A(_) | Data::Aaaa(_) | Data::Ptr(_) | Data::Soa { .. } | Data::Txt(_) => None,
        }
    }
}

/// What a record says (RFC 1035 §3.3, RFC 3596, RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The canonical name.
    Cname(Name),
    /// A name server.
    Ns(Name),
    /// The name of an address.
    Ptr(Name),
    /// A host and port.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// Share among equal priorities.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: Name,
    },
    /// The start of authority.
    Soa {
        /// The primary server.
        mname: Name,
        /// The mailbox of whoever is responsible.
        rname: Name,
        /// Version of the zone.
        serial: u32,
        /// Seconds.
        refresh: u32,
        /// Seconds.
        retry: u32,
        /// Seconds.
        expire: u32,
        /// Seconds a negative answer may be remembered.
        minimum: u32,
    },
    /// One text; the wire form splits it into strings of 255 bytes.
    Txt(String),
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}
