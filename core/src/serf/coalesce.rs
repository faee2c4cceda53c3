//! Events on their way to subscribers, merged while many come.
//!
//! Implements gossip-protocol.md §23: a window opens with the first event and closes 3 s later, or
//! once nothing came for 1 s. Of each member the last change counts, and changes of one kind are
//! told as one event; of user events that may be merged, those of the highest time of each name are
//! told. All other events pass at once.
//!
//! Differs: what was told is forgotten with the window, so an update is not repeated in later ones;
//! an update that changes nothing beside what was told last is not told (§28).

use super::{Member, MemberEventKind, SerfEvent};
use crate::id::{LamportTime, NodeName};
use crate::time::Instant;
use crate::wire::serf::UserEvent;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a window is open at most.
const WINDOW: Duration = Duration::from_secs(3);
/// How long nothing must come for it to close earlier.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes of user events that one window holds; more close it.
const USER_BYTES_MAX: usize = 1 << 20;
/// Bytes counted for keeping an event beside its name and payload.
const ENTRY_BYTES: usize = 256;

/// When a window closes.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    closes_at: Option<Instant>,
    opened_at: Option<Instant>,
}

impl Window {
    /// An event came.
    fn extend(&mut self, now: Instant) {
        let opened_at = *self.opened_at.get_or_insert(now);
        self.closes_at = Some((now + QUIET).min(opened_at + WINDOW));
    }

    /// Closes the window if it is time.
    fn close(&mut self, now: Instant) -> bool {
        let due = self.closes_at.is_some_and(|at| at <= now);
        if due {
            *self = Self::default();
        }
        due
    }
}

/// The events of the open windows.
#[derive(Clone, Debug, Default)]
pub struct Coalescer {
    members: BTreeMap<NodeName, (MemberEventKind, Arc<Member>)>,
    members_window: Window,
    /// What subscribers were told last of each member that is not forgotten.
    told: BTreeMap<NodeName, (MemberEventKind, Arc<Member>)>,
    /// User events by name: their highest time, and all of that time.
    users: BTreeMap<String, (LamportTime, Vec<UserEvent>)>,
    user_bytes: usize,
    users_window: Window,
}

impl Coalescer {
    /// Takes an event. Returns it if it passes at once, and what it pushes out.
    ///
    /// - Bounds: one entry for each member known; 1 MiB of user events.
    pub fn take(&mut self, now: Instant, event: SerfEvent) -> Vec<SerfEvent> {
        match event {
            SerfEvent::Members { kind, members } => {
                for member in members {
                    self.members.insert(member.name.clone(), (kind, member));
                }
                self.members_window.extend(now);
                Vec::new()
            }
            SerfEvent::User(event) if event.coalesce => {
                self.take_user(event);
                self.users_window.extend(now);
                if self.user_bytes > USER_BYTES_MAX { self.close_users() } else { Vec::new() }
            }
            SerfEvent::User(_) | SerfEvent::Query { .. } => vec![event],
        }
    }

    /// When a window closes next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let windows = [self.members_window, self.users_window];
        windows.into_iter().filter_map(|window| window.closes_at).min()
    }

    /// Closes what is due and returns its events.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<SerfEvent> {
        let mut events = Vec::new();
        if self.members_window.close(now) {
            events.extend(self.close_members());
        }
        if self.users_window.close(now) {
            events.extend(self.close_users());
        }
        events
    }

    fn take_user(&mut self, event: UserEvent) {
        let (time, events) = self.users.entry(event.name.clone()).or_default();
        if event.time < *time {
            return;
        }
        if event.time > *time {
            *time = event.time;
            self.user_bytes -= events.drain(..).map(|event| bytes_of(&event)).sum::<usize>();
        }
        self.user_bytes += bytes_of(&event);
        events.push(event);
    }

    fn close_members(&mut self) -> Vec<SerfEvent> {
        let mut kinds: BTreeMap<MemberEventKind, Vec<Arc<Member>>> = BTreeMap::new();
        for (name, (kind, member)) in std::mem::take(&mut self.members) {
            let known = match self.told.get(&name) {
                Some((told, _)) if kind != MemberEventKind::Update => *told == kind,
                Some((_, told)) => *told == member,
                None => false,
            };
            if known {
                continue;
            }
            if kind == MemberEventKind::Reap {
                self.told.remove(&name);
            } else {
                self.told.insert(name, (kind, Arc::clone(&member)));
            }
            kinds.entry(kind).or_default().push(member);
        }
        kinds.into_iter().map(|(kind, members)| SerfEvent::Members { kind, members }).collect()
    }

    fn close_users(&mut self) -> Vec<SerfEvent> {
        self.users_window = Window::default();
        self.user_bytes = 0;
        let users = std::mem::take(&mut self.users).into_values();
        users.flat_map(|(_, events)| events).map(SerfEvent::User).collect()
    }
}

