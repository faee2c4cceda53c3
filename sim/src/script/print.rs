//! Scripts as text: one line for each thing that was decided.
//!
//! | line | meaning |
//! |---|---|
//! | `script 1` | the version of these lines |
//! | `seed N` | what luck comes from |
//! | `mutant ID`, `rule ID` | the planted bug that is on, and what it breaks |
//! | `servers N`, `clients N` | the hosts, numbered from 0, servers first |
//! | `limits NAME=N …`, `net NAME=… …` | sizes of consensus and links that are not the usual ones |
//! | `order reverse` | what happens at one moment happens the other way round |
//! | `disk D`, `drift N` | how long a disk takes, and by how many millionths clocks may go wrong |
//! | `compressed`, `encrypted` | what gossip is |
//! | `uneven` | the first server is more patient than the others |
//! | `newborn` | hosts start one by one, into what befalls them |
//! | `disaster` | in the end most servers are lost, and the others begin anew |
//! | `care NAME=… …` | how the leader cares for the servers, where that is not the usual way |
//! | `always PLACE` | what is unusual there happens every time |
//! | `until T [rest]` | no more happens then; the world ends, or is healed and must come to rest |
//! | `at T WHAT NAME=… …` | a fault, or something that a client does |
//!
//! Times and durations are seconds from the world's start, such as `20.35s`; `#` begins a comment.

use super::{Blow, Script};
use crate::disk::{Crash, Loss, SyncFault};
use crate::finder::FindAction;
use crate::kv::session::SessionShape;
use crate::kv::{Ask, KvAction, PartKind};
use crate::net::{HostId, NetOptions};
use crate::plan::Care;
use crate::question::Question;
use crate::queue::TieOrder;
use crate::watch::WatchAction;
use crate::workload::Action;
use crate::world::WorldOptions;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;
use terraform_core::catalog::query::Consistency;
use terraform_core::raft::RaftLimits;
use terraform_core::time::Instant;

/// The version of the lines.
pub(super) const VERSION: u32 = 1;

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What was decided in a world; `sim script FILE` performs it.")?;
        writeln!(f, "script {VERSION}")?;
        writeln!(f, "seed {}", self.seed)?;
        if let Some(mutant) = self.mutant {
            writeln!(f, "mutant {mutant}")?;
        }
        if let Some(rule) = &self.rule {
            writeln!(f, "rule {rule}")?;
        }
        writeln!(f, "servers {}", self.servers)?;
        writeln!(f, "clients {}", self.clients)?;
        unusual(f, "limits", limits(&self.limits), &limits(&RaftLimits::default()))?;
        let WorldOptions { net: links, order, disk_latency, drift_ppm_max } = &self.world;
        unusual(f, "net", net(links), &net(&NetOptions::quiet()))?;
        if *order == TieOrder::Reverse {
            writeln!(f, "order reverse")?;
        }
        writeln!(f, "disk {}", seconds(*disk_latency))?;
        writeln!(f, "drift {drift_ppm_max}")?;
        let flags = [
            ("compressed", self.compressed),
            ("encrypted", self.encrypted),
            ("uneven", self.uneven),
            ("newborn", self.newborn),
            ("disaster", self.disaster),
        ];
        for (word, _) in flags.into_iter().filter(|(_, set)| *set) {
            writeln!(f, "{word}")?;
        }
        unusual(f, "care", care(&self.care), &care(&Care::default()))?;
        if let Some(place) = self.always {
            writeln!(f, "always {place}")?;
        }
        let rest = if self.rests { " rest" } else { "" };
        writeln!(f, "until {}{rest}", seconds(self.until.since(Instant::ZERO)))?;
        let blows = self.blows.iter().map(|(at, blow)| (*at, blow.to_string()));
        let actions = self.actions.iter().map(|(at, action)| (*at, action.to_string()));
        let mut lines: Vec<(Instant, String)> = blows.chain(actions).collect();
        lines.sort_by_key(|(at, _)| *at);
        for (at, line) in lines {
            writeln!(f, "at {} {line}", seconds(at.since(Instant::ZERO)))?;
        }
        Ok(())
    }
}

/// A line of those values that are not the usual ones, if there are any.
fn unusual<const N: usize>(
    f: &mut Formatter<'_>,
    word: &str,
    values: [(&str, String); N],
    usual: &[(&str, String); N],
) -> fmt::Result {
    let differ: Vec<String> = values
        .into_iter()
        .filter(|value| !usual.contains(value))
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    if differ.is_empty() { Ok(()) } else { writeln!(f, "{word}{}", differ.concat()) }
}

