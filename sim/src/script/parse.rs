//! Text as a script: what [`print`](super::print) writes, and what people make of it.
//!
//! Whatever a file says, either a world comes of it that its rules can judge, or an error that
//! names the line.

use super::print::{VERSION, how, kept, mode, part};
use super::{Blow, Script};
use crate::cli::mutant_named;
use crate::disk::{Crash, Loss, SyncFault};
use crate::finder::{self, FindAction};
use crate::kv::session::SessionShape;
use crate::kv::{self, Ask, KvAction, PartKind};
use crate::net::HostId;
use crate::plan::{Care, Plan};
use crate::question::Question;
use crate::queue::TieOrder;
use crate::rot::Part;
use crate::watch::{self, WatchAction};
use crate::workload::{self, Action};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use terraform_core::catalog::query::Consistency;
use terraform_core::id::ServiceName;
use terraform_core::raft::RaftLimits;
use terraform_core::time::Instant;

/// Servers that a world may have.
const SERVERS: RangeInclusive<u64> = 1..=9;
/// Client agents that a world may have.
const CLIENTS: RangeInclusive<u64> = 0..=64;
/// The latest time, and the longest duration: a day.
const TIME_MAX: Duration = Duration::from_secs(86_400);
/// Bytes of a key.
const KEY_MAX: usize = 512;
/// The greatest limit: more than the core uses, and little enough to count with.
const LIMIT_MAX: u64 = 1 << 40;
/// Places of the core that may always be unusual.
const PLACES: [&str; 1] = ["leave.nobody_takes_over"];

/// Why a text is no script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line, from 1; the one after the last if something is missing.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No line begins so.
    Unknown(String),
    /// It stands there twice, or after the first `at`.
    Late(&'static str),
    /// Something is not there.
    Missing(&'static str),
    /// A value is none, or out of its range.
    Bad(&'static str, String),
    /// A word that says nothing in this line.
    Extra(String),
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.problem {
            Problem::Unknown(word) => write!(f, "no line begins with `{word}`"),
            Problem::Late(name) => {
                write!(f, "`{name}` may stand there once, before the first `at`")
            }
            Problem::Missing(name) => write!(f, "`{name}` is missing"),
            Problem::Bad(name, value) => write!(f, "`{value}` is no legal `{name}`"),
            Problem::Extra(word) => write!(f, "`{word}` says nothing here"),
        }
    }
}

impl std::error::Error for ScriptError {}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let nothing = Plan { compressed: false, encrypted: false, ..Plan::quiet(0, 0, 0) };
        let mut reader = Reader { script: Self::of_plan(&nothing), seen: BTreeSet::new() };
        let mut count = 0;
        for (number, line) in (1..).zip(text.lines()) {
            count = number;
            let line = line.split('#').next().unwrap_or_default();
            let words = Words(line.split_whitespace().collect());
            reader.line(words).map_err(|problem| ScriptError { line: number, problem })?;
        }
        reader.end().map_err(|problem| ScriptError { line: count + 1, problem })
    }
}

/// The words of a line that were not read yet.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    /// The first word.
    fn next(&mut self, name: &'static str) -> Result<&'a str, Problem> {
        if self.0.is_empty() { Err(Problem::Missing(name)) } else { Ok(self.0.remove(0)) }
    }

    /// Whether a word stands there.
    fn flag(&mut self, word: &str) -> bool {
        let at = self.0.iter().position(|it| *it == word);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// What `name=` stands before, if it is there.
    fn option(&mut self, name: &str) -> Option<&'a str> {
        let value = |word: &&'a str| word.strip_prefix(name)?.strip_prefix('=');
        let at = self.0.iter().position(|word| value(word).is_some())?;
        value(&self.0.remove(at))
    }

    fn value(&mut self, name: &'static str) -> Result<&'a str, Problem> {
        self.option(name).ok_or(Problem::Missing(name))
    }

    fn number(&mut self, name: &'static str, legal: RangeInclusive<u64>) -> Result<u64, Problem> {
        number(name, self.value(name)?, legal)
    }

    fn index(&mut self, name: &'static str, count: usize) -> Result<usize, Problem> {
        index(name, self.value(name)?, count)
    }

    fn span(&mut self, name: &'static str) -> Result<Duration, Problem> {
        span(name, self.value(name)?)
    }

    fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => Err(Problem::Extra((*word).to_owned())),
        }
    }
}

fn number(name: &'static str, text: &str, legal: RangeInclusive<u64>) -> Result<u64, Problem> {
    let value = text.parse().ok().filter(|value| legal.contains(value));
    value.ok_or_else(|| Problem::Bad(name, text.to_owned()))
}

