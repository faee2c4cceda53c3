//! Leader duties: members into the catalog, servers into consensus.

use std::fmt;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileTrace {}

impl fmt::Display for ReconcileTrace {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
