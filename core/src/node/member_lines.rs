//! How many lines about members the log gets: a mass join, or members that flap, must not fill it
//! (cluster-behaviour.md §16 row 8).
//!
//! Of each kind of line the first [`LINES_MAX`] within [`WINDOW`] are told as they are, and the
//! others at DEBUG. Once the window is over, one line tells how many of each kind those were. Kinds
//! are counted apart, so that a flood of one does not hide another. The next window begins with the
//! next line.
//!
//! Lines are only counted where they are told, and nothing but lines depends on them.

use super::{Node, NodeTrace};
use crate::gossip::GossipTrace;
use crate::reconcile::ReconcileTrace;
use crate::serf::SerfTrace;
use crate::time::Instant;
use crate::trace::{Level, TraceKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long lines are counted for.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Lines of a kind within that time which are told as they are.
pub(super) const LINES_MAX: u64 = 30;

/// The lines of the present window.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberLines {
    /// When it ends, if one has begun.
    until: Option<Instant>,
    /// Lines of each kind so far.
    counts: BTreeMap<&'static str, u64>,
    /// Whether there were too many of one.
    over: bool,
}

/// What the line begins with, or is known by, if it tells what became of one member of many.
const fn kind_of(trace: &TraceKind) -> Option<&'static str> {
    Some(match trace {
        TraceKind::Gossip(_, GossipTrace::NoAck { .. }) => "Suspect",
        TraceKind::Gossip(_, GossipTrace::SuspicionExpired { .. }) => "Marking as failed",
        TraceKind::Serf(_, SerfTrace::MemberJoin { .. }) => "EventMemberJoin",
        TraceKind::Serf(_, SerfTrace::MemberLeave { .. }) => "EventMemberLeave",
        TraceKind::Serf(_, SerfTrace::MemberFailed { .. }) => "EventMemberFailed",
        TraceKind::Serf(_, SerfTrace::MemberUpdate { .. }) => "EventMemberUpdate",
        TraceKind::Serf(_, SerfTrace::MemberReap { .. }) => "EventMemberReap",
        TraceKind::Reconcile(ReconcileTrace::Joined(_)) => "marking health alive",
        TraceKind::Reconcile(ReconcileTrace::Failed(_)) => "marking health critical",
        TraceKind::Reconcile(ReconcileTrace::Deregistering { .. }) => "deregistering member",
        TraceKind::Gossip(..)
        | TraceKind::Serf(..)
        | TraceKind::Raft(_)
        | TraceKind::Bootstrap(_)
        | TraceKind::Reconcile(_)
        | TraceKind::Agent(_)
        | TraceKind::Rpc(_)
        | TraceKind::Node(_) => return None,
    })
}

impl MemberLines {
    /// Counts a line; whether it is told as it is.
    fn admits(&mut self, now: Instant, kind: &'static str) -> bool {
        self.until.get_or_insert(now + WINDOW);
        let count = self.counts.entry(kind).or_default();
        *count = count.saturating_add(1);
        let admitted = *count <= LINES_MAX;
        self.over |= !admitted;
        admitted
    }

    /// Ends the window if it is over: lines beyond those told, by kind.
    fn end(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        if self.until.is_none_or(|until| now < until) {
            return Vec::new();
        }
        let counts = std::mem::take(self).counts.into_iter();
        let beyond = counts.map(|(kind, count)| (kind, count.saturating_sub(LINES_MAX)));
        beyond.filter(|(_, count)| *count > 0).collect()
    }

    /// When there is something to tell about the window.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.until.filter(|_| self.over)
    }
}

impl Node {
    /// Tells what a machine says that may be about one member of many.
    pub(super) fn emit_of_members(&mut self, now: Instant, level: Level, trace: TraceKind) {
        let kind = kind_of(&trace).filter(|_| level == Level::Info);
        if kind.is_some() {
            self.end_member_lines(now);
        }
        let admitted = kind.is_none_or(|kind| self.member_lines.admits(now, kind));
        self.emit(if admitted { level } else { Level::Debug }, trace);
    }

