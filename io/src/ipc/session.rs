//! One client of the control port: what it may do when, and the answers it gets.

use super::Control;
use super::filter::Members;
use crate::resolve::addresses;
use crate::runtime::spawn;
use bytes::Bytes;
use smol::Task;
use smol::channel::Sender;
use terraform_core::id::NodeName;
use terraform_core::node::request::{self, RequestBody};
use terraform_core::trace::Level;
use terraform_core::wire::ipc::{
    Body, Command, Coordinate, CoordinateReply, Filter, IPC_VERSION, Join, KeysReply, Member,
    Request, Response, Stats,
};

/// Addresses in one `join`.
const JOIN_MAX: usize = 256;

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next request is taken.
    Go,
    /// It is closed.
    Close,
}

/// One connection's state.
pub(super) struct Session {
    control: Control,
    queue: Sender<Bytes>,
    greeted: bool,
    /// The subscription to the log, with the number of its request.
    monitor: Option<(u64, Task<()>)>,
}

/// An error text and the body beside it.
type Answer = (String, Option<Body>);

impl Session {
    pub(super) const fn new(control: Control, queue: Sender<Bytes>) -> Self {
        Self { control, queue, greeted: false, monitor: None }
    }

    /// Whether the handshake is done.
    pub(super) const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Executes one request and answers it.
    pub(super) async fn take(&mut self, request: Request) -> Verdict {
        let Request { seq, command } = request;
        if !self.greeted && !matches!(command, Command::Handshake { .. }) {
            self.answer(seq, ("Handshake required".to_owned(), None)).await;
            return Verdict::Close;
        }
        if let Command::Monitor { level } = &command {
            return self.watch(seq, level).await;
        }
        let known = !matches!(command, Command::Unknown(_));
        let verdict = if known { Verdict::Go } else { Verdict::Close };
        let Some(answer) = self.execute(command).await else { return Verdict::Close };
        if self.answer(seq, answer).await { verdict } else { Verdict::Close }
    }

    /// Queues a response; false if the client is gone.
    async fn answer(&self, seq: u64, (error, body): Answer) -> bool {
        let response = Response { seq, error, body };
        self.queue.send(response.encode()).await.is_ok()
    }

    /// The answer to a command; `None` if the connection is to be closed without one.
    async fn execute(&mut self, command: Command) -> Option<Answer> {
        Some(match command {
            Command::Handshake { version } => self.greet(version),
            Command::Auth { key } if key.is_empty() => done(),
            Command::Auth { .. } => error("Invalid authentication token"),
            Command::ForceLeave { node, prune } => match NodeName::parse(&node) {
                Ok(node) => self.ask(RequestBody::ForceLeave { node, prune }).await,
                Err(refused) => error(&refused.to_string()),
            },
            Command::Join(join) => self.join(join).await,
            Command::Members | Command::MembersLan => (String::new(), Some(self.members(|_| true))),
            Command::MembersWan => (WAN.to_owned(), Some(Body::Members(Vec::new()))),
            Command::Leave { force } => self.ask(RequestBody::Leave { force }).await,
            Command::Stop { seq } => {
                self.monitor.take_if(|(subscription, _)| *subscription == seq);
                done()
            }
            Command::Stats => self.stats().await,
            Command::Reload => match (self.control.reload)().await {
                Ok(()) => done(),
                Err(text) => error(&text),
            },
            Command::Respond(_) => error("No pending queries matching ID"),
            Command::Event(_) => not_built("user events"),
            Command::Query(_) => not_built("queries"),
            Command::Stream { .. } => not_built("event streams"),
            Command::Tags(_) => not_built("changing tags"),
            Command::GetCoordinate { .. } => {
                let unknown = CoordinateReply { coordinate: Coordinate::default(), ok: false };
                (not_built("network coordinates").0, Some(Body::Coordinate(unknown)))
            }
            Command::InstallKey { .. }
            | Command::UseKey { .. }
            | Command::RemoveKey { .. }
            | Command::ListKeys => (not_built("gossip encryption").0, Some(no_keys())),
            Command::MembersFiltered(filter) => return self.filtered(filter),
            Command::Unknown(_) => error("Unsupported command"),
            Command::Monitor { .. } => unreachable!("a subscription to the log is taken before"),
        })
    }

