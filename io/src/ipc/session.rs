//! One client of the control port: what it may do when, and the answers it gets.

use super::Control;
use super::filter::Members;
use super::stream::Records;
use crate::log::Monitor;
use crate::resolve::addresses;
use crate::runtime::spawn;
use bytes::Bytes;
use smol::Task;
use smol::channel::Sender;
use std::collections::BTreeMap;
use terraform_core::id::{NodeName, PoolName};
use terraform_core::node::request::{self, RequestBody};
use terraform_core::serf::KeyOperation;
use terraform_core::trace::Level;
use terraform_core::wire::ipc::{
    Body, Command, Filter, IPC_VERSION, Join, Member, Request, Response, Stats,
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
    pub(super) control: Control,
    pub(super) queue: Sender<Bytes>,
    greeted: bool,
    /// The subscription to the log, with the number of its request.
    monitor: Option<(u64, Task<()>)>,
    /// The subscriptions to events, by the numbers of their requests.
    pub(super) subscriptions: BTreeMap<u64, Task<()>>,
    /// The queries that run.
    pub(super) queries: Vec<Task<()>>,
}

/// An error text and the body beside it.
pub(super) type Answer = (String, Option<Body>);

impl Session {
    pub(super) fn new(control: Control, queue: Sender<Bytes>) -> Self {
        let (subscriptions, queries) = (BTreeMap::new(), Vec::new());
        Self { control, queue, greeted: false, monitor: None, subscriptions, queries }
    }

    /// Whether the handshake is done.
    pub(super) const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Executes one request and answers it.
    pub(super) async fn take(&mut self, request: Request) -> Verdict {
        let Request { seq, command } = request;
        if !self.greeted && !matches!(command, Command::Handshake { .. }) {
            self.verdict(seq, error("Handshake required")).await;
            return Verdict::Close;
        }
        if let Command::Monitor { level } = &command {
            return self.watch(seq, level).await;
        }
        if let Command::Stream { filter } = &command {
            return self.stream(seq, filter).await;
        }
        if let Command::Query(query) = &command {
            return self.query(seq, query).await;
        }
        let known = !matches!(command, Command::Unknown(_));
        let Some(answer) = self.execute(command).await else { return Verdict::Close };
        let verdict = self.verdict(seq, answer).await;
        if known { verdict } else { Verdict::Close }
    }

