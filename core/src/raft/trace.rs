//! What consensus tells about itself.

use std::fmt;

/// One event of consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftTrace {}

impl fmt::Display for RaftTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// One event on the way to the first configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapTrace {}

impl fmt::Display for BootstrapTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
