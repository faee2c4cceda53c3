//! Prepared queries: questions about a service that the servers keep under a name
//! (http-api.md §14).
//!
//! `table` keeps them, `template` makes one of a name that begins as the template's does, `choose`
//! finds the instances that one wants.
//!
//! - INV-PREPARED-1: no two queries have the same name, in any case, and no name is an identity
//!   that another query has; the session of each exists.

mod choose;
mod table;
mod template;

pub(super) use table::PreparedTable;

use super::query::Instance;
use crate::catalog::query::Consistency;
use crate::expression::ExpressionError;
use crate::id::{Datacenter, ModifyIndex, NodeName, PreparedQueryId, SessionId};
use crate::{pack_enum, pack_struct};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// What a token reads as where it must not be seen; nobody means it as a token.
pub const REDACTED_TOKEN: &str = "<hidden>";

/// One prepared query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedQuery {
    /// Drawn by whoever creates it.
    pub id: PreparedQueryId,
    /// What it is asked by, in any case; of a template, how the names it is asked by begin. May be
    /// empty.
    pub name: String,
    /// It ends with this session.
    pub session: Option<SessionId>,
    /// A secret to execute it with; carried, not yet judged.
    pub token: String,
    /// Set if it is a template.
    pub template: Option<Template>,
    /// What it wants.
    pub service: Selection,
    /// Time to live of its DNS answers; `None` for that of the service.
    pub ttl: Option<Duration>,
    /// The same as it was given.
    pub ttl_text: String,
    /// When it was stored; zero until then.
    pub create_index: ModifyIndex,
    /// When it last changed.
    pub modify_index: ModifyIndex,
}
pack_struct!(PreparedQuery {
    id,
    name,
    session,
    token,
    template,
    service,
    ttl,
    ttl_text,
    create_index,
    modify_index,
});

/// What makes a query a template of all names that begin with its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Its groups can be had as `${match(N)}`; empty for none.
    pub regexp: String,
    /// Whether tags that come out empty are left out.
    pub remove_empty_tags: bool,
}
pack_struct!(Template { regexp, remove_empty_tags });

/// Which instances of a service are wanted, and where to look for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selection {
    /// The service, in any case.
    pub service: String,
    /// How many of the nearest datacenters are asked if none is found.
    pub nearest: u64,
    /// Further datacenters that are asked then, in this order.
    pub datacenters: Vec<String>,
    /// Whether instances with a warning are left out, as critical ones always are.
    pub only_passing: bool,
    /// Checks whose state is no matter, by identity.
    pub ignored_checks: Vec<String>,
    /// The node from which the nearest come first: its name, `_agent` or `_ip`; empty for none.
    pub near: String,
    /// Tags an instance must have, in any case; it must not have those behind a `!`.
    pub tags: Vec<String>,
    /// Metadata its node must have.
    pub node_meta: BTreeMap<String, String>,
    /// Metadata it must have itself.
    pub service_meta: BTreeMap<String, String>,
}
pack_struct!(Selection {
    service,
    nearest,
    datacenters,
    only_passing,
    ignored_checks,
    near,
    tags,
    node_meta,
    service_meta,
});

/// A change of the stored queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreparedWrite {
    /// Stores a new one.
    Create(Box<PreparedQuery>),
    /// Replaces the one of the same identity.
    Update(Box<PreparedQuery>),
    /// Removes one.
    Delete(PreparedQueryId),
}
pack_enum!(PreparedWrite {
    1 => Create(Box<PreparedQuery>), 2 => Update(Box<PreparedQuery>), 3 => Delete(PreparedQueryId),
});

/// Asks for the instances that a prepared query wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Execution {
    /// The query's identity or a name.
    pub query: String,
    /// The node from which the nearest come first, instead of what the query says.
    pub near: Option<String>,
    /// How many are wanted; 0 for all.
    pub limit: u64,
    /// The agent that was asked, which `_agent` means.
    pub agent: NodeName,
    /// Its datacenter.
    pub agent_datacenter: Datacenter,
    /// Who asked it; the node of this address is what `_ip` means.
    pub address: Option<IpAddr>,
}
pack_struct!(Execution { query, near, limit, agent, agent_datacenter, address });

