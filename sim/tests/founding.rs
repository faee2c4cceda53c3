//! A server that is to be a cluster of its own loses power while it begins.

use sim::disk::{Crash, Loss};
use sim::plan::Plan;
use sim::world::World;
use std::time::Duration;
use terraform_core::raft::{Raft, RoleKind};

/// Events after which the power fails: more than it takes until the first entry is durable.
const EVENTS: u64 = 60;

#[test]
fn a_server_that_loses_power_while_it_founds_a_cluster_leads_it_later() {
    for (events, loss) in (0..EVENTS).flat_map(|at| [(at, Loss::All), (at, Loss::Nothing)]) {
        let plan = Plan::quiet(events, 1, 0);
        let mut world = World::new(events, plan.world.clone());
        let host = world.add_host(plan.config(0));
        world.start(host).expect("an empty disk is a good one");
        let soon = world.now + Duration::from_secs(5);
        for _ in 0..events {
            world.step(soon);
        }
        world.crash(host, Crash::Power(loss));
        world.start(host).expect("what was begun can be gone on with");
        world.run_for(Duration::from_secs(10));
        let role = world.hosts[host].running.as_ref().and_then(|it| it.node.raft()).map(Raft::role);
        assert_eq!(role, Some(RoleKind::Leader), "after {events} events, {loss:?} lost");
    }
}
