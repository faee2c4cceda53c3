//! Requests beyond what a client may send to servers.

use super::*;

const ONE_IN_TEN_SECONDS: RequestRate = RequestRate { interval: Duration::from_secs(10), burst: 2 };

/// Two servers, of which node 0 leads, and the client 2, which may send two requests at once.
fn world() -> World {
    let mut world = World::new(2, 1);
    world.lead(0, &[1]);
    world.answers.insert(0, Ok(Response::Done));
    world.input(2, RpcInput::Rate(Some(ONE_IN_TEN_SECONDS)));
    world
}

fn outcomes(world: &mut World, node: usize, numbers: std::ops::Range<u64>) -> Vec<bool> {
    let ask = |number| {
        world.submit(node, number, true, write());
        match world.done(node, number) {
            Some(Ok(Response::Done)) => true,
            Some(Err(RequestError::RateExceeded)) => false,
            other => panic!("{other:?}"),
        }
    };
    numbers.map(ask).collect()
}

#[test]
fn requests_of_a_client_beyond_its_rate_are_refused_and_counted() {
    let mut world = world();
    assert_eq!(outcomes(&mut world, 2, 0..4), [true, true, false, false]);
    let stats = *world.nodes[2].stats();
    assert_eq!((stats.submitted, stats.exceeded, stats.failed), (4, 2, 0));
    let told = RpcTrace::RateExceeded { rate: ONE_IN_TEN_SECONDS };
    assert_eq!(world.traces(2), [told], "told once a minute");
    world.run(Duration::from_secs(10));
    assert_eq!(outcomes(&mut world, 2, 4..6), [true, false]);
}

#[test]
fn a_server_has_no_rate_whatever_is_set() {
    let mut world = world();
    for server in [0, 1] {
        world.input(server, RpcInput::Rate(Some(ONE_IN_TEN_SECONDS)));
        assert_eq!(outcomes(&mut world, server, 0..9), [true; 9]);
    }
    let rate = Some(ONE_IN_TEN_SECONDS);
    let rng = Rng::for_stream(Seed::from_number(1), Stream::Rpc);
    world.nodes[0] = Rpc::new(RpcConfig { rate, ..config(0, true) }, rng, world.now);
    world.lead(0, &[]);
    assert_eq!(outcomes(&mut world, 0, 10..19), [true; 9]);
}

#[test]
fn each_server_that_is_tried_takes_a_token() {
    let mut world = world();
    world.lead(0, &[1]);
    // Whichever is asked first says that nothing happened.
    world.answers.clear();
    for server in [0, 1] {
        world.input(server, RpcInput::Leaving);
    }
    world.submit(2, 1, true, write());
    world.run(Duration::from_secs(1));
    assert_eq!(world.done(2, 1), Some(Err(RequestError::RateExceeded)));
    assert_eq!((world.executions(0), world.executions(1)), (0, 0));
}

#[test]
fn a_limit_that_is_lifted_lets_requests_through_at_once() {
    let mut world = world();
    assert_eq!(outcomes(&mut world, 2, 0..3), [true, true, false]);
    world.input(2, RpcInput::Rate(None));
    assert_eq!(outcomes(&mut world, 2, 3..9), [true; 6]);
}