    fn greet(&mut self, version: u64) -> Answer {
        if self.greeted {
            return error("Handshake already performed");
        }
        if version != IPC_VERSION {
            return error("Unsupported IPC version");
        }
        self.greeted = true;
        done()
    }

    async fn request(&self, body: RequestBody) -> Result<request::Response, String> {
        let answer = self.control.node.request(request::Request::new(body)).await;
        answer.map_err(|refused| refused.to_string())
    }

    async fn ask(&self, body: RequestBody) -> Answer {
        (self.request(body).await.err().unwrap_or_default(), None)
    }

    fn members(&self, wanted: impl Fn(&terraform_core::serf::Member) -> bool) -> Body {
        let view = self.control.node.view();
        let members = view.members.iter().filter(|member| wanted(member));
        Body::Members(members.map(Member::from).collect())
    }

    /// The members that match; `None` for a bad filter.
    fn filtered(&self, filter: Filter) -> Option<Answer> {
        let filter = Members::new(filter)?;
        Some((String::new(), Some(self.members(|member| filter.wants(member)))))
    }

    async fn join(&self, join: Join) -> Answer {
        let reached = |reached| Some(Body::Join { reached });
        if join.wan {
            return (WAN.to_owned(), reached(0));
        }
        if join.addresses.is_empty() || join.addresses.len() > JOIN_MAX {
            return (format!("give 1 to {JOIN_MAX} addresses to join"), reached(0));
        }
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for text in &join.addresses {
            match addresses(text, self.control.join_port).await {
                Ok(addresses) => found.extend(addresses),
                Err(refused) => errors.push(refused.to_string()),
            }
        }
        if found.is_empty() {
            return (errors.join("; "), reached(0));
        }
        match self.request(RequestBody::Join { addresses: found, replay: join.replay }).await {
            Ok(request::Response::Joined(count)) => (String::new(), reached(count as u64)),
            Ok(other) => (format!("a join was answered with {other:?}"), reached(0)),
            Err(text) => (text, reached(0)),
        }
    }

    async fn stats(&self) -> Answer {
        match self.request(RequestBody::Info).await {
            Ok(request::Response::Info(sections)) => (String::new(), Some(Body::Stats(sections))),
            Ok(other) => (format!("stats were answered with {other:?}"), Some(no_stats())),
            Err(text) => (text, Some(no_stats())),
        }
    }

    /// Subscribes to the log: the answer, the kept lines, then those to come.
    async fn watch(&mut self, seq: u64, level: &str) -> Verdict {
        let refused = if self.monitor.is_some() {
            Some("Monitor already exists".to_owned())
        } else if Level::parse(level).is_none() {
            Some(format!("Unknown log level: {}", level.to_ascii_uppercase()))
        } else {
            None
        };
        let subscribed = refused.is_none();
        if !self.answer(seq, (refused.unwrap_or_default(), None)).await {
            return Verdict::Close;
        }
        if let Some(level) = Level::parse(level).filter(|_| subscribed) {
            let (kept, coming) = self.control.logs.subscribe(level);
            let queue = self.queue.clone();
            let record = move |line: &str| {
                let body = Some(Body::Log(line.to_owned()));
                Response { seq, error: String::new(), body }.encode()
            };
            let task = spawn(async move {
                for line in kept {
                    if queue.send(record(&line)).await.is_err() {
                        return;
                    }
                }
                while let Ok(line) = coming.recv().await {
                    if queue.send(record(&line)).await.is_err() {
                        return;
                    }
                }
            });
            self.monitor = Some((seq, task));
        }
        Verdict::Go
    }
}

const WAN: &str = "WAN gossip is not built yet";

const fn done() -> Answer {
    (String::new(), None)
}

fn error(text: &str) -> Answer {
    (text.to_owned(), None)
}

fn not_built(what: &str) -> Answer {
    (format!("{what}: not built yet"), None)
}

const fn no_stats() -> Body {
    Body::Stats(Stats::new())
}

const fn no_keys() -> Body {
    use std::collections::BTreeMap;
    let messages = BTreeMap::new();
    Body::Keys(KeysReply { keys: None, messages, errors: 0, nodes: 0, responses: 0 })
}
