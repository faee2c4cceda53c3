//! Blocks to tables.

use super::super::addresses::Holder;
use super::super::kv::KvEntry;
use super::super::lock::{KeyLock, LOCK_DELAY_MAX, LockDelay};
use super::super::model::{Check, CheckStatus, Node, NodeCoordinate, Service};
use super::super::prepared::PreparedQuery;
use super::super::query::Instance;
use super::super::restore::{RESTORE_BYTES_MAX, Restoring};
use super::super::session::Session;
use super::super::{NodeRow, Tables, keys};
use super::{Head, ImageError, Kind, RestoreHead, VERSION};
use crate::id::{ModifyIndex, ServiceId, SessionId};
use crate::wire::DecodeError;
use crate::wire::checksum::crc32_after;
use crate::wire::pack;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

type Rule = Result<(), DecodeError>;

/// Builds tables of blocks, in order.
///
/// What it has is in persistent maps, so a clone costs O(1). It trusts nothing: tables it gives
/// keep every invariant of the catalog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageDecoder {
    tables: Tables,
    /// The kind of the last record.
    kind: Kind,
    /// The key of the node whose part has not ended yet.
    node: Option<Arc<str>>,
    /// The key of the last record.
    last: Option<Arc<str>>,
    /// Records read so far.
    records: u64,
    /// CRC-32 of the blocks read so far.
    crc: u32,
}

impl ImageDecoder {
    /// Takes the next block.
    ///
    /// - Errors: the block breaks the named rule, and the decoder is of no use any more.
    /// - Cost: O(log n) for each record; what is kept of values is copied.
    pub fn block(&mut self, block: &[u8]) -> Result<(), ImageError> {
        let mut rest = block;
        loop {
            let before = block.get(..block.len() - rest.len()).unwrap_or_default();
            let read = split(rest).and_then(|(kind, payload, behind)| {
                self.record(kind, payload, before)?;
                Ok(behind)
            });
            let record = self.records;
            rest = read.map_err(|source| ImageError::Record { record, source })?;
            self.records += 1;
            if rest.is_empty() {
                break;
            }
        }
        self.crc = crc32_after(self.crc, block);
        Ok(())
    }

    /// The tables, once the end was read.
    pub fn finish(self) -> Result<Tables, ImageError> {
        if self.has_ended() {
            Ok(self.tables)
        } else {
            Err(ImageError::Unfinished { records: self.records })
        }
    }

    /// Whether the tables so far hold a restore that was under way.
    pub(in crate::catalog) const fn holds_a_restore(&self) -> bool {
        self.tables.restoring.is_some()
    }

    /// Whether the end was read.
    pub(super) fn has_ended(&self) -> bool {
        self.kind == Kind::End
    }

    /// The tables so far.
    pub(super) fn into_tables(self) -> Tables {
        self.tables
    }

    /// What else an image holds of the restore that this is the decoder of.
    pub(super) fn head_of(&self, restoring: &Restoring) -> RestoreHead {
        let Restoring { id, next, bytes, .. } = *restoring;
        let (records, crc, head) = (self.records, self.crc, Head::of(&self.tables));
        RestoreHead { id, next, bytes, records, crc, head }
    }

    /// Takes one record; `before` is what stands before it in its block.
    fn record(&mut self, kind: Kind, payload: &[u8], before: &[u8]) -> Rule {
        let is_row = (Kind::Node..=Kind::LockDelay).contains(&kind);
        if let Some(restoring) = &mut self.tables.restoring
            && self.kind == Kind::Restore
            && is_row
        {
            return restoring.decoder.record(kind, payload, before);
        }
        match kind {
            Kind::Start => Err(out_of_place(kind)),
            Kind::Head => self.head(payload),
            Kind::Node => self.put_node(pack::from_bytes(payload)?),
            Kind::Service => self.put_service(pack::from_bytes(payload)?),
            Kind::Check => self.put_check(pack::from_bytes(payload)?),
            Kind::Coordinate => self.put_coordinate(pack::from_bytes(payload)?),
            Kind::ServiceIndex => self.put_service_index(payload),
            Kind::Entry => self.put_entry(payload),
            Kind::Session => self.put_session(pack::from_bytes(payload)?),
            Kind::Prepared => self.put_prepared(pack::from_bytes(payload)?),
            Kind::Lock => self.put_lock(payload),
            Kind::LockDelay => self.put_delay(payload),
            Kind::Tombstone => self.put_tombstone(payload),
            Kind::Restore => self.put_restore(pack::from_bytes(payload)?),
            Kind::RestoreEnd => self.end_restore(payload),
            Kind::End => self.end(payload, before),
        }
    }

