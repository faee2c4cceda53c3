//! The stored queries, and which of them a name asks for.

use super::super::Tables;
use super::super::query::Rows;
use super::{PreparedQuery, PreparedQueryError, PreparedQueryRule, PreparedWrite};
use crate::id::{ModifyIndex, PreparedQueryId, SessionId};
use imbl::{OrdMap, OrdSet};
use std::borrow::Cow;
use std::sync::Arc;

/// All stored queries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::catalog) struct PreparedTable {
    /// By identity as text.
    pub(in crate::catalog) rows: OrdMap<Arc<str>, Arc<PreparedQuery>>,
    /// The identity of each query that has a name, and of each template, by the name in lower case.
    names: OrdMap<Arc<str>, PreparedQueryId>,
    /// Which queries end with which session.
    sessions: OrdSet<(SessionId, PreparedQueryId)>,
    /// When something here last changed.
    pub(in crate::catalog) changed: ModifyIndex,
}

impl PreparedTable {
    fn get(&self, id: PreparedQueryId) -> Option<&Arc<PreparedQuery>> {
        self.rows.get(&*id.to_string())
    }

    /// The query or template of exactly this name, in lower case.
    fn named(&self, name: &str) -> Option<&Arc<PreparedQuery>> {
        self.get(*self.names.get(name)?)
    }

    /// Whether a query may be stored beside the others.
    pub(in crate::catalog) fn check_name(
        &self,
        query: &PreparedQuery,
    ) -> Result<(), PreparedQueryError> {
        let Some(name) = name_of(query) else { return Ok(()) };
        if self.names.get(&*name).is_some_and(|other| *other != query.id) {
            return Err(match query.name.is_empty() {
                true => PreparedQueryError::EmptyNameTaken,
                false => PreparedQueryError::NameTaken(query.name.clone()),
            });
        }
        let identity = PreparedQueryId::parse(&query.name).ok();
        match identity.and_then(|id| self.get(id)) {
            Some(_) => Err(PreparedQueryError::NameIsIdentity(query.name.clone())),
            None => Ok(()),
        }
    }

    /// Stores a complete query, which replaces that of the same identity.
    pub(in crate::catalog) fn insert(&mut self, query: Arc<PreparedQuery>) {
        self.remove(query.id);
        if let Some(name) = name_of(&query) {
            self.names.insert(name, query.id);
        }
        if let Some(session) = query.session {
            self.sessions.insert((session, query.id));
        }
        self.rows.insert(query.id.to_string().into(), query);
    }

    fn remove(&mut self, id: PreparedQueryId) -> bool {
        let Some(query) = self.rows.remove(&*id.to_string()) else { return false };
        if let Some(name) = name_of(&query) {
            self.names.remove(&name);
        }
        if let Some(session) = query.session {
            self.sessions.remove(&(session, id));
        }
        true
    }

    /// The template with the longest name that `name`, in lower case, begins with.
    fn template_for(&self, name: &str) -> Option<&Arc<PreparedQuery>> {
        let ends = name.char_indices().map(|(at, _)| at).rev();
        let mut prefixes = ends.filter_map(|end| name.get(..end));
        prefixes.find_map(|prefix| self.named(prefix).filter(|found| found.template.is_some()))
    }
}

/// The name that no other query may have; none for a query that is found by its identity alone.
fn name_of(query: &PreparedQuery) -> Option<Arc<str>> {
    let named = query.template.is_some() || !query.name.is_empty();
    named.then(|| query.name.to_lowercase().into())
}

impl Tables {
    /// Changes the stored queries. What is stored already is no failure and no change.
    pub(in crate::catalog) fn write_prepared(
        &mut self,
        index: ModifyIndex,
        write: PreparedWrite,
    ) -> Result<(), PreparedQueryError> {
        match write {
            PreparedWrite::Create(query) => self.put_prepared(index, *query, false),
            PreparedWrite::Update(query) => self.put_prepared(index, *query, true),
            PreparedWrite::Delete(id) if self.prepared.remove(id) => {
                self.prepared.changed = index;
                Ok(())
            }
            PreparedWrite::Delete(id) => Err(PreparedQueryError::Missing(id)),
        }
    }

    fn put_prepared(
        &mut self,
        index: ModifyIndex,
        mut query: PreparedQuery,
        replaces: bool,
    ) -> Result<(), PreparedQueryError> {
        query.create_index = index;
        match self.prepared.get(query.id) {
            Some(old) => {
                (query.create_index, query.modify_index) = (old.create_index, old.modify_index);
                if **old == query {
                    return Ok(());
                }
                if !replaces {
                    return Err(PreparedQueryError::Exists(query.id));
                }
            }
            None if replaces => return Err(PreparedQueryError::Missing(query.id)),
            None => {}
        }
        if let Some(session) = query.session.filter(|session| self.session(*session).is_none()) {
            return Err(PreparedQueryError::NoSession(session));
        }
        self.prepared.check_name(&query)?;
        query.modify_index = index;
        self.prepared.changed = index;
        self.prepared.insert(Arc::new(query));
        Ok(())
    }

    /// Removes the queries that end with a session.
    pub(in crate::catalog) fn end_prepared_of(&mut self, index: ModifyIndex, session: SessionId) {
        let first = (session, PreparedQueryId::from_bytes([0; 16]));
        let of_session = self.prepared.sessions.range(first..);
        let of_session = of_session.take_while(|(other, _)| *other == session);
        let ended: Vec<_> = of_session.map(|(_, id)| *id).collect();
        for id in ended {
            self.prepared.remove(id);
            self.prepared.changed = index;
        }
    }

    /// The query that an identity or a name asks for: the one of this identity, else the one of
    /// this name, else what the template with the longest fitting name makes of it.
    pub(crate) fn resolve_prepared(
        &self,
        asked: &str,
    ) -> Result<Option<Cow<'_, PreparedQuery>>, PreparedQueryRule> {
        if let Some(query) = PreparedQueryId::parse(asked).ok().and_then(|id| self.prepared.get(id))
        {
            return match query.is_template_asked_by_id(asked) {
                true => Err(PreparedQueryRule::TemplateById),
                false => Ok(Some(Cow::Borrowed(query))),
            };
        }
        let name = asked.to_lowercase();
        let found = self.prepared.named(&name).filter(|_| !name.is_empty());
        let found = found.or_else(|| self.prepared.template_for(&name));
        found.map(|query| query.rendered(asked)).transpose()
    }

    /// All stored queries, by identity.
    pub(crate) fn all_prepared(&self) -> (Rows, ModifyIndex) {
        let rows = self.prepared.rows.values().cloned().collect();
        (Rows::PreparedQueries(rows), self.prepared.changed)
    }

    /// The query of this identity, as one row or none.
    pub(crate) fn prepared_row(&self, id: PreparedQueryId) -> (Rows, ModifyIndex) {
        let rows = self.prepared.get(id).cloned().into_iter().collect();
        (Rows::PreparedQueries(rows), self.prepared.changed)
    }

    /// The query that an identity or a name asks for, as one row or none; a template as it is if
    /// its identity asks for it.
    pub(crate) fn explain_prepared(&self, asked: &str) -> (Rows, ModifyIndex) {
        let rows = match self.resolve_prepared(asked) {
            Ok(found) => found.map(|query| Arc::new(query.into_owned())).into_iter().collect(),
            Err(_) => {
                let id = PreparedQueryId::parse(asked).ok();
                id.and_then(|id| self.prepared.get(id)).cloned().into_iter().collect()
            }
        };
        (Rows::PreparedQueries(rows), self.prepared.changed)
    }
}
