//! What the Serf machine tells about itself.

use std::fmt;

/// One event of the Serf layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerfTrace {}

impl fmt::Display for SerfTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