fn index(name: &'static str, text: &str, count: usize) -> Result<usize, Problem> {
    let value = text.parse().ok().filter(|value| *value < count);
    value.ok_or_else(|| Problem::Bad(name, text.to_owned()))
}

fn size(name: &'static str, text: &str, legal: RangeInclusive<u64>) -> Result<usize, Problem> {
    let value = usize::try_from(number(name, text, legal)?);
    value.map_err(|_| Problem::Bad(name, text.to_owned()))
}

/// Seconds with up to nine decimals, and an `s`.
fn span(name: &'static str, text: &str) -> Result<Duration, Problem> {
    let read = || {
        let (whole, part) = text.strip_suffix('s').map(|t| t.split_once('.').unwrap_or((t, "")))?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let legal = !whole.is_empty() && digits(whole) && digits(part) && part.len() <= 9;
        let nanos = format!("{part:0<9}").parse().ok()?;
        let span = Duration::new(whole.parse().ok().filter(|_| legal)?, nanos);
        (span <= TIME_MAX).then_some(span)
    };
    read().ok_or_else(|| Problem::Bad(name, text.to_owned()))
}

/// A script that is being read.
struct Reader {
    script: Script,
    /// How the lines begin that were read.
    seen: BTreeSet<&'static str>,
}

/// How lines begin that may stand there once.
const ONCE: [&str; 19] = [
    "script",
    "seed",
    "mutant",
    "rule",
    "servers",
    "clients",
    "limits",
    "net",
    "order",
    "disk",
    "drift",
    "compressed",
    "encrypted",
    "uneven",
    "newborn",
    "disaster",
    "care",
    "always",
    "until",
];
/// The lines that must be there.
const NEEDED: [&str; 5] = ["script", "seed", "servers", "clients", "until"];

impl Reader {
    fn line(&mut self, mut words: Words<'_>) -> Result<(), Problem> {
        let Some(word) = words.0.first().copied() else { return Ok(()) };
        words.0.remove(0);
        if word == "at" {
            self.needed()?;
            self.seen.insert("at");
            let at = Instant::ZERO + span("at", words.next("at")?)?;
            return self.at(at, words);
        }
        let known = ONCE.into_iter().find(|known| *known == word);
        let known = known.ok_or_else(|| Problem::Unknown(word.to_owned()))?;
        if known != "script" && !self.seen.contains("script") {
            return Err(Problem::Missing("script"));
        }
        if self.seen.contains("at") || !self.seen.insert(known) {
            return Err(Problem::Late(known));
        }
        self.header(known, words)
    }

    fn needed(&self) -> Result<(), Problem> {
        match NEEDED.into_iter().find(|name| !self.seen.contains(name)) {
            Some(name) => Err(Problem::Missing(name)),
            None => Ok(()),
        }
    }

    fn end(mut self) -> Result<Script, Problem> {
        self.needed()?;
        self.script.blows.sort_by_key(|(at, _)| *at);
        self.script.actions.sort_by_key(|(at, _)| *at);
        Ok(self.script)
    }

    fn header(&mut self, name: &'static str, mut words: Words<'_>) -> Result<(), Problem> {
        let script = &mut self.script;
        let flag = match name {
            "limits" => return limits(&mut script.limits, words),
            "net" => return self.net(words),
            "care" => return care(&mut script.care, words),
            "compressed" => Some(&mut script.compressed),
            "encrypted" => Some(&mut script.encrypted),
            "uneven" => Some(&mut script.uneven),
            "newborn" => Some(&mut script.newborn),
            "disaster" => Some(&mut script.disaster),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            return words.end();
        }
        let text = words.next(name)?;
        let bad = || Problem::Bad(name, text.to_owned());
        match name {
            "script" => {
                number(name, text, u64::from(VERSION)..=u64::from(VERSION))?;
            }
            "seed" => script.seed = number(name, text, 0..=u64::MAX)?,
            "mutant" => script.mutant = Some(mutant_named(text).ok_or_else(bad)?),
            "rule" => script.rule = Some(text.to_owned()),
            "servers" => script.servers = size(name, text, SERVERS)?,
            "clients" => script.clients = size(name, text, CLIENTS)?,
            "order" => {
                let orders = [("fifo", TieOrder::Fifo), ("reverse", TieOrder::Reverse)];
                script.world.order = named(&orders, text).ok_or_else(bad)?;
            }
            "disk" => script.world.disk_latency = span(name, text)?,
            "drift" => {
                let drift = number(name, text, 0..=100_000)?;
                script.world.drift_ppm_max = i32::try_from(drift).map_err(|_| bad())?;
            }
            "always" => {
                script.always = Some(PLACES.into_iter().find(|it| *it == text).ok_or_else(bad)?);
            }
            _ => {
                script.until = Instant::ZERO + span(name, text)?;
                script.rests = words.flag("rest");
            }
        }
        words.end()
    }

