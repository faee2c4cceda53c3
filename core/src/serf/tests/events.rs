//! User events in small clusters.

use crate::gossip::tests::cluster::Cluster;
use crate::id::LamportTime;
use crate::serf::{SerfInput, SerfRefusal, SerfReply, SerfRequest};
use crate::wire::serf::{SerfMessage, UserEvent};
use bytes::Bytes;

fn fire(cluster: &mut Cluster, index: usize, name: &str, payload: &'static [u8]) {
    let (name, payload) = (name.to_owned(), Bytes::from_static(payload));
    cluster.ask(index, SerfRequest::FireEvent { name, payload, coalesce: true });
}

fn heard(cluster: &Cluster, index: usize) -> Vec<(u64, &str)> {
    let events = cluster.seats[index].heard.iter();
    events.map(|event| (event.time.get(), event.name.as_str())).collect()
}

#[test]
fn an_event_reaches_every_member_once() {
    for seed in 0..5 {
        let mut cluster = Cluster::joined(12, seed);
        fire(&mut cluster, 3, "deploy", b"v7");
        assert_eq!(cluster.seats[3].replies, [Ok(SerfReply::Fired(LamportTime::new(1)))]);
        cluster.run(60);
        for index in 0..12 {
            let payload = Some(Bytes::from_static(b"v7"));
            let (time, name) = (LamportTime::new(1), "deploy".to_owned());
            let expected = UserEvent { coalesce: true, time, name, payload };
            assert_eq!(cluster.seats[index].heard, [expected], "{index}");
        }
    }
}

#[test]
fn an_event_that_was_heard_is_neither_delivered_nor_spread_again() {
    let mut cluster = Cluster::joined(2, 1);
    let time = LamportTime::new(700);
    let event = UserEvent { coalesce: false, time, name: "a".to_owned(), payload: None };
    let bytes = SerfMessage::UserEvent(event.clone()).encode();
    for _ in 0..3 {
        cluster.serf(0, SerfInput::UserMessage(bytes.clone()));
    }
    cluster.run(5);
    assert_eq!(heard(&cluster, 0), [(700, "a")]);
    assert_eq!(heard(&cluster, 1), [(700, "a")]);
    // More than 512 behind the clock, which stands at 701 now.
    let old = UserEvent { time: LamportTime::new(188), ..event };
    cluster.serf(0, SerfInput::UserMessage(SerfMessage::UserEvent(old).encode()));
    assert_eq!(heard(&cluster, 0).len(), 1);
}

#[test]
fn a_member_that_was_cut_off_hears_recent_events_from_a_state_exchange() {
    let mut cluster = Cluster::joined(3, 2);
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    fire(&mut cluster, 0, "missed", b"");
    cluster.run(15);
    assert!(heard(&cluster, 2).is_empty());
    cluster.heal();
    cluster.run(90);
    assert_eq!(heard(&cluster, 2), [(1, "missed")]);
}

#[test]
fn a_restarted_member_hears_no_event_again() {
    let mut cluster = Cluster::joined(3, 2);
    fire(&mut cluster, 0, "once", b"");
    cluster.run(10);
    cluster.kill(2);
    cluster.run(15);
    cluster.start(2);
    cluster.run(60);
    assert_eq!(heard(&cluster, 2), [(1, "once")]);
    fire(&mut cluster, 0, "twice", b"");
    cluster.run(10);
    assert_eq!(heard(&cluster, 2), [(1, "once"), (2, "twice")]);
}

#[test]
fn a_joining_member_hears_what_was_before_it_only_if_it_wants() {
    for replay in [true, false] {
        let mut cluster = Cluster::new(3, 4);
        cluster.join(1, &[0]);
        cluster.run(5);
        fire(&mut cluster, 0, "before", b"");
        cluster.run(5);
        if !replay {
            cluster.serf(2, SerfInput::JoinBegan(crate::gossip::JoinId(1)));
        }
        cluster.join(2, &[0]);
        cluster.run(60);
        assert_eq!(heard(&cluster, 2).len(), usize::from(replay));
    }
}

#[test]
fn an_event_that_is_too_large_is_refused_with_its_overshoot() {
    let mut cluster = Cluster::new(1, 1);
    let mut refused = |len: usize| {
        let (name, payload) = ("n".to_owned(), Bytes::from(vec![0; len]));
        cluster.ask(0, SerfRequest::FireEvent { name, payload, coalesce: false });
        cluster.seats[0].replies.pop().unwrap()
    };
    assert_eq!(refused(514), Err(SerfRefusal::EventTooLarge { over: 3 }));
    let encoded = refused(511).unwrap_err();
    let SerfRefusal::EncodedEventTooLarge { over } = encoded else { panic!("{encoded}") };
    assert_eq!(refused(511 - over), Ok(SerfReply::Fired(LamportTime::new(1))));
    assert_eq!(
        encoded.to_string(),
        format!(
            "encoded user event exceeds configured limit of 512 bytes after encoding, by {over}"
        )
    );
}