/// Every kind of care by its name.
fn care(care: &Care) -> [(&'static str, String); 4] {
    let Care { stabilization, grace, spare, tombstones } = care;
    [
        ("stabilization", seconds(*stabilization)),
        ("grace", seconds(*grace)),
        ("spares", u8::from(*spare).to_string()),
        ("tombstones", seconds(*tombstones)),
    ]
}

/// Every limit by its name.
fn limits(limits: &RaftLimits) -> [(&'static str, String); 15] {
    let RaftLimits {
        append_entries_max,
        append_bytes_max,
        inflight_messages_max,
        inflight_bytes_max,
        uncommitted_bytes_max,
        unsynced_bytes_max,
        apply_lag_max,
        reads_max,
        snapshot_entries,
        snapshot_bytes,
        snapshot_interval,
        trailing_entries,
        pinned_bytes_max,
        block_bytes,
        blocks_max,
    } = limits;
    [
        ("append-entries", append_entries_max.to_string()),
        ("append-bytes", append_bytes_max.to_string()),
        ("inflight-messages", inflight_messages_max.to_string()),
        ("inflight-bytes", inflight_bytes_max.to_string()),
        ("uncommitted-bytes", uncommitted_bytes_max.to_string()),
        ("unsynced-bytes", unsynced_bytes_max.to_string()),
        ("apply-lag", apply_lag_max.to_string()),
        ("reads", reads_max.to_string()),
        ("snapshot-entries", snapshot_entries.to_string()),
        ("snapshot-bytes", snapshot_bytes.to_string()),
        ("snapshot-interval", seconds(*snapshot_interval)),
        ("trailing-entries", trailing_entries.to_string()),
        ("pinned-bytes", pinned_bytes_max.to_string()),
        ("block-bytes", block_bytes.to_string()),
        ("blocks", blocks_max.to_string()),
    ]
}

fn net(net: &NetOptions) -> [(&'static str, String); 5] {
    let NetOptions { delay_min, delay_jitter, loss_ppm, duplicate_ppm, late_ppm } = net;
    [
        ("delay-min", seconds(*delay_min)),
        ("delay-jitter", seconds(*delay_jitter)),
        ("loss-ppm", loss_ppm.to_string()),
        ("duplicate-ppm", duplicate_ppm.to_string()),
        ("late-ppm", late_ppm.to_string()),
    ]
}

/// A duration to the nanosecond, without zeros at its end.
pub fn seconds(span: Duration) -> String {
    let text = format!("{}.{:09}", span.as_secs(), span.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn list(hosts: &[HostId]) -> String {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    hosts.join(",")
}

/// What a failed sync does.
pub(super) const fn how(fault: SyncFault) -> &'static str {
    match fault {
        SyncFault::Forget => "forgets",
        SyncFault::Revert => "reverts",
    }
}

/// What a loss of power keeps.
pub(super) const fn kept(loss: Loss) -> &'static str {
    match loss {
        Loss::All => "nothing",
        Loss::Nothing => "all",
        Loss::Suffix => "first",
        Loss::Subset => "some",
        Loss::Mixed => "mixed",
    }
}

pub(super) const fn mode(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Leader => "leader",
        Consistency::Consistent => "consistent",
        Consistency::Stale => "stale",
    }
}

pub(super) const fn part(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Put => "put",
        PartKind::PutSeen => "put-seen",
        PartKind::Delete => "delete",
        PartKind::DeleteSeen => "delete-seen",
        PartKind::DeleteTree => "delete-tree",
        PartKind::Get => "get",
        PartKind::GetTree => "get-tree",
        PartKind::CheckSeen => "check-seen",
    }
}

const fn flag(on: bool, word: &'static str) -> &'static str {
    if on { word } else { "" }
}

impl Display for Blow {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::Crash { host, crash, down } => {
                write!(f, " host={host} down={}", seconds(*down))?;
                match crash {
                    Crash::Process => Ok(()),
                    Crash::Power(loss) => write!(f, " keeps={}", kept(*loss)),
                }
            }
            Self::Cut { hosts, from, mute, span } => {
                let (hosts, others, span) = (list(hosts), list(from), seconds(*span));
                let side = if *mute { "to" } else { "from" };
                write!(f, " hosts={hosts} {side}={others} for={span}")
            }
            Self::Pause { host, span } => write!(f, " host={host} for={}", seconds(*span)),
            Self::Leave { host, away } => write!(f, " host={host} away={}", seconds(*away)),
            Self::Rot { host, part, place } => {
                write!(f, " host={host} part={} place={place}", part.as_str())
            }
            Self::Stall { host, span } => write!(f, " host={host} for={}", seconds(*span)),
            Self::SyncError { host, fault } => {
                write!(f, " host={host} fault={}", how(*fault))
            }
            Self::Fill { host, room, span } => {
                write!(f, " host={host} room={room} for={}", seconds(*span))
            }
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { host, register } => {
                write!(f, "register-write host={host} register={register}")
            }
            Self::Read { host, register, consistency } => {
                let mode = mode(*consistency);
                write!(f, "register-read host={host} register={register} mode={mode}")
            }
            Self::AddService { host, number, port } => {
                write!(f, "service-add host={host} number={number} port={port}")
            }
            Self::RemoveService { host, number } => {
                write!(f, "service-remove host={host} number={number}")
            }
            Self::Kv(action) => action.fmt(f),
            Self::Watch(action) => action.fmt(f),
            Self::Find(action) => action.fmt(f),
            Self::Maintain { host, number, enable } => {
                write!(f, "maintain host={host}")?;
                let number = number.map(|number| format!(" number={number}"));
                write!(f, "{}{}", number.unwrap_or_default(), flag(*enable, " on"))
            }
            Self::HandOver { host } => write!(f, "hand-over host={host}"),
        }
    }
}

