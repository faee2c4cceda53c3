//! Bodies of session creations (http-api.md §10).

use super::read;
use crate::duration;
use crate::http::decode::{self, DecodeError};
use crate::http::respond::Reply;
use serde_json::Value;
use std::time::Duration;
use terraform_core::catalog::command::SERF_HEALTH;
use terraform_core::catalog::lock::Behavior;
use terraform_core::catalog::session::{LOCK_DELAY_DEFAULT, Session};
use terraform_core::id::{CheckId, ModifyIndex, NodeName, SessionId};

/// The longest TTL.
const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// What a session's identity is refused with that is none.
pub(super) const NOT_UUID: &str = "failed session lookup: index error: UUID must be 36 characters";
/// Numbers below this are seconds, others nanoseconds.
const SECONDS_BELOW: i64 = 1000;

/// A session as given; what is not there is `None`.
#[derive(Debug, Default)]
struct SessionBody {
    name: String,
    node: Option<String>,
    lock_delay: Option<Duration>,
    behavior: String,
    ttl: String,
    checks: Option<Vec<String>>,
    node_checks: Option<Vec<String>>,
    service_checks: Vec<String>,
}

/// The session that a body asks for, with the identity it gets, the node whose it is unless it
/// says otherwise, and the shortest TTL.
pub(in crate::http::api) fn creation(
    body: &[u8],
    (id, node, ttl_min): (SessionId, &NodeName, Duration),
) -> Result<Session, Reply> {
    let given = if body.is_empty() { SessionBody::default() } else { read(body, session)? };
    let node = match given.node.as_deref() {
        None => node.clone(),
        Some("") => return Err(Reply::text(500, "Must provide Node")),
        Some(name) => {
            NodeName::parse(name).map_err(|_| Reply::text(500, "Missing node registration"))?
        }
    };
    let behavior = match given.behavior.as_str() {
        "" | "release" => Behavior::Release,
        "delete" => Behavior::Delete,
        other => return Err(Reply::text(500, format!("Invalid Behavior setting '{other}'"))),
    };
    let ttl = ttl(&given.ttl, ttl_min)?;
    // An empty list in the old way asks for a session that depends on nothing.
    let depends = given.checks.as_ref().is_none_or(|checks| !checks.is_empty());
    let serf_health = || if depends { vec![SERF_HEALTH.to_owned()] } else { Vec::new() };
    Ok(Session {
        id,
        name: given.name,
        node,
        lock_delay: given.lock_delay.unwrap_or(LOCK_DELAY_DEFAULT),
        behavior,
        ttl,
        ttl_text: given.ttl,
        node_checks: check_ids(&given.node_checks.unwrap_or_else(serf_health))?,
        service_checks: check_ids(&given.service_checks)?,
        checks: check_ids(&given.checks.unwrap_or_default())?,
        create_index: ModifyIndex::ZERO,
    })
}

/// The session of this text.
pub(in crate::http::api) fn id(text: &str) -> Result<SessionId, Reply> {
    SessionId::parse(text).map_err(|_| Reply::text(500, NOT_UUID))
}

/// Unknown keys are ignored here, and only here.
fn session(value: &Value) -> Result<SessionBody, DecodeError> {
    let mut body = SessionBody::default();
    decode::each(value, "Session", |key, value| {
        match key {
            "name" => body.name = decode::string(value, "Name")?,
            "node" => body.node = present(value, "Node", decode::string)?,
            "lockdelay" => body.lock_delay = present(value, "LockDelay", lock_delay)?,
            "behavior" => body.behavior = decode::string(value, "Behavior")?,
            "ttl" => body.ttl = decode::string(value, "TTL")?,
            "checks" => body.checks = present(value, "Checks", texts)?,
            "nodechecks" => body.node_checks = present(value, "NodeChecks", texts)?,
            "servicechecks" => {
                body.service_checks = decode::list(value, "ServiceChecks", service_check)?;
            }
            _ => {}
        }
        Ok(true)
    })?;
    Ok(body)
}

fn present<T>(
    value: &Value,
    field: &'static str,
    read: impl FnOnce(&Value, &'static str) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if value.is_null() { Ok(None) } else { read(value, field).map(Some) }
}

fn texts(value: &Value, field: &'static str) -> Result<Vec<String>, DecodeError> {
    decode::list(value, field, decode::string)
}

fn service_check(value: &Value, field: &'static str) -> Result<String, DecodeError> {
    let mut id = String::new();
    decode::each(value, field, |key, value| {
        if key == "id" {
            id = decode::string(value, "ID")?;
        }
        Ok(true)
    })?;
    Ok(id)
}

fn lock_delay(value: &Value, field: &'static str) -> Result<Duration, DecodeError> {
    let seconds = value.as_i64().filter(|number| (0..SECONDS_BELOW).contains(number));
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => decode::duration(value, field),
    }
}

fn ttl(text: &str, ttl_min: Duration) -> Result<Duration, Reply> {
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    let invalid = |error| Reply::text(500, format!("Session TTL '{text}' invalid: {error}"));
    let ttl = duration::parse(text).map_err(invalid)?;
    if ttl.is_zero() || (ttl_min..=TTL_MAX).contains(&ttl) {
        return Ok(ttl);
    }
    let bounds = format!("[{}={}]", duration::text(ttl_min), duration::text(TTL_MAX));
    let nanos = ttl.as_nanos();
    Err(Reply::text(500, format!("Invalid Session TTL '{nanos}', must be between {bounds}")))
}

fn check_ids(texts: &[String]) -> Result<Vec<CheckId>, Reply> {
    let parsed = |text: &String| {
        let missing = |_| Reply::text(500, format!("Missing check '{text}' registration"));
        CheckId::parse(text).map_err(missing)
    };
    texts.iter().map(parsed).collect()
}
