//! What is tried to make a script shorter, one kind of step after the other.

use super::{Search, Size};
use crate::disk::{Crash, Loss};
use crate::finder::FindAction;
use crate::net::{HostId, NetOptions};
use crate::queue::TieOrder;
use crate::script::{Blow, Script};
use crate::watch::WatchAction;
use crate::workload::Action;
use std::time::Duration;
use terraform_core::raft::RaftLimits;
use terraform_core::time::Instant;

/// The kinds of faults.
const BLOWS: [&str; 10] =
    ["kill", "power-loss", "cut", "mute", "pause", "leave", "rot", "stall", "fill", "sync-error"];
/// Parts that a world's time is cut into to find how much of it is needed.
const PARTS: u32 = 8;
/// When the first thing may happen at the earliest: a cluster has to form.
const FIRST: Instant = Instant::from_nanos(3_000_000_000);
/// How many things may happen for each gap between them to be worth a try.
const GAPS_MAX: usize = 60;
/// What times and durations are rounded to.
const ROUND: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(10), Duration::from_millis(1)];

/// By how much later a world may fail if things happen at other times.
const SLACK: Duration = Duration::from_secs(1);

/// Something that makes a script simpler.
type Step = fn(&mut Script);

/// What makes the world itself simpler.
const SIMPLER: [Step; 19] = [
    |script| script.world.net = NetOptions::quiet(),
    |script| script.world.net.late_ppm = 0,
    |script| script.world.net.duplicate_ppm = 0,
    |script| script.world.net.loss_ppm = 0,
    |script| script.world.net.delay_jitter = Duration::ZERO,
    |script| script.world.order = TieOrder::Fifo,
    |script| script.world.disk_latency = Duration::from_millis(1),
    |script| script.world.drift_ppm_max = 0,
    |script| script.limits = RaftLimits::default(),
    |script| script.limits.append_entries_max = RaftLimits::default().append_entries_max,
    |script| script.limits.append_bytes_max = RaftLimits::default().append_bytes_max,
    |script| script.limits.inflight_messages_max = RaftLimits::default().inflight_messages_max,
    |script| script.limits.inflight_bytes_max = RaftLimits::default().inflight_bytes_max,
    |script| {
        script.limits = RaftLimits {
            append_entries_max: script.limits.append_entries_max,
            append_bytes_max: script.limits.append_bytes_max,
            inflight_messages_max: script.limits.inflight_messages_max,
            inflight_bytes_max: script.limits.inflight_bytes_max,
            ..RaftLimits::default()
        };
    },
    |script| (script.compressed, script.encrypted) = (false, false),
    |script| script.uneven = false,
    |script| script.disaster = false,
    |script| script.newborn = false,
    |script| script.always = None,
];

impl Search {
    /// All passes again and again, until none makes the script shorter or the time is over.
    pub(super) fn passes(&mut self, mut size: Size) -> Size {
        loop {
            let before = self.best.clone();
            for pass in [
                Self::end_earlier,
                Self::begin_later,
                Self::without_kinds,
                Self::fewer_blows,
                Self::fewer_actions,
                Self::fewer_hosts,
                Self::simpler_values,
                Self::rounder_times,
            ] {
                pass(self, &mut size);
            }
            if self.best == before || self.is_over() {
                return size;
            }
        }
    }

    /// Keeps the first of so many candidates that fails; which one that was.
    fn keep(
        &mut self,
        size: &mut Size,
        count: usize,
        candidate: impl Fn(&Script, usize) -> Option<Script> + Sync,
    ) -> Option<usize> {
        let best = &self.best;
        let (at, script, smaller) = self.first(count, |at| candidate(best, at))?;
        self.best = script;
        *size = smaller;
        self.tell(smaller);
        Some(at)
    }

    /// Takes each of so many steps that leads to a failing script, in order.
    fn keep_all(
        &mut self,
        size: &mut Size,
        count: usize,
        step: impl Fn(&mut Script, usize) + Sync,
    ) {
        let mut from = 0;
        while from < count {
            let kept = self.keep(size, count - from, |best, at| {
                let mut script = best.clone();
                step(&mut script, from + at);
                (script != *best).then_some(script)
            });
            let Some(at) = kept else { return };
            from += at + 1;
        }
    }