fn bytes_of(event: &UserEvent) -> usize {
    ENTRY_BYTES + event.name.len() + event.payload.as_ref().map_or(0, bytes::Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::Versions;
    use crate::gossip::tests::{name, peer};
    use crate::serf::MemberStatus;
    use crate::wire::tags::Tags;

    fn member(text: &str, load: &str) -> Arc<Member> {
        Arc::new(Member {
            name: name(text),
            address: peer(text, 7).address,
            tags: Tags::from_iter([("load", load)]),
            status: MemberStatus::Alive,
            status_time: LamportTime::ZERO,
            versions: Versions::OURS,
        })
    }

    fn change(kind: MemberEventKind, text: &str) -> SerfEvent {
        SerfEvent::Members { kind, members: vec![member(text, "1")] }
    }

    fn user(time: u64, payload: &'static str) -> UserEvent {
        let (time, payload) = (LamportTime::new(time), Some(payload.as_bytes().into()));
        UserEvent { coalesce: true, time, name: "deploy".to_owned(), payload }
    }

    /// Seconds after the start, in tenths.
    fn at(tenths: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(100 * tenths)
    }

    /// The kinds and names told at `now`.
    fn told(coalescer: &mut Coalescer, now: Instant) -> Vec<(MemberEventKind, Vec<String>)> {
        let members = |event| {
            let SerfEvent::Members { kind, members } = event else { panic!("{event:?}") };
            (kind, members.iter().map(|member| member.name.to_string()).collect())
        };
        coalescer.handle_timeout(now).into_iter().map(members).collect()
    }

    #[test]
    fn many_changes_become_one_event_of_each_kind() {
        use MemberEventKind::{Failed, Join};
        let mut coalescer = Coalescer::default();
        for text in ["a", "b", "c"] {
            assert_eq!(coalescer.take(at(0), change(Join, text)), []);
        }
        coalescer.take(at(5), change(Failed, "b"));
        assert_eq!(coalescer.next_timeout(), Some(at(15)), "one second of quiet");
        assert_eq!(told(&mut coalescer, at(14)), []);
        let expected = [(Join, vec!["a".into(), "c".into()]), (Failed, vec!["b".into()])];
        assert_eq!(told(&mut coalescer, at(15)), expected);
        assert_eq!(coalescer.next_timeout(), None);
    }

    #[test]
    fn a_window_that_is_never_quiet_closes_after_three_seconds() {
        let mut coalescer = Coalescer::default();
        for tenths in 0..40 {
            coalescer.take(at(tenths), change(MemberEventKind::Update, "a"));
            assert!(coalescer.next_timeout() <= Some(at(30)));
        }
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        use MemberEventKind::{Failed, Join, Reap, Update};
        let mut coalescer = Coalescer::default();
        let mut tell = |now, event| {
            coalescer.take(at(now), event);
            told(&mut coalescer, at(now + 10))
        };
        assert_eq!(tell(0, change(Join, "a")).len(), 1);
        assert_eq!(tell(20, change(Join, "a")), []);
        assert_eq!(tell(40, change(Update, "a")), [], "nothing changed");
        let update = SerfEvent::Members { kind: Update, members: vec![member("a", "2")] };
        assert_eq!(tell(60, update).len(), 1);
        assert_eq!(tell(80, change(Failed, "b")), [(Failed, vec!["b".into()])], "only what is new");
        assert_eq!(tell(100, change(Reap, "b")).len(), 1);
        assert_eq!(tell(120, change(Join, "b")).len(), 1);
    }

    #[test]
    fn only_the_newest_user_events_of_a_name_are_told() {
        let mut coalescer = Coalescer::default();
        for event in [user(1, "old"), user(2, "x"), user(2, "y"), user(1, "late")] {
            assert_eq!(coalescer.take(at(0), SerfEvent::User(event)), []);
        }
        let expected = [user(2, "x"), user(2, "y")].map(SerfEvent::User);
        assert_eq!(coalescer.handle_timeout(at(10)), expected);
        let plain = SerfEvent::User(UserEvent { coalesce: false, ..user(3, "z") });
        assert_eq!(coalescer.take(at(20), plain.clone()), [plain]);
    }

    #[test]
    fn too_many_user_events_close_the_window() {
        let mut coalescer = Coalescer::default();
        let large: &'static str = "x".repeat(1 << 16).leak();
        let told = (0..16).flat_map(|_| coalescer.take(at(0), SerfEvent::User(user(1, large))));
        assert_eq!(told.count(), 16);
        assert_eq!(coalescer.next_timeout(), None);
        let mut tiny = (1..10_000).map(|n| UserEvent { name: n.to_string(), ..user(n, "") });
        let closed =
            tiny.find(|event| !coalescer.take(at(20), SerfEvent::User(event.clone())).is_empty());
        assert!(closed.is_some_and(|event| event.time.get() <= 4096), "tiny events take room too");
    }
}
