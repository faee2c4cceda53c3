//! How long an accepted stream may take to say whose it is.

use super::*;

/// A server that gives accepted streams this long.
fn world(handshake: Option<Duration>) -> World {
    let mut world = World::new(1, 0);
    let rng = Rng::for_stream(Seed::from_number(0), Stream::Rpc);
    world.nodes[0] = Rpc::new(RpcConfig { handshake, ..config(0, true) }, rng, world.now);
    world
}

fn is_late(world: &World) -> bool {
    let late =
        |trace: &RpcTrace| matches!(trace, RpcTrace::Refused { rule: CloseRule::HelloLate, .. });
    world.traces(0).iter().any(late)
}

#[test]
fn a_peer_without_a_hello_is_closed_in_time() {
    for seconds in [1, 5, 600] {
        let mut world = world(Some(Duration::from_secs(seconds)));
        hostile(&mut world, 100, &[]);
        world.run(Duration::from_secs(seconds) - MILLI);
        assert!(!is_late(&world));
        world.run(MILLI);
        assert!(is_late(&world));
    }
}

#[test]
fn a_hello_that_comes_byte_by_byte_gets_no_more_time() {
    let mut world = world(Some(Duration::from_secs(5)));
    let bytes = hello(|_| ());
    hostile(&mut world, 100, &bytes[..1]);
    for at in 1..6 {
        world.run(Duration::from_secs(1));
        let data = bytes.slice(at..=at);
        world.input(0, RpcInput::StreamData { stream: StreamId::new(100), data });
    }
    assert!(is_late(&world));
    assert_eq!(world.nodes[0].next_timeout(), None, "nothing is left of the stream");
}

#[test]
fn without_a_limit_a_peer_that_says_nothing_is_as_good_as_an_idle_one() {
    let mut world = world(None);
    hostile(&mut world, 100, &[]);
    world.run(Duration::from_secs(240) - MILLI);
    assert!(!is_late(&world));
    world.run(MILLI);
    assert!(is_late(&world));
}
