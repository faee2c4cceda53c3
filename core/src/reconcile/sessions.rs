//! Sessions that nobody renews any more, and lock delays that are over (http-api.md §10).
//!
//! A replica must not look at its own clock to end a session, so the leader keeps the time and then
//! lets all servers end it. It cannot know how much of a time is over that an earlier leader kept,
//! so a new leader gives every session and every lock delay its full time again (C8 of
//! simulation.md): none ends early, and what an election costs a session is a longer life.
//!
//! Differs: a session ends one and a half times its TTL after the last renewal that reached the
//! leader, where Consul 1.8.7 waits for two. The contract is from one to two.

use super::*;
use crate::catalog::lock::{LockDelay, LockDelayEnd};
use crate::catalog::session::Session;
use crate::id::SessionId;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// Sessions that one command ends at most, and lock delays.
const ENDED_MAX: usize = 256;

/// Something whose time the leader keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Clocked {
    /// A session.
    Session(SessionId),
    /// The lock delay of a key.
    Delay(Arc<str>),
}

/// What the leader knows of their time.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    /// Sessions as they were looked at last.
    seen: OrdMap<Arc<str>, Arc<Session>>,
    /// Lock delays as they were.
    seen_delays: OrdMap<Arc<str>, LockDelay>,
    timers: Timers<Clocked>,
    /// Those whose time is over.
    over: BTreeSet<Clocked>,
    /// Those that the command on its way is about.
    in_flight: Option<(ReconcileTicket, Vec<Clocked>)>,
    /// When a command that was not committed is tried again.
    retry_at: Option<Instant>,
}

/// How long after the last renewal a session ends.
fn life(ttl: Duration) -> Duration {
    ttl + ttl / 2
}

impl Sessions {
    /// Whether something began or ended since the last look.
    fn differ(&self, tables: &Tables) -> bool {
        let same = self.seen.ptr_eq(tables.session_map());
        !(same && self.seen_delays.ptr_eq(tables.lock_delays()))
    }

    /// Starts the clocks of what is new, and forgets what is gone.
    fn look(&mut self, now: Instant, tables: &Tables) {
        let (sessions, delays) = (tables.session_map().clone(), tables.lock_delays().clone());
        let old_sessions = std::mem::replace(&mut self.seen, sessions.clone());
        let old_delays = std::mem::replace(&mut self.seen_delays, delays.clone());
        for item in old_sessions.diff(&sessions) {
            match item {
                DiffItem::Add(_, session) if !session.ttl.is_zero() => {
                    // A bug: what is there when a leader begins is taken to be over.
                    let bug = old_sessions.is_empty() && crate::mutant!(M38);
                    let time = if bug { Duration::ZERO } else { life(session.ttl) };
                    self.timers.set(Clocked::Session(session.id), now + time);
                }
                DiffItem::Remove(_, session) => self.forget(&Clocked::Session(session.id)),
                // It is only spelled in another way.
                DiffItem::Add(..) | DiffItem::Update { .. } => {}
            }
        }
        for item in old_delays.diff(&delays) {
            match item {
                DiffItem::Add(key, delay) | DiffItem::Update { new: (key, delay), .. } => {
                    let clocked = Clocked::Delay(Arc::clone(key));
                    self.over.remove(&clocked);
                    let time = if crate::mutant!(M39) { Duration::ZERO } else { delay.delay };
                    self.timers.set(clocked, now + time);
                }
                DiffItem::Remove(key, _) => self.forget(&Clocked::Delay(Arc::clone(key))),
            }
        }
    }

    /// How many of those seen have a time.
    pub(super) fn timed(&self) -> usize {
        self.seen.values().filter(|session| !session.ttl.is_zero()).count()
    }

    fn forget(&mut self, clocked: &Clocked) {
        self.timers.cancel(clocked);
        self.over.remove(clocked);
    }

    /// What is to be ended next: all of them sessions, or all lock delays.
    fn next(&self) -> Vec<Clocked> {
        let is_session = |it: &&Clocked| matches!(it, Clocked::Session(_));
        let kind = self.over.first().as_ref().map(is_session);
        self.over
            .iter()
            .filter(|it| Some(is_session(it)) == kind)
            .take(ENDED_MAX)
            .cloned()
            .collect()
    }

