//! A large store: how long backups and restarts take, and what they cost.

use crate::contender::{Ask, Contender, Job, Kind, Servers, base64};
use e2e::{Connection, LONG, Random};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a value.
const VALUE: usize = 100;
/// Keys of one transaction: as many as all programs take.
const PER_TRANSACTION: usize = 64;
/// Who fills the store.
const WRITERS: usize = 8;
/// How long the store rests when it is full.
const REST: Duration = Duration::from_secs(10);
/// A whole store may take this long to be sent.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures all contenders, one after the other.
pub(crate) fn run(contenders: &[Contender], keys: usize) {
    println!("{keys} keys with values of {VALUE} bytes, one server");
    println!(
        "{:<12}{:>9}{:>9}{:>9}{:>9}{:>14}{:>14}{:>12}{:>9}",
        "", "fill s", "MiB", "save s", "save MB", "get max ms", "put max ms", "restart s", "MiB"
    );
    for contender in contenders {
        let mut servers = contender.start(1);
        let filling = Instant::now();
        fill(&servers, keys);
        let filled = filling.elapsed();
        thread::sleep(REST);
        let resident = servers.resident(0);
        let (took, size, longest) = save(&servers);
        print!(
            "{:<12}{:>9.1}{resident:>9.0}",
            format!("{:?}", contender.kind),
            filled.as_secs_f64()
        );
        print!("{:>9.2}{:>9.0}", took.as_secs_f64(), size as f64 / 1e6);
        for longest in longest {
            print!("{:>14.1}", longest.as_secs_f64() * 1000.0);
        }
        servers.kill(0);
        let restart = Instant::now();
        servers.restart(0);
        servers.wait_for_writes(0);
        let took = restart.elapsed();
        println!("{:>12.2}{:>9.0}", took.as_secs_f64(), servers.resident(0));
    }
}

/// Puts `keys` keys, a transaction after the other by each writer.
fn fill(servers: &Servers, keys: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let open = || Connection::open(servers.hosts[0], LONG);
                let mut connection = open().expect("the server takes connections");
                loop {
                    let first = next.fetch_add(PER_TRANSACTION, Ordering::Relaxed);
                    if first >= keys {
                        return;
                    }
                    let ask = transaction(servers.kind, first..keys.min(first + PER_TRANSACTION));
                    let answer = connection.exchange(ask.method, &ask.path, &ask.body);
                    let answer = answer.expect("the server answers");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
}

fn transaction(kind: Kind, keys: std::ops::Range<usize>) -> Ask {
    let value = |key: usize| base64(&value(key));
    let name = |key: usize| format!("large/{:03}/{key:09}", key % 1000);
    if kind == Kind::Etcd {
        let put = |key| {
            let name = base64(name(key).as_bytes());
            json!({"requestPut": {"key": name, "value": value(key)}})
        };
        let all: Vec<Value> = keys.map(put).collect();
        return Ask::post("/v3/kv/txn", json!({ "success": all }).to_string());
    }
    let put = |key| json!({"KV": {"Verb": "set", "Key": name(key), "Value": value(key)}});
    Ask::put("/v1/txn", Value::Array(keys.map(put).collect()).to_string())
}

/// Text as random as hexadecimal digits are, so that backups cannot make it vanish.
fn value(key: usize) -> Vec<u8> {
    let mut random = Random::new(key as u64);
    let digits = std::iter::repeat_with(|| format!("{:016x}", random.next()));
    digits.take(VALUE.div_ceil(16)).collect::<String>().into_bytes()[..VALUE].to_vec()
}

/// Saves a backup: how long it took, how large it is, and the longest get and put meanwhile.
fn save(servers: &Servers) -> (Duration, usize, [Duration; 2]) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let get = if servers.kind == Kind::Etcd {
            Job::Get(crate::contender::Mode::Consistent)
        } else {
            Job::Get(crate::contender::Mode::Default)
        };
        let over = &over;
        let others = [get, Job::Put].map(|job| scope.spawn(move || longest(servers, job, over)));
        let ask = match servers.kind {
            Kind::Terraform | Kind::Consul => Ask::get("/v1/snapshot"),
            Kind::Etcd => Ask::post("/v3/maintenance/snapshot", "{}".to_owned()),
        };
        let begin = Instant::now();
        let answer = servers.once(0, &ask, PATIENCE).expect("the server sends a backup");
        let took = begin.elapsed();
        over.store(true, Ordering::Relaxed);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let longest = others.map(|other| other.join().expect("clients do not panic"));
        (took, answer.body.len(), longest)
    })
}

fn longest(servers: &Servers, job: Job, over: &AtomicBool) -> Duration {
    let mut connection = Connection::open(servers.hosts[0], LONG).expect("connections are taken");
    let mut longest = Duration::ZERO;
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let ask = servers.ask(job, 0, number);
        let begin = Instant::now();
        let answer = connection.exchange(ask.method, &ask.path, &ask.body);
        assert_eq!(answer.expect("the server answers").status, 200);
        longest = longest.max(begin.elapsed());
    }
    longest
}
