//! What the agent's own state tells about itself.

use std::fmt;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentTrace {}

impl fmt::Display for AgentTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
