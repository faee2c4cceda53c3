//! How a pool takes notice of members that lost their power.

use crate::disk::{Crash, Loss};
use crate::net::HostId;
use crate::pool::{Pool, id_of};
use std::time::Duration;
use terraform_core::time::Instant;
use terraform_core::wire::gossip::PeerState;

/// How long crashes are followed.
const FOLLOW_LIMIT: Duration = Duration::from_secs(240);
/// Between two looks at what members believe.
const LOOK: Duration = Duration::from_millis(100);

/// What became of one crash.
#[derive(Clone, Copy, Debug)]
pub struct Detection {
    /// From the crash until somebody suspected it.
    pub suspected: Duration,
    /// From then until everybody did.
    pub suspected_by_all: Duration,
    /// From the crash until somebody declared the member dead.
    pub dead: Duration,
    /// From then until everybody did.
    pub dead_at_all: Duration,
}

/// What the members that are up have made of one victim so far.
#[derive(Clone, Debug)]
struct Case {
    victim: HostId,
    suspected: Vec<Option<Instant>>,
    dead: Vec<Option<Instant>>,
}

/// Takes the power of `victims` at one moment and waits until everybody else knows.
///
/// Returns what became of each; one that is not dead for everybody within minutes is left out.
pub fn crash(pool: &mut Pool, victims: &[HostId]) -> Vec<Detection> {
    pool.take_beliefs();
    let members = pool.world.hosts.len();
    let crashed_at = pool.world.now;
    let case = |victim: &HostId| Case {
        victim: *victim,
        suspected: vec![None; members],
        dead: vec![None; members],
    };
    let mut cases: Vec<Case> = victims.iter().map(case).collect();
    for victim in victims {
        pool.world.crash(*victim, Crash::Power(Loss::Mixed));
    }
    let up = pool.world.hosts.iter().filter(|host| host.is_up()).count();
    let is_over = |case: &Case| case.dead.iter().flatten().count() == up;
    while pool.world.now.since(crashed_at) < FOLLOW_LIMIT && !cases.iter().all(is_over) {
        pool.run_for(LOOK);
        for belief in pool.take_beliefs() {
            let subject = id_of(&belief.subject);
            let Some(case) = cases.iter_mut().find(|case| subject == Some(case.victim)) else {
                continue;
            };
            case.suspected[belief.observer].get_or_insert(belief.at);
            if belief.state == PeerState::Dead {
                case.dead[belief.observer].get_or_insert(belief.at);
            }
        }
    }
    cases.iter().filter(|case| is_over(case)).filter_map(|case| case.end(crashed_at)).collect()
}

impl Case {
    fn end(&self, crashed_at: Instant) -> Option<Detection> {
        let (first, last) = ends(&self.suspected)?;
        let (first_dead, last_dead) = ends(&self.dead)?;
        Some(Detection {
            suspected: first.since(crashed_at),
            suspected_by_all: last.since(first),
            dead: first_dead.since(crashed_at),
            dead_at_all: last_dead.since(first_dead),
        })
    }
}

/// The earliest and the latest.
fn ends(times: &[Option<Instant>]) -> Option<(Instant, Instant)> {
    let times = times.iter().flatten();
    Some((*times.clone().min()?, *times.max()?))
}
