//! What requests between agents tell about themselves.

use std::fmt;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcTrace {}

impl fmt::Display for RpcTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
