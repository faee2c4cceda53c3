//! Aliases of other nodes: looked at through the catalog, with reads that wait for a change.
//!
//! - Source: http-api.md §5.2. Each alias has one read on its way at most, so it costs the servers
//!   what one waiting client costs. A service without checks has to be asked for by itself.
//! - Differs: a node or service that the catalog does not know makes the alias critical; the
//!   reference's agent ended there.

use super::*;
use crate::catalog::model::Check;
use crate::catalog::query::{NodeChecksQuery, NodeQuery, Query, Rows};
use crate::id::ModifyIndex;
use crate::local::definition::{ALL_PASSING, AliasCheck, failing_text};
use crate::node::request::{Request, RequestBody, RequestContext, RequestError, Response};
use std::sync::Arc;

/// How long one read waits for a change.
const LOOK_WAIT: Duration = Duration::from_secs(60);
/// When a read is given up that `rpc` should have answered long before.
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);
/// Time between reads, so that a busy node does not keep its watchers busy.
pub(super) const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The longest time before a failed read is tried again.
const LOOK_RETRY_MAX: Duration = Duration::from_secs(60);

/// A read of the catalog that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    check: CheckId,
    /// What the node's checks say, if it only has to be known whether the service is there.
    known: Option<(CheckStatus, String)>,
}

/// Whether this is an alias of another node.
pub(super) const fn is_remote(kind: &CheckKind) -> bool {
    matches!(kind, CheckKind::Alias(AliasCheck { node: Some(_), .. }))
}

impl Checks {
    /// Asks for the checks of the alias's node, once they are newer than what is known of them.
    pub(super) fn look(&mut self, now: Instant, check: CheckId, out: &mut Outbox<ChecksOutput>) {
        let Some(entry) = self.entries.get(&check) else { return };
        let CheckKind::Alias(AliasCheck { node: Some(node), .. }) = &entry.definition.kind else {
            return;
        };
        let known = entry.seen > ModifyIndex::ZERO;
        let context = RequestContext {
            min_index: entry.seen,
            wait: known.then_some(LOOK_WAIT),
            ..RequestContext::default()
        };
        let query = Query::NodeChecks(NodeChecksQuery::all(node.clone()));
        self.ask(now, Look { check, known: None }, (context, query), out);
    }

    fn ask(
        &mut self,
        now: Instant,
        look: Look,
        (context, query): (RequestContext, Query),
        out: &mut Outbox<ChecksOutput>,
    ) {
        let Some(entry) = self.entries.get_mut(&look.check) else { return };
        self.runs = self.runs.saturating_add(1);
        let run = self.runs;
        entry.phase = Phase::Running(run);
        self.timers.set(CheckTimer::Check(look.check.clone()), now + LOOK_TIMEOUT);
        self.looks.insert(run, look);
        let request = Arc::new(Request { context, body: RequestBody::Query(query) });
        out.push(ChecksOutput::Look { run, request });
    }

    /// A read ended, well or not.
    pub(super) fn looked(
        &mut self,
        now: Instant,
        run: u64,
        result: Result<Response, RequestError>,
        out: &mut Outbox<ChecksOutput>,
    ) {
        let Some(Look { check, known }) = self.looks.remove(&run) else { return };
        let current = self.entries.get_mut(&check).filter(|it| it.phase == Phase::Running(run));
        let Some(entry) = current else { return };
        let CheckKind::Alias(AliasCheck { node: Some(node), service }) = &entry.definition.kind
        else {
            return;
        };
        let decided = match rows(result) {
            Ok((Rows::Checks(checks), index)) => {
                entry.seen = index;
                let state = judge(&checks, service.as_ref(), entry.definition.output_max_size);
                let unseen = |id: &ServiceId| {
                    !checks.iter().any(|check| check.service_id.as_ref() == Some(id))
                };
                if service.as_ref().is_some_and(unseen) {
                    let query = Query::Node(NodeQuery::all(node.as_str()));
                    let look = Look { check, known: Some(state) };
                    self.ask(now, look, (RequestContext::default(), query), out);
                    return;
                }
                let nothing = checks.iter().all(|check| check.service_id.is_some());
                match service {
                    None if nothing => Ok(critical(format!("Node {node} has no checks"))),
                    None | Some(_) => Ok(state),
                }
            }
            Ok((Rows::Node(found), _)) => {
                // A name may also have matched the beginning of another node's identity.
                let found = found.filter(|found| found.node.name.folded() == node.folded());
                let services = found.into_iter().flat_map(|found| found.services);
                let there = services.map(|it| it.id.clone()).any(|id| Some(id) == *service);
                let service = service.as_ref().map(ServiceId::as_str).unwrap_or_default();
                let gone = || format!("Service {service} could not be found on node {node}");
                Ok(known.filter(|_| there).unwrap_or_else(|| critical(gone())))
            }
            Ok((rows, _)) => Err(format!("a query was answered with other rows: {rows:?}")),
            Err(error) => Err(error),
        };
        entry.failures = if decided.is_ok() { 0 } else { entry.failures.saturating_add(1) };
        let (status, output) = decided.unwrap_or_else(|error| {
            entry.seen = ModifyIndex::ZERO;
            critical(format!("Failed checking aliased node or service: {error}"))
        });
        let retry = LOOK_PAUSE * 2_u32.saturating_pow(entry.failures.min(6));
        entry.phase = Phase::Waiting;
        entry.took_status(&status, now);
        self.timers.set(CheckTimer::Check(check.clone()), now + retry.min(LOOK_RETRY_MAX));
        out.push(ChecksOutput::Result { check, status, output });
    }
}

const fn critical(output: String) -> (CheckStatus, String) {
    (CheckStatus::Critical, output)
}

fn rows(result: Result<Response, RequestError>) -> Result<(Rows, ModifyIndex), String> {
    let response = result.map_err(|error| error.to_string())?;
    let Response::Answer(answer) = response else {
        return Err(format!("a query was answered with {response:?}"));
    };
    let answer = Arc::unwrap_or_clone(answer);
    Ok((answer.rows, answer.index))
}

/// What the checks of a node say of the node itself and of one of its services.
fn judge(
    checks: &[Arc<Check>],
    service: Option<&ServiceId>,
    limit: usize,
) -> (CheckStatus, String) {
    let counts = |check: &&Arc<Check>| {
        check.service_id.is_none() || service.is_some() && check.service_id.as_ref() == service
    };
    let first =
        |status: CheckStatus| checks.iter().filter(counts).find(|check| check.status == status);
    match first(CheckStatus::Critical).or_else(|| first(CheckStatus::Warning)) {
        Some(bad) => (bad.status.clone(), failing_text(&bad.name, &bad.output, limit)),
        None => (CheckStatus::Passing, ALL_PASSING.to_owned()),
    }
}
