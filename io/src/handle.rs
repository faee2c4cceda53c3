//! The door to a running node for everything in this package that serves somebody.
//!
//! Reads that may be answered here never queue behind the node: they take the published
//! [`View`] and the clock, in this order. Everything else is a request over a bounded channel; a
//! full channel is answered with `Overloaded`, never waited for.

use crate::bell::Bell;
use crate::clock::Clock;
use crate::fanout::EventFan;
use crate::oneshot;
use crate::telemetry::Metrics;
use arc_swap::{ArcSwap, Guard};
use smol::channel::{Receiver, Sender, TrySendError};
use std::sync::Arc;
use terraform_core::catalog::query::{Query, QueryAnswer};
use terraform_core::node::request::{Request, RequestBody, RequestContext, RequestError, Response};
use terraform_core::serf::QueryHeard;
use terraform_core::view::View;

/// One request with the way back for its answer.
#[derive(Debug)]
pub struct Call {
    /// What is asked; whoever asks may keep it too.
    pub request: Arc<Request>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Response, RequestError>>,
    /// Where goes what members say to a query while it runs, for whom the answer alone is too late.
    pub heard: Option<Sender<QueryHeard>>,
}

/// Answers of members that wait for whoever asked.
const HEARD_MAX: usize = 512;

/// An answer on its way. Dropping it abandons the request; what it asked for goes on.
#[derive(Debug)]
pub struct Answer(oneshot::Receiver<Result<Response, RequestError>>);

impl Answer {
    /// Waits for it.
    pub async fn wait(self) -> Result<Response, RequestError> {
        let text = "the agent stopped before the outcome was known";
        self.0.await.unwrap_or_else(|| Err(RequestError::Unknown(text.to_owned())))
    }

    /// Whether it is there, so that `wait` does not wait.
    pub fn is_there(&self) -> bool {
        self.0.is_there()
    }
}

/// A cheap, clonable handle to the node.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    view: Arc<ArcSwap<View>>,
    calls: Sender<Call>,
    clock: Clock,
    fan: Arc<EventFan>,
    metrics: Arc<Metrics>,
    registered: Arc<Bell>,
}

impl NodeHandle {
    /// A handle that reads `view` and asks through `calls`.
    pub fn new(view: Arc<ArcSwap<View>>, calls: Sender<Call>, clock: Clock) -> Self {
        let metrics = Arc::new(Metrics::new(view.load().name.as_str(), clock.wall()));
        Self { view, calls, clock, fan: Arc::default(), metrics, registered: Arc::default() }
    }

    /// Who is told of the node's Serf events. An event is told after the view that shows it.
    pub const fn fan(&self) -> &Arc<EventFan> {
        &self.fan
    }

    /// Rings when the published services of this agent are others.
    pub const fn registered(&self) -> &Arc<Bell> {
        &self.registered
    }

    /// What is measured of this agent.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The newest published view. Hold it briefly, and never while waiting for the network.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The node's clock.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether the node has stopped, so that every request is answered with `Stopping`.
    pub fn has_stopped(&self) -> bool {
        self.calls.is_closed()
    }

    /// Asks the node now; the future waits for its answer and is small, for it holds no request.
    ///
    /// A node that went away before it answered may have taken the request to others already, so
    /// the outcome is unknown; `Stopping` promises that nothing happened.
    pub fn request<R: Into<Arc<Request>>>(
        &self,
        request: R,
    ) -> impl Future<Output = Result<Response, RequestError>> + use<R> {
        let asked = self.submit(request);
        async { asked?.wait().await }
    }

    /// Asks the node; requests reach it in the order of these calls.
    pub fn submit(&self, request: impl Into<Arc<Request>>) -> Result<Answer, RequestError> {
        self.call(request.into(), None)
    }

    /// Asks members through the node: the answer, and what members say until then. Where that is
    /// taken too slowly some is left out; the answer has everything.
    pub fn submit_query(
        &self,
        request: Request,
    ) -> Result<(Answer, Receiver<QueryHeard>), RequestError> {
        let (heard, told) = smol::channel::bounded(HEARD_MAX);
        Ok((self.call(Arc::new(request), Some(heard))?, told))
    }

    fn call(
        &self,
        request: Arc<Request>,
        heard: Option<Sender<QueryHeard>>,
    ) -> Result<Answer, RequestError> {
        let (reply, answer) = oneshot::oneshot();
        match self.calls.try_send(Call { request, reply, heard }) {
            Ok(()) => Ok(Answer(answer)),
            Err(TrySendError::Full(_)) => {
                let queue = "the agent's request queue is full".to_owned();
                Err(RequestError::Overloaded(queue))
            }
            Err(TrySendError::Closed(_)) => Err(RequestError::Stopping),
        }
    }

    /// Reads the catalog: now and from the view if its rules allow, else through the node.
    pub fn query(
        &self,
        context: RequestContext,
        query: Query,
    ) -> impl Future<Output = Result<QueryAnswer, RequestError>> + use<> {
        let local = self.view().answer(&context, &query, self.clock.now());
        let answer = match local {
            Some(answer) => Ok(answer),
            None => Err(self.request(Request { context, body: RequestBody::Query(query) })),
        };
        async {
            let asked = match answer {
                Ok(answer) => return Ok(answer),
                Err(asked) => asked,
            };
            asked.await.and_then(read_answer).map(Arc::unwrap_or_clone)
        }
    }
}

/// What a read was answered with.
pub(crate) fn read_answer(response: Response) -> Result<Arc<QueryAnswer>, RequestError> {
    let Response::Answer(answer) = response else {
        return Err(RequestError::Unknown(format!("a query was answered with {response:?}")));
    };
    Ok(answer)
}
