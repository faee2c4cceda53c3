//! Nodes, services and checks with their indexes: the replicated state.

pub mod command;
pub mod model;
pub mod query;

/// The tables of the catalog as persistent maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {}