    fn command(&self, ended: &[Clocked]) -> Command {
        let session = |it: &Clocked| match it {
            Clocked::Session(id) => Some(*id),
            Clocked::Delay(_) => None,
        };
        let delay = |it: &Clocked| match it {
            Clocked::Delay(key) => {
                let since = self.seen_delays.get(key)?.since;
                Some(LockDelayEnd { key: Arc::clone(key), since })
            }
            Clocked::Session(_) => None,
        };
        let sessions: Vec<SessionId> = ended.iter().filter_map(session).collect();
        if sessions.is_empty() {
            Command::EndLockDelays(ended.iter().filter_map(delay).collect())
        } else {
            Command::EndSessions(sessions)
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.retry_at).min()
    }
}

impl Reconcile {
    /// Whether sessions began or ended that the duties have not looked at.
    pub fn misses_sessions(&self, tables: &Tables) -> bool {
        self.leads && self.sessions.differ(tables)
    }

    /// Whether this server leads and is up to date.
    pub const fn leads(&self) -> bool {
        self.leads
    }

    /// Looks at the sessions that began and ended.
    pub(super) fn look_at_sessions(&mut self, now: Instant, world: &World<'_>) {
        if self.leads {
            self.sessions.look(now, world.tables);
        }
    }

    /// Gives a session its full time again; whether it lives on. Only a leader keeps the time, so
    /// whoever is told that it is renewed must hear it from one whose leadership is confirmed.
    pub fn renew(&mut self, now: Instant, id: SessionId, tables: &Tables) -> bool {
        let clocked = Clocked::Session(id);
        let ending =
            self.sessions.in_flight.as_ref().is_some_and(|(_, all)| all.contains(&clocked));
        let Some(session) = tables.session(id).filter(|_| self.leads && !ending) else {
            return false;
        };
        if !session.ttl.is_zero() && crate::mutant!(M60) {
            self.sessions.timers.cancel(&clocked);
        } else if !session.ttl.is_zero() {
            self.sessions.over.remove(&clocked);
            self.sessions.timers.set(clocked, now + life(session.ttl));
        }
        true
    }

    /// Ends what has lived long enough.
    pub(super) fn end_sessions(&mut self, now: Instant, out: &mut ReconcileOutbox) {
        while let Some(clocked) = self.sessions.timers.pop_due(now) {
            self.sessions.over.insert(clocked);
        }
        self.sessions.retry_at.take_if(|at| *at <= now);
        if self.sessions.retry_at.is_some()
            || self.sessions.in_flight.is_some()
            || self.sessions.over.is_empty()
        {
            return;
        }
        let ended = self.sessions.next();
        let command = self.sessions.command(&ended);
        if let Command::EndSessions(sessions) = &command {
            crate::mark!("reconcile.session_expired");
            for id in sessions {
                crate::trace!(out, Level::Info, ReconcileTrace::SessionExpired(*id));
            }
        } else {
            crate::mark!("reconcile.lock_delay_over");
        }
        let ticket = self.ticket();
        self.sessions.in_flight = Some((ticket, ended));
        out.push(ReconcileOutput::Propose { ticket, command: Box::new(command) });
    }

    /// Whether the step ended sessions or lock delays. What is ended is gone from the catalog, and
    /// so from here; the rest is tried again.
    pub(super) fn sessions_ended(
        &mut self,
        now: Instant,
        (ticket, result): (ReconcileTicket, &Result<(), StepError>),
        (world, out): (&World<'_>, &mut ReconcileOutbox),
    ) -> bool {
        let wanted = |flight: &mut (ReconcileTicket, Vec<Clocked>)| flight.0 == ticket;
        if self.sessions.in_flight.take_if(wanted).is_none() {
            return false;
        }
        self.look_at_sessions(now, world);
        if result.is_err() {
            let pause = RETRY_MIN + self.rng.jitter(RETRY_MIN);
            self.sessions.retry_at = Some(now + pause);
        }
        self.end_sessions(now, out);
        true
    }
}