    fn head(&mut self, payload: &[u8]) -> Rule {
        let field = Kind::Head.name();
        if self.kind != Kind::Start {
            return Err(out_of_place(Kind::Head));
        }
        let (version, head) = payload.split_first().ok_or(DecodeError::Truncated { field })?;
        if *version != VERSION {
            let field = "version of the image";
            return Err(DecodeError::Unknown { field, value: u64::from(*version) });
        }
        self.tables = pack::from_bytes::<Head>(head)?.into_tables();
        self.kind = Kind::Head;
        Ok(())
    }

    /// Goes on to a record of this kind and key: it must be in its place and in order.
    fn go_on(&mut self, kind: Kind, key: &Arc<str>) -> Rule {
        let on_node = matches!(kind, Kind::Service | Kind::Check | Kind::Coordinate);
        let first = if on_node { Kind::Node } else { Kind::Head };
        let last = if kind == Kind::Node { Kind::Coordinate } else { kind };
        if self.kind < first || self.kind > last {
            return Err(out_of_place(kind));
        }
        let before = if kind == Kind::Node { self.node.as_ref() } else { self.last_of(kind) };
        if before.is_some_and(|before| before >= key) {
            return Err(broken(kind, "its key is not above the one before it"));
        }
        self.close(kind)?;
        (self.kind, self.last) = (kind, Some(Arc::clone(key)));
        Ok(())
    }

    /// The key of the last record, if it is of this kind.
    fn last_of(&self, kind: Kind) -> Option<&Arc<str>> {
        self.last.as_ref().filter(|_| self.kind == kind)
    }

    /// Ends what ends before a record of this kind.
    fn close(&mut self, kind: Kind) -> Rule {
        if kind == Kind::Node || kind > Kind::Coordinate {
            self.show_instances();
        }
        if kind > Kind::ServiceIndex && self.kind <= Kind::ServiceIndex {
            let last = self.last_of(Kind::ServiceIndex);
            if self.service_without_index(last).is_some() {
                return Err(broken(kind, "a service before it has no index"));
            }
        }
        Ok(())
    }

    fn put_node(&mut self, node: Node) -> Rule {
        let (kind, key) = (Kind::Node, keys::node(&node.name));
        self.go_on(kind, &key)?;
        let newest = self.tables.changed.nodes;
        ascend(kind, [node.create_index, node.modify_index, newest])?;
        if let Some(id) = node.id
            && self.tables.node_ids.insert(id, Arc::clone(&key)).is_some()
        {
            return Err(broken(kind, "its identity is another node's"));
        }
        self.tables.addresses.insert(&node.address, || Holder::Node(Arc::clone(&key)));
        let row = NodeRow { node: Arc::new(node), checks: Arc::from([]) };
        self.tables.nodes.insert(Arc::clone(&key), row);
        self.node = Some(key);
        Ok(())
    }

    /// The node that the record is on, with its key.
    fn on_node(&self, kind: Kind) -> Result<(Arc<str>, &Node), DecodeError> {
        let key = self.node.as_ref().ok_or_else(|| out_of_place(kind))?;
        let row = self.tables.nodes.get(key).ok_or_else(|| out_of_place(kind))?;
        Ok((Arc::clone(key), &row.node))
    }

    fn put_service(&mut self, service: Service) -> Rule {
        let kind = Kind::Service;
        let (node, _) = self.on_node(kind)?;
        let key = keys::on_node(&node, service.id.as_str());
        self.go_on(kind, &key)?;
        let newest = self.tables.changed.services;
        ascend(kind, [service.create_index, service.modify_index, newest])?;
        if !service.weights.is_legal() {
            return Err(broken(kind, "its weights are not legal"));
        }
        self.tables.services.insert(key, Arc::new(service));
        Ok(())
    }