    /// Queues a response; the connection is of no more use if the client is gone.
    pub(super) async fn verdict(&self, seq: u64, (error, body): Answer) -> Verdict {
        let response = Response { seq, error, body };
        match self.queue.send(response.encode()).await {
            Ok(()) => Verdict::Go,
            Err(_) => Verdict::Close,
        }
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
            Command::Members => (String::new(), Some(self.members(|_| true))),
            Command::MembersLan => (String::new(), Some(self.pool(PoolName::Lan))),
            Command::MembersWan => (String::new(), Some(self.pool(PoolName::Wan))),
            Command::Leave { force } => self.ask(RequestBody::Leave { force }).await,
            Command::Stop { seq } => {
                self.monitor.take_if(|(subscription, _)| *subscription == seq);
                self.subscriptions.remove(&seq);
                done()
            }
            Command::Stats => self.stats().await,
            Command::Reload => match (self.control.reload)().await {
                Ok(()) => done(),
                Err(text) => error(&text),
            },
            Command::Respond(respond) => self.respond(respond).await,
            Command::Event(event) => self.fire(event).await,
            Command::Tags(tags) => self.tags(tags).await,
            Command::GetCoordinate { node } => self.coordinate(&node).await,
            Command::InstallKey { key } => self.key(&key, KeyOperation::Install).await,
            Command::UseKey { key } => self.key(&key, KeyOperation::Use).await,
            Command::RemoveKey { key } => self.key(&key, KeyOperation::Remove).await,
            Command::ListKeys => self.keys(KeyOperation::List).await,
            Command::MembersFiltered(filter) => return self.filtered(filter),
            Command::Unknown(_) => error("Unsupported command"),
            Command::Monitor { .. } | Command::Stream { .. } | Command::Query(_) => {
                unreachable!("what has records is taken before")
            }
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

    pub(super) async fn request(&self, body: RequestBody) -> Result<request::Response, String> {
        let answer = self.control.node.request(request::Request::new(body)).await;
        answer.map_err(|refused| refused.to_string())
    }

    pub(super) async fn ask(&self, body: RequestBody) -> Answer {
        (self.request(body).await.err().unwrap_or_default(), None)
    }

    fn members(&self, wanted: impl Fn(&terraform_core::serf::Member) -> bool) -> Body {
        let view = self.control.node.view();
        let members = view.members.iter().filter(|member| wanted(member));
        Body::Members(members.map(Member::from).collect())
    }

    /// The members of a pool, and for how long they are gone; none if this agent is not in it.
    fn pool(&self, pool: PoolName) -> Body {
        let view = self.control.node.view();
        let now = self.control.node.clock().now();
        let known = match pool {
            PoolName::Lan => Some(&view.members),
            PoolName::Wan => view.wan_members.as_ref(),
        };
        let members = known.into_iter().flat_map(|known| {
            known.iter().map(move |member| Member {
                gone_seconds: known.gone_for(&member.name, now).map(|span| span.as_secs()),
                ..Member::from(member)
            })
        });
        Body::Members(members.collect())
    }

    /// The members that match; `None` for a bad filter.
    fn filtered(&self, filter: Filter) -> Option<Answer> {
        let filter = Members::new(filter)?;
        Some((String::new(), Some(self.members(|member| filter.wants(member)))))
    }

    async fn join(&self, join: Join) -> Answer {
        let reached = |reached| Some(Body::Join { reached });
        let [lan, wan] = self.control.join_ports;
        let (pool, port) = if join.wan { (PoolName::Wan, wan) } else { (PoolName::Lan, lan) };
        if join.addresses.is_empty() || join.addresses.len() > JOIN_MAX {
            return (format!("give 1 to {JOIN_MAX} addresses to join"), reached(0));
        }
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for text in &join.addresses {
            match addresses(text, port).await {
                Ok(addresses) => found.extend(addresses),
                Err(refused) => errors.push(refused.to_string()),
            }
        }
        if found.is_empty() {
            return (errors.join("; "), reached(0));
        }
        let body = RequestBody::Join { pool, addresses: found, replay: join.replay };
        match self.request(body).await {
            Ok(request::Response::Joined(count)) => (String::new(), reached(count as u64)),
            Ok(other) => (format!("a join was answered with {other:?}"), reached(0)),
            Err(text) => (text, reached(0)),
        }
    }

    async fn stats(&self) -> Answer {
        match self.request(RequestBody::Info).await {
            Ok(request::Response::Info(sections)) => {
                let stats = self.with_serfs_groups(sections);
                (String::new(), Some(Body::Stats(stats)))
            }
            Ok(other) => (format!("stats were answered with {other:?}"), Some(no_stats())),
            Err(text) => (text, Some(no_stats())),
        }
    }

    /// The node's sections, and the groups that Serf's clients look into.
    fn with_serfs_groups(&self, mut stats: Stats) -> Stats {
        let view = self.control.node.view();
        let agent = stats.entry("agent".to_owned()).or_default();
        agent.insert("name".to_owned(), view.name.to_string());
        if let Some(serf) = stats.get("serf_lan").cloned() {
            stats.insert("serf".to_owned(), serf);
        }
        if let Some(own) = view.members.get(&view.name) {
            stats.insert("tags".to_owned(), own.tags.to_map());
        }
        let runtime = [("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)];
        let runtime = runtime.map(|(key, value)| (key.to_owned(), value.to_owned()));
        stats.insert("runtime".to_owned(), runtime.into());
        stats
    }

    /// Subscribes to the log: the answer, the kept lines, then those to come.
    async fn watch(&mut self, seq: u64, level: &str) -> Verdict {
        if self.monitor.is_some() {
            return self.verdict(seq, error("Monitor already exists")).await;
        }
        let Some(parsed) = Level::parse(level) else {
            let text = format!("Unknown log level: {}", level.to_ascii_uppercase());
            return self.verdict(seq, error(&text)).await;
        };
        let verdict = self.verdict(seq, done()).await;
        let (kept, monitor) = Monitor::begin(&self.control.node, &self.control.logs, parsed);
        let records = Records { seq, queue: self.queue.clone() };
        self.monitor = Some((seq, spawn(records.log(kept, monitor))));
        verdict
    }
}

pub(super) const fn done() -> Answer {
    (String::new(), None)
}

pub(super) fn error(text: &str) -> Answer {
    (text.to_owned(), None)
}

const fn no_stats() -> Body {
    Body::Stats(Stats::new())
}