    fn net(&mut self, mut words: Words<'_>) -> Result<(), Problem> {
        const ALL: RangeInclusive<u64> = 0..=1_000_000;
        let net = &mut self.script.world.net;
        if let Some(text) = words.option("delay-min") {
            net.delay_min = span("delay-min", text)?;
        }
        if let Some(text) = words.option("delay-jitter") {
            net.delay_jitter = span("delay-jitter", text)?;
        }
        let rates = [
            ("loss-ppm", &mut net.loss_ppm),
            ("duplicate-ppm", &mut net.duplicate_ppm),
            ("late-ppm", &mut net.late_ppm),
        ];
        for (name, rate) in rates {
            if let Some(text) = words.option(name) {
                *rate = number(name, text, ALL)?;
            }
        }
        words.end()
    }

    fn host(&self, words: &mut Words<'_>) -> Result<HostId, Problem> {
        words.index("host", self.script.hosts())
    }

    fn hosts(&self, name: &'static str, words: &mut Words<'_>) -> Result<Vec<HostId>, Problem> {
        let count = self.script.hosts();
        words.value(name)?.split(',').map(|text| index(name, text, count)).collect()
    }

    fn at(&mut self, at: Instant, mut words: Words<'_>) -> Result<(), Problem> {
        let what = words.next("what happens")?;
        if let Some(blow) = self.blow(what, &mut words)? {
            self.script.blows.push((at, blow));
        } else {
            let action = self.action(what, &mut words)?;
            self.script.actions.push((at, action));
        }
        words.end()
    }

    fn blow(&self, what: &str, words: &mut Words<'_>) -> Result<Option<Blow>, Problem> {
        Ok(Some(match what {
            "kill" => {
                let (host, down) = (self.host(words)?, words.span("down")?);
                Blow::Crash { host, crash: Crash::Process, down }
            }
            "power-loss" => {
                let (host, down) = (self.host(words)?, words.span("down")?);
                let all = [Loss::All, Loss::Nothing, Loss::Suffix, Loss::Subset, Loss::Mixed];
                let loss = spelled("keeps", words, all, kept)?;
                Blow::Crash { host, crash: Crash::Power(loss), down }
            }
            "cut" | "mute" => {
                let mute = what == "mute";
                let from = self.hosts(if mute { "to" } else { "from" }, words)?;
                let (hosts, span) = (self.hosts("hosts", words)?, words.span("for")?);
                Blow::Cut { hosts, from, mute, span }
            }
            "pause" => Blow::Pause { host: self.host(words)?, span: words.span("for")? },
            "leave" => Blow::Leave { host: self.host(words)?, away: words.span("away")? },
            "rot" => {
                let host = self.host(words)?;
                let part = spelled("part", words, Part::ALL, Part::as_str)?;
                Blow::Rot { host, part, place: words.number("place", 0..=u64::MAX)? }
            }
            "stall" => Blow::Stall { host: self.host(words)?, span: words.span("for")? },
            "sync-error" => {
                let host = self.host(words)?;
                let all = [SyncFault::Forget, SyncFault::Revert];
                Blow::SyncError { host, fault: spelled("fault", words, all, how)? }
            }
            "fill" => {
                let (host, span) = (self.host(words)?, words.span("for")?);
                Blow::Fill { host, room: words.number("room", 0..=1 << 40)?, span }
            }
            _ => return Ok(None),
        }))
    }

