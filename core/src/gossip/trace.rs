//! What the membership machine tells about itself.

use std::fmt;

/// One event of the membership protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GossipTrace {}

impl fmt::Display for GossipTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
