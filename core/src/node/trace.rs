//! What the node as a whole tells about itself.

use std::fmt;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeTrace {}

impl fmt::Display for NodeTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