    /// The world ends without rest, or earlier.
    fn end_earlier(&mut self, size: &mut Size) {
        self.keep(size, 1, |best, _| best.rests.then(|| Script { rests: false, ..best.clone() }));
        loop {
            let kept = self.keep(size, (PARTS - 1) as usize, |best, at| {
                let part = u32::try_from(at).ok()? + 1;
                let first = events(best).first().copied()?;
                let until = first + best.until.since(first) / PARTS * part;
                let mut script = Script { until, ..best.clone() };
                script.blows.retain(|(at, _)| *at <= until);
                script.actions.retain(|(at, _)| *at <= until);
                Some(script)
            });
            if kept.is_none() {
                return;
            }
        }
    }

    /// What happens first is left out, and the rest happens sooner.
    fn begin_later(&mut self, size: &mut Size) {
        loop {
            let kept = self.keep(size, (PARTS - 1) as usize, |best, at| {
                let part = PARTS - 1 - u32::try_from(at).ok()?;
                let first = events(best).first().copied()?;
                let sooner = best.until.since(first) / PARTS * part;
                let mut script = best.clone();
                script.blows.retain(|(at, _)| *at >= first + sooner);
                script.actions.retain(|(at, _)| *at >= first + sooner);
                Some(at_other_times(&script, |at| at.since(Instant::ZERO) - sooner))
            });
            if kept.is_none() {
                return;
            }
        }
    }

    /// Whole kinds of faults and of operations are left out.
    fn without_kinds(&mut self, size: &mut Size) {
        self.keep_all(size, BLOWS.len(), |script, at| {
            script.blows.retain(|(_, blow)| blow.kind() != BLOWS[at]);
        });
        self.keep_all(size, 5, |script, at| {
            script.actions.retain(|(_, action)| match action {
                Action::Watch(_) => at != 0,
                Action::Kv(_) => at != 1,
                Action::Write { .. }
                | Action::Read { .. }
                | Action::AddService { .. }
                | Action::RemoveService { .. } => at != 2,
                Action::Find(_) => at != 3,
                Action::Maintain { .. } | Action::HandOver { .. } => at != 4,
            });
        });
    }

    fn fewer_blows(&mut self, size: &mut Size) {
        self.fewer(size, |script| &mut script.blows);
    }

    fn fewer_actions(&mut self, size: &mut Size) {
        self.fewer(size, |script| &mut script.actions);
    }

    /// Delta debugging: ever smaller pieces of a list are left out, down to single items.
    fn fewer<T>(&mut self, size: &mut Size, list: fn(&mut Script) -> &mut Vec<T>) {
        let mut piece = list(&mut self.best).len();
        while piece > 0 {
            let mut from = 0;
            loop {
                let len = list(&mut self.best).len();
                let count = len.saturating_sub(from).div_ceil(piece);
                let kept = self.keep(size, count, |best, at| {
                    let mut script = best.clone();
                    let start = from + at * piece;
                    list(&mut script).drain(start..len.min(start + piece));
                    Some(script)
                });
                let Some(at) = kept else { break };
                from += at * piece;
            }
            piece /= 2;
        }
    }

    /// Hosts are left out, the last ones first.
    fn fewer_hosts(&mut self, size: &mut Size) {
        loop {
            let hosts = self.best.hosts();
            let kept = self.keep(size, hosts, |best, at| without(best, hosts - 1 - at));
            if kept.is_none() {
                return;
            }
        }
    }

    /// Links, disks, clocks and limits become the usual ones, and losses of power plain ones.
    fn simpler_values(&mut self, size: &mut Size) {
        self.keep_all(size, SIMPLER.len(), |script, at| SIMPLER[at](script));
        let blows = self.best.blows.len();
        self.keep_all(size, blows * 2, |script, at| {
            let plain = if at % 2 == 0 { Loss::All } else { Loss::Nothing };
            if let Some((_, Blow::Crash { crash: Crash::Power(loss), .. })) =
                script.blows.get_mut(at / 2)
                && *loss == Loss::Mixed
            {
                *loss = plain;
            }
        });
    }

