//! Watching something: what the command `watch` and the watches of an agent share (cli.md §7).

mod handler;
mod plan;
mod subject;
mod watches;

use serde_json::Value;
use std::time::Duration;

pub(crate) use handler::{Handler, HttpHandler};
pub(crate) use plan::Plan;
pub(crate) use subject::Parameters;
pub(crate) use subject::Subject;
pub(crate) use watches::WatchDefinition;
pub(crate) use watches::Watches;
use watches::{Stop, Voice};

/// How long an agent may let a look wait: the five minutes after which it answers by itself, a
/// sixteenth of them to spread the answers (http-api.md §1.3), and time for the way.
pub(crate) const LOOK_TIME: Duration = Duration::from_secs(300 + 19 + 30);

/// The parameters of the next look, which waits until there is something new.
pub(crate) fn query(subject: &Subject, plan: &Plan) -> Vec<String> {
    let mut query = subject.query();
    query.extend(plan.index().map(|index| format!("index={index}")));
    query
}

/// The result in an answer with its index; `None` if the status tells of a failure.
///
/// - Errors: why the answer is of no use.
pub(crate) fn result(
    subject: &Subject,
    (status, index, body): (u16, Option<&str>, &[u8]),
) -> Result<Option<(u64, Value)>, String> {
    let found = match status {
        200 => {
            serde_json::from_slice(body).map_err(|error| format!("unreadable answer: {error}"))?
        }
        404 if subject.may_be_missing() => Value::Null,
        _ => return Ok(None),
    };
    // Without an index the next look would not wait.
    let index = index.and_then(|text| text.parse().ok()).filter(|index| *index > 0);
    let index = index.ok_or("the agent tells no index")?;
    Ok(Some((index, subject.result(found))))
}