/// What an execution found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The service, as the query spells it.
    pub service: String,
    /// Its instances, in the order they are wanted in.
    pub instances: Vec<Arc<Instance>>,
    /// Time to live of DNS answers; `None` for that of the service.
    pub ttl: Option<Duration>,
    /// The same as it was given.
    pub ttl_text: String,
    /// Where they are, or where they were looked for last.
    pub datacenter: Datacenter,
    /// How many other datacenters were asked.
    pub failovers: u64,
    /// Whether the answering server knows a leader.
    pub known_leader: bool,
    /// How long ago it heard from the leader; zero on the leader.
    pub last_contact: Duration,
    /// How the query was read.
    pub consistency: Consistency,
}
pack_struct!(Executed {
    service,
    instances,
    ttl,
    ttl_text,
    datacenter,
    failovers,
    known_leader,
    last_contact,
    consistency,
});

/// A rule that a query alone decides. Texts are what clients see.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreparedQueryRule {
    /// Nothing says when it is used, or when it ends.
    #[error("Invalid prepared query: Must be bound to a session")]
    Unbound,
    /// It was read where tokens are hidden, and written back.
    #[error(
        "Invalid prepared query: Bad Token '{REDACTED_TOKEN}', it looks like a query definition \
         with a redacted token was submitted"
    )]
    RedactedToken,
    /// It asks for nothing.
    #[error("Invalid prepared query: Must provide a Service name to query")]
    NoService,
    /// A template is asked for as if it were a query.
    #[error("prepared query templates can only be resolved up by name, not by ID")]
    TemplateById,
    /// The template's regular expression.
    #[error("failed compiling template: Bad Regexp: {0}")]
    Expression(#[from] ExpressionError),
    /// A text of the template.
    #[error("failed compiling template: Bad format in {text:?}: {rule}")]
    Format {
        /// The text.
        text: String,
        /// What is wrong with it.
        rule: &'static str,
    },
}

/// Why a change of the stored queries was refused. Texts are what clients see.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreparedQueryError {
    /// There is no such query to change.
    #[error("Cannot modify non-existent prepared query: '{0}'")]
    Missing(PreparedQueryId),
    /// Another query has this identity.
    #[error("prepared query {0} exists already")]
    Exists(PreparedQueryId),
    /// Another query has this name.
    #[error("name '{0}' aliases an existing query name")]
    NameTaken(String),
    /// The name is the identity of another query.
    #[error("name '{0}' aliases an existing query ID")]
    NameIsIdentity(String),
    /// Another template takes all names.
    #[error("a query template with an empty name already exists")]
    EmptyNameTaken,
    /// There is no such session.
    #[error("invalid session \"{0}\"")]
    NoSession(SessionId),
}

impl PreparedQuery {
    /// Checks what no other state decides. Whoever proposes a query does it, and those that apply
    /// it do not: they must agree, whatever their release's regular expressions are.
    pub fn check(&self) -> Result<(), PreparedQueryRule> {
        if self.template.is_none() && self.name.is_empty() && self.session.is_none() {
            return Err(PreparedQueryRule::Unbound);
        }
        if self.token == REDACTED_TOKEN {
            return Err(PreparedQueryRule::RedactedToken);
        }
        if self.service.service.is_empty() {
            return Err(PreparedQueryRule::NoService);
        }
        self.rendered(&self.name).map(drop)
    }

    /// Whether `asked` names a template by its identity, so that there is no name to make a query
    /// of.
    pub fn is_template_asked_by_id(&self, asked: &str) -> bool {
        self.template.is_some() && PreparedQueryId::parse(asked) == Ok(self.id)
    }
}
