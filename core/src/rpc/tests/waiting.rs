//! Reads that wait: where they wait when leaders change, and who forgets them.

use super::*;

fn waiting_read(world: &mut World, node: usize, number: u64, wait: Duration) {
    let mut request = Request::new(read());
    request.context.min_index = ModifyIndex::new(9);
    request.context.wait = Some(wait);
    let (caller, wall) = (Caller::Request(RequestId::new(number)), WallClock::from_millis(0));
    let request = Box::new(request);
    world.input(node, RpcInput::Submit { caller, hold: true, wall, request });
}

fn result(world: &World, number: u64) -> Option<Result<Response, RequestError>> {
    let caller = Caller::Request(RequestId::new(number));
    world.seen.iter().find_map(|(_, seen)| {
        let Seen::Done(whose, result) = seen else { return None };
        (*whose == caller).then(|| result.clone())
    })
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
    let forgotten = |world: &World| -> Vec<u64> {
        let ticket = |seen: &Seen| if let Seen::Forget(it) = seen { Some(it.0) } else { None };
        world.seen.iter().filter_map(|(_, seen)| ticket(seen)).collect()
    };
    assert_eq!(forgotten(&world), [2, 3]);
    world.kill(1);
    assert_eq!(forgotten(&world), [2, 3, 1]);
}