    fn action(&self, what: &str, words: &mut Words<'_>) -> Result<Action, Problem> {
        if what == "hang-up" {
            let client = words.index("watcher", watch::CLIENTS)?;
            return Ok(Action::Watch(WatchAction::HangUp { client }));
        }
        let host = self.host(words)?;
        Ok(match what {
            "register-write" => {
                Action::Write { host, register: words.index("register", workload::REGISTERS)? }
            }
            "register-read" => {
                let register = words.index("register", workload::REGISTERS)?;
                Action::Read { host, register, consistency: consistency(words)? }
            }
            "service-add" => {
                let number = words.number("number", 0..=workload::SERVICES - 1)?;
                let port = words.number("port", 0..=u64::from(u16::MAX))?;
                Action::AddService { host, number, port: u16::try_from(port).unwrap_or(0) }
            }
            "service-remove" => {
                let number = words.number("number", 0..=workload::SERVICES - 1)?;
                Action::RemoveService { host, number }
            }
            "find" => {
                let service = words.index("service", finder::SERVICES.len())?;
                let (consistency, dns) = (consistency(words)?, words.flag("dns"));
                let limit = words.option("max-stale").map(|text| span("max-stale", text));
                let max_stale = limit.transpose()?;
                Action::Find(FindAction::Look { host, service, dns, consistency, max_stale })
            }
            "query-run" | "query-write" | "query-delete" => query(what, host, words)?,
            "maintain" => {
                let last = workload::SERVICES - 1;
                let service = words.option("number").map(|text| number("number", text, 0..=last));
                let number = service.transpose()?;
                Action::Maintain { host, number, enable: words.flag("on") }
            }
            "hand-over" => Action::HandOver { host },
            "watch" => {
                let client = words.index("watcher", watch::CLIENTS)?;
                let question = question(words, true)?;
                let (consistency, wait) = (consistency(words)?, words.span("wait")?);
                let (afresh, view) = (words.flag("afresh"), words.flag("view"));
                let ask =
                    WatchAction::Ask { client, host, question, consistency, afresh, wait, view };
                Action::Watch(ask)
            }
            _ => {
                let client = words.index("client", kv::CLIENTS)?;
                Action::Kv(KvAction { client, host, ask: ask(what, words)? })
            }
        })
    }
}

/// What is done with a prepared query.
fn query(what: &str, host: HostId, words: &mut Words<'_>) -> Result<Action, Problem> {
    let query = words.index("query", finder::QUERIES)?;
    Ok(Action::Find(match what {
        "query-run" => FindAction::Execute { host, query, consistency: consistency(words)? },
        "query-write" => {
            let service = words.index("service", finder::SERVICES.len())?;
            let (strict, new) = (words.flag("strict"), words.flag("new"));
            FindAction::Define { host, query, service, strict, new }
        }
        _ => FindAction::Forget { host, query },
    }))
}

fn limits(limits: &mut RaftLimits, mut words: Words<'_>) -> Result<(), Problem> {
    let sizes = [
        ("append-entries", &mut limits.append_entries_max),
        ("append-bytes", &mut limits.append_bytes_max),
        ("inflight-messages", &mut limits.inflight_messages_max),
        ("inflight-bytes", &mut limits.inflight_bytes_max),
        ("uncommitted-bytes", &mut limits.uncommitted_bytes_max),
        ("unsynced-bytes", &mut limits.unsynced_bytes_max),
        ("reads", &mut limits.reads_max),
        ("snapshot-bytes", &mut limits.snapshot_bytes),
        ("pinned-bytes", &mut limits.pinned_bytes_max),
        ("block-bytes", &mut limits.block_bytes),
        ("blocks", &mut limits.blocks_max),
    ];
    for (name, limit) in sizes {
        if let Some(text) = words.option(name) {
            *limit = size(name, text, 1..=LIMIT_MAX)?;
        }
    }
    let counts = [
        ("apply-lag", &mut limits.apply_lag_max, 1),
        ("snapshot-entries", &mut limits.snapshot_entries, 1),
        ("trailing-entries", &mut limits.trailing_entries, 0),
    ];
    for (name, limit, least) in counts {
        if let Some(text) = words.option(name) {
            *limit = number(name, text, least..=LIMIT_MAX)?;
        }
    }
    if let Some(text) = words.option("snapshot-interval") {
        limits.snapshot_interval = span("snapshot-interval", text)?;
    }
    words.end()
}

/// The one of these that the text names.
fn named<T: Copy>(all: &[(&str, T)], text: &str) -> Option<T> {
    all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}

/// The one of `all` that is spelled as the value of `name`.
fn spelled<T: Copy, const N: usize>(
    name: &'static str,
    words: &mut Words<'_>,
    all: [T; N],
    spell: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    let text = words.value(name)?;
    let one = all.into_iter().find(|one| spell(*one) == text);
    one.ok_or_else(|| Problem::Bad(name, text.to_owned()))
}

fn consistency(words: &mut Words<'_>) -> Result<Consistency, Problem> {
    let all = [Consistency::Leader, Consistency::Consistent, Consistency::Stale];
    spelled("mode", words, all, mode)
}

fn care(care: &mut Care, mut words: Words<'_>) -> Result<(), Problem> {
    if let Some(text) = words.option("stabilization") {
        care.stabilization = span("stabilization", text)?;
    }
    if let Some(text) = words.option("grace") {
        care.grace = span("grace", text)?;
    }
    if let Some(text) = words.option("spares") {
        care.spare = number("spares", text, 0..=1)? == 1;
    }
    if let Some(text) = words.option("tombstones") {
        care.tombstones = span("tombstones", text)?;
    }
    words.end()
}

