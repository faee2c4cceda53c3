//! Where metrics are recorded, and where they come together.

use super::config::TelemetryConfig;
use super::interval::{INTERVALS_KEPT, Interval, Key};
use arc_swap::{ArcSwap, Guard};
use smol::channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terraform_core::durations::Durations;
use terraform_core::time::{Instant, WallClock};

/// Something whose time is measured where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timed {
    /// A request of the HTTP API: its method, and the pattern of its path.
    Http(&'static str, &'static str),
    /// A question to DNS for a name of the zone.
    DnsDomain,
    /// A question to DNS for the name of an address.
    DnsReverse,
    /// The execution of a prepared query, for a program or for DNS.
    Execution,
    /// The renewal of a session, for a program.
    Renewal,
    /// A turn of the driver in which the node applied entries of the log.
    Applying,
}

impl Timed {
    /// Its metric on the agent of this name.
    fn key(self, node: &str) -> Key {
        match self {
            Self::Http(method, path) => {
                let tail = if path.ends_with('/') { "_" } else { "" };
                let path = path.trim_start_matches('/').replace('/', ".");
                Key::plain(&format!("http.{method}.{path}{tail}"))
            }
            Self::DnsDomain => Key::plain("dns.domain_query").with("node", node),
            Self::DnsReverse => Key::plain("dns.ptr_query").with("node", node),
            Self::Execution => Key::plain("prepared-query.execute"),
            Self::Renewal => Key::plain("session.renew"),
            Self::Applying => Key::plain("raft.fsm.apply"),
        }
    }
}

/// Something that is counted where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// An answer of DNS that is older than a server's answer should be.
    DnsStale,
    /// A call of the catalog's part of the HTTP API, by Consul's name of it.
    Call(&'static str),
    /// One that was answered with what was asked for.
    CallDone(&'static str),
    /// One that was not.
    CallFailed(&'static str),
}

impl Counted {
    fn key(self, node: &str) -> Key {
        let call =
            |kind: &str, name: &str| Key::plain(&format!("{kind}.{name}")).with("node", node);
        match self {
            Self::DnsStale => Key::plain("dns.stale_queries"),
            Self::Call(name) => call("client.api", name),
            Self::CallDone(name) => call("client.api.success", name),
            Self::CallFailed(name) => call("client.rpc.error", name),
        }
    }
}

/// A question about a service that is counted with the service's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sought {
    /// Its instances.
    Catalog,
    /// Its instances, and there were none.
    CatalogMissed,
    /// Its instances with their health.
    Health,
    /// Its instances with their health, and there were none.
    HealthMissed,
}

impl Sought {
    const fn name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog.service.query",
            Self::CatalogMissed => "catalog.service.not-found",
            Self::Health => "health.service.query",
            Self::HealthMissed => "health.service.not-found",
        }
    }
}

/// Names of services that have metrics of their own. Whoever asks chooses them, so further ones are
/// counted together, without a label.
const SERVICES_MAX: usize = 512;

/// What one thread has recorded and nobody has collected.
#[derive(Debug, Default)]
struct Shard {
    timed: BTreeMap<Timed, Durations>,
    counted: BTreeMap<Counted, u64>,
    sought: BTreeMap<String, BTreeMap<Sought, u64>>,
}

/// A metric over the whole run, for Prometheus.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Total<T> {
    pub(super) value: T,
    /// When it last changed, or was last set.
    pub(super) at: Instant,
}

/// Everything over the whole run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) gauges: BTreeMap<Key, Total<f64>>,
    pub(super) counters: BTreeMap<Key, Total<u64>>,
    pub(super) samples: BTreeMap<Key, Total<(u64, Duration)>>,
}

impl Totals {
    fn add(&mut self, interval: &Interval, now: Instant) {
        for (key, value) in &interval.gauges {
            self.gauges.insert(key.clone(), Total { value: *value, at: now });
        }
        for (key, count) in &interval.counters {
            let total = self.counters.entry(key.clone()).or_insert(Total { value: 0, at: now });
            *total = Total { value: total.value + count, at: now };
        }
        for (key, durations) in &interval.samples {
            let nothing = Total { value: (0, Duration::ZERO), at: now };
            let total = self.samples.entry(key.clone()).or_insert(nothing);
            let (count, sum) = total.value;
            let value = (count + durations.count(), sum + durations.sum());
            *total = Total { value, at: now };
        }
    }
}

/// What is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Oldest first.
    pub(super) finished: VecDeque<Arc<Interval>>,
    pub(super) running: Interval,
    /// Without the running interval.
    pub(super) totals: Totals,
    /// Services that have metrics of their own.
    services: BTreeSet<String>,
    watchers: Vec<Sender<Arc<Interval>>>,
}

impl Kept {
    /// Whether a service has metrics of its own.
    fn gives_label(&mut self, service: &str) -> bool {
        if service.is_empty() || self.services.contains(service) {
            return !service.is_empty();
        }
        let has_room = self.services.len() < SERVICES_MAX;
        if has_room {
            self.services.insert(service.to_owned());
        }
        has_room
    }
}