    fn put_check(&mut self, check: Check) -> Rule {
        let kind = Kind::Check;
        let (node, named) = self.on_node(kind)?;
        if check.node != named.name {
            return Err(broken(kind, "it is on another node"));
        }
        let key = keys::on_node(&node, check.id.as_str());
        self.go_on(kind, &key)?;
        let newest = self.tables.changed.checks;
        ascend(kind, [check.create_index, check.modify_index, newest])?;
        let (name, tags) = match &check.service_id {
            None => ("", &[][..]),
            Some(id) => {
                let service = self.tables.services.get(&*keys::on_node(&node, id.as_str()));
                let service = service.ok_or_else(|| broken(kind, "its service is missing"))?;
                (service.name.as_str(), &service.tags[..])
            }
        };
        if check.service_name != name || check.service_tags != tags {
            return Err(broken(kind, "it has not the name and tags of its service"));
        }
        self.tables.checks.insert(key, Arc::new(check));
        Ok(())
    }

    fn put_coordinate(&mut self, row: NodeCoordinate) -> Rule {
        let kind = Kind::Coordinate;
        let (node, named) = self.on_node(kind)?;
        if row.node != named.name {
            return Err(broken(kind, "it is on another node"));
        }
        let key = keys::on_node(&node, &row.segment);
        self.go_on(kind, &key)?;
        self.tables.coordinates.insert(key, Arc::new(row));
        Ok(())
    }

    /// Makes the instances of the node whose part ends, and expects an index of each service.
    fn show_instances(&mut self) {
        let Some(key) = self.node.take() else { return };
        let tables = &mut self.tables;
        let mut of_node = Vec::new();
        let mut own: BTreeMap<&ServiceId, Vec<Arc<Check>>> = BTreeMap::new();
        for check in keys::under(&tables.checks, &key) {
            match &check.service_id {
                None => of_node.push(Arc::clone(check)),
                Some(id) => own.entry(id).or_default().push(Arc::clone(check)),
            }
        }
        let Some(row) = tables.nodes.get_mut(&key) else { return };
        if !of_node.is_empty() {
            row.checks = of_node.into();
        }
        for service in keys::under(&tables.services, &key) {
            let own = own.remove(&service.id).unwrap_or_default();
            let checks = row.checks.iter().cloned().chain(own).collect();
            let (node, service) = (Arc::clone(&row.node), Arc::clone(service));
            let name = keys::service(&service.name);
            let place = keys::instance(&name, &key, service.id.as_str());
            let holder = || Holder::Service(Arc::clone(&place));
            tables.addresses.insert(&service.address, holder);
            tables.instances.insert(place, Arc::new(Instance { node, service, checks }));
            tables.service_indexes.insert(name, ModifyIndex::ZERO);
        }
    }