    /// Things happen sooner after each other, and at round times.
    fn rounder_times(&mut self, size: &mut Size) {
        let moments = events(&self.best).len();
        if moments <= GAPS_MAX {
            self.keep_all(size, moments * 2, |script, at| close_gap(script, at / 2, at % 2 == 1));
        }
        self.keep(size, ROUND.len(), |best, at| {
            let script = at_other_times(best, |time| rounded(time.since(Instant::ZERO), ROUND[at]));
            (script != *best).then_some(script)
        });
        let blows = self.best.blows.len();
        self.keep_all(size, blows * ROUND.len(), |script, at| {
            let Some((_, blow)) = script.blows.get_mut(at / ROUND.len()) else { return };
            let (Blow::Crash { down: span, .. }
            | Blow::Cut { span, .. }
            | Blow::Pause { span, .. }
            | Blow::Stall { span, .. }
            | Blow::Fill { span, .. }
            | Blow::Leave { away: span, .. }) = blow
            else {
                return;
            };
            *span = rounded(*span, ROUND[at % ROUND.len()]);
        });
    }
}

/// Lets what happens at this moment, and all after it, happen whole seconds sooner: in place of the
/// time in which nothing happens, or of half of it.
fn close_gap(script: &mut Script, moment: usize, half: bool) {
    let moments = events(script);
    let Some(from) = moments.get(moment).copied() else { return };
    let before = moment.checked_sub(1).map_or(FIRST, |before| moments[before]);
    let seconds = from.since(before).as_secs() / if half { 2 } else { 1 };
    *script = at_other_times(script, |at| {
        let span = at.since(Instant::ZERO);
        if at < from { span } else { span - Duration::from_secs(seconds) }
    });
}

/// The moments at which something happens, in order.
fn events(script: &Script) -> Vec<Instant> {
    let blows = script.blows.iter().map(|(at, _)| *at);
    let mut times: Vec<Instant> = blows.chain(script.actions.iter().map(|(at, _)| *at)).collect();
    times.sort_unstable();
    times.dedup();
    times
}

fn at_other_times(script: &Script, time: impl Fn(Instant) -> Duration) -> Script {
    let mut script = script.clone();
    script.blows.iter_mut().for_each(|(at, _)| *at = Instant::ZERO + time(*at));
    script.actions.iter_mut().for_each(|(at, _)| *at = Instant::ZERO + time(*at));
    // A little longer does no harm: the world ends once it fails.
    script.until = Instant::ZERO + time(script.until) + SLACK;
    script
}

/// The next multiple of `to`.
fn rounded(span: Duration, to: Duration) -> Duration {
    let (span, to) = (span.as_nanos(), to.as_nanos());
    Duration::from_nanos(u64::try_from(span.div_ceil(to) * to).unwrap_or(u64::MAX))
}

/// The script without a host; the others move up. `None` if it is the only server.
fn without(script: &Script, host: HostId) -> Option<Script> {
    let mut script = script.clone();
    if host < script.servers {
        script.servers = script.servers.checked_sub(1).filter(|left| *left > 0)?;
    } else {
        script.clients = script.clients.checked_sub(1)?;
    }
    let moved = |it: &HostId| match (*it).cmp(&host) {
        std::cmp::Ordering::Less => Some(*it),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(it - 1),
    };
    script.blows.retain_mut(|(_, blow)| match blow {
        Blow::Crash { host, .. }
        | Blow::Pause { host, .. }
        | Blow::Leave { host, .. }
        | Blow::Rot { host, .. }
        | Blow::Stall { host, .. }
        | Blow::Fill { host, .. }
        | Blow::SyncError { host, .. } => moved(host).map(|at| *host = at).is_some(),
        Blow::Cut { hosts, from, .. } => {
            for side in [&mut *hosts, &mut *from] {
                *side = side.iter().filter_map(moved).collect();
            }
            !hosts.is_empty() && !from.is_empty()
        }
    });
    script.actions.retain_mut(|(_, action)| match host_of(action) {
        Some(host) => moved(host).map(|at| *host = at).is_some(),
        None => true,
    });
    Some(script)
}

/// Whom a client asks.
const fn host_of(action: &mut Action) -> Option<&mut HostId> {
    match action {
        Action::Write { host, .. }
        | Action::Read { host, .. }
        | Action::AddService { host, .. }
        | Action::RemoveService { host, .. }
        | Action::Maintain { host, .. }
        | Action::HandOver { host } => Some(host),
        Action::Find(
            FindAction::Look { host, .. }
            | FindAction::Execute { host, .. }
            | FindAction::Define { host, .. }
            | FindAction::Forget { host, .. },
        ) => Some(host),
        Action::Kv(action) => Some(&mut action.host),
        Action::Watch(WatchAction::Ask { host, .. }) => Some(host),
        Action::Watch(WatchAction::HangUp { .. }) => None,
    }
}