/// Intervals that wait for one watcher.
const WATCHED_MAX: usize = 8;

/// All metrics of one agent.
pub struct Metrics {
    config: ArcSwap<TelemetryConfig>,
    node: String,
    /// One for each thread that works for the agent, so that none waits for another.
    shards: Box<[Mutex<Shard>]>,
    kept: Mutex<Kept>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The number of this thread, in the order of their first metrics.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl Metrics {
    /// Metrics of the agent `node`, which begin at `wall`.
    pub fn new(node: &str, wall: WallClock) -> Self {
        let shards = crate::system::processors().saturating_mul(2);
        Self {
            config: ArcSwap::from_pointee(TelemetryConfig::default()),
            node: node.to_owned(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            kept: Mutex::new(Kept {
                finished: VecDeque::new(),
                running: Interval::beginning(wall),
                totals: Totals::default(),
                services: BTreeSet::new(),
                watchers: Vec::new(),
            }),
        }
    }

    /// What the operator wants of them.
    pub fn config(&self) -> Guard<Arc<TelemetryConfig>> {
        self.config.load()
    }

    /// Changes that. Sinks that run go on as they are.
    pub fn configure(&self, config: TelemetryConfig) {
        self.config.store(Arc::new(config));
    }

    /// Notes that something took so long.
    pub fn time(&self, what: Timed, took: Duration) {
        self.shard().timed.entry(what).or_default().record(took);
    }

    /// Notes that something happened.
    pub fn count(&self, what: Counted) {
        *self.shard().counted.entry(what).or_insert(0) += 1;
    }

    /// Notes that somebody asked about a service.
    pub fn seek(&self, what: Sought, service: &str) {
        let mut shard = self.shard();
        if !shard.sought.contains_key(service) {
            let has_room = shard.sought.len() < SERVICES_MAX;
            let own = if has_room { service.to_owned() } else { String::new() };
            *shard.sought.entry(own).or_default().entry(what).or_insert(0) += 1;
        } else if let Some(counts) = shard.sought.get_mut(service) {
            *counts.entry(what).or_insert(0) += 1;
        }
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        let own = thread_number() % self.shards.len();
        let shard = self.shards.get(own).expect("a remainder is below its divisor");
        // Counts are whole whenever the lock is free, so a panic elsewhere leaves them usable.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything kept, with all that was recorded until now.
    pub(super) fn collected(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (timed, durations) in &mut shard.timed {
                if !durations.is_empty() {
                    kept.running.sample(timed.key(&self.node), durations);
                    durations.clear();
                }
            }
            for (counted, count) in &mut shard.counted {
                kept.running.count(counted.key(&self.node), std::mem::take(count));
            }
            for (service, counts) in std::mem::take(&mut shard.sought) {
                let has_label = kept.gives_label(&service);
                for (what, count) in counts {
                    let key = Key::plain(what.name());
                    let key = if has_label { key.with("service", &service) } else { key };
                    kept.running.count(key, count);
                }
            }
        }
        kept
    }

    /// Adds to the running interval what is known of this moment.
    pub fn add(&self, observation: impl FnOnce(&mut Interval)) {
        observation(&mut self.collected().running);
    }

    /// Ends the running interval and begins the next.
    pub fn turn(&self, now: Instant, wall: WallClock) -> Arc<Interval> {
        let mut kept = self.collected();
        let interval = std::mem::replace(&mut kept.running, Interval::beginning(wall));
        let interval = Arc::new(interval);
        kept.totals.add(&interval, now);
        if kept.finished.len() >= INTERVALS_KEPT {
            kept.finished.pop_front();
        }
        kept.finished.push_back(Arc::clone(&interval));
        kept.watchers.retain(|watcher| {
            // One that reads too slowly misses intervals.
            let _ = watcher.try_send(Arc::clone(&interval));
            !watcher.is_closed()
        });
        interval
    }

    /// The interval finished last; before there is one, what the running one has so far.
    pub fn last(&self) -> Arc<Interval> {
        let kept = self.collected();
        match kept.finished.back() {
            Some(interval) => Arc::clone(interval),
            None => Arc::new(kept.running.clone()),
        }
    }

    /// All finished intervals, oldest first.
    pub fn finished(&self) -> Vec<Arc<Interval>> {
        self.collected().finished.iter().cloned().collect()
    }

    /// The intervals that will be finished. Dropping the receiver ends the subscription.
    pub fn watch(&self) -> Receiver<Arc<Interval>> {
        let (sender, receiver) = bounded(WATCHED_MAX);
        let mut kept = self.collected();
        kept.watchers.retain(|watcher| !watcher.is_closed());
        kept.watchers.push(sender);
        receiver
    }

    /// How many watch.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        self.collected().watchers.len()
    }

    /// Everything over the whole run until `now`, and all that took time in the last minute.
    pub(super) fn totals(&self, now: Instant) -> (Totals, BTreeMap<Key, Durations>) {
        let kept = self.collected();
        let mut totals = kept.totals.clone();
        totals.add(&kept.running, now);
        let mut recent: BTreeMap<Key, Durations> = BTreeMap::new();
        let finished = kept.finished.iter().map(|interval| &**interval);
        for interval in finished.chain([&kept.running]) {
            for (key, durations) in &interval.samples {
                recent.entry(key.clone()).or_default().add(durations);
            }
        }
        (totals, recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KV: Timed = Timed::Http("GET", "/v1/kv/");

    fn metrics() -> Metrics {
        Metrics::new("n1", WallClock::from_millis(5_000))
    }

    #[test]
    fn what_threads_record_comes_together() {
        let metrics = metrics();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| metrics.time(KV, Duration::from_millis(1)));
            }
        });
        metrics.time(Timed::DnsDomain, Duration::from_millis(1));
        metrics.count(Counted::DnsStale);
        let interval = metrics.turn(Instant::ZERO, WallClock::from_millis(10_000));
        let counts: Vec<_> = interval.samples.iter().map(|(k, v)| (&*k.name, v.count())).collect();
        assert_eq!(counts, [("dns.domain_query", 1), ("http.GET.v1.kv._", 3)]);
        let label = interval.samples.keys().next().unwrap().labels.clone();
        assert_eq!(label, [("node", "n1".to_owned())]);
        assert_eq!(interval.counters.values().copied().collect::<Vec<_>>(), [1]);
        let empty = metrics.turn(Instant::ZERO, WallClock::from_millis(20_000));
        assert!(empty.samples.is_empty() && empty.counters.is_empty());
    }

    #[test]
    fn services_are_counted_by_name_until_there_are_too_many() {
        let metrics = metrics();
        metrics.seek(Sought::Catalog, "web");
        metrics.seek(Sought::Catalog, "web");
        metrics.seek(Sought::CatalogMissed, "web");
        let counted = |service: Option<&str>, what: Sought| {
            let key = Key::plain(what.name());
            let key = service.iter().fold(key, |key, service| key.with("service", service));
            metrics.last().counters.get(&key).copied()
        };
        assert_eq!(counted(Some("web"), Sought::Catalog), Some(2));
        assert_eq!(counted(Some("web"), Sought::CatalogMissed), Some(1));
        assert_eq!(counted(Some("web"), Sought::Health), None);
        // The last of them find room neither here nor, from another thread, in what is kept.
        for _ in 0..2 {
            for number in 0..SERVICES_MAX + 9 {
                metrics.seek(Sought::Health, &number.to_string());
            }
            let _ = metrics.last();
            std::thread::scope(|scope| {
                scope.spawn(|| metrics.seek(Sought::Health, "another"));
            });
        }
        assert_eq!(counted(Some("0"), Sought::Health), Some(2));
        assert_eq!(counted(Some("another"), Sought::Health), None);
        let all: u64 = metrics
            .last()
            .counters
            .iter()
            .filter(|(key, _)| key.name.starts_with("health"))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(all, 2 * (SERVICES_MAX as u64 + 9) + 2, "none is lost");
        assert!(metrics.collected().services.len() <= SERVICES_MAX);
    }

    #[test]
    fn a_minute_is_kept() {
        let metrics = metrics();
        for number in 1..=9 {
            metrics.turn(Instant::ZERO, WallClock::from_millis(number * 10_000));
        }
        let began: Vec<i64> = metrics.finished().iter().map(|it| it.began.as_millis()).collect();
        assert_eq!(began, [30_000, 40_000, 50_000, 60_000, 70_000, 80_000]);
        assert_eq!(metrics.last().began.as_millis(), 80_000);
    }

    #[test]
    fn totals_hold_the_running_interval_and_all_before_it() {
        let metrics = metrics();
        for number in 1..=9 {
            metrics.time(KV, Duration::from_millis(2));
            metrics.turn(Instant::from_nanos(number), WallClock::from_millis(10_000));
        }
        metrics.time(KV, Duration::from_millis(2));
        let (totals, recent) = metrics.totals(Instant::from_nanos(77));
        let total = totals.samples.values().next().unwrap();
        assert_eq!(total.value, (10, Duration::from_millis(20)));
        assert_eq!(total.at, Instant::from_nanos(77));
        assert_eq!(recent.values().next().unwrap().count(), 7);
    }

    #[test]
    fn a_watcher_is_told_of_intervals_and_forgotten_when_it_goes() {
        let metrics = metrics();
        let watcher = metrics.watch();
        metrics.turn(Instant::ZERO, WallClock::from_millis(10_000));
        assert_eq!(watcher.try_recv().unwrap().began.as_millis(), 0);
        drop(watcher);
        metrics.turn(Instant::ZERO, WallClock::from_millis(20_000));
        assert_eq!(metrics.watchers(), 0);
    }
}