/// Hosts that a session may be bound to; one that is not there makes no session.
const NODES_MAX: usize = 64;

/// A key that clients may use.
fn key(name: &'static str, text: &str) -> Result<String, Problem> {
    let legal = text.len() <= KEY_MAX && !kv::history::is_marker(text);
    if legal { Ok(text.to_owned()) } else { Err(Problem::Bad(name, text.to_owned())) }
}

fn parts(name: &'static str, text: &str) -> Result<Vec<(PartKind, String)>, Problem> {
    const ALL: [PartKind; 8] = [
        PartKind::Put,
        PartKind::PutSeen,
        PartKind::Delete,
        PartKind::DeleteSeen,
        PartKind::DeleteTree,
        PartKind::Get,
        PartKind::GetTree,
        PartKind::CheckSeen,
    ];
    let one = |text: &str| {
        let bad = || Problem::Bad(name, text.to_owned());
        let (kind, of) = text.split_once(':').ok_or_else(bad)?;
        let kind = ALL.into_iter().find(|it| part(*it) == kind).ok_or_else(bad)?;
        Ok((kind, key(name, of)?))
    };
    text.split(',').map(one).collect()
}

fn question(words: &mut Words<'_>, waits: bool) -> Result<Question, Problem> {
    if let Some(text) = words.option("key") {
        return Ok(Question::Key(key("key", text)?));
    }
    if let Some(text) = words.option("tree") {
        return Ok(Question::Tree(key("tree", text)?));
    }
    if let Some(text) = words.option("keys") {
        let separator = key("separator", words.value("separator")?)?;
        return Ok(Question::Keys { prefix: key("keys", text)?, separator });
    }
    if waits {
        if words.flag("nodes") {
            return Ok(Question::Nodes);
        }
        let text = words.value("service")?;
        let name =
            ServiceName::parse(text).map_err(|_| Problem::Bad("service", text.to_owned()))?;
        return Ok(Question::Service(name));
    }
    let text = words.value("gets")?;
    let get = |(kind, key)| match kind {
        PartKind::Get => Ok((false, key)),
        PartKind::GetTree => Ok((true, key)),
        PartKind::Put
        | PartKind::PutSeen
        | PartKind::Delete
        | PartKind::DeleteSeen
        | PartKind::DeleteTree
        | PartKind::CheckSeen => Err(Problem::Bad("gets", text.to_owned())),
    };
    Ok(Question::Gets(parts("gets", text)?.into_iter().map(get).collect::<Result<_, _>>()?))
}

fn ask(what: &str, words: &mut Words<'_>) -> Result<Ask, Problem> {
    let ask = match what {
        "kv-put" => Ask::Put { key: key("key", words.value("key")?)?, seen: words.flag("seen") },
        "kv-delete" => {
            Ask::Delete { key: key("key", words.value("key")?)?, seen: words.flag("seen") }
        }
        "kv-delete-tree" => Ask::DeleteTree(key("key", words.value("key")?)?),
        "kv-transaction" => Ask::Transaction(parts("parts", words.value("parts")?)?),
        "kv-restore" => {
            let keys = words.value("keys")?.split(',').filter(|text| !text.is_empty());
            Ask::Restore(keys.map(|text| key("keys", text)).collect::<Result<_, _>>()?)
        }
        "kv-save" => Ask::Save,
        "kv-put-back" => Ask::PutBack,
        "kv-acquire" => Ask::Acquire(key("key", words.value("key")?)?),
        "kv-release" => Ask::Release(key("key", words.value("key")?)?),
        "session-create" => Ask::Open(SessionShape {
            node: words.index("node", NODES_MAX)?,
            delay: number("delay", words.value("delay")?, 0..=60)?,
            depends: words.flag("depends"),
            expires: words.flag("expires"),
            deletes: words.flag("deletes"),
        }),
        "session-renew" => Ask::Renew,
        "session-destroy" => Ask::Close,
        "place-take" => Ask::Place { wants: true },
        "place-give" => Ask::Place { wants: false },
        "kv-read" => {
            let question = question(words, false)?;
            let (consistency, view) = (consistency(words)?, words.flag("view"));
            Ask::Read { question, consistency, view }
        }
        _ => return Err(Problem::Unknown(format!("at … {what}"))),
    };
    // The history of a register is judged by itself.
    if ask.mixes_registers() {
        return Err(Problem::Bad("key", "of a register".to_owned()));
    }
    Ok(ask)
}
