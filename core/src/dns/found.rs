//! What the catalog gave for a lookup: rows of an answer, or rows of the tables themselves, which
//! are then not copied.

use crate::catalog::model::Node;
use crate::catalog::query::{AddressOwner, Instance, Query, QueryAnswer, Rows};
use crate::node::request::RequestError;
use crate::view::ServerState;

/// The outcome of a [`Lookup`](super::Lookup)'s query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// One node, if there is one of this name.
    Node(Option<&'a Node>),
    /// The instances of a service.
    Instances(Vec<&'a Instance>),
    /// The nodes of the servers.
    Servers(Vec<&'a Node>),
    /// Who has an address.
    Owner(AddressOwner),
    /// There is no such datacenter.
    NoDatacenter,
    /// The catalog could not be asked.
    Failed,
}

impl<'a> Found<'a> {
    /// What an answer says.
    pub fn of(outcome: &'a Result<QueryAnswer, RequestError>) -> Self {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(RequestError::NoPath) => return Self::NoDatacenter,
            Err(_) => return Self::Failed,
        };
        let rows = &answer.rows;
        if let Rows::Nodes(nodes) = rows {
            Self::Node(nodes.first().map(AsRef::as_ref))
        } else if let Rows::Instances(rows) = rows {
            Self::Instances(rows.iter().map(AsRef::as_ref).collect())
        } else if let Rows::ServiceNodes(rows) = rows {
            Self::Servers(rows.iter().map(|row| &*row.node).collect())
        } else if let Rows::Owner(owner) = rows {
            Self::Owner(owner.clone())
        } else {
            Self::Failed
        }
    }

    /// What the tables say, as an answer to `query` from them would; `None` if it is none of the
    /// queries that questions mostly need.
    pub fn within(state: ServerState<'a>, query: &'a Query) -> Option<Self> {
        if let Query::NodeNamed(name) = query {
            return Some(Self::Node(state.tables.named(name)));
        }
        let Query::ServiceHealth(wanted) = query else { return None };
        let plain = wanted.filter.is_none() && wanted.near.is_none();
        let rows = || state.tables.matching(wanted).map(AsRef::as_ref).collect();
        plain.then(|| Self::Instances(rows()))
    }
}