    /// The first service behind `last`, all of which have no index yet.
    fn service_without_index(&self, last: Option<&Arc<str>>) -> Option<&Arc<str>> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = (from, Bound::Unbounded);
        self.tables.service_indexes.range::<_, Arc<str>>(behind).next().map(|(name, _)| name)
    }

    fn put_service_index(&mut self, payload: &[u8]) -> Rule {
        let kind = Kind::ServiceIndex;
        let (index, name) = index_and_key(kind, payload)?;
        let last = self.last_of(kind).cloned();
        self.go_on(kind, &name)?;
        if self.service_without_index(last.as_ref()) != Some(&name) {
            return Err(broken(kind, "it is not the next service's"));
        }
        let changed = &self.tables.changed;
        let newest = changed.nodes.max(changed.services).max(changed.checks);
        ascend(kind, [ModifyIndex::new(1), index, newest])?;
        self.tables.service_indexes.insert(name, index);
        Ok(())
    }

    fn put_entry(&mut self, payload: &[u8]) -> Rule {
        let kind = Kind::Entry;
        let mut rest = payload;
        let create_index = ModifyIndex::new(number(kind, &mut rest)?);
        let modify_index = ModifyIndex::new(number(kind, &mut rest)?);
        let flags = number(kind, &mut rest)?;
        let truncated = || DecodeError::Truncated { field: kind.name() };
        let (length, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| truncated())?;
        let (key, value) = rest.split_at_checked(length).ok_or_else(truncated)?;
        let key = text(kind, key)?;
        self.go_on(kind, &key)?;
        ascend(kind, [create_index, modify_index, self.tables.kv.changed])?;
        let value = Bytes::copy_from_slice(value);
        let entry = KvEntry { key, value, flags, lock: None, create_index, modify_index };
        self.tables.kv.insert(entry);
        Ok(())
    }

    fn put_session(&mut self, session: Session) -> Rule {
        let (kind, node) = (Kind::Session, keys::node(&session.node));
        self.go_on(kind, &keys::on_node(&node, &session.id.to_string()))?;
        ascend(kind, [ModifyIndex::ZERO, session.create_index, self.tables.changed.sessions])?;
        if self.tables.nodes.get(&node).is_none_or(|row| row.node.name != session.node) {
            return Err(broken(kind, "its node is missing"));
        }
        if self.tables.session_ids.contains_key(&session.id) {
            return Err(broken(kind, "it stands on two nodes"));
        }
        let is_critical = |check: &Arc<Check>| check.status == CheckStatus::Critical;
        for id in session.depends_on() {
            let check = self.tables.checks.get(&*keys::on_node(&node, id.as_str()));
            if check.is_none_or(is_critical) {
                return Err(broken(kind, "a check of it is missing or critical"));
            }
        }
        self.tables.put_session(&node, Arc::new(session));
        Ok(())
    }

    fn put_prepared(&mut self, query: PreparedQuery) -> Rule {
        let kind = Kind::Prepared;
        self.go_on(kind, &query.id.to_string().into())?;
        ascend(kind, [query.create_index, query.modify_index, self.tables.prepared.changed])?;
        if query.session.is_some_and(|id| !self.tables.session_ids.contains_key(&id)) {
            return Err(broken(kind, "its session is missing"));
        }
        if self.tables.prepared.check_name(&query).is_err() {
            return Err(broken(kind, "another one has its name"));
        }
        self.tables.prepared.insert(Arc::new(query));
        Ok(())
    }

    fn put_lock(&mut self, payload: &[u8]) -> Rule {
        let (kind, mut rest) = (Kind::Lock, payload);
        let index = number(kind, &mut rest)?;
        let truncated = || DecodeError::Truncated { field: kind.name() };
        let (session, rest) = rest.split_first_chunk::<16>().ok_or_else(truncated)?;
        let session = (*session != [0; 16]).then(|| SessionId::from_bytes(*session));
        let key = text(kind, rest)?;
        self.go_on(kind, &key)?;
        let entry = self.tables.kv.entries.get(&key);
        let entry = entry.ok_or_else(|| broken(kind, "its entry is missing"))?;
        let lock = KeyLock { index, session };
        if lock == KeyLock::default() {
            return Err(broken(kind, "it says nothing"));
        }
        if session.is_some_and(|id| !self.tables.session_ids.contains_key(&id)) {
            return Err(broken(kind, "its session is missing"));
        }
        let entry = KvEntry { lock: Some(Box::new(lock)), ..KvEntry::clone(entry) };
        self.tables.kv.insert(entry);
        Ok(())
    }

    fn put_delay(&mut self, payload: &[u8]) -> Rule {
        let (kind, mut rest) = (Kind::LockDelay, payload);
        let since = ModifyIndex::new(number(kind, &mut rest)?);
        let delay = Duration::from_nanos(number(kind, &mut rest)?);
        let key = text(kind, rest)?;
        self.go_on(kind, &key)?;
        ascend(kind, [ModifyIndex::ZERO, since, self.tables.changed.sessions])?;
        if delay.is_zero() || delay > LOCK_DELAY_MAX {
            return Err(broken(kind, "it is not between 0 and 60 s"));
        }
        self.tables.kv.delays.insert(key, LockDelay { since, delay });
        Ok(())
    }

    fn put_tombstone(&mut self, payload: &[u8]) -> Rule {
        let kind = Kind::Tombstone;
        let (index, key) = index_and_key(kind, payload)?;
        self.go_on(kind, &key)?;
        ascend(kind, [ModifyIndex::ZERO, index, self.tables.kv.changed])?;
        self.tables.kv.tombstones.insert(Arc::clone(&key), index);
        self.tables.kv.deletions.insert((index, key));
        Ok(())
    }

    fn end(&mut self, payload: &[u8], before: &[u8]) -> Rule {
        let kind = Kind::End;
        if self.kind == Kind::Start || self.kind == kind {
            return Err(out_of_place(kind));
        }
        let mut rest = payload;
        if number(kind, &mut rest)? != self.records {
            return Err(broken(kind, "it counts other records"));
        }
        if rest != crc32_after(self.crc, before).to_be_bytes() {
            return Err(DecodeError::Checksum { field: "image" });
        }
        self.go_behind(kind)
    }

    /// Goes on to a record that has no key.
    fn go_behind(&mut self, kind: Kind) -> Rule {
        self.close(kind)?;
        (self.kind, self.last) = (kind, None);
        Ok(())
    }

    /// A restore was under way; its rows follow.
    fn put_restore(&mut self, restore: RestoreHead) -> Rule {
        let kind = Kind::Restore;
        if self.kind == Kind::Start || self.kind >= kind {
            return Err(out_of_place(kind));
        }
        self.go_behind(kind)?;
        let RestoreHead { id, next, bytes, records, crc, head } = restore;
        let counts = 1..=bytes;
        if !counts.contains(&next) || !counts.contains(&records) || bytes > RESTORE_BYTES_MAX {
            return Err(broken(kind, "its counts are out of range"));
        }
        let tables = head.into_tables();
        let decoder = Self { tables, kind: Kind::Head, node: None, last: None, records, crc };
        self.tables.restoring = Some(Box::new(Restoring { id, next, bytes, decoder }));
        Ok(())
    }

    fn end_restore(&mut self, payload: &[u8]) -> Rule {
        let kind = Kind::RestoreEnd;
        if self.kind != Kind::Restore {
            return Err(out_of_place(kind));
        }
        if !payload.is_empty() {
            return Err(broken(kind, "it holds something"));
        }
        if let Some(restoring) = &mut self.tables.restoring {
            restoring.decoder.go_behind(Kind::End)?;
        }
        self.go_behind(kind)
    }
}