impl Display for KvAction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let whose = format!("host={} client={}", self.host, self.client);
        match &self.ask {
            Ask::Put { key, seen } => {
                write!(f, "kv-put {whose} key={key}{}", flag(*seen, " seen"))
            }
            Ask::Delete { key, seen } => {
                write!(f, "kv-delete {whose} key={key}{}", flag(*seen, " seen"))
            }
            Ask::DeleteTree(prefix) => write!(f, "kv-delete-tree {whose} key={prefix}"),
            Ask::Transaction(parts) => {
                let each = |(kind, key): &(PartKind, String)| format!("{}:{key}", part(*kind));
                let parts: Vec<String> = parts.iter().map(each).collect();
                write!(f, "kv-transaction {whose} parts={}", parts.join(","))
            }
            Ask::Restore(keys) => write!(f, "kv-restore {whose} keys={}", keys.join(",")),
            Ask::Save => write!(f, "kv-save {whose}"),
            Ask::PutBack => write!(f, "kv-put-back {whose}"),
            Ask::Read { question, consistency, view } => {
                let (mode, view) = (mode(*consistency), flag(*view, " view"));
                write!(f, "kv-read {whose} {question} mode={mode}{view}")
            }
            Ask::Open(shape) => {
                let SessionShape { node, depends, expires, deletes, delay } = *shape;
                write!(f, "session-create {whose} node={node} delay={delay}")?;
                let depends = flag(depends, " depends");
                write!(f, "{depends}{}{}", flag(expires, " expires"), flag(deletes, " deletes"))
            }
            Ask::Acquire(key) => write!(f, "kv-acquire {whose} key={key}"),
            Ask::Release(key) => write!(f, "kv-release {whose} key={key}"),
            Ask::Renew => write!(f, "session-renew {whose}"),
            Ask::Close => write!(f, "session-destroy {whose}"),
            Ask::Place { wants: true } => write!(f, "place-take {whose}"),
            Ask::Place { wants: false } => write!(f, "place-give {whose}"),
        }
    }
}

impl Display for FindAction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look { host, service, dns, consistency, max_stale } => {
                let (mode, dns) = (mode(*consistency), flag(*dns, " dns"));
                let limit = max_stale.map(|limit| format!(" max-stale={}", seconds(limit)));
                let limit = limit.unwrap_or_default();
                write!(f, "find host={host} service={service} mode={mode}{dns}{limit}")
            }
            Self::Execute { host, query, consistency } => {
                write!(f, "query-run host={host} query={query} mode={}", mode(*consistency))
            }
            Self::Define { host, query, service, strict, new } => {
                let (strict, new) = (flag(*strict, " strict"), flag(*new, " new"));
                write!(f, "query-write host={host} query={query} service={service}{strict}{new}")
            }
            Self::Forget { host, query } => write!(f, "query-delete host={host} query={query}"),
        }
    }
}

impl Display for WatchAction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask { client, host, question, consistency, afresh, wait, view } => {
                let (mode, wait) = (mode(*consistency), seconds(*wait));
                let (afresh, view) = (flag(*afresh, " afresh"), flag(*view, " view"));
                let what = format!("{question} mode={mode} wait={wait}{afresh}{view}");
                write!(f, "watch host={host} watcher={client} {what}")
            }
            Self::HangUp { client } => write!(f, "hang-up watcher={client}"),
        }
    }
}

impl Display for Question {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key={key}"),
            Self::Tree(prefix) => write!(f, "tree={prefix}"),
            Self::Keys { prefix, separator } => write!(f, "keys={prefix} separator={separator}"),
            Self::Gets(gets) => {
                let kind = |tree| part(if tree { PartKind::GetTree } else { PartKind::Get });
                let each = |(tree, key): &(bool, String)| format!("{}:{key}", kind(*tree));
                let gets: Vec<String> = gets.iter().map(each).collect();
                write!(f, "gets={}", gets.join(","))
            }
            Self::Service(name) => write!(f, "service={name}"),
            Self::Nodes => f.write_str("nodes"),
        }
    }
}