    /// Tells what was left out of a window that is over.
    pub(super) fn end_member_lines(&mut self, now: Instant) {
        let left_out = self.member_lines.end(now);
        if !left_out.is_empty() {
            self.trace(Level::Info, NodeTrace::MemberLines(left_out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::{Peer, Versions};
    use crate::id::{Incarnation, NodeName, PoolName};
    use crate::node::output::Output;
    use crate::node::tests::node_of;
    use crate::serf::SerfInput;
    use crate::storage::testing::restored_client;
    use crate::trace::TraceEvent;
    use bytes::Bytes;
    use std::net::SocketAddr;

    const START: Instant = Instant::ZERO;

    fn name(number: u64) -> NodeName {
        NodeName::parse(&format!("m{number:03}")).unwrap()
    }

    fn agent(level: Level) -> Node {
        let mut node = node_of(None, restored_client());
        node.boxes.set_level(level);
        node.lan.set_level(level);
        node
    }

    fn join(node: &mut Node, now: Instant, number: u64) {
        let peer = Peer {
            name: name(number),
            address: SocketAddr::from(([10, 0, 1, 1], 8301)),
            meta: Bytes::new(),
            versions: Versions::OURS,
            incarnation: Incarnation::new(1),
        };
        node.tell_serf(now, PoolName::Lan, SerfInput::Joined(peer));
        node.settle(now);
    }

    fn fail(node: &mut Node, now: Instant, number: u64) {
        let gone = SerfInput::Gone { name: name(number), left: false };
        node.tell_serf(now, PoolName::Lan, gone);
        node.settle(now);
    }

    /// The lines about members since the last look, and the summaries.
    fn lines(node: &mut Node) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        while let Some(output) = node.poll_output() {
            let Output::Trace(TraceEvent { level, kind }) = output else { continue };
            let summary = matches!(kind, TraceKind::Node(NodeTrace::MemberLines(_)));
            if summary || kind_of(&kind).is_some() {
                lines.push((level, kind.to_string()));
            }
        }
        lines
    }

    fn told(lines: &[(Level, String)], level: Level, text: &str) -> u64 {
        lines.iter().filter(|(at, line)| *at == level && line.contains(text)).count() as u64
    }

    #[test]
    fn a_mass_join_is_told_by_some_lines_and_a_count() {
        let mut node = agent(Level::Info);
        for number in 0..100 {
            join(&mut node, START, number);
        }
        fail(&mut node, START, 7);
        let first = lines(&mut node);
        assert_eq!(told(&first, Level::Info, "EventMemberJoin: m0"), LINES_MAX);
        assert_eq!(told(&first, Level::Info, "EventMemberFailed: m007"), 1, "another kind");
        assert_eq!(first.len() as u64, LINES_MAX + 1, "{first:?}");
        let end = START + WINDOW;
        assert_eq!(node.member_lines.next_timeout(), Some(end));
        node.handle(end, crate::node::input::Input::Timeout);
        let text = "lines about members left out in 60s, which DEBUG has: 70 EventMemberJoin";
        assert_eq!(lines(&mut node), [(Level::Info, text.to_owned())]);
        assert_eq!(node.member_lines.next_timeout(), None);
        join(&mut node, end, 100);
        assert_eq!(
            told(&lines(&mut node), Level::Info, "EventMemberJoin: m100"),
            1,
            "a new window"
        );
    }

    #[test]
    fn a_member_that_flaps_is_told_of_so_often_in_a_minute() {
        let mut node = agent(Level::Info);
        for second in 0..600 {
            let now = START + Duration::from_secs(second);
            node.handle(now, crate::node::input::Input::Timeout);
            join(&mut node, now, 1);
            fail(&mut node, now, 1);
        }
        let lines = lines(&mut node);
        assert_eq!(told(&lines, Level::Info, "EventMemberJoin: m001"), LINES_MAX * 10);
        assert_eq!(told(&lines, Level::Info, "EventMemberFailed: m001"), LINES_MAX * 10);
        let summary = "30 EventMemberFailed, 30 EventMemberJoin";
        assert_eq!(told(&lines, Level::Info, summary), 9, "the tenth minute is not over");
    }

    #[test]
    fn debug_has_every_line_and_few_changes_have_no_summary() {
        let mut node = agent(Level::Debug);
        for number in 0..40 {
            join(&mut node, START, number);
        }
        let all = lines(&mut node);
        assert_eq!(told(&all, Level::Info, "EventMemberJoin: m0"), LINES_MAX);
        assert_eq!(told(&all, Level::Debug, "EventMemberJoin: m0"), 40 - LINES_MAX);
        let mut node = agent(Level::Info);
        for number in 0..LINES_MAX {
            join(&mut node, START, number);
        }
        assert_eq!(node.member_lines.next_timeout(), None);
        join(&mut node, START + WINDOW, 50);
        let few = lines(&mut node);
        assert_eq!(few.len() as u64, LINES_MAX + 1, "{few:?}");
    }
}
