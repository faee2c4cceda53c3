//! Reads that wait: where they wait when leaders change, and who forgets them.

use super::*;

fn waiting_read(world: &mut World, node: usize, number: u64, wait: Duration) {
    let mut request = Request::new(read());
    request.context.min_index = ModifyIndex::new(9);
    request.context.wait = Some(wait);
    let (caller, wall) = (Caller::Request(RequestId::new(number)), WallClock::from_millis(0));
    let request = Arc::new(request);
    world.input(node, RpcInput::Submit { caller, hold: true, wall, request });
}

fn result(world: &World, number: u64) -> Option<Result<Response, RequestError>> {
    let caller = Caller::Request(RequestId::new(number));
    world.seen.iter().find_map(|(_, seen)| {
        let Seen::Done(whose, result) = seen else { return None };
        (*whose == caller).then(|| result.clone())
    })
}

/// Who was told that nobody waits for which ticket.
fn forgotten(world: &World) -> Vec<(usize, u64)> {
    let ticket = |(node, seen): &(usize, Seen)| {
        let Seen::Forget(it) = seen else { return None };
        Some((*node, it.0))
    };
    world.seen.iter().filter_map(ticket).collect()
}

#[test]
fn a_read_that_waits_goes_on_at_the_next_leader_for_what_is_left_of_its_time() {
    let mut world = World::new(2, 1);
    world.lead(0, &[1]);
    waiting_read(&mut world, 2, 1, Duration::from_secs(300));
    world.run(Duration::from_secs(100));
    let Some((0, Some(_))) = world.waits.first() else { panic!("{:?}", world.waits) };
    // The leader steps down; for a moment nobody leads.
    for node in 0..2 {
        world.input(node, RpcInput::Leader(None));
    }
    let lost = Err(RequestError::NoLeader);
    world.input(0, RpcInput::Executed { ticket: Ticket(1), result: lost });
    world.run(Duration::from_secs(2));
    world.lead(1, &[0]);
    world.run(Duration::from_secs(5));
    assert_eq!(result(&world, 1), None);
    let (node, left) = *world.waits.last().unwrap();
    let left = left.unwrap().as_secs();
    assert!(node == 1 && (193..=200).contains(&left), "{node} {left}");
}

#[test]
fn a_read_that_waits_ends_if_nobody_leads_again() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    waiting_read(&mut world, 1, 1, Duration::from_secs(300));
    world.run(Duration::from_secs(100));
    world.input(0, RpcInput::Leader(None));
    world.input(0, RpcInput::Executed { ticket: Ticket(1), result: Err(RequestError::NoLeader) });
    world.run(Duration::from_secs(6));
    assert_eq!(result(&world, 1), None);
    world.run(Duration::from_secs(10));
    assert_eq!(result(&world, 1), Some(Err(RequestError::NoLeader)));
}

#[test]
fn what_nobody_waits_for_is_forgotten_where_it_waits() {
    let mut world = World::new(1, 1);
    world.lead(0, &[]);
    waiting_read(&mut world, 1, 1, Duration::from_secs(300));
    waiting_read(&mut world, 1, 2, Duration::from_secs(300));
    waiting_read(&mut world, 0, 3, Duration::from_secs(300));
    world.input(1, RpcInput::Abandoned(RequestId::new(2)));
    world.input(0, RpcInput::Abandoned(RequestId::new(3)));
    assert_eq!(forgotten(&world), [(0, 2), (0, 3)]);
    assert!(world.nodes[0].awaits(Ticket(1)) && !world.nodes[0].awaits(Ticket(2)));
    world.kill(1);
    assert_eq!(forgotten(&world), [(0, 2), (0, 3), (0, 1)]);
}

#[test]
fn what_nobody_waits_for_is_forgotten_behind_a_follower() {
    let mut world = World::new(2, 1);
    world.lead(0, &[1]);
    world.input(2, RpcInput::Servers(vec![info(1)]));
    waiting_read(&mut world, 2, 1, Duration::from_secs(300));
    waiting_read(&mut world, 2, 2, Duration::from_secs(300));
    world.input(2, RpcInput::Abandoned(RequestId::new(1)));
    assert_eq!(forgotten(&world), [(0, 1)]);
    world.kill(2);
    assert_eq!(forgotten(&world), [(0, 1), (0, 2)]);
}

#[test]
fn a_read_that_goes_to_the_next_leader_is_forgotten_by_the_earlier_one() {
    let mut world = World::new(3, 0);
    world.lead(0, &[1, 2]);
    waiting_read(&mut world, 2, 1, Duration::from_secs(300));
    // The earlier leader knows nothing of the next one yet.
    world.lead(1, &[]);
    world.lead(1, &[2]);
    assert_eq!(forgotten(&world), [(0, 1)]);
    assert_eq!(world.waits.last().map(|(node, _)| *node), Some(1));
}

#[test]
fn a_number_that_another_agent_uses_again_stands_for_its_newer_request() {
    let mut world = World::new(1, 0);
    world.lead(0, &[]);
    hostile(&mut world, 1000, &hello(|_| {}));
    let (wall, request) = (WallClock::from_millis(0), Arc::new(Request::new(read())));
    let request = Frame::Request(RemoteRequest { id: 7, hold: HOLD, wall, hops: 1, request });
    let stream = StreamId::new(1000);
    let mut send = |frame: &Frame| {
        let data = frame.encode().unwrap();
        world.input(0, RpcInput::StreamData { stream, data });
        forgotten(&world)
    };
    assert_eq!(send(&request), []);
    assert_eq!(send(&request), [(0, 1)]);
    assert_eq!(send(&Frame::Cancel(7)), [(0, 1), (0, 2)]);
    assert!(world.nodes[0].calls.is_empty());
}
