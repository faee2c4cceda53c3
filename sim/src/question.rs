//! What clients of a world read.

use terraform_core::catalog::kv::KeyList;
use terraform_core::catalog::query::{NodesQuery, Query, ServiceQuery};
use terraform_core::catalog::transaction::Operation;
use terraform_core::id::ServiceName;

/// One read, as data that can be kept and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// One key.
    Key(String),
    /// All keys that begin so.
    Tree(String),
    /// The names of all keys that begin so, cut after the separator if there is one.
    Keys {
        /// What they begin with.
        prefix: String,
        /// Where they are cut; empty for nowhere.
        separator: String,
    },
    /// Several keys as one, each with whether it stands for all that begin so.
    Gets(Vec<(bool, String)>),
    /// The instances of a service.
    Service(ServiceName),
    /// All nodes.
    Nodes,
}

impl Question {
    /// The question as the core knows it.
    pub fn query(&self) -> Query {
        match self.clone() {
            Self::Key(key) => Query::Key(key),
            Self::Tree(prefix) => Query::KeyTree(prefix),
            Self::Keys { prefix, separator } => Query::Keys(KeyList { prefix, separator }),
            Self::Gets(gets) => {
                let get = |(tree, key)| match tree {
                    true => Operation::GetTree(key),
                    false => Operation::Get(key),
                };
                Query::Transaction(gets.into_iter().map(get).collect())
            }
            Self::Service(name) => Query::ServiceHealth(ServiceQuery::all(name)),
            Self::Nodes => Query::Nodes(NodesQuery::default()),
        }
    }
}
