//! Sessions of the clients, and the keys they hold with them (simulation.md §8, workload lock).

use super::history::{Call, OpId, value_of};
use super::{Ask, KvClients, any_consistency};
use crate::net::HostId;
use crate::question::Question;
use crate::world::World;
use std::time::Duration;
use terraform_core::catalog::command::SERF_HEALTH;
use terraform_core::catalog::kv::KvWrite;
use terraform_core::catalog::lock::{Behavior, KvLock};
use terraform_core::catalog::session::Session;
use terraform_core::id::{CheckId, ModifyIndex, SessionId};
use terraform_core::rng::Rng;

/// Keys that are held. Trees that are deleted do not reach them.
pub const LOCKS: [&str; 2] = ["lock/a", "lock/b"];
/// The TTL of all sessions that have one: the shortest there is.
pub const TTL: Duration = Duration::from_secs(10);
/// What makes an operation's number the identity of a session.
const MARK: u64 = 0x5e55_1017_5e55_1017;

/// What a session is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionShape {
    /// Whose node it is bound to.
    pub node: HostId,
    /// Whether it depends on the node's health.
    pub depends: bool,
    /// Whether it ends if nobody renews it.
    pub expires: bool,
    /// Whether what it holds is deleted.
    pub deletes: bool,
    /// Seconds of its lock delay.
    pub delay: u64,
}

/// The session that operation `id` makes.
pub fn session_of(id: OpId) -> SessionId {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&MARK.to_be_bytes());
    second.copy_from_slice(&id.to_be_bytes());
    SessionId::from_bytes(bytes)
}

/// The operation that made a session.
pub fn maker_of(session: SessionId) -> Option<OpId> {
    let (mark, id) = session.as_bytes().split_first_chunk::<8>()?;
    let id = id.first_chunk::<8>()?;
    (*mark == MARK.to_be_bytes()).then(|| u64::from_be_bytes(*id))
}

/// What a client does with sessions, locks, and the semaphore if there is one.
pub(super) fn any_lock_ask(
    rng: &mut Rng,
    (has_session, semaphore): (bool, bool),
    world: &World,
) -> Ask {
    if !has_session {
        return Ask::Open(SessionShape {
            node: rng.index(world.hosts.len()),
            depends: rng.chance(1, 2),
            expires: rng.chance(3, 4),
            deletes: rng.chance(1, 3),
            delay: [0, 1, 15][rng.index(3)],
        });
    }
    let key = LOCKS[usize::from(rng.chance(1, 3))].to_owned();
    match rng.below(if semaphore { 34 } else { 18 }) {
        0..7 => Ask::Acquire(key),
        7..10 => Ask::Release(key),
        10..15 => Ask::Renew,
        15 => Ask::Close,
        16..18 => {
            let consistency = any_consistency(rng);
            Ask::Read { question: Question::Key(key), consistency, view: rng.chance(1, 2) }
        }
        _ => Ask::Place { wants: rng.chance(3, 4) },
    }
}

impl KvClients {
    /// What a client that has this session asks for, if it needs none or has one.
    pub(super) fn session_call(
        id: OpId,
        ask: &Ask,
        session: Option<SessionId>,
        world: &World,
    ) -> Option<Call> {
        let lock = |key: &String, session| {
            let (key, value, flags) = (key.clone(), value_of(id), 0);
            KvLock { key, value, flags, session }
        };
        Some(match ask {
            Ask::Open(shape) => Call::Open(Box::new(made(id, *shape, world)?)),
            Ask::Acquire(key) => Call::Write(KvWrite::Acquire(lock(key, session?))),
            Ask::Release(key) => Call::Write(KvWrite::Release(lock(key, session?))),
            Ask::Renew => Call::Renew(session?),
            Ask::Close => Call::Close(session?),
            Ask::Put { .. }
            | Ask::Delete { .. }
            | Ask::DeleteTree(_)
            | Ask::Transaction(_)
            | Ask::Restore(_)
            | Ask::Save
            | Ask::PutBack
            | Ask::Place { .. }
            | Ask::Read { .. } => return None,
        })
    }
}

fn made(id: OpId, shape: SessionShape, world: &World) -> Option<Session> {
    let health = || CheckId::parse(SERF_HEALTH).ok();
    Some(Session {
        id: session_of(id),
        name: String::new(),
        node: world.hosts.get(shape.node)?.config.name.clone(),
        lock_delay: Duration::from_secs(shape.delay),
        behavior: if shape.deletes { Behavior::Delete } else { Behavior::Release },
        ttl: if shape.expires { TTL } else { Duration::ZERO },
        ttl_text: String::new(),
        node_checks: shape.depends.then(health).flatten().into_iter().collect(),
        service_checks: Vec::new(),
        checks: Vec::new(),
        create_index: ModifyIndex::ZERO,
    })
}