/// The first record of `bytes`, and what follows it.
fn split(bytes: &[u8]) -> Result<(Kind, &[u8], &[u8]), DecodeError> {
    let truncated = || DecodeError::Truncated { field: "record" };
    let (length, rest) = bytes.split_first_chunk().ok_or_else(truncated)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| truncated())?;
    let (record, behind) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let (tag, payload) = record.split_first().ok_or_else(truncated)?;
    let unknown = || DecodeError::Unknown { field: "record", value: u64::from(*tag) };
    Ok((Kind::of_tag(*tag).ok_or_else(unknown)?, payload, behind))
}

const fn broken(kind: Kind, rule: &'static str) -> DecodeError {
    DecodeError::Invalid { field: kind.name(), rule }
}

const fn out_of_place(kind: Kind) -> DecodeError {
    broken(kind, "it is out of place")
}

/// When it was stored, when it changed, and when its table last changed.
fn ascend(kind: Kind, indexes: [ModifyIndex; 3]) -> Rule {
    if indexes.is_sorted() { Ok(()) } else { Err(broken(kind, "its index is out of range")) }
}

fn number(kind: Kind, rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let field = kind.name();
    let (number, behind) = rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
    *rest = behind;
    Ok(u64::from_be_bytes(*number))
}

fn text(kind: Kind, bytes: &[u8]) -> Result<Arc<str>, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| broken(kind, "its key is not UTF-8"))?;
    Ok(text.into())
}

fn index_and_key(kind: Kind, payload: &[u8]) -> Result<(ModifyIndex, Arc<str>), DecodeError> {
    let mut rest = payload;
    let index = ModifyIndex::new(number(kind, &mut rest)?);
    Ok((index, text(kind, rest)?))
}
