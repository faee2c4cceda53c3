//! Recordings on disks that hold, fail and stall.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use terraform_core::config::{GossipConfig, NodeConfig, SerfConfig};
use terraform_core::id::{Datacenter, NodeName, PoolName};
use terraform_core::recording::{Decoder, RELEASE};
use terraform_core::rng::{Rng, Seed, Stream};
use terraform_core::storage::recovery::{Recovery, RecoveryConfig};
use terraform_core::storage::wal::WalConfig;

/// A path of this test's own.
fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("terraform-record-{}-{count}", std::process::id()))
}

fn origin() -> Origin {
    let advertise = std::net::IpAddr::from([127, 0, 0, 1]);
    let config = NodeConfig {
        name: NodeName::parse("a").unwrap(),
        datacenter: Datacenter::parse("dc1").unwrap(),
        advertise,
        advertise_wan: advertise,
        tagged_addresses: std::collections::BTreeMap::new(),
        serf_lan_port: 8301,
        server_port: 8300,
        server: None,
        gossip: GossipConfig::lan(),
        serf: SerfConfig::default(),
        services: Vec::new(),
        checks: Vec::new(),
        node_meta: std::collections::BTreeMap::new(),
        rpc_hold: std::time::Duration::from_secs(7),
        rpc_rate: None,
        check_update_interval: std::time::Duration::from_secs(300),
        check_output: terraform_core::local::definition::OutputRules::default(),
        level: Level::Info,
    };
    let recovery = RecoveryConfig {
        server: false,
        node_id: None,
        wal: WalConfig::default(),
        peers: None,
        host: Vec::new(),
    };
    Origin { release: RELEASE.to_owned(), seed: Seed::from_number(3), config, recovery }
}

/// What is said, as it is said.
fn notice() -> (Notice, mpsc::Receiver<String>) {
    let (said, heard) = mpsc::channel();
    let sink: Sink = Arc::new(move |record| said.send(record.to_string()).unwrap());
    (Notice { path: PathBuf::from("file"), sink }, heard)
}

/// A client agent on an empty disk, recorded.
fn recorded(mut recording: Recording) -> Recorded {
    let Origin { seed, config, recovery, .. } = origin();
    let mut recovery = Recovery::new(recovery, Rng::for_stream(seed, Stream::Identity));
    let mut answer = None;
    let restored = loop {
        let step = recovery.step(answer.take());
        let found = match &step {
            Step::List(_) => Answer::Names(Vec::new()),
            Step::Read { .. } | Step::ReadPart { .. } => Answer::Content(None),
            Step::Perform(_) => Answer::Performed,
            Step::Done(restored) => break *restored.clone(),
            Step::Refused(error) => panic!("{error}"),
        };
        answer = Some(recording.answer(&step, found));
    };
    let (wall, now) = (WallClock::from_millis(5), Instant::ZERO);
    recording.start(wall, now);
    recording.of(Node::new(config, restored, seed, wall, now).unwrap()).unwrap()
}

fn tell(recorded: &mut Recorded, bytes: usize) {
    let payload = vec![0; bytes].into();
    let from = std::net::SocketAddr::from(([127, 0, 0, 9], 8301));
    recorded.handle(Instant::ZERO, Input::Datagram { pool: PoolName::Lan, from, payload });
    while recorded.poll_output().is_some() {}
}

fn inputs(bytes: &[u8]) -> usize {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    let records = std::iter::from_fn(|| decoder.next_record().unwrap());
    let inputs = records
        .filter(|record| matches!(record, terraform_core::recording::Record::Input { .. }))
        .count();
    assert_eq!(decoder.rest(), 0);
    inputs
}

/// A disk that takes `room` bytes and then has no space left.
struct Small {
    room: usize,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room {
            return Err(ErrorKind::StorageFull.into());
        }
        self.room -= bytes.len();
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_recording_is_whole_when_the_agent_ends_and_only_its_owner_reads_it() {
    let path = path();
    let (notice, _heard) = notice();
    let recording = Recording::create(&path, origin(), Arc::clone(&notice.sink)).unwrap();
    let mut recorded = recorded(recording);
    (0..100).for_each(|_| tell(&mut recorded, 1000));
    // The last input is not drained: as after a panic.
    recorded.handle(Instant::ZERO, Input::Timeout);
    drop(recorded);
    assert_eq!(inputs(&std::fs::read(&path).unwrap()), 101);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let again = Recording::create(&path, origin(), notice.sink).err().unwrap().to_string();
    assert!(again.contains("exists already: name a new file with -record"), "{again}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_recording_that_cannot_be_created_says_where_and_why() {
    let path = path().join("missing");
    let refused = Recording::create(&path, origin(), notice().0.sink).err().unwrap().to_string();
    let rule = format!("cannot create the recording {path:?} (-record): No such file");
    assert!(refused.starts_with(&rule), "{refused}");
}

#[test]
fn a_recording_ends_with_one_line_where_the_disk_is_full_and_the_agent_goes_on() {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let (notice, heard) = notice();
    let file = Box::new(Small { room: 100_000, bytes: Arc::clone(&bytes) });
    let mut recorded = recorded(Recording::new(file, origin(), notice));
    while recorded.recorder.is_some() {
        tell(&mut recorded, 1000);
        // Batches stay small: what the disk refuses is the last of many.
        while !recorded.tape.queue.lock().bytes.is_empty() {
            std::thread::yield_now();
        }
    }
    tell(&mut recorded, 1000);
    drop(recorded);
    let kept = inputs(&bytes.lock().unwrap());
    let rule = format!(
        "[WARN] agent: recording to file ended: no storage space; it can be replayed up to input \
         {kept}"
    );
    assert_eq!(heard.iter().collect::<Vec<_>>(), [rule]);
    assert!((1..100).contains(&kept), "{kept}");
}

#[test]
fn a_disk_that_fails_during_recovery_ends_the_recording_and_not_the_start() {
    let (notice, heard) = notice();
    let room = Recorder::new(origin()).bytes().len() + 30;
    let file = Box::new(Small { room, bytes: Arc::default() });
    let mut recorded = recorded(Recording::new(file, origin(), notice));
    tell(&mut recorded, 10);
    drop(recorded);
    let said: Vec<String> = heard.iter().collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].ends_with("it can be replayed up to input 0"), "{said:?}");
}

/// A disk that takes nothing while the gate is held.
struct Gated {
    gate: Arc<Mutex<()>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        drop(self.gate.lock().unwrap());
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_recording_ends_where_too_much_waits_and_the_agent_never_does() {
    let (gate, bytes) = (Arc::default(), Arc::default());
    let (notice, heard) = notice();
    let file = Box::new(Gated { gate: Arc::clone(&gate), bytes: Arc::clone(&bytes) });
    let mut recorded = recorded(Recording::new(file, origin(), notice));
    let held = gate.lock().unwrap();
    while recorded.recorder.is_some() {
        tell(&mut recorded, 1 << 20);
    }
    tell(&mut recorded, 1);
    drop(held);
    drop(recorded);
    let bytes = bytes.lock().unwrap();
    let rule = format!(
        "[WARN] agent: recording to file ended: the disk is slower than the agent; it can be \
         replayed up to input {}",
        inputs(&bytes)
    );
    assert_eq!(heard.iter().collect::<Vec<_>>(), [rule]);
    assert!((WAITING_BYTES_MAX / 2..WAITING_BYTES_MAX * 3).contains(&bytes.len()));
}
