//! Who has an IP address: what the name of an address is asked for (dns.md §12, PTR).
//!
//! - INV-CATALOG-5: holds exactly the nodes and services whose address is an IP address. A host
//!   name is nobody's address here.

use imbl::OrdSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Who has an address. Nodes come before services, each in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// The node of this key.
    Node(Arc<str>),
    /// The instance of this key.
    Service(Arc<str>),
}

/// Addresses with who has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Addresses(OrdSet<(IpAddr, Holder)>);

impl Addresses {
    /// Somebody has the address in `text` from now on.
    pub(super) fn insert(&mut self, text: &str, holder: impl FnOnce() -> Holder) {
        if let Ok(address) = text.parse() {
            self.0.insert((address, holder()));
        }
    }

    /// Somebody has it no more.
    pub(super) fn remove(&mut self, text: &str, holder: impl FnOnce() -> Holder) {
        if let Ok(address) = text.parse() {
            self.0.remove(&(address, holder()));
        }
    }

    /// The first who has it. Cost: O(log n).
    pub(super) fn first(&self, address: IpAddr) -> Option<&Holder> {
        let begin = (address, Holder::Node(Arc::from("")));
        let (found, holder) = self.0.range(begin..).next()?;
        (*found == address).then_some(holder)
    }
}
